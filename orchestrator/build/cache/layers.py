"""Layers: store paths with the files of entries. Added by linking, so nothing is copied twice; laid out by copying,
so that nobody writes into the store, with every byte checked."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from orchestrator.build.cache.index import Index
from orchestrator.build.cache.manifest import NAME, File, Manifest, UnusableManifest, digest, to_json
from orchestrator.build.disk import RESERVE
from orchestrator.errors import DiskError
from orchestrator.files import free_bytes, no_space_is_an_error, remove_tree
from orchestrator.process import Cancel
from orchestrator.tools import nix

MAX_LAYERS = 8
"""An entry is made of no more: each layer keeps files that later ones replaced."""

_CHUNK = 1 << 20
_THREADS = 4


def add_layer(
    index: Index, root: Path, manifest: Manifest, fresh: list[str], *, name: str, cancel: Cancel
) -> tuple[Path, str]:
    """The `fresh` files below `root` and the manifest as one store path called `name`, and the manifest's digest.

    Nothing is rooted yet. Raises `DiskError` when there is no room, `ToolchainError` and `Interrupted`.
    """
    _require_room(index.store, sum(manifest.files[path].size for path in fresh))
    content = to_json(manifest)
    staging = root / "saving"
    remove_tree(staging)
    layer = staging / name
    try:
        with no_space_is_an_error(staging):
            _link_files(root, layer, fresh)
            (layer / NAME).write_bytes(content)
        return nix.add_tree(index.nix, layer, name, cancel=cancel), digest(content)
    finally:
        remove_tree(staging)


def lay_out(staging: Path, manifest: Manifest, cancel: Cancel) -> None:
    """Copy the files of a manifest into directories that are there already.

    Raises `UnusableManifest` when one is missing or has another content, `OSError`, and `Interrupted`.
    """
    rows = sorted(manifest.files.items())
    with ThreadPoolExecutor(_THREADS) as pool:
        shares = [
            pool.submit(_copy_all, staging, manifest, rows[number::_THREADS], cancel) for number in range(_THREADS)
        ]
        for share in shares:
            share.result()


def _require_room(store: Path, size: int) -> None:
    free = free_bytes(store)
    if free < size + RESERVE:
        raise DiskError(f"the store needs {size // 1_000_000} MB and has {free // 1_000_000} MB free")


def _link_files(root: Path, layer: Path, paths: list[str]) -> None:
    made: set[Path] = set()
    layer.mkdir(parents=True)
    for path in paths:
        link = layer / "files" / path
        if link.parent not in made:
            link.parent.mkdir(parents=True, exist_ok=True)
            made.add(link.parent)
        os.link(root / path, link)


def _copy_all(staging: Path, manifest: Manifest, rows: list[tuple[str, File]], cancel: Cancel) -> None:
    for path, file in rows:
        cancel.check()
        source = f"{manifest.layers[file.layer]}/files/{path}"
        if _copy(source, f"{staging}/{path}", file) != file.sha256:
            raise UnusableManifest(f"{source} is not what was saved")


def _copy(source: str, destination: str, file: File) -> str:
    """Copy, and tell the content's hash. Never a hard link: cargo writes in place."""
    mode = 0o755 if file.executable else 0o644
    hashed = hashlib.sha256()
    try:
        reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise UnusableManifest(f"{source} cannot be read: {error.strerror}") from error
    try:
        writing = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            while chunk := os.read(reading, _CHUNK):
                hashed.update(chunk)
                _write(writing, chunk)
            os.utime(writing, ns=(file.mtime, file.mtime))
        finally:
            os.close(writing)
    finally:
        os.close(reading)
    return hashed.hexdigest()


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
