"""What a build sees of the monorepo: its files, by content."""

import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from orchestrator.build.records import Records, Row, read_records
from orchestrator.errors import ProjectError
from orchestrator.events import Emit, Note
from orchestrator.files import sha256
from orchestrator.tools.git import GitFiles, list_files

SETTLED_NS = 2_000_000_000
"""A file changed within the last two seconds may change again within one tick of the file system's clock."""

_EXAMPLES = frozenset({".env.example", ".env.sample", ".env.template"})
_NEVER = frozenset({".git", "node_modules"})
_STORE = "/nix/store/"
_NOT_UTF8 = re.compile("[\ufffd\udc80-\udcff]")


class Entry(NamedTuple):
    """One path below the root. `content` is a file's hex SHA-256 or a link's target.

    A tuple, because there are tens of thousands of them in a large repository.
    """

    path: str
    kind: Literal["file", "link"]
    executable: bool
    content: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files a build may see, sorted by path; `digest` changes exactly when a path, mode or content does.

    `untracked` are those git does not know yet; empty where there is no git repository.
    """

    root: Path
    entries: tuple[Entry, ...]
    untracked: frozenset[str]
    digest: str

    def restricted(self, paths: Iterable[str]) -> "Snapshot":
        """The same snapshot with only `paths` in it."""
        wanted = frozenset(paths)
        entries = tuple(entry for entry in self.entries if entry.path in wanted)
        return Snapshot(self.root, entries, self.untracked & wanted, _digest(entries))


def take_snapshot(root: Path, *, cache_dir: Path, emit: Emit, clock: Callable[[], int] = time.time_ns) -> Snapshot:
    """Read the repository at `root`; only files whose size, times or inode changed since last time are hashed.

    `clock` gives nanoseconds. Raises `ProjectError` for a link that leaves the tree, for a name that is not
    UTF-8 and for a file that cannot be read.
    """
    files = _list_files(root, emit)
    _note_secrets(files.tracked, emit)
    memory = _HashMemory.load(root, cache_dir, started=clock())
    entries = tuple(entry for path in _choose(root, files) if (entry := _read_entry(root, path, files, memory)))
    memory.save()
    in_git = files.untracked if files.tracked else frozenset()
    return Snapshot(root, entries, in_git & {entry.path for entry in entries}, _digest(entries))


def _list_files(root: Path, emit: Emit) -> GitFiles:
    files = list_files(root)
    if files is not None:
        return files
    emit(Note(f"{root} is not a git repository: all its files count, except .env, target/ and node_modules/"))
    return GitFiles(tracked=frozenset(), untracked=frozenset(_walk(root)))


def _walk(root: Path) -> Iterator[str]:
    for directory, directories, names in os.walk(root):
        base = PurePosixPath(directory).relative_to(root)
        links = [name for name in directories if Path(directory, name).is_symlink()]
        yield from (str(base / name) for name in (*names, *links))
        directories[:] = [name for name in directories if _is_source(root, str(base / name), tracked=False)]


def _choose(root: Path, files: GitFiles) -> list[str]:
    """The files that builds may see, sorted. Each directory is judged once: most have many files."""

    @cache
    def is_seen(directory: str, tracked: bool) -> bool:
        return _is_source(root, directory, tracked)

    def choose(paths: frozenset[str], tracked: bool) -> Iterator[str]:
        for path in paths:
            directory, _, name = path.rpartition("/")
            if is_seen(directory, tracked) and name not in _NEVER and not _is_secret(name, tracked=tracked):
                yield path

    return sorted({*choose(files.tracked, True), *choose(files.untracked - files.tracked, False)})


def _is_source(root: Path, directory: str, tracked: bool) -> bool:
    """Whether a build may see files of a directory: no build products, nothing of git's.

    A tracked directory called target/ is a build product only beside a Cargo.toml, else somebody's source.
    """
    parts = directory.split("/")
    if not _NEVER.isdisjoint(parts):
        return False
    products = (index for index, part in enumerate(parts) if part == "target")
    return not any(not tracked or root.joinpath(*parts[:index], "Cargo.toml").exists() for index in products)


def _is_secret(name: str, *, tracked: bool) -> bool:
    """`.env` and what is local to one machine always; `.env.production` and its like unless git tracks them.

    Vite and others read committed, public values from the latter ("Env Variables and Modes", vite.dev).
    """
    if not name.startswith(".env"):
        return False
    if name == ".env" or (name.startswith(".env.") and name.endswith(".local")):
        return True
    return name.startswith(".env.") and name not in _EXAMPLES and not tracked


def _note_secrets(tracked: frozenset[str], emit: Emit) -> None:
    found = sorted(path for path in tracked if _is_secret(path.rpartition("/")[2], tracked=True))
    if found:
        emit(
            Note(
                f"builds do not see {', '.join(found)}, tracked though it is: such files hold secrets", level="warning"
            )
        )


def _read_entry(root: Path, path: str, files: GitFiles, memory: "_HashMemory") -> Entry | None:
    """The entry for `path`; None when it was deleted, or is `nix build`'s own result link."""
    _check_name(path)
    full = f"{root}/{path}"
    try:
        status = os.lstat(full)
        if stat.S_ISREG(status.st_mode):
            return Entry(path, "file", bool(status.st_mode & 0o100), memory.sha256(path, status))
        if not stat.S_ISLNK(status.st_mode):
            return None
        target = str(Path(full).readlink())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ProjectError(f"{full} cannot be read: {error.strerror}") from error
    if path in files.untracked and target.startswith(_STORE):
        return None
    _check_link(path, target)
    return Entry(path, "link", False, target)


def _check_name(path: str) -> None:
    if not path.isascii() and _NOT_UTF8.search(path):
        raise ProjectError(f"the file name {path!r} is not UTF-8", hint="rename the file or ignore it in .gitignore")


def _check_link(path: str, target: str) -> None:
    destination = os.path.normpath(f"{PurePosixPath(path).parent}/{target}")
    if target.startswith("/") or destination == ".." or destination.startswith("../"):
        raise ProjectError(
            f"the link {path} leaves the monorepo (it points to {target})",
            hint="make it a relative link to a file inside the monorepo, or ignore it in .gitignore",
        )


def _digest(entries: Iterable[Entry]) -> str:
    """A hash of all fields; none of them can hold the byte that ends each."""
    fields = (f"{path}\0{kind}\0{executable:d}\0{content}\0" for path, kind, executable, content in entries)
    return hashlib.sha256("".join(fields).encode(errors="surrogateescape")).hexdigest()


@dataclass(slots=True)
class _HashMemory:
    """Content hashes of the last snapshot, each believed while the file's size, times and inode are the same."""

    root: Path
    records: Records
    started: int
    unseen: set[str]
    learnt: dict[str, Row | None]

    @classmethod
    def load(cls, root: Path, cache_dir: Path, *, started: int) -> "_HashMemory":
        name = hashlib.sha256(os.fsencode(root)).hexdigest()[:32]
        records = read_records(cache_dir / "snapshots" / f"{name}.json")
        return cls(root, records, started, set(records.rows), {})

    def sha256(self, path: str, status: os.stat_result) -> str:
        times = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        known = self.records.rows.get(path)
        is_same = known is not None and known[:4] == times
        digest: str = known[4] if known and is_same else sha256(self.root / path)
        if max(status.st_mtime_ns, status.st_ctime_ns) + SETTLED_NS < self.started:
            self.unseen.discard(path)
            if not is_same:
                self.learnt[path] = [*times, digest]
        return digest

    def save(self) -> None:
        """Write down what was hashed, and forget what is not there any more or not settled."""
        self.records.put({**dict.fromkeys(self.unseen), **self.learnt})
