"""git: which files belong to a working tree."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from orchestrator.errors import ProjectError
from orchestrator.process import Completed, base_environment, require, run

_SUBMODULE = "160000 "
"""The mode of another repository's commit in the index (git-ls-files(1), git-fast-import(1))."""


class _Listed(NamedTuple):
    """A path git listed; `nested` when it is another repository."""

    path: str
    tracked: bool
    nested: bool


@dataclass(frozen=True, slots=True)
class GitFiles:
    """Paths relative to the directory asked about, as git spells them. Deleted files may still be listed."""

    tracked: frozenset[str]
    untracked: frozenset[str]


@dataclass(frozen=True, slots=True)
class Commit:
    """What is checked out. `dirty` when files differ from it; `origin` is the remote's address, "" without one."""

    digest: str
    dirty: bool
    origin: str


def head_commit(root: Path) -> Commit | None:
    """The commit `root` is at; None in no repository, or in one without a commit."""
    if not _inside_repository(root):
        return None
    digest = _ask(root, "rev-parse", "--verify", "--quiet", "HEAD")
    if not digest:
        return None
    dirty = bool(_ask(root, "status", "--porcelain", "--", "."))
    return Commit(digest, dirty, without_login(_ask(root, "config", "--get", "remote.origin.url")))


def without_login(url: str) -> str:
    """An address without the name and password it may hold."""
    return re.sub(r"(?<=://)[^/@]*@", "", url)


def list_files(root: Path) -> GitFiles | None:
    """The tracked files below `root` and the untracked ones git does not ignore, submodules included.

    None when `root` is in no git repository, or in one that ignores all of it. Raises `ProjectError` with
    git's message when the repository is damaged, `ProgramMissing` when there is a repository but no git.
    """
    if not _inside_repository(root):
        return None
    found = _list_repository(root)
    return found if found.tracked or found.untracked else None


def files_with_attribute(root: Path, attribute: str) -> tuple[str, ...]:
    """The tracked files below `root` with an attribute such as "filter=lfs"; none where git cannot tell."""
    completed = _git(root, "ls-files", "-z", "--", f":(attr:{attribute})")
    listed = completed.stdout if completed.returncode == 0 else ""
    return tuple(path for path in listed.split("\0") if path)


def _inside_repository(root: Path) -> bool:
    return any((directory / ".git").exists() for directory in (root, *root.parents))


def _list_repository(root: Path, prefix: str = "") -> GitFiles:
    tracked: set[str] = set()
    untracked: set[str] = set()
    for listed in _ls_files(root):
        if listed.nested:
            nested = _nested(root / listed.path, f"{prefix}{listed.path.rstrip('/')}/")
            tracked |= nested.tracked
            untracked |= nested.untracked
        else:
            (tracked if listed.tracked else untracked).add(prefix + listed.path)
    return GitFiles(frozenset(tracked), frozenset(untracked))


def _nested(directory: Path, prefix: str) -> GitFiles:
    """Files of a submodule or of a repository inside the repository; none when it is not checked out."""
    if not (directory / ".git").exists():
        return GitFiles(frozenset(), frozenset())
    return _list_repository(directory, prefix)


def _git(root: Path, *arguments: str) -> Completed:
    """Ask git about a repository, whoever owns it.

    `safe.directory` lets root deploy a user's repository; `core.fsmonitor` is switched off because a
    repository's own configuration could name any program there.
    """
    git = require("git", reason="list the repository's files", hint="apt-get install git")
    argv = [str(git), "-C", str(root), "-c", "safe.directory=*", "-c", "core.fsmonitor=false", *arguments]
    env = base_environment(os.environ) | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    return run(argv, env=env, check=False)


def _ask(root: Path, *arguments: str) -> str:
    """git's answer, "" when it has none."""
    completed = _git(root, *arguments)
    return completed.stdout.strip() if completed.returncode == 0 else ""


def _ls_files(root: Path) -> Iterator[_Listed]:
    arguments = ("ls-files", "-z", "-t", "--stage", "--cached", "--others", "--exclude-standard")
    completed = _git(root, *arguments)
    if completed.returncode != 0:
        raise ProjectError(
            f"git cannot list the files of {root}",
            details=completed.stderr.strip().splitlines()[-5:],
            hint=f"try: git -C {root} status",
        )
    return (_listed(record) for record in completed.stdout.split("\0") if record)


def _listed(record: str) -> _Listed:
    """`? PATH`, with a slash at the end of a repository, or `TAG MODE OBJECT STAGE<tab>PATH`."""
    if record.startswith("? "):
        return _Listed(record[2:], False, record.endswith("/"))
    return _Listed(record.partition("\t")[2], True, record.startswith(_SUBMODULE, 2))
