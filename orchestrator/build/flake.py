"""The part of the monorepo its flake reads, kept apart so that an edited source file evaluates nothing again."""

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.build.snapshot import Snapshot
from orchestrator.errors import ProjectError
from orchestrator.files import read_json, remove_tree
from orchestrator.settings import Settings

FLAKE = "flake.nix"
KEPT_FLAKES = 5
FIXED_TIME = 315_532_800
"""Seconds; a flake's `lastModified` is its newest file's time and must not depend on when we copied it."""

_ALWAYS = frozenset({FLAKE, "flake.lock", "rust-toolchain", "rust-toolchain.toml"})
_WHOLE_TREE = re.compile(
    r"\./\.(?![\w/.-])|\$\{\s*(self|\./\.)\s*\}|\bself\s*\+|\bself\.outPath\b|=\s*self\s*;|\breadDir\b"
)
_PATH_LITERAL = re.compile(r"(?<![\w./-])(\.{1,2}/[\w+./-]+)")


def require_visible_flake(snapshot: Snapshot) -> bool:
    """Whether the monorepo has a flake. Raises `ProjectError` when it has one that git does not track."""
    there = (snapshot.root / FLAKE).is_file()
    in_snapshot = any(entry.path == FLAKE for entry in snapshot.entries)
    if there and (not in_snapshot or FLAKE in snapshot.untracked):
        raise ProjectError(
            f"{snapshot.root / FLAKE} is not tracked by git, so Nix does not see it",
            hint=f"git -C {snapshot.root} add {FLAKE}",
        )
    return there


def flake_snapshot(snapshot: Snapshot) -> Snapshot:
    """The files evaluation can depend on: all Nix and toolchain files, and whatever paths the Nix files name.

    The whole snapshot when a Nix file names its own tree (`./.`, `self` as a path) or lists directories.
    """
    nix_files = [entry.path for entry in snapshot.entries if entry.path.endswith(".nix")]
    texts = {path: (snapshot.root / path).read_text(errors="replace") for path in nix_files}
    if any(_WHOLE_TREE.search(text) for text in texts.values()):
        return snapshot
    named = {
        os.path.normpath(PurePosixPath(path).parent / literal)
        for path, text in texts.items()
        for literal in _PATH_LITERAL.findall(text)
    }
    return snapshot.restricted(
        entry.path
        for entry in snapshot.entries
        if entry.path in texts or entry.path in _ALWAYS or _is_named(entry.path, named)
    )


def lay_out_flake(settings: Settings, part: Snapshot) -> Path:
    """A directory with exactly the files of `part`, usable as a `path:` flake; made once per content."""
    home = settings.cache_dir / "flakes"
    directory = home / part.digest[:32]
    if not directory.is_dir():
        fresh = home / f".{part.digest[:32]}.{os.getpid()}"
        remove_tree(fresh)
        fresh.mkdir(parents=True)
        for entry in part.entries:
            _place(part.root / entry.path, fresh / entry.path, executable=entry.executable)
        fresh.rename(directory)
        _forget_old(home)
    os.utime(directory)
    return directory


def locked_nixpkgs(flake: Path) -> str | None:
    """A reference to the very nixpkgs the flake is locked to; None when its lock file names none."""
    lock = read_json(flake / "flake.lock")
    try:
        nodes: dict[str, Any] = lock["nodes"]
        node = nodes[lock["root"]]["inputs"]["nixpkgs"]
        locked = nodes[node]["locked"]
        return f"github:{locked['owner']}/{locked['repo']}/{locked['rev']}" if locked["type"] == "github" else None
    except (KeyError, TypeError):
        return None


def _is_named(path: str, named: set[str]) -> bool:
    return any(path == name or path.startswith(f"{name}/") for name in named)


def _place(source: Path, destination: Path, *, executable: bool) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
        destination.symlink_to(source.readlink())
        return
    destination.write_bytes(source.read_bytes())
    destination.chmod(0o755 if executable else 0o644)
    os.utime(destination, (FIXED_TIME, FIXED_TIME))


def _forget_old(home: Path) -> None:
    by_age = sorted(home.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in by_age[KEPT_FLAKES:]:
        remove_tree(path)
