"""Which files of a workspace have their bytes in the store already.

A file counts as the one that was kept while its size, both its times and its inode are the same: the time of the last
status change cannot be set by a program, so nothing can be changed unseen.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.build.cache.manifest import File, Manifest, to_row
from orchestrator.files import read_json, write_atomically

_NAME = "kept.json"


@dataclass(frozen=True, slots=True)
class Kept:
    """Layers in the store, and path → (file, its status) for what of the workspace is in one of them."""

    layers: tuple[str, ...]
    files: Mapping[str, tuple[File, tuple[int, ...]]]

    def find(self, path: str, status: os.stat_result) -> File | None:
        """What was kept of the file with this path and status; None when it changed or was never kept."""
        file, was = self.files.get(path, (None, ()))
        return file if was == identity(status) else None


def identity(status: os.stat_result) -> tuple[int, ...]:
    """What changes whenever a file does."""
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def read_kept(workspace: Path) -> Kept:
    """What is known of a workspace; nothing when the record is absent or damaged."""
    try:
        content = read_json(workspace / _NAME)
        files = {path: (File(*file), tuple(status)) for path, (file, status) in content["files"].items()}
        return Kept(tuple(content["layers"]), files)
    except (AttributeError, KeyError, TypeError, ValueError):
        return Kept((), {})


def write_kept(workspace: Path, manifest: Manifest) -> None:
    """Remember that the workspace is what the manifest says."""
    rows = {path: (to_row(file), identity(os.lstat(f"{workspace}/{path}"))) for path, file in manifest.files.items()}
    content = json.dumps({"layers": manifest.layers, "files": rows})
    write_atomically(workspace / _NAME, content, durable=False)


def forget_kept(workspace: Path) -> None:
    """The workspace is something else now."""
    (workspace / _NAME).unlink(missing_ok=True)
