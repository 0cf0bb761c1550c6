"""Adding a workspace to the store: what is there already stays where it is, the rest becomes one more layer."""

import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.build.cache.index import Index
from orchestrator.build.cache.kept import Kept, read_kept, write_kept
from orchestrator.build.cache.layers import MAX_LAYERS, add_layer
from orchestrator.build.cache.manifest import File, Manifest, UnusableManifest, listing, walk
from orchestrator.build.snapshot import Snapshot
from orchestrator.build.workspace import Workspace
from orchestrator.files import sha256
from orchestrator.process import Cancel

NEW_SHARE = 0.5
"""An entry with more new bytes than this share of all its bytes is written whole, as one of too many layers is."""

_STORE_NAME = "cargo-target"


@dataclass(frozen=True, slots=True)
class Saved:
    """An entry's layers, its manifest's digest, all its bytes and those it added."""

    layers: tuple[str, ...]
    manifest: str
    size: int
    own_size: int


def save_workspace(index: Index, workspace: Workspace, snapshot: Snapshot, *, cancel: Cancel) -> Saved:
    """Put target/, and what the build left in src/, into the store; nothing is rooted yet.

    Raises `UnusableManifest` for what the store cannot hold, `DiskError`, `ToolchainError` and `Interrupted`.
    """
    kept = _usable(index, read_kept(workspace.path))
    manifest, fresh = take_manifest(workspace.path, snapshot, kept)
    added = sum(manifest.files[path].size for path in fresh)
    if kept.layers and (len(manifest.layers) > MAX_LAYERS or added > NEW_SHARE * manifest.size):
        manifest, fresh = take_manifest(workspace.path, snapshot, Kept((), {}))
        added = manifest.size
    layer, digest = add_layer(index, workspace.path, manifest, fresh, name=_STORE_NAME, cancel=cancel)
    complete = replace(manifest, layers=tuple(name or str(layer) for name in manifest.layers))
    write_kept(workspace.path, complete)
    return Saved(complete.layers, digest, manifest.size, added)


def _usable(index: Index, kept: Kept) -> Kept:
    """What is kept in layers that are still there for us."""
    numbers = {number for number, layer in enumerate(kept.layers) if index.is_rooted(layer)}
    return Kept(kept.layers, {path: row for path, row in kept.files.items() if row[0].layer in numbers})


def take_manifest(root: Path, snapshot: Snapshot, kept: Kept) -> tuple[Manifest, list[str]]:
    """What is in the workspace, and the files whose bytes no layer has; those will be in the layer called "".

    Raises `UnusableManifest` for sockets, pipes and devices.
    """
    tracked = {f"src/{entry.path}" for entry in snapshot.entries}
    found = _Found({}, {}, {}, {}, [])
    inodes: dict[int, str] = {}
    for path, status in (row for part in ("target", "src") for row in walk(root, part)):
        if path not in tracked:
            found.add(root, path, status, kept, inodes)
    sources = {entry.path: (entry, (root / "src" / entry.path).lstat().st_mtime_ns) for entry in snapshot.entries}
    used = sorted({file.layer for file in found.files.values()} - {len(kept.layers)})
    places = {number: place for place, number in enumerate([*used, len(kept.layers)])}
    files = {path: replace(file, layer=places[file.layer]) for path, file in found.files.items()}
    layers = (*(kept.layers[number] for number in used), "")
    return Manifest(layers, files, found.same, found.links, found.directories, sources), found.fresh


@dataclass(frozen=True, slots=True)
class _Found:
    """A manifest in the making; `fresh` are the files to add."""

    files: dict[str, File]
    same: dict[str, str]
    links: dict[str, str]
    directories: dict[str, tuple[int, str]]
    fresh: list[str]

    def add(self, root: Path, path: str, status: os.stat_result, kept: Kept, inodes: dict[int, str]) -> None:
        if stat.S_ISDIR(status.st_mode):
            names = listing(root / path) if path.startswith("src") else ""
            self.directories[path] = (status.st_mtime_ns, names)
        elif stat.S_ISLNK(status.st_mode):
            self.links[path] = str((root / path).readlink())
        elif not stat.S_ISREG(status.st_mode):
            raise UnusableManifest(f"{path} is no file, directory or link")
        elif status.st_nlink > 1 and status.st_ino in inodes:
            self.same[path] = inodes[status.st_ino]
        else:
            inodes[status.st_ino] = path
            self.files[path] = kept.find(path, status) or self._read(root / path, path, status, kept)

    def _read(self, full: Path, path: str, status: os.stat_result, kept: Kept) -> File:
        """The file by its content: in the layer that has it under this path, else in the new one."""
        file = File(len(kept.layers), status.st_size, status.st_mtime_ns, bool(status.st_mode & 0o100), sha256(full))
        was, _ = kept.files.get(path, (None, ()))
        if was is not None and (was.sha256, was.executable) == (file.sha256, file.executable):
            return replace(file, layer=was.layer)
        self.fresh.append(path)
        return file
