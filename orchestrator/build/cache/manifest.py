"""What an entry holds: every file with its content and time, and the sources the build had seen."""

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.build.snapshot import Entry
from orchestrator.errors import OrchestratorError

NAME = "manifest.json"
FORMAT = 1
_PARTS = ("target", "src", "cargo", "home")


class UnusableManifest(OrchestratorError):
    """An entry cannot be read: damaged, collected half, or of another version."""


@dataclass(frozen=True, slots=True)
class File:
    """A regular file. `layer` is the place in the entry's list of layers that has its bytes; time in nanoseconds."""

    layer: int
    size: int
    mtime: int
    executable: bool
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A workspace as a build left it. Paths are relative to the workspace and begin with "target/" or "src/"; with
    "cargo/" or "home/" in what was fetched.

    `same` are further names of a file in `files`; `directories` have their times, those below src/ a digest of
    their listing too. `sources` are the files of the snapshot the build ran on, without the leading "src/".
    """

    layers: tuple[str, ...]
    files: Mapping[str, File]
    same: Mapping[str, str]
    links: Mapping[str, str]
    directories: Mapping[str, tuple[int, str]]
    sources: Mapping[str, tuple[Entry, int]]

    @property
    def newest(self) -> int:
        """The latest time in it, in nanoseconds."""
        times = [file.mtime for file in self.files.values()]
        times += [mtime for mtime, _ in self.directories.values()]
        return max([*times, *(mtime for _, mtime in self.sources.values())], default=0)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


def to_json(manifest: Manifest) -> bytes:
    """The manifest as one line of JSON."""
    content = {
        "format": FORMAT,
        "layers": manifest.layers,
        "files": {path: to_row(file) for path, file in manifest.files.items()},
        "same": dict(manifest.same),
        "links": dict(manifest.links),
        "directories": dict(manifest.directories),
        "sources": {
            path: [entry.kind, entry.executable, entry.content, mtime]
            for path, (entry, mtime) in manifest.sources.items()
        },
    }
    return json.dumps(content, sort_keys=True).encode()


def to_row(file: File) -> list[int | str]:
    """The fields of a file in their order, as JSON has them."""
    return [file.layer, file.size, file.mtime, file.executable, file.sha256]


def digest(content: bytes) -> str:
    """What tells whether a manifest is the one that was saved, as hex."""
    return hashlib.sha256(content).hexdigest()


def read_manifest(layer: Path, saved: str) -> Manifest:
    """The manifest in the layer that was added last. The layer itself may be called "" in its list of layers.

    Raises `UnusableManifest` also when its digest is not the one that was `saved`.
    """
    try:
        content = (layer / NAME).read_bytes()
        if digest(content) != saved:
            raise ValueError("its manifest is not what was saved")
        return _parse(json.loads(content), str(layer))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UnusableManifest(f"the cache entry {layer} cannot be used: {error}") from error


def _parse(content: Any, own: str) -> Manifest:
    if content["format"] != FORMAT:
        raise ValueError("its format is another one")
    for path in (*content["files"], *content["same"], *content["links"], *content["directories"]):
        if path.split("/")[0] not in _PARTS or ".." in path.split("/"):
            raise ValueError(f"{path} is not a path in a workspace")
    return Manifest(
        layers=tuple(layer or own for layer in content["layers"]),
        files={path: File(*row) for path, row in content["files"].items()},
        same=content["same"],
        links=content["links"],
        directories={path: (mtime, listing) for path, (mtime, listing) in content["directories"].items()},
        sources={path: (Entry(path, *row[:3]), row[3]) for path, row in content["sources"].items()},
    )


def walk(root: Path, part: str) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below `root`/`part` and that directory itself, links not followed, as path and status."""
    top = root / part
    yield part, top.lstat()
    waiting = [part]
    while waiting:
        base = waiting.pop()
        with os.scandir(root / base) as found:
            for item in sorted(found, key=lambda item: item.name):
                status = item.stat(follow_symlinks=False)
                path = f"{base}/{item.name}"
                yield path, status
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(path)


def listing(directory: Path) -> str:
    """A digest of the names in a directory."""
    return hashlib.sha256("\0".join(sorted(item.name for item in os.scandir(directory))).encode()).hexdigest()[:16]
