"""One persistent build directory per service, its sources synchronised by content.

Build tools trust modification times, so a source keeps its time exactly as long as its content. What a build left
behind (node_modules/, target/, generated files) stays; only paths an earlier synchronisation put there are removed.
"""

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from orchestrator.build.records import Records, Row, read_records
from orchestrator.build.snapshot import Entry, Snapshot
from orchestrator.errors import ProjectError
from orchestrator.files import locked, no_space_is_an_error, read_json, remove_tree, sha256, write_json

MOUNT = PurePosixPath("/build")
"""Where every workspace is mounted: cargo hashes absolute paths and binaries embed them."""

PARTS = ("src", "home", "cargo", "target", "tmp")
"""The directories a build may write to, each mounted below `MOUNT`."""

SOURCES = "sources.json"
"""What synchronisations put into a workspace."""

LOCK_SECONDS = 5.0

_UNSURE = 3
"""The length of a row of `SOURCES` without a status: what is there may be half done."""

Recorded = Mapping[str, tuple[Entry, int]]
"""path -> what an earlier build saw there, and its modification time in nanoseconds."""

Readers = Callable[[frozenset[str], frozenset[str]], Iterable[str]]
"""Which files must count as changed too, given the paths that changed and those that were there before."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """A locked workspace. `inside` tells whether builds run at `MOUNT` (in a sandbox) or at `path` itself.

    `last_moment` is no earlier than any time stamp in it, in nanoseconds; 0 for a new one.
    """

    path: Path
    inside: bool
    last_moment: int = 0

    def seen(self, part: str) -> PurePosixPath:
        """The path of "src", "home", … as the build sees it."""
        return (MOUNT if self.inside else PurePosixPath(self.path)) / part

    def named(self, path: Path) -> str:
        """A path in the workspace as a user knows it: relative to the monorepo where it is below src/."""
        relative = path.relative_to(self.path) if path.is_relative_to(self.path) else path
        return str(relative).removeprefix("src/")

    def outside(self, path: PurePosixPath) -> Path:
        """Where a path the build named really is."""
        return self.path / path.relative_to(MOUNT) if self.inside and path.is_relative_to(MOUNT) else Path(path)


@contextmanager
def open_workspace(
    cache_dir: Path, app: str, service: str, *, inside: bool, clock: Callable[[], int] = time.time_ns
) -> Iterator[Workspace]:
    """The service's workspace, locked and with an empty temporary directory.

    Workspaces used without a sandbox are kept apart: a target directory moved to another path is not sound.
    Raises `BusyError` when another run is using it.
    """
    path = cache_dir / "workspaces" / app / (service if inside else f"{service}.direct")
    with locked(path / "lock", holder=f"the build of {app}/{service}", wait_seconds=LOCK_SECONDS):
        remove_tree(path / "tmp")
        with no_space_is_an_error(path):
            for part in PARTS:
                (path / part).mkdir(parents=True, exist_ok=True)
        last = _take_last_moment(path)
        try:
            yield Workspace(path, inside, last)
        finally:
            remove_tree(path / "tmp")
            write_json(path / "moment.json", max(clock(), last))


def sync_sources(
    workspace: Workspace,
    snapshot: Snapshot,
    *,
    recorded: Recorded = MappingProxyType({}),
    readers: Readers | None = None,
    clock: Callable[[], int] = time.time_ns,
) -> frozenset[str]:
    """Make src/ hold exactly the snapshot beside what builds left there; the paths that changed.

    Equal files keep their modification time, new ones equal to the `recorded` get the recorded time, others
    `clock()` (nanoseconds) or, when the clock was set back, a moment after the last use of the workspace. What
    `readers` adds to the changed paths gets that moment too. Killed at any moment, the next call puts everything
    right. Raises `ProjectError` when a source changes while it is copied, `DiskError` when the disk is full.
    """
    with no_space_is_an_error(workspace.path):
        return _Sync.open(workspace, snapshot, recorded, clock).run(readers)


def is_as_synchronised(workspace: Workspace, snapshot: Snapshot) -> bool:
    """Whether no source has another content than the snapshot's: a build may write to its sources."""
    known = read_records(workspace.path / SOURCES).rows
    root = workspace.path / "src"
    return all(
        _is_known(known, entry, f"{root}/{entry.path}") or _holds(root / entry.path, entry)
        for entry in snapshot.entries
    )


@dataclass(slots=True)
class _Sync:
    """One synchronisation.

    `known` are what earlier ones put there, as [kind, executable, content, size, mtime_ns, ctime_ns, inode] without
    the numbers while unsure; `news` are to become known at the end. `moment` is given to new files.
    """

    source: Path
    destination: Path
    incoming: Path
    snapshot: Snapshot
    recorded: Recorded
    known: Records
    moment: int
    directories: set[Path] = field(default_factory=set)
    news: dict[str, Row | None] = field(default_factory=dict)

    @classmethod
    def open(cls, workspace: Workspace, snapshot: Snapshot, recorded: Recorded, clock: Callable[[], int]) -> "_Sync":
        return cls(
            source=snapshot.root,
            destination=workspace.path / "src",
            incoming=workspace.path / "incoming",
            snapshot=snapshot,
            recorded=recorded,
            known=read_records(workspace.path / SOURCES),
            moment=max(clock(), workspace.last_moment + 1),
        )

    def run(self, readers: Readers | None) -> frozenset[str]:
        """Everything that is not current is placed or removed. Killed on the way, everything counts as changed."""
        current = {entry.path for entry in self.snapshot.entries}
        known, base = self.known.rows, str(self.destination)
        before = frozenset(known or self.recorded)
        stale = [entry for entry in self.snapshot.entries if not _is_known(known, entry, f"{base}/{entry.path}")]
        gone = sorted(known.keys() - current, reverse=True)
        interrupted = self.incoming.exists()
        if not stale and not gone and not interrupted:
            return frozenset()
        self.incoming.mkdir(exist_ok=True)
        self.known.put({entry.path: _row(entry) for entry in stale})
        for path in gone:
            self._remove(path)
        changed = (before - current) | {entry.path for entry in stale if self._place(entry)}
        in_doubt = changed | current if interrupted else changed
        self._renew(readers(in_doubt, before) if readers and in_doubt else ())
        self.known.put(self.news)
        remove_tree(self.incoming)
        return changed

    def _renew(self, paths: Iterable[str]) -> None:
        """Give the moment to sources that are as they were, because what changed may be read for their sake."""
        for path in paths:
            row = self.news.get(path, self.known.rows.get(path))
            if row is not None and row[0] == "file":
                full = self.destination / path
                os.utime(full, ns=(self.moment, self.moment))
                self.news[path] = [*row[:3], *_stat_fields(full)]

    def _remove(self, path: str) -> None:
        """Remove what an earlier snapshot had put at `path`, and its parents as far as that empties them."""
        self.news[path] = None
        full = self.destination / path
        if not self._parents_are_real(full):
            return
        if full.is_symlink() or not full.is_dir():
            full.unlink(missing_ok=True)
        for parent in full.parents:
            try:
                if parent != self.destination:
                    parent.rmdir()
                    continue
            except OSError:
                pass
            self._stamp_directory(parent)
            return

    def _stamp_directory(self, directory: Path) -> None:
        """A directory's time tells tools that its listing changed; the kernel's clock may have been set back."""
        with contextlib.suppress(OSError):
            os.utime(directory, ns=(self.moment, self.moment))

    def _parents_are_real(self, full: Path) -> bool:
        """Whether no build has put a link in place of a directory above `full`: links are never followed."""
        inside = (parent for parent in full.parents if parent.is_relative_to(self.destination))
        return not any(parent.is_symlink() for parent in inside)

    def _place(self, entry: Entry) -> bool:
        """Put the entry there; False when its content already was, in which case its time is kept."""
        full = self.destination / entry.path
        self._make_directory(full.parent)
        written = not _holds(full, entry)
        if written:
            fresh = self.incoming / "file"
            self._make(entry, fresh)
            if full.is_dir() and not full.is_symlink():
                remove_tree(full)
            is_new = not os.path.lexists(full)
            fresh.replace(full)
            if is_new:
                self._stamp_directory(full.parent)
            written = not self._replay(full, entry)
        self.news[entry.path] = _row(entry, full)
        return written

    def _replay(self, full: Path, entry: Entry) -> bool:
        """Give the file the time it had when an earlier build saw the same there; whether one did."""
        was, mtime = self.recorded.get(entry.path, (None, 0))
        if was != entry:
            return False
        os.utime(full, ns=(mtime, mtime), follow_symlinks=False)
        return True

    def _make(self, entry: Entry, fresh: Path) -> None:
        fresh.unlink(missing_ok=True)
        if entry.kind == "link":
            fresh.symlink_to(entry.content)
            return
        self._copy(entry, fresh)
        fresh.chmod(0o755 if entry.executable else 0o644)
        os.utime(fresh, ns=(self.moment, self.moment))

    def _copy(self, entry: Entry, fresh: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(self.source / entry.path, fresh, follow_symlinks=False)
        if not fresh.is_file() or sha256(fresh) != entry.content:
            raise ProjectError(
                f"{self.source / entry.path} changed while the build was reading it", hint="run the command again"
            )

    def _make_directory(self, directory: Path) -> None:
        """Make `directory` and its parents real directories, whatever a build may have put there."""
        if directory in self.directories or directory == self.destination:
            return
        self._make_directory(directory.parent)
        if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
            directory.unlink()
        directory.mkdir(exist_ok=True)
        self.directories.add(directory)


def _take_last_moment(path: Path) -> int:
    """When the workspace was last used, in nanoseconds by the clock of that time; 0 for a new one.

    The record is taken away while the workspace is in use: after a killed run its newest file tells.
    """
    record = path / "moment.json"
    moment = read_json(record)
    record.unlink(missing_ok=True)
    return moment if isinstance(moment, int) else max(_times(path), default=0)


def _times(path: Path) -> Iterator[int]:
    for part in ("src", "target"):
        for directory, _, names in os.walk(path / part):
            yield from (Path(directory, name).lstat().st_mtime_ns for name in names)


def _is_known(known: Mapping[str, Row], entry: Entry, path: str) -> bool:
    """Whether the entry was put there and what is at `path` has not been touched since."""
    row = known.get(entry.path)
    return row is not None and len(row) > _UNSURE and row == _row(entry, path)


def _row(entry: Entry, path: Path | str | None = None) -> Row:
    """What is written down of an entry, with the status of what is at `path`."""
    row: Row = [entry.kind, entry.executable, entry.content]
    return row if path is None else [*row, *_stat_fields(path)]


def _stat_fields(path: Path | str) -> Row:
    """What changes whenever a file does; nothing when it is not there."""
    try:
        status = os.lstat(path)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _holds(path: Path, entry: Entry) -> bool:
    """Whether `path` already is the entry, by content."""
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            return entry.kind == "link" and str(path.readlink()) == entry.content
        if not stat.S_ISREG(status.st_mode) or entry.kind != "file":
            return False
        return bool(status.st_mode & 0o100) == entry.executable and sha256(path) == entry.content
    except OSError:
        return False
