"""No build from the cache is ever stale: hundreds of random edits, each compared with a model of the sources."""

import os
import time
from pathlib import Path

import pytest

from orchestrator.build import runner
from orchestrator.build import workspace as workspaces
from orchestrator.build.cache import readers
from tests.integration.oracle import Oracle
from tests.integration.test_build import open_host

EDITS = int(os.environ.get("ORACLE_EDITS", "300"))
SEED = int(os.environ.get("ORACLE_SEED", "7"))
CONTROL_EDITS = 200


@pytest.fixture(autouse=True)
def toolchain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runner, "open_toolchain", lambda *_, **__: open_host(tmp_path))
    monkeypatch.setattr(runner, "web_server", lambda *_, **__: Path("/nix/store/nginx"))


def test_no_build_is_stale(tmp_path: Path):
    lines: list[str] = []
    oracle = Oracle(tmp_path, SEED, log=lines.append)
    oracle.run(EDITS)
    assert oracle.stale == []
    assert sum(oracle.tried.values()) >= EDITS
    assert oracle.compiled < 9 * oracle.builds, "\n".join(lines)


def test_times_that_never_change_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The control: a synchronisation that gives every file the same time must fail the oracle."""
    monkeypatch.setattr(time, "time_ns", lambda: 1)
    monkeypatch.setattr(workspaces._Sync, "moment", property(lambda self: 1, lambda self, value: None), raising=False)
    oracle = Oracle(tmp_path, SEED)
    oracle.run(CONTROL_EDITS, stop_when_stale=True)
    assert oracle.stale


def test_without_asking_who_reads_a_file_it_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The other control: cargo alone does not see all that build scripts and macros read."""
    monkeypatch.setattr(readers.CargoReaders, "__call__", lambda self, changed, before: [])
    oracle = Oracle(tmp_path, SEED)
    oracle.run(CONTROL_EDITS, stop_when_stale=True)
    assert oracle.stale
