"""Which crates a Cargo.lock lacks."""

from pathlib import Path, PurePosixPath

import pytest

from orchestrator.build.cargo_lock import explain_refusal, is_lock_refused, satisfies, unlocked_crates
from orchestrator.build.snapshot import Entry, Snapshot
from orchestrator.errors import BuildError
from orchestrator.plan import BuildPlan
from orchestrator.recipes import CargoOutput

LOCK = """
[[package]]
name = "api"
version = "0.1.0"
[[package]]
name = "serde"
version = "1.0.200"
[[package]]
name = "tokio"
version = "1.43.0"
"""
PLAN = BuildPlan(
    "api",
    "backend",
    "rust",
    PurePosixPath("backend"),
    PurePosixPath("backend/Cargo.lock"),
    (),
    CargoOutput("api", "api"),
)


@pytest.mark.parametrize(
    ("version", "requirement", "holds"),
    [
        ("1.43.0", "1", True), ("1.43.0", "1.44", False), ("1.43.0", "2", False), ("1.43.0", "^1.2.3", True),
        ("0.3.5", "0.3", True), ("0.3.5", "0.4", False), ("0.3.5", "0.3.6", False), ("0.0.3", "0.0.4", False),
        ("2.0.0", ">=1, <3", True), ("2.0.0", "*", True), ("2.0.0-rc.1", "2.0.0-rc.1", True), ("1.0.0", "", True),
        ("0.5.0", "0", True),
    ],
)  # fmt: skip
def test_carets(version: str, requirement: str, holds: bool):
    assert satisfies(version, requirement) is holds


@pytest.mark.parametrize(
    ("manifest", "crates"),
    [
        ('[package]\nname = "api"\nversion = "0.1.0"\n[dependencies]\nserde = "1"\nlocal = { path = "../x" }\n', ()),
        ('[package]\nname = "api"\nversion = "0.2.0"\n', ("api 0.2.0",)),
        ('[package]\nname = "api"\nversion = "0.1.0"\n[dependencies]\nitoa = "1"\n', ("itoa 1",)),
        ('[dependencies]\nmine = { package = "tokio", version = "1.44", features = [] }\n', ("tokio 1.44",)),
        ('[target."cfg(unix)".dependencies]\nlibc = "0.2"\n', ("libc 0.2",)),
        ('[workspace.dependencies]\nserde = "2"\nunused = "1"\n', ("serde 2",)),
        ("[dependencies]\nserde = { workspace = true }\n", ()),
    ],
)
def test_what_is_named(tmp_path: Path, manifest: str, crates: tuple[str, ...]):
    (tmp_path / "backend").mkdir()
    (tmp_path / "backend/Cargo.toml").write_text(manifest)
    (tmp_path / "backend/Cargo.lock").write_text(LOCK)
    entry = Entry("backend/Cargo.toml", "file", False, "")
    snapshot = Snapshot(tmp_path, (entry,), frozenset(), "")
    assert unlocked_crates(snapshot, PLAN) == crates
    said = "error: cannot update the lock file /build/src/Cargo.lock because --locked was passed to prevent this"
    explained = explain_refusal(BuildError("cargo fetch failed", details=[said]), PLAN, snapshot)
    assert explained.message.startswith("backend/Cargo.lock is out of date")
    assert all(crate in explained.message for crate in crates)
    assert is_lock_refused(BuildError("cargo fetch failed", details=[said]))
    assert not is_lock_refused(BuildError("cargo fetch failed", details=["error: no network"]))
