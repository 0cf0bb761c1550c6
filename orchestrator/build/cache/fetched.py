"""What was fetched, as the fetch step uses it: lay it out before, keep it after.

Files are shared by their content: what any entry has, of whatever application, is not added again.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.build.cache.downloads import Downloads
from orchestrator.build.cache.index import FetchedEntry, Index, open_index
from orchestrator.build.cache.layers import MAX_LAYERS, add_layer
from orchestrator.build.cache.manifest import Manifest, UnusableManifest, read_manifest
from orchestrator.build.cache.prune import discard, prune_group
from orchestrator.build.snapshot import Snapshot
from orchestrator.build.workspace import Workspace
from orchestrator.errors import Interrupted, OrchestratorError
from orchestrator.events import Emit, Note
from orchestrator.plan import BuildPlan
from orchestrator.process import Cancel
from orchestrator.tools.nix import Nix


@dataclass(slots=True)
class FetchedCache:
    """One build's downloads. `lock` and `registries` are digests of what decides about them; `clock` gives seconds.

    `secrets` are texts that must not get into the store. `_found` is the entry that was laid out.
    """

    index: Index
    app: str
    service: str
    lock: str
    registries: str
    downloads: Downloads
    secrets: Sequence[str]
    emit: Emit
    cancel: Cancel
    clock: Callable[[], float] = time.time
    _found: FetchedEntry | None = field(default=None, init=False)

    def lay_out(self, workspace: Workspace) -> str:
        """Bring what is in the store into the workspace, the entry of this lock file or else, where nothing was fetched
        yet, the nearest; a few words about where it came from. Raises `DiskError` and `Interrupted`."""
        empty = self.downloads.is_empty(workspace.path)
        for entry, manifest in self._nearest():
            exact = self._is_exact(entry)
            if not empty and not exact:
                return ""
            try:
                with self.index.using(entry):
                    restored = self.downloads.restore(workspace.path, manifest, exact=exact, cancel=self.cancel)
            except UnusableManifest as error:
                self.emit(Note(f"{self.service}: a damaged cache entry is left out: {error}", level="warning"))
                discard(self.index, entry)
                continue
            self._found = entry if restored else None
            return f"from cache entry {entry.id}" if restored else ""
        return ""

    def keep(self, workspace: Workspace, seconds: float) -> str:
        """Save what a fetch that took `seconds` left; the entry that has it, "" without one. What goes wrong is said,
        and harms nothing."""
        try:
            self._count_use()
            manifest = self.downloads.read(workspace.path, self.secrets)
            return self._save(workspace, manifest, seconds) if manifest.files else ""
        except Interrupted:
            raise
        except (OrchestratorError, OSError) as error:
            self.emit(Note(f"{self.service}: what was fetched is not kept: {error}", level="warning"))
            return ""

    def is_kept(self, entry: str) -> bool:
        """Whether an entry that `keep` named is still there."""
        return any(known.id == entry and known.present for known in self._own())

    def _own(self) -> Iterator[FetchedEntry]:
        return self.index.entries(FetchedEntry, f"{self.app}.{self.service}")

    def _is_exact(self, entry: FetchedEntry) -> bool:
        return (entry.lock, entry.registries) == (self.lock, self.registries)

    def _shared(self, entry: FetchedEntry) -> int:
        return len({*entry.packages} & {*self.downloads.packages})

    def _nearest(self) -> list[tuple[FetchedEntry, Manifest]]:
        """Entries that have something for this lock file, the best first: the same, then most packages, then new."""
        found = [row for row in self._readable() if self._is_exact(row[0]) or self._shared(row[0])]
        return sorted(found, key=lambda row: (not self._is_exact(row[0]), -self._shared(row[0]), -row[0].created))

    def _readable(self) -> Iterator[tuple[FetchedEntry, Manifest]]:
        for entry in self.index.entries(FetchedEntry):
            try:
                if entry.present:
                    yield entry, read_manifest(Path(entry.layers[-1]), entry.manifest)
            except UnusableManifest:
                continue

    def _count_use(self) -> None:
        if self._found is not None:
            share = self._shared(self._found) / max(1, len(self.downloads.packages))
            self.index.used(self._found, self._found.worth * share)

    def _save(self, workspace: Workspace, manifest: Manifest, seconds: float) -> str:
        known = list(self._readable())
        for entry, other in known:
            if entry.group == f"{self.app}.{self.service}" and self._is_exact(entry) and _same(other, manifest):
                return entry.id
        manifest, fresh = share_layers(manifest, [other for _, other in known if self._is_rooted(other)])
        layer, digest = add_layer(
            self.index, workspace.path, manifest, fresh, name=self.downloads.name, cancel=self.cancel
        )
        saved = self._entry(replace(manifest, layers=(*manifest.layers[:-1], str(layer))), digest, fresh, seconds)
        self.index.add(saved, cancel=self.cancel)
        prune_group(self.index, FetchedEntry, saved.group)
        return saved.id

    def _is_rooted(self, manifest: Manifest) -> bool:
        return all(self.index.is_rooted(layer) for layer in manifest.layers)

    def _entry(self, manifest: Manifest, digest: str, fresh: Sequence[str], seconds: float) -> FetchedEntry:
        now = self.clock()
        return FetchedEntry(
            registries=self.registries,
            lock=self.lock,
            packages=self.downloads.packages,
            app=self.app,
            service=self.service,
            layers=manifest.layers,
            manifest=digest,
            size=manifest.size,
            own_size=sum(manifest.files[path].size for path in fresh),
            worth=max(seconds, self._found.worth if self._found else 0.0),
            created=now,
            last_used=now,
        )


def open_fetched(
    cache_dir: Path,
    nix: Nix,
    app: str,
    build: BuildPlan,
    snapshot: Snapshot,
    *,
    downloads: Downloads,
    influences: Sequence[Any],
    secrets: Sequence[str],
    emit: Emit,
    cancel: Cancel,
) -> FetchedCache:
    """The downloads of one build of an application; `influences` say where they come from."""
    contents = {entry.path: entry.content for entry in snapshot.entries}
    return FetchedCache(
        index=open_index(cache_dir, nix),
        app=app,
        service=build.service,
        lock=contents.get(str(build.lock_file), ""),
        registries=hashlib.sha256(json.dumps(influences).encode()).hexdigest(),
        downloads=downloads,
        secrets=secrets,
        emit=emit,
        cancel=cancel,
    )


def share_layers(manifest: Manifest, others: Sequence[Manifest]) -> tuple[Manifest, list[str]]:
    """The manifest with every file in the layer that has it already, and the files that no layer has.

    No more than `MAX_LAYERS` layers come together: those that have the most bytes are taken.
    """
    places = _places(manifest, others)
    covered: Counter[str] = Counter()
    for path, found in places.items():
        covered.update(dict.fromkeys(found, manifest.files[path].size))
    chosen = [layer for layer, _ in covered.most_common(MAX_LAYERS - 1)]
    taken = {path: next((layer for layer in chosen if layer in places.get(path, ())), "") for path in manifest.files}
    layers = (*(layer for layer in chosen if layer in taken.values()), "")
    files = {path: replace(file, layer=layers.index(taken[path])) for path, file in manifest.files.items()}
    return replace(manifest, layers=layers, files=files), [path for path, layer in taken.items() if not layer]


def _places(manifest: Manifest, others: Sequence[Manifest]) -> dict[str, list[str]]:
    """Path → the layers that have the file with this content under this path."""
    found: dict[str, list[str]] = {}
    for other in others:
        for path, file in other.files.items():
            mine = manifest.files.get(path)
            if mine is not None and (mine.sha256, mine.executable) == (file.sha256, file.executable):
                found.setdefault(path, []).append(other.layers[file.layer])
    return found


def _same(one: Manifest, other: Manifest) -> bool:
    return {path: file.sha256 for path, file in one.files.items()} == {
        path: file.sha256 for path, file in other.files.items()
    }
