"""The cache's own small records: which entries there are, and the roots that keep Nix from collecting them."""

import hashlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.errors import BusyError
from orchestrator.files import locked, write_atomically
from orchestrator.process import Cancel
from orchestrator.tools import nix
from orchestrator.tools.nix import Nix

_LOCK_SECONDS = 60.0


class CacheEntry(BaseModel):
    """One saved workspace. Sizes in bytes, times in seconds (`created` and `last_used` since the epoch).

    `layers` are store paths, the last one has the manifest; `own_size` is what the entry alone added to the store.
    `worth` estimates what building all of it takes, `saved` is what restoring it has saved so far.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    parts: Mapping[str, str]
    lock: str
    packages: tuple[str, ...]
    app: str
    service: str
    layers: tuple[str, ...]
    size: int
    own_size: int
    units: int
    worth: float
    created: float
    last_used: float
    uses: int = 0
    saved: float = 0.0

    @property
    def id(self) -> str:
        """A short name, the same for the same content under the same key."""
        return hashlib.sha256(f"{self.key} {self.layers[-1]}".encode()).hexdigest()[:12]

    @property
    def present(self) -> bool:
        """Whether every layer is still in the store."""
        return all(Path(layer).is_dir() for layer in self.layers)


@dataclass(frozen=True, slots=True)
class Index:
    """The records below `directory`, and the Nix whose store has the layers."""

    directory: Path
    nix: Nix

    def entries(self, key: str | None = None) -> Iterator[CacheEntry]:
        """All entries, or those of one key. What cannot be read is no entry."""
        for path in sorted(self.directory.glob(f"entries/{key or '*'}/*.json")):
            with suppress(OSError, ValidationError):
                yield CacheEntry.model_validate_json(path.read_bytes())

    def lock(self) -> AbstractContextManager[None]:
        """Held while entries or roots change."""
        return locked(self.directory / "lock", holder="the build cache", wait_seconds=_LOCK_SECONDS)

    def add(self, entry: CacheEntry, *, cancel: Cancel | None = None) -> None:
        """Root the layers of a new entry and write it down.

        Raises `ToolchainError` when a layer was collected meanwhile, `BusyError`.
        """
        with self.lock():
            for layer in entry.layers:
                if layer == entry.layers[-1] or not self.is_rooted(layer):
                    nix.add_root(self.nix, self._root(Path(layer)), Path(layer), cancel=cancel)
            self._write(entry)

    def remove(self, entry: CacheEntry) -> None:
        """Forget an entry; its layers stay until `drop_roots`."""
        self._path(entry).unlink(missing_ok=True)

    @contextmanager
    def using(self, entry: CacheEntry) -> Iterator[None]:
        """While the block runs, `is_used` tells others so; a killed user is none any more."""
        mark = self.directory / "used" / f"{entry.id}.{os.getpid()}.{threading.get_ident()}"
        with locked(mark, holder=f"cache entry {entry.id}"):
            try:
                yield
            finally:
                mark.unlink(missing_ok=True)

    def is_used(self, entry: CacheEntry) -> bool:
        """Whether the entry is being laid out right now."""
        return any(self._is_held(mark) for mark in self.directory.glob(f"used/{entry.id}.*"))

    def _is_held(self, mark: Path) -> bool:
        try:
            with locked(mark, holder="a cache entry"):
                mark.unlink(missing_ok=True)
        except BusyError:
            return True
        return False

    def used(self, entry: CacheEntry, saved: float) -> None:
        """Count a restore that saved so many seconds; an entry evicted meanwhile stays evicted."""
        with self.lock():
            if self._path(entry).exists():
                uses = {"uses": entry.uses + 1, "saved": entry.saved + saved, "last_used": time.time()}
                self._write(entry.model_copy(update=uses))

    def is_rooted(self, layer: str) -> bool:
        """Whether the layer is in the store and kept there by us."""
        return self._root(Path(layer)).is_symlink() and Path(layer).is_dir()

    def drop_roots(self) -> None:
        """Let go of every layer that no entry has."""
        wanted = {Path(layer).name for entry in self.entries() for layer in entry.layers}
        for link in self.directory.glob("roots/*"):
            if link.name not in wanted:
                link.unlink(missing_ok=True)

    @property
    def store(self) -> Path:
        """The directory of the Nix store."""
        return Path(self.nix.environment.get("NIX_STORE_DIR", "/nix/store"))

    def _write(self, entry: CacheEntry) -> None:
        write_atomically(self._path(entry), entry.model_dump_json(indent=1) + "\n")

    def _path(self, entry: CacheEntry) -> Path:
        return self.directory / "entries" / entry.key / f"{entry.id}.json"

    def _root(self, layer: Path) -> Path:
        return self.directory / "roots" / layer.name


def open_index(cache_dir: Path, opened: Nix) -> Index:
    """The build cache's records."""
    return Index(cache_dir / "cache", opened)
