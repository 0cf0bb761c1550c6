"""What docs/caching.md claims in numbers and names is what the code has. What it claims of builds is tested in
tests/integration/test_cache_builds.py and test_cache_oracle.py."""

import re
from pathlib import Path

import click

from orchestrator.build.cache.prune import KEEP, MAX_TIMES
from orchestrator.build.snapshot import Snapshot
from orchestrator.cli.cache import Bytes, cache
from tests.unit.test_cache_records import key_of, plan, toolchain

PAGE = (Path(__file__).resolve().parents[2] / "docs/caching.md").read_text()
NUMBERS = {"four": 4, "three": 3, "five": 5}


def test_the_limits(tmp_path: Path):
    found = re.search(r"After each save, (\d+) entries of one key stay, and no more than (\w+) times", PAGE)
    assert found is not None
    assert (int(found[1]), NUMBERS[found[2]]) == (KEEP, MAX_TIMES)


def test_the_commands():
    named = set(re.findall(r"`orchestrator cache (\w+)", PAGE))
    assert named == set(cache.commands)
    context = click.Context(cache)
    for line in re.findall(r"`orchestrator cache gc ([^`]+)`", PAGE):
        cache.commands["gc"].make_context("gc", line.split(), parent=context)


def test_what_the_key_is_made_of(tmp_path: Path):
    parts = set(key_of(plan(), Snapshot(tmp_path, (), frozenset(), ""), toolchain()).parts)
    claimed = {
        "dev shell",
        "linker",
        "commands",
        "variables",
        "cargo configuration",
        "profiles",
        "registries and sandbox",
    }
    assert parts == claimed | {"format", "toolchain", "place"}
    assert all(name.split(" and ")[0] in " ".join(PAGE.split()) for name in claimed)


def test_sizes_are_read():
    assert [Bytes().convert(text, None, None) for text in ("5G", "500m", "12", "1KB")] == [
        5 * 10**9,
        5 * 10**8,
        12,
        1000,
    ]
