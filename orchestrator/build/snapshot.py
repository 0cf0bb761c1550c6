"""What a build sees of the monorepo: its files, by content."""

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from orchestrator.errors import ProjectError
from orchestrator.events import Emit, Note
from orchestrator.files import read_json, sha256, write_json
from orchestrator.tools.git import GitFiles, list_files

SETTLED_NS = 2_000_000_000
"""A file changed within the last two seconds may change again within one tick of the file system's clock."""

_EXAMPLES = frozenset({".env.example", ".env.sample", ".env.template"})
_NEVER = frozenset({".git", "node_modules"})
_STORE = "/nix/store/"


@dataclass(frozen=True, slots=True)
class Entry:
    """One path below the root. `content` is a file's hex SHA-256 or a link's target."""

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
    wanted = sorted(path for path in files.tracked | files.untracked if _belongs(root, path, path in files.tracked))
    memory = _HashMemory.load(root, cache_dir, started=clock())
    entries = tuple(entry for path in wanted if (entry := _read_entry(root, path, files, memory)))
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
        directories[:] = [name for name in directories if _belongs(root, str(base / name / "x"), tracked=False)]


def _belongs(root: Path, path: str, tracked: bool) -> bool:
    """Whether a build may see `path`: no secrets, no build products.

    A tracked directory called target/ is a build product only beside a Cargo.toml, else somebody's source.
    """
    *parents, name = path.split("/")
    if _is_secret(name, tracked=tracked) or not _NEVER.isdisjoint(parents) or name in _NEVER:
        return False
    products = (index for index, part in enumerate(parents) if part == "target")
    return not any(not tracked or root.joinpath(*parents[:index], "Cargo.toml").exists() for index in products)


def _is_secret(name: str, *, tracked: bool) -> bool:
    """`.env` and what is local to one machine always; `.env.production` and its like unless git tracks them.

    Vite and others read committed, public values from the latter ("Env Variables and Modes", vite.dev).
    """
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
    full = root / path
    try:
        status = full.lstat()
        if stat.S_ISLNK(status.st_mode):
            target = str(full.readlink())
            if path in files.untracked and target.startswith(_STORE):
                return None
            _check_link(path, target)
            return Entry(path, "link", False, target)
        if not stat.S_ISREG(status.st_mode):
            return None
        return Entry(path, "file", bool(status.st_mode & 0o100), memory.sha256(path, status))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ProjectError(f"{full} cannot be read: {error.strerror}") from error


def _check_name(path: str) -> None:
    if any(letter == "\ufffd" or "\udc80" <= letter <= "\udcff" for letter in path):
        raise ProjectError(f"the file name {path!r} is not UTF-8", hint="rename the file or ignore it in .gitignore")


def _check_link(path: str, target: str) -> None:
    destination = os.path.normpath(f"{PurePosixPath(path).parent}/{target}")
    if target.startswith("/") or destination == ".." or destination.startswith("../"):
        raise ProjectError(
            f"the link {path} leaves the monorepo (it points to {target})",
            hint="make it a relative link to a file inside the monorepo, or ignore it in .gitignore",
        )


def _digest(entries: Iterable[Entry]) -> str:
    lines = (json.dumps([entry.path, entry.kind, entry.executable, entry.content]) for entry in entries)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class _HashMemory:
    """Content hashes of the last snapshot, each believed while the file's size, times and inode are the same."""

    def __init__(self, root: Path, file: Path, known: dict[str, list[Any]], started: int) -> None:
        self._root = root
        self._file = file
        self._known = known
        self._seen: dict[str, list[Any]] = {}
        self._started = started

    @classmethod
    def load(cls, root: Path, cache_dir: Path, *, started: int) -> "_HashMemory":
        name = hashlib.sha256(os.fsencode(root)).hexdigest()[:32]
        file = cache_dir / "snapshots" / f"{name}.json"
        known = read_json(file)
        return cls(root, file, known if isinstance(known, dict) else {}, started)

    def sha256(self, path: str, status: os.stat_result) -> str:
        times = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        known = self._known.get(path)
        digest: str = known[4] if known and known[:4] == times else sha256(self._root / path)
        if max(status.st_mtime_ns, status.st_ctime_ns) + SETTLED_NS < self._started:
            self._seen[path] = [*times, digest]
        return digest

    def save(self) -> None:
        if self._seen != self._known:
            write_json(self._file, self._seen)
