"""Which files of a real repository a build sees."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.build.lfs import find_pointers
from orchestrator.build.snapshot import Snapshot, take_snapshot
from orchestrator.errors import ProjectError
from orchestrator.events import Event, Note
from orchestrator.tools.git import head_commit, list_files

GIT = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always")


def git(root: Path, *arguments: str) -> None:
    subprocess.run([*GIT, "-C", root, *arguments], check=True, capture_output=True)


def put(root: Path, path: str, content: str = "x") -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    root = tmp_path / "größe mit leer"
    root.mkdir()
    git(root, "init", "-q")
    put(root, ".gitignore", "*.log\ndist/\n")
    for path in ("src/main.rs", "new\nline", "ü ß.txt", ".env", "apps/web/node_modules/x.js", "apps/web/a.js"):
        put(root, path)
    git(root, "add", "-A", "-f")
    git(root, "commit", "-q", "-m", "x")
    return root


def take(root: Path) -> Snapshot:
    return take_snapshot(root, cache_dir=root.parent / "cache", emit=lambda event: None)


def paths(root: Path) -> list[str]:
    return [entry.path for entry in take(root).entries]


def test_tracked_and_new_files_count_and_ignored_ones_do_not(repo: Path):
    put(repo, "src/new.rs")
    put(repo, "debug.log")
    put(repo, "dist/out.js")
    (repo / "ü ß.txt").unlink()
    assert paths(repo) == [".gitignore", "apps/web/a.js", "new\nline", "src/main.rs", "src/new.rs"]
    found = list_files(repo)
    assert found is not None and found.untracked == {"src/new.rs"}


def test_the_monorepo_may_be_a_part_of_a_repository(repo: Path):
    assert paths(repo / "apps") == ["web/a.js"]
    (repo / "apps" / "out").symlink_to("../src")
    with pytest.raises(ProjectError, match="out leaves the monorepo"):
        paths(repo / "apps")


def test_a_directory_without_a_repository_works_and_is_said(tmp_path: Path):
    put(tmp_path / "plain", "a/b")
    events: list[Event] = []
    taken = take_snapshot(tmp_path / "plain", cache_dir=tmp_path / "cache", emit=events.append)
    assert [entry.path for entry in taken.entries] == ["a/b"]
    assert isinstance(events[0], Note) and "not a git repository" in events[0].text


def test_a_directory_the_repository_ignores_is_read_whole(repo: Path):
    put(repo, "dist/app/index.html")
    assert paths(repo / "dist") == ["app/index.html"]


def test_submodules_and_repositories_inside_count(repo: Path, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    put(other, "lib.rs")
    git(other, "add", "-A")
    git(other, "commit", "-q", "-m", "x")
    git(repo, "submodule", "--quiet", "add", str(other), "vendor/other")
    put(repo, "vendor/other/new.rs")
    inner = put(repo, "inner/x.rs").parent
    git(inner, "init", "-q")
    found = list_files(repo)
    assert found is not None
    assert {"vendor/other/lib.rs", ".gitmodules"} <= found.tracked
    assert {"vendor/other/new.rs", "inner/x.rs"} <= found.untracked


def test_lfs_pointers_are_found_and_fetched_files_are_none(repo: Path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
    put(repo, "logo.png", pointer)
    put(repo, "docs/about.txt", pointer)
    git(repo, "add", "-A")
    assert find_pointers(take(repo)) == ()
    put(repo, "web/.gitattributes", "*.png filter=lfs diff=lfs merge=lfs -text\n")
    put(repo, "web/mit leer.png", pointer)
    put(repo, "web/fetched.png", "\x89PNG")
    git(repo, "add", "-A")
    assert find_pointers(take(repo)) == ("web/mit leer.png",)


def test_another_users_repository_works_and_its_configuration_starts_nothing(repo: Path, tmp_path: Path):
    if os.geteuid() != 0:
        pytest.skip("needs root to give the repository away")
    hook = put(tmp_path, "hook", f"#!/bin/sh\ntouch '{tmp_path}/started'\n")
    hook.chmod(0o755)
    git(repo, "config", "core.fsmonitor", str(hook))
    for path in (repo, *repo.rglob("*")):
        os.chown(path, 12345, 12345, follow_symlinks=False)
    assert "src/main.rs" in paths(repo)
    assert not (tmp_path / "started").exists()


def test_a_damaged_repository_is_named(repo: Path):
    (repo / ".git/index").write_bytes(b"nonsense")
    with pytest.raises(ProjectError, match="git cannot list the files") as caught:
        list_files(repo)
    assert caught.value.details


def test_git_is_asked_without_writing(repo: Path):
    os.utime(repo / "src/main.rs", (1, 1))
    before = (repo / ".git/index").stat().st_mtime_ns
    list_files(repo)
    assert (repo / ".git/index").stat().st_mtime_ns == before


def test_the_commit_its_origin_without_a_login_and_whether_files_differ(repo: Path, tmp_path: Path):
    git(repo, "remote", "add", "origin", "https://me:token@example.org/shop.git")
    commit = head_commit(repo)
    assert commit is not None and len(commit.digest) == 40
    assert (commit.dirty, commit.origin) == (False, "https://example.org/shop.git")
    put(repo, "apps/web/a.js", "changed")
    assert head_commit(repo / "apps") == replace(commit, dirty=True)
    assert head_commit(repo / "src") == commit, "only files below the directory count"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert head_commit(empty) is None
    git(empty, "init", "-q")
    assert head_commit(empty) is None
