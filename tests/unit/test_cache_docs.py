"""What docs/caching.md claims in numbers and names is what the code has. What it claims of builds is tested in
tests/integration/test_cache_builds.py and test_cache_oracle.py, what it claims of fetching in test_fetched.py and
test_cargo_sources.py."""

import re
from pathlib import Path

import click

from orchestrator.build.cache.prune import KEEP, MAX_TIMES
from orchestrator.build.environment import fetch_access
from orchestrator.build.registries import read_user_config
from orchestrator.build.snapshot import Snapshot
from orchestrator.cli.cache import Bytes, cache
from orchestrator.errors import FetchError
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


def test_what_a_fetch_is_given(tmp_path: Path):
    home = tmp_path / "home"
    for name in (".cargo", ".ssh"):
        (home / name).mkdir(parents=True)
    token = '[registries.name]\ntoken = "s3cret"\n'
    for name in re.findall(r"`~/(\S+)`", PAGE):
        (home / name).write_text(token if "credentials" in name else "[net]\ngit-fetch-with-cli = true\n")
    assert "`net.git-fetch-with-cli = true`" in PAGE
    config, access = read_user_config({}, home), fetch_access({}, home)
    assert config.tables == {"net": {"git-fetch-with-cli": True}}
    assert set(config.secrets) == set(re.findall(r"CARGO_REGISTRIES_\w+", PAGE))
    seen = {path.relative_to(home).as_posix() for path in access.visible if path.is_relative_to(home)}
    assert seen == {name for name in re.findall(r"`~/(\S+)`", PAGE) if name.startswith(".ssh/")}


def test_the_exit_code_of_a_fetch():
    found = re.search(r"When fetching fails, exit code (\d+)", PAGE)
    assert found is not None and int(found[1]) == FetchError.exit_code


def test_sizes_are_read():
    assert [Bytes().convert(text, None, None) for text in ("5G", "500m", "12", "1KB")] == [
        5 * 10**9,
        5 * 10**8,
        12,
        1000,
    ]
