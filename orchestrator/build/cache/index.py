"""The cache's own small records: which entries there are, and the roots that keep Nix from collecting them."""

import hashlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.errors import BusyError
from orchestrator.files import locked, write_atomically
from orchestrator.process import Cancel
from orchestrator.tools import nix
from orchestrator.tools.nix import Nix

_LOCK_SECONDS = 60.0


class StoredEntry(BaseModel):
    """What one build of a service left, in the store. Sizes in bytes, times in seconds (`created` and `last_used`
    since the epoch).

    `layers` are store paths, the last one has the manifest, whose SHA-256 is `manifest`: another one in its place is
    not what was saved. `own_size` is what the entry alone added to the store.
    `lock` is the lock file's content hash, `packages` what it lists. `worth` estimates what making all of it takes,
    `saved` is what laying it out has saved so far.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    directory: ClassVar[str]
    """Where the records of this kind are, below the index."""

    lock: str
    packages: tuple[str, ...]
    app: str
    service: str
    layers: tuple[str, ...]
    manifest: str
    size: int
    own_size: int
    worth: float
    created: float
    last_used: float
    uses: int = 0
    saved: float = 0.0

    @property
    def group(self) -> str:
        """Entries of one group can stand in for each other, and newer ones replace older ones."""
        raise NotImplementedError

    @property
    def id(self) -> str:
        """A short name, the same for the same content in the same group."""
        return hashlib.sha256(f"{self.group} {self.layers[-1]}".encode()).hexdigest()[:12]

    @property
    def present(self) -> bool:
        """Whether every layer is still in the store."""
        return all(Path(layer).is_dir() for layer in self.layers)


class TargetEntry(StoredEntry):
    """A workspace as a build left it, usable under the same key; `parts` are what the key is made of."""

    directory = "entries"

    key: str
    parts: Mapping[str, str]
    units: int

    @property
    def group(self) -> str:
        return self.key


class FetchedEntry(StoredEntry):
    """What was fetched for a lock file; `registries` is a digest of the configuration it was fetched under."""

    directory = "fetched"

    registries: str

    @property
    def group(self) -> str:
        return f"{self.app}.{self.service}"


KINDS: tuple[type[StoredEntry], ...] = (TargetEntry, FetchedEntry)

_E = TypeVar("_E", bound=StoredEntry)


@dataclass(frozen=True, slots=True)
class Index:
    """The records below `directory`, and the Nix whose store has the layers."""

    directory: Path
    nix: Nix

    def entries(self, kind: type[_E], group: str | None = None) -> Iterator[_E]:
        """The entries of a kind, or of one group of it. What cannot be read, or another user wrote, is none."""
        for path in sorted(self.directory.glob(f"{kind.directory}/{group or '*'}/*.json")):
            with suppress(OSError, ValidationError):
                if _is_ours(path):
                    yield kind.model_validate_json(path.read_bytes())

    def all(self) -> list[StoredEntry]:
        """Every entry of every kind."""
        return [entry for kind in KINDS for entry in self.entries(kind)]

    def lock(self) -> AbstractContextManager[None]:
        """Held while entries or roots change."""
        return locked(self.directory / "lock", holder="the build cache", wait_seconds=_LOCK_SECONDS)

    def add(self, entry: StoredEntry, *, cancel: Cancel | None = None) -> None:
        """Root the layers of a new entry and write it down.

        Raises `ToolchainError` when a layer was collected meanwhile, `BusyError`.
        """
        with self.lock():
            for layer in entry.layers:
                if layer == entry.layers[-1] or not self.is_rooted(layer):
                    nix.add_root(self.nix, self._root(Path(layer)), Path(layer), cancel=cancel)
            self._write(entry)

    def remove(self, entry: StoredEntry) -> None:
        """Forget an entry; its layers stay until `drop_roots`."""
        self._path(entry).unlink(missing_ok=True)

    @contextmanager
    def using(self, entry: StoredEntry) -> Iterator[None]:
        """While the block runs, `is_used` tells others so; a killed user is none any more."""
        mark = self.directory / "used" / f"{entry.id}.{os.getpid()}.{threading.get_ident()}"
        with locked(mark, holder=f"cache entry {entry.id}"):
            try:
                yield
            finally:
                mark.unlink(missing_ok=True)

    def is_used(self, entry: StoredEntry) -> bool:
        """Whether the entry is being laid out right now."""
        return any(self._is_held(mark) for mark in self.directory.glob(f"used/{entry.id}.*"))

    def _is_held(self, mark: Path) -> bool:
        try:
            with locked(mark, holder="a cache entry"):
                mark.unlink(missing_ok=True)
        except BusyError:
            return True
        return False

    def used(self, entry: StoredEntry, saved: float) -> None:
        """Count a restore that saved so many seconds; an entry evicted meanwhile stays evicted."""
        with self.lock():
            if self._path(entry).exists():
                uses = {"uses": entry.uses + 1, "saved": entry.saved + saved, "last_used": time.time()}
                self._write(entry.model_copy(update=uses))

    def is_rooted(self, layer: str) -> bool:
        """Whether the layer is in the store and kept there by us."""
        root = self._root(Path(layer))
        return root.is_symlink() and _is_ours(root) and Path(layer).is_dir()

    def drop_roots(self) -> None:
        """Let go of every layer that no entry has."""
        wanted = {Path(layer).name for entry in self.all() for layer in entry.layers}
        for link in self.directory.glob("roots/*"):
            if link.name not in wanted:
                link.unlink(missing_ok=True)

    @property
    def store(self) -> Path:
        """The directory of the Nix store."""
        return Path(self.nix.environment.get("NIX_STORE_DIR", "/nix/store"))

    def _write(self, entry: StoredEntry) -> None:
        write_atomically(self._path(entry), entry.model_dump_json(indent=1) + "\n")

    def _path(self, entry: StoredEntry) -> Path:
        return self.directory / entry.directory / entry.group / f"{entry.id}.json"

    def _root(self, layer: Path) -> Path:
        return self.directory / "roots" / layer.name


def _is_ours(path: Path) -> bool:
    """Whether this user made it; whoever can write a record could say what our builds start from."""
    return path.lstat().st_uid == os.geteuid()


def open_index(cache_dir: Path, opened: Nix) -> Index:
    """The build cache's records."""
    return Index(cache_dir / "cache", opened)
