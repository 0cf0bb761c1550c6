"""Puts trees of this machine's files into the Nix store, once, and keeps them from being collected."""

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator import files, process
from orchestrator.errors import DiskError, ToolchainError
from orchestrator.process import Cancel, ProcessError
from orchestrator.tools import hostcopies
from orchestrator.tools.hostcopies import Tree
from orchestrator.tools.hosttools import witness


@dataclass(frozen=True, slots=True)
class Imported:
    """A tree in the store: its path, its name and the hash that makes reading it pure."""

    path: str
    name: str
    hash: str

    def json(self) -> dict[str, str]:
        """What the package set needs to find the tree."""
        return {"name": self.name, "hash": self.hash}


def import_trees(trees: Mapping[str, Tree], *, cache: Path, cancel: Cancel | None = None) -> dict[str, Imported]:
    """The store's copy of each tree, made when it is not there.

    `cache` remembers which tree became which path. Raises `ToolchainError` when the store refuses.
    """
    known = files.read_json(cache) or {}
    keys = {name: _identity(name, tree) for name, tree in trees.items()}
    wanted = [name for name, key in keys.items() if key not in known or not os.path.lexists(known[key]["path"])]
    if wanted:
        imported = _import({name: trees[name] for name in wanted}, cache.parent, cancel)
        known |= {keys[name]: {"path": tree.path, "hash": tree.hash} for name, tree in imported.items()}
        standing = {key: row for key, row in known.items() if os.path.lexists(row["path"])}
        files.write_json(cache, standing)
    return {name: Imported(name=name, **known[key]) for name, key in keys.items()}


def keep(paths: Sequence[str], *, roots: Path, cancel: Cancel | None = None) -> None:
    """Register GC roots for `paths` below the directory `roots`."""
    files.remove_tree(roots)
    roots.mkdir(parents=True)
    _nix_store(["--realise", *paths, "--add-root", str(roots / "tree"), "--indirect"], cancel)


def _identity(name: str, tree: Tree) -> str:
    """Changes when a file of the tree, or its place, does."""
    digest = hashlib.sha256(name.encode())
    for place, path in sorted(tree.items()):
        digest.update(f"\0{place}\0{witness(path)}".encode())
    return digest.hexdigest()


def _import(trees: Mapping[str, Tree], beside: Path, cancel: Cancel | None) -> dict[str, Imported]:
    """Stage the trees and add them in one call; adding streams, so the size does not matter."""
    with tempfile.TemporaryDirectory(prefix=".stage-", dir=beside) as stage, files.no_space_is_an_error(beside):
        for name, tree in trees.items():
            hostcopies.stage(tree, Path(stage, name))
        paths = _nix_store(["--add", *(str(Path(stage, name)) for name in trees)], cancel)
    hashes = _nix_store(["--query", "--hash", *paths], cancel)
    return {name: Imported(path, name, hash_) for name, path, hash_ in zip(trees, paths, hashes, strict=True)}


def _nix_store(arguments: Sequence[str], cancel: Cancel | None) -> list[str]:
    """The lines nix-store prints. Raises `ToolchainError` with its message."""
    program = process.require("nix-store", reason="use the Nix store", hint="apt-get install nix-bin")
    try:
        return process.run([str(program), *arguments], cancel=cancel).stdout.split()
    except ProcessError as error:
        if files.says_no_space(error.completed.stderr):
            raise DiskError("no space left for the Nix store", details=error.details, hint="free some space") from error
        raise ToolchainError(
            "the Nix store did not take this machine's tools",
            details=error.details,
            hint="is the Nix daemon running, and may this user use it (on Debian: group nix-users)?",
        ) from error
