"""The cache of one build, as the build uses it: open the workspace before, keep it after."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.build.cache.explain import (
    SHOWN_PATHS,
    Report,
    Reports,
    Start,
    Unit,
    changed_packages,
    open_reports,
    read_packages,
)
from orchestrator.build.cache.index import Index, TargetEntry, open_index
from orchestrator.build.cache.key import CacheKey
from orchestrator.build.cache.manifest import UnusableManifest
from orchestrator.build.cache.prune import prune_group
from orchestrator.build.cache.readers import CargoReaders
from orchestrator.build.cache.restore import (
    Restored,
    clear_workspace,
    find_nearest,
    replay_directories,
    restore_workspace,
)
from orchestrator.build.cache.save import Saved, save_workspace
from orchestrator.build.snapshot import Snapshot
from orchestrator.build.workspace import Workspace, is_as_synchronised, sync_sources
from orchestrator.errors import Interrupted, OrchestratorError
from orchestrator.events import Emit, Note
from orchestrator.files import read_json, write_json
from orchestrator.plan import BuildPlan
from orchestrator.process import Cancel
from orchestrator.tools.nix import Nix

_STAMP = "target.json"

CLOCK_DRIFT_NS = 1_000_000_000
"""A wall clock that moves back against the steady one by more than this was set: file times tell nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What cargo did: units compiled and found fresh, packages with reasons, the build step's seconds."""

    compiled: int
    fresh: int
    units: tuple[Unit, ...]
    seconds: float

    @property
    def total(self) -> int:
        """All units of the build; 0 when a command of the user's own did not tell."""
        return self.compiled + self.fresh


@dataclass(slots=True)
class TargetCache:
    """One build's cache: `open` lays out and synchronises, `report` says what was compiled, `keep` saves.

    `clock` is the wall clock, `steady` one that is never set, both in nanoseconds. `_before` is what the build
    started from, `_outcome` what it did.
    """

    index: Index
    reports: Reports
    key: CacheKey
    app: str
    service: str
    packages: tuple[str, ...]
    snapshot: Snapshot
    emit: Emit
    cancel: Cancel
    clock: Callable[[], int] = time.time_ns
    steady: Callable[[], int] = time.monotonic_ns
    _before: "_Before | None" = field(default=None, init=False)
    _outcome: Outcome | None = field(default=None, init=False)

    def open(self, workspace: Workspace) -> str:
        """Bring target/ and src/ to the state to build from; a few words about where it came from.

        Raises `ProjectError` when a source changes meanwhile, `DiskError`, and `Interrupted`.
        """
        began = (self.clock(), self.steady())
        known = read_json(workspace.path / _STAMP) or {}
        restored = None
        if known.get("key") != self.key.digest or self.clock() < workspace.last_moment:
            distrust_target(workspace)
            restored, known = self._restore(workspace), {}
        changed = self._synchronise(workspace, restored)
        before = _Before(
            start="entry" if restored else "workspace" if known else "nothing",
            restored=restored,
            saved_as=restored.entry.id if restored else known.get("entry", ""),
            packages=tuple(restored.entry.packages if restored else known.get("packages", ())),
            changed=changed,
            began=began,
        )
        self._before = before
        self._write_stamp(workspace, before.saved_as)
        return f"from cache entry {before.saved_as}" if restored else ""

    def report(self, outcome: Outcome) -> str:
        """Write down what the build compiled and why; the same in one line."""
        before = self._opened()
        self._outcome = outcome
        cold = before.start == "nothing"
        report = Report(
            app=self.app,
            service=self.service,
            when=self.clock() / 1e9,
            seconds=outcome.seconds,
            start=before.start,
            entry=before.restored.entry.id if before.restored else "",
            compiled=outcome.compiled,
            total=outcome.total,
            parts=self.key.parts,
            changed_key=self.reports.changed_key(self.app, self.service, self.key.parts),
            changed_packages=() if cold else changed_packages(before.packages, self.packages),
            changed_sources=() if cold else tuple(sorted(before.changed))[:SHOWN_PATHS],
            units=outcome.units,
        )
        try:
            self.reports.write(report)
        except (OrchestratorError, OSError) as error:
            self.emit(Note(f"{self.service}: why it was compiled is not written down: {error}", level="warning"))
        return report.summary if outcome.total else ""

    def keep(self, workspace: Workspace) -> None:
        """Save the workspace when the build made something new of it. What goes wrong is said, and harms nothing."""
        before, outcome = self._opened(), self._outcome
        assert outcome is not None
        if self._clock_was_set(before):
            distrust_target(workspace)
            self.emit(Note(f"{self.service}: the clock was set during the build, so it is not kept in the cache"))
            return
        try:
            if before.restored:
                self.index.used(before.restored.entry, saved_seconds(before.restored.entry, outcome))
            if outcome.compiled or not outcome.total or not self._is_saved(before):
                self._save(workspace, before, outcome)
        except Interrupted:
            raise
        except (OrchestratorError, OSError) as error:
            self.emit(Note(f"{self.service}: the build is not kept in the cache: {error}", level="warning"))

    def _opened(self) -> "_Before":
        assert self._before is not None, "open() comes first"
        return self._before

    def _restore(self, workspace: Workspace) -> Restored | None:
        """The workspace as the nearest entry has it, else empty."""
        clear_workspace(workspace.path)
        for found in find_nearest(self.index, self.key, self.snapshot):
            try:
                with self.index.using(found.entry):
                    return restore_workspace(workspace.path, found, now=self.clock(), cancel=self.cancel)
            except UnusableManifest as error:
                self.emit(Note(f"{self.service}: a damaged cache entry is left out: {error}", level="warning"))
                self.index.remove(found.entry)
                clear_workspace(workspace.path)
        return None

    def _synchronise(self, workspace: Workspace, restored: Restored | None) -> frozenset[str]:
        if restored is None:
            return sync_sources(workspace, self.snapshot, readers=CargoReaders(self.snapshot), clock=self.clock)
        changed = sync_sources(
            workspace,
            self.snapshot,
            recorded=restored.manifest.sources,
            readers=CargoReaders(self.snapshot),
            clock=self.clock,
        )
        replay_directories(workspace.path, restored.manifest)
        return changed

    def _clock_was_set(self, before: "_Before") -> bool:
        wall, steady = before.began
        return (self.clock() - wall) - (self.steady() - steady) < -CLOCK_DRIFT_NS

    def _is_saved(self, before: "_Before") -> bool:
        return any(
            entry.id == before.saved_as and entry.present for entry in self.index.entries(TargetEntry, self.key.digest)
        )

    def _save(self, workspace: Workspace, before: "_Before", outcome: Outcome) -> None:
        if not is_as_synchronised(workspace, self.snapshot):
            self.emit(Note(f"{self.service}: the build changed its own sources, so it is not kept in the cache"))
            return
        saved = save_workspace(self.index, workspace, self.snapshot, cancel=self.cancel)
        entry = self._entry(saved, before, outcome)
        self.index.add(entry, cancel=self.cancel)
        self._write_stamp(workspace, entry.id)
        prune_group(self.index, TargetEntry, self.key.digest)

    def _entry(self, saved: Saved, before: "_Before", outcome: Outcome) -> TargetEntry:
        now = self.clock() / 1e9
        parents = [
            entry.worth for entry in self.index.entries(TargetEntry, self.key.digest) if entry.id == before.saved_as
        ]
        return TargetEntry(
            key=self.key.digest,
            parts=self.key.parts,
            lock=self.key.lock,
            packages=self.packages,
            app=self.app,
            service=self.service,
            layers=saved.layers,
            manifest=saved.manifest,
            size=saved.size,
            own_size=saved.own_size,
            units=outcome.total,
            worth=max(outcome.seconds, *parents, 0.0),
            created=now,
            last_used=now,
        )

    def _write_stamp(self, workspace: Workspace, entry: str) -> None:
        content = {"key": self.key.digest, "entry": entry, "packages": self.packages}
        if read_json(workspace.path / _STAMP) != content:
            write_json(workspace.path / _STAMP, content)


@dataclass(frozen=True, slots=True)
class _Before:
    """What the build started from: an entry, the workspace as it was (last saved as `saved_as`), or nothing.

    `began` is when, by the wall clock and the steady one.
    """

    start: Start
    restored: Restored | None
    saved_as: str
    packages: tuple[str, ...]
    changed: frozenset[str]
    began: tuple[int, int]


def open_cache(
    cache_dir: Path, nix: Nix, key: CacheKey, app: str, build: BuildPlan, snapshot: Snapshot, emit: Emit, cancel: Cancel
) -> TargetCache:
    """The cache of one cargo build of an application."""
    return TargetCache(
        index=open_index(cache_dir, nix),
        reports=open_reports(cache_dir),
        key=key,
        app=app,
        service=build.service,
        packages=read_packages(snapshot.root / build.lock_file),
        snapshot=snapshot,
        emit=emit,
        cancel=cancel,
    )


def distrust_target(workspace: Workspace) -> None:
    """Whatever is in target/ will not be built upon: the next build starts from an entry or from nothing."""
    (workspace.path / _STAMP).unlink(missing_ok=True)


def saved_seconds(entry: TargetEntry, outcome: Outcome) -> float:
    """What restoring an entry saved: the share of its worth that was not compiled again."""
    return entry.worth * outcome.fresh / outcome.total if outcome.total else 0.0
