"""How long bringing a workspace's sources up to date takes, in a monorepo of 50,000 files."""

import time
from pathlib import Path

from benchmarks.measure import BenchmarkError, run_checked
from benchmarks.table import Goal, Quantity, Row, Table, seconds
from benchmarks.towns import IDENTITY, Towns
from orchestrator.build.snapshot import take_snapshot
from orchestrator.build.workspace import open_workspace, sync_sources

FILES = 50_000
GOAL_SECONDS = 1.0
_FILES_A_DIRECTORY = 50


def run(towns: Towns) -> tuple[Table, ...]:
    base = towns.lab.base / "sources"
    root = _make_monorepo(base / "mono")
    first = _synchronise(root, base / "cache", changed=FILES)
    rounds = range(towns.rounds.warm)
    same = [_synchronise(root, base / "cache", changed=0) for _ in rounds]
    one = [_synchronise(_change(root, number), base / "cache", changed=1) for number in rounds]
    limit = Quantity(GOAL_SECONDS, "s")
    rows = (
        Row("all new", (seconds([first]),)),
        Row("nothing changed", (seconds(same),), Goal(seconds(same), limit)),
        Row("one file changed", (seconds(one),), Goal(seconds(one), limit)),
    )
    notes = (f"{FILES:,} tracked files: the list from git, a look at each, and what changed copied.",)
    return (Table("sources", "Sources of a large monorepo", ("snapshot and synchronisation",), rows, notes),)


def _make_monorepo(root: Path) -> Path:
    for number in range(FILES):
        path = root / f"directory-{number // _FILES_A_DIRECTORY}" / f"file-{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"file {number}\n")
    for argv in (("init", "--quiet"), ("add", "--all"), (*IDENTITY, "commit", "--quiet", "--message", "x")):
        run_checked(("git", *argv), cwd=root)
    return root


def _change(root: Path, number: int) -> Path:
    (root / "directory-7" / f"file-{7 * _FILES_A_DIRECTORY}.txt").write_text(f"change {number}\n")
    return root


def _synchronise(root: Path, cache: Path, *, changed: int) -> float:
    started = time.monotonic()
    snapshot = take_snapshot(root, cache_dir=cache, emit=lambda _: None)
    with open_workspace(cache, "bench", "backend", inside=True) as workspace:
        found = sync_sources(workspace, snapshot)
    elapsed = time.monotonic() - started
    if len(found) != changed:
        raise BenchmarkError(f"{len(found)} changed files were seen, not {changed}")
    return elapsed
