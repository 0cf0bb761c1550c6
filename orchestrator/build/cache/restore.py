"""Laying out a saved workspace: the nearest usable entry, every byte checked, every time as it was.

What is laid out is the workspace as the build left it, older times and all, so that it is as sound as if it had never
gone: sources are synchronised into it as into any other.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.build.cache.index import Index, TargetEntry
from orchestrator.build.cache.kept import forget_kept, write_kept
from orchestrator.build.cache.key import CacheKey
from orchestrator.build.cache.layers import lay_out
from orchestrator.build.cache.manifest import Manifest, UnusableManifest, listing, read_manifest
from orchestrator.build.records import forget_records
from orchestrator.build.snapshot import Snapshot
from orchestrator.build.workspace import SOURCES
from orchestrator.files import no_space_is_an_error, remove_tree
from orchestrator.process import Cancel

TICK_NS = 20_000_000
"""The kernel stamps files with a clock that may lag behind by one timer tick, 10 ms at most."""


@dataclass(frozen=True, slots=True)
class Restored:
    """An entry that was laid out, and what it holds with the times as they are now in the workspace."""

    entry: TargetEntry
    manifest: Manifest


def find_nearest(index: Index, key: CacheKey, snapshot: Snapshot) -> Iterator[Restored]:
    """Usable entries, the best first: same lock file, then least sources that differ, then the newest."""
    have = {(entry.path, entry.content) for entry in snapshot.entries}
    found = []
    for entry in index.entries(TargetEntry, key.digest):
        try:
            manifest = read_manifest(Path(entry.layers[-1]), entry.manifest)
        except UnusableManifest:
            continue
        if entry.present:
            seen = {(source.path, source.content) for source, _ in manifest.sources.values()}
            found.append(((entry.lock != key.lock, len(seen ^ have), -entry.created), entry, manifest))
    for _, entry, manifest in sorted(found, key=lambda row: row[0]):
        yield Restored(entry, manifest)


def clear_workspace(root: Path) -> None:
    """Remove what builds left and all sources; what was fetched stays."""
    for name in ("target", "src", "incoming", "restoring"):
        remove_tree(root / name)
    forget_records(root / SOURCES)
    forget_kept(root)
    for name in ("target", "src"):
        (root / name).mkdir()


def restore_workspace(root: Path, found: Restored, *, now: int, cancel: Cancel) -> Restored:
    """Lay out an entry in a cleared workspace, all but the sources. `now` is in nanoseconds.

    Times in the future would hide what is built next: then all are moved back together, which keeps their order.
    Raises `UnusableManifest` when a file is missing or has another content, `DiskError`, and `Interrupted`.
    """
    manifest = _moved_back(found.manifest, found.manifest.newest - (now - TICK_NS))
    staging = root / "restoring"
    try:
        with no_space_is_an_error(staging):
            _lay_out(staging, manifest, cancel)
            for part in ("target", "src"):
                (root / part).rmdir()
                (staging / part).rename(root / part)
    finally:
        remove_tree(staging)
    write_kept(root, manifest)
    return Restored(found.entry, manifest)


def replay_directories(root: Path, manifest: Manifest) -> None:
    """Once the sources are there: directories that list what they listed get the time they had."""
    for path, (mtime, names) in manifest.directories.items():
        directory = root / path
        if directory.is_dir() and not directory.is_symlink() and (not names or listing(directory) == names):
            os.utime(directory, ns=(mtime, mtime))


def _moved_back(manifest: Manifest, by: int) -> Manifest:
    if by <= 0:
        return manifest
    return replace(
        manifest,
        files={path: replace(file, mtime=file.mtime - by) for path, file in manifest.files.items()},
        directories={path: (mtime - by, names) for path, (mtime, names) in manifest.directories.items()},
        sources={path: (entry, mtime - by) for path, (entry, mtime) in manifest.sources.items()},
    )


def _lay_out(staging: Path, manifest: Manifest, cancel: Cancel) -> None:
    for path in sorted({"target", "src", *_own_directories(manifest)}):
        (staging / path).mkdir(parents=True)
    lay_out(staging, manifest, cancel)
    for path, first in manifest.same.items():
        os.link(staging / first, staging / path)
    for path, target in manifest.links.items():
        (staging / path).symlink_to(target)


def _own_directories(manifest: Manifest) -> set[str]:
    """The directories that builds made: all but those that are there for the sake of sources alone."""
    leftovers = {parent for path in (*manifest.files, *manifest.same, *manifest.links) for parent in _parents(path)}
    for_sources = {parent for path in manifest.sources for parent in _parents(f"src/{path}")}
    return {path for path in manifest.directories if path in leftovers or path not in for_sources}


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path
