"""Bytes on disk: all or nothing."""

import os
import stat
from pathlib import Path

import pytest

from orchestrator.errors import BusyError
from orchestrator.files import locked, read_json, remove_tree, replace_symlink, resource, write_atomically


def test_a_failed_write_leaves_the_old_content_and_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "state.json"
    write_atomically(path, "old")

    def fail(_descriptor: int) -> None:
        raise OSError("pulled the plug")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="plug"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_modes_are_as_asked(tmp_path: Path):
    write_atomically(tmp_path / "secret", b"x", mode=0o600)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_a_damaged_cache_is_no_cache(tmp_path: Path):
    (tmp_path / "cache").write_text('{"half": ')
    assert read_json(tmp_path / "cache") is None
    assert read_json(tmp_path / "absent") is None


def test_a_link_changes_its_target_in_one_step(tmp_path: Path):
    for target in ("one", "two"):
        replace_symlink(tmp_path / "current", target)
    assert str((tmp_path / "current").readlink()) == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["current"]


def test_a_second_holder_is_told_who_is_busy(tmp_path: Path):
    with (
        locked(tmp_path / "lock", holder="app shop"),
        pytest.raises(BusyError, match="app shop"),
        locked(tmp_path / "lock", holder="app shop"),
    ):
        pass
    with locked(tmp_path / "lock", holder="app shop"):
        pass


def test_read_only_trees_are_removed_and_links_are_not_followed(tmp_path: Path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("")
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep/file").write_text("")
    (tree / "link").symlink_to(kept)
    (tree / "deep").chmod(0o555)
    remove_tree(tree)
    remove_tree(tree)
    assert not tree.exists() and (kept / "file").exists()


def test_the_package_brings_its_data():
    assert (resource("templates") / "nginx").is_dir()
    with pytest.raises(FileNotFoundError, match="incomplete"):
        resource("no-such-thing")
