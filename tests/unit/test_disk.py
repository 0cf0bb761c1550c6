"""Builds are refused before they start when the disk cannot hold them."""

from pathlib import Path, PurePosixPath

import pytest

from orchestrator.build import disk
from orchestrator.build.disk import (
    MB,
    RESERVE,
    Need,
    check_space,
    predict_build,
    predict_images,
    remember_build,
    remember_images,
)
from orchestrator.build.snapshot import Entry, Snapshot
from orchestrator.errors import DiskError
from orchestrator.plan import BuildPlan
from orchestrator.recipes import CargoOutput, TreeOutput

API = BuildPlan(
    "api", "backend", "rust", PurePosixPath("api"), PurePosixPath("Cargo.lock"), (), CargoOutput("api", "api")
)  # fmt: skip
WEB = BuildPlan(
    "web", "frontend", "vite", PurePosixPath("web"), PurePosixPath("web/package-lock.json"), (),
    TreeOutput(PurePosixPath("web/dist")),
)  # fmt: skip


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    root = tmp_path / "repo"
    (root / "web").mkdir(parents=True)
    (root / "Cargo.lock").write_text("[[package]]\nname = 'a'\n" * 10)
    (root / "web/package-lock.json").write_text('{"packages": {"node_modules/a": {}, "node_modules/b": {}}}')
    (root / "data").write_bytes(b"x" * 1000)
    return Snapshot(root, (Entry("data", "file", False, ""),), frozenset(), "")


def test_enough_space_is_fine(tmp_path: Path):
    check_space([Need(tmp_path, 10, "a")], free=lambda path: RESERVE + 10)


def test_too_little_is_refused_with_the_numbers(tmp_path: Path):
    needs = [Need(tmp_path, 300 * MB, "building api"), Need(tmp_path / "absent/dir", 200 * MB, "images")]
    with pytest.raises(DiskError, match="600 MB are needed, 599 MB are free") as caught:
        check_space(needs, free=lambda path: 599 * MB)
    assert caught.value.details == ("300 MB for building api", "200 MB for images", "100 MB in reserve")


def test_needs_are_added_per_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(disk, "_device", lambda path: hash(path))
    needs = [Need(tmp_path / "a", 300 * MB, "a"), Need(tmp_path / "b", 300 * MB, "b")]
    check_space(needs, free=lambda path: 450 * MB)


def test_a_first_build_is_estimated_from_its_lock_file(tmp_path: Path, snapshot: Snapshot):
    rust = predict_build(tmp_path, "app", API, snapshot)
    assert rust.size == 1000 + 60 * MB + 10 * 3 * MB
    assert predict_build(tmp_path, "app", WEB, snapshot).size == 1000 + 30 * MB + 2 * MB
    assert "estimated" in rust.purpose


def test_a_measured_build_is_known(tmp_path: Path, snapshot: Snapshot):
    remember_build(tmp_path, "app", API, 200 * MB)
    assert predict_build(tmp_path, "app", API, snapshot) == Need(tmp_path, 200 * MB, "building api")
    (tmp_path / "workspaces/app/api").mkdir(parents=True)
    (tmp_path / "workspaces/app/api/sources.json").touch()
    assert predict_build(tmp_path, "app", API, snapshot).size == 20 * MB


def test_an_opened_dev_shell_needs_nothing_more(tmp_path: Path):
    assert [need.path for need in disk.predict_toolchain(tmp_path)] == [Path("/nix/store")]
    (tmp_path / "toolchains").mkdir()
    assert disk.predict_toolchain(tmp_path) == []


def test_nothing_is_refused_where_nothing_will_be_written(tmp_path: Path):
    check_space([Need(tmp_path, 0, "images")], free=lambda path: 0)


def test_images_are_predicted_from_the_last_ones(tmp_path: Path):
    assert "estimated" in predict_images(tmp_path, tmp_path, "app").purpose
    remember_images(tmp_path, "app", 7 * MB)
    assert predict_images(tmp_path, tmp_path, "app") == Need(tmp_path, 14 * MB, "images")
