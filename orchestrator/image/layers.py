"""The layer plan: what is in an image, in which layer, with which mode. Both assemblers work from it.

Everything belongs to root and nothing is writable: the service runs as user 10001 and writes to mounts only.
Paths in an image are relative to its root and have no leading slash.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

USER = "10001:10001"
"""The user and group every service runs as, named `app` in the image's /etc/passwd."""


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory of the image."""

    path: str
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link of the image; `target` is what readlink(2) gives."""

    path: str
    target: str


@dataclass(frozen=True, slots=True)
class File:
    """A regular file of the image, its bytes given or found at `source` on this machine.

    `immutable`: a store file, whose path already identifies its content. `twin`: a gzipped copy goes beside it
    where that is smaller.
    """

    path: str
    source: Path | bytes
    mode: int = 0o644
    immutable: bool = False
    twin: bool = False


Entry = Directory | Link | File


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """One layer: entries sorted by path, parent directories that no earlier layer has included."""

    name: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """How a container of the image starts. `ports` are documentation; `environment` holds no secret, ever.

    `command` follows the entry point unless a container is given another one. `directory` is where it starts.
    """

    entrypoint: tuple[str, ...]
    labels: tuple[tuple[str, str], ...]
    command: tuple[str, ...] = ()
    user: str = USER
    environment: tuple[tuple[str, str], ...] = ()
    ports: tuple[int, ...] = ()
    stop_signal: str = "SIGTERM"
    directory: str = "/"


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """One image: its layers, bottom first, and its configuration. `platform` "" stands for this machine's."""

    service: str
    layers: tuple[LayerPlan, ...]
    config: ImageConfig
    platform: str = ""

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(entry for layer in self.layers for entry in layer.entries)


def arrange_layers(groups: Mapping[str, Iterable[Entry]]) -> tuple[LayerPlan, ...]:
    """Layers in the order of `groups`: sorted, each directory only in the first layer that has it, none empty."""
    seen: set[str] = set()
    layers = []
    for name, group in groups.items():
        entries = {entry.path: entry for entry in group}
        new = _with_parents(entries).keys() - seen
        if new:
            layers.append(_layer(name, entries, new))
        seen |= new
    return tuple(layers)


def _with_parents(entries: Mapping[str, Entry]) -> dict[str, None]:
    """All paths of a layer: its entries' and those of the directories they are in."""
    paths: dict[str, None] = {}
    for path in entries:
        while path and path not in paths:
            paths[path] = None
            path = path.rpartition("/")[0]
    return paths


def _layer(name: str, entries: Mapping[str, Entry], paths: Iterable[str]) -> LayerPlan:
    ordered = sorted(paths, key=lambda path: path.encode())
    return LayerPlan(name, tuple(entries.get(path, Directory(path)) for path in ordered))
