"""What of a CARGO_HOME is kept, and how it comes back: all that cargo needs to build without the network.

That is the indexes of registries, the crates the lock file lists, and the repositories of git dependencies. Unpacked
crates and git checkouts are left out: cargo makes them from these, and they are several times as large. So are
configuration, credentials, and git's notes of which address something came from.
"""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.build.cache.downloads import MTIME, require_no_secret
from orchestrator.build.cache.layers import lay_out
from orchestrator.build.cache.manifest import File, Manifest, walk
from orchestrator.build.registries import read_toml
from orchestrator.files import no_space_is_an_error, remove_tree, sha256
from orchestrator.process import Cancel

INDEX, CRATES, REPOSITORIES = "cargo/registry/index", "cargo/registry/cache", "cargo/git/db"

_ADDRESSES = "FETCH_HEAD"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a lock file asks for: names of .crate files with the SHA-256 each may have, and whether git is used."""

    crates: Mapping[str, frozenset[str]]
    git: bool

    def has(self, path: str) -> bool:
        """Whether a path in the workspace is needed."""
        name = path.rpartition("/")[2]
        if path.startswith(f"{CRATES}/"):
            return name in self.crates
        if path.startswith(f"{REPOSITORIES}/") and not self.git:
            return False
        return name != _ADDRESSES

    def accepts(self, path: str, digest: str) -> bool:
        """Whether a file that is needed may have this content."""
        allowed = self.crates.get(path.rpartition("/")[2], frozenset()) if path.startswith(f"{CRATES}/") else None
        return not allowed or digest in allowed


def read_wanted(lock: Path) -> Wanted:
    """What the lock file asks for; nothing when it cannot be read."""
    crates: dict[str, frozenset[str]] = {}
    rows = [row for row in read_toml(lock.parent, lock.name).get("package", []) if isinstance(row, dict)]
    for row in rows:
        name = f"{row.get('name')}-{row.get('version')}.crate"
        known = frozenset({row["checksum"]}) if isinstance(row.get("checksum"), str) else frozenset()
        if str(row.get("source", "")).startswith(("registry+", "sparse+")):
            crates[name] = crates.get(name, frozenset()) | known
    return Wanted(crates, any(str(row.get("source", "")).startswith("git+") for row in rows))


def read_home(root: Path, wanted: Wanted, secrets: Sequence[str]) -> Manifest:
    """What is to be kept of the CARGO_HOME of the workspace `root`, all of it in a layer called "".

    A crate that is not what the lock file says is left out. Raises `UnusableManifest` when a file has one of the
    `secrets` in it.
    """
    files: dict[str, File] = {}
    directories: dict[str, tuple[int, str]] = {}
    for path, status in _walk_all(root):
        if stat.S_ISDIR(status.st_mode) and (wanted.git or not path.startswith(REPOSITORIES)):
            directories[path] = (MTIME, "")
        elif stat.S_ISREG(status.st_mode) and wanted.has(path):
            digest = sha256(root / path)
            if wanted.accepts(path, digest):
                require_no_secret(root / path, status.st_size, secrets)
                files[path] = File(0, status.st_size, MTIME, bool(status.st_mode & 0o100), digest)
    return Manifest(("",), files, {}, {}, directories, {})


def is_empty(root: Path) -> bool:
    """Whether the workspace `root` has no crate and no repository; writing a lock file leaves an index alone."""
    return not any((root / part).is_dir() for part in (CRATES, REPOSITORIES))


def restore_home(root: Path, manifest: Manifest, wanted: Wanted, *, exact: bool, cancel: Cancel) -> bool:
    """Put into the CARGO_HOME of the workspace `root` what is wanted and not there; whether anything was missing.

    An `exact` entry also replaces what differs; another one may have an older index than the workspace.
    Crates and the files of an index come one by one, a git repository as a whole. Killed at any moment, each of them
    is there or not. Raises `UnusableManifest`, `DiskError` and `Interrupted`.
    """
    files = {
        path: file for path, file in manifest.files.items() if wanted.has(path) and wanted.accepts(path, file.sha256)
    }
    repositories = {top for path in manifest.directories if (top := _repository(path, manifest))}
    missing = (path for path, file in files.items() if not _is_there(root / path, file if exact else None))
    stale = {_repository(path, manifest) or path for path in missing}
    if not stale:
        return False
    chosen = {path: file for path, file in files.items() if (_repository(path, manifest) or path) in stale}
    staging = root / "restoring"
    remove_tree(staging)
    try:
        with no_space_is_an_error(staging):
            for path in {*(path.rpartition("/")[0] for path in chosen), *_inside(stale & repositories, manifest)}:
                (staging / path).mkdir(parents=True, exist_ok=True)
            lay_out(staging, Manifest(manifest.layers, chosen, {}, {}, {}, {}), cancel)
            for path in sorted(stale):
                _place(staging / path, root / path)
    finally:
        remove_tree(staging)
    return True


@dataclass(frozen=True, slots=True)
class CargoHome:
    """The downloads of a cargo build; cargo looks at the time of none of them."""

    wanted: Wanted
    packages: tuple[str, ...]
    name: str = "cargo-fetched"

    def is_empty(self, root: Path) -> bool:
        """See `is_empty`."""
        return is_empty(root)

    def read(self, root: Path, secrets: Sequence[str]) -> Manifest:
        """See `read_home`."""
        return read_home(root, self.wanted, secrets)

    def restore(self, root: Path, manifest: Manifest, *, exact: bool, cancel: Cancel) -> bool:
        """See `restore_home`."""
        return restore_home(root, manifest, self.wanted, exact=exact, cancel=cancel)


def _walk_all(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    for part in (INDEX, CRATES, REPOSITORIES):
        if (root / part).is_dir():
            yield from walk(root, part)


def _repository(path: str, manifest: Manifest) -> str:
    """The git repository that a path belongs to; "" for crates and the files of a sparse index."""
    top = "/".join(path.split("/")[:4])
    is_git = path.startswith(f"{REPOSITORIES}/") or f"{top}/.git" in manifest.directories
    return top if is_git and top.count("/") == 3 else ""


def _inside(repositories: set[str], manifest: Manifest) -> Iterator[str]:
    """The directories of git repositories: without its empty ones git does not know a repository."""
    for path in manifest.directories:
        if _repository(path, manifest) in repositories:
            yield path


def _is_there(path: Path, file: File | None) -> bool:
    """Whether there is anything, or the file: by its size, for cargo and git write files once, whole."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return file is None or (stat.S_ISREG(status.st_mode) and status.st_size == file.size)


def _place(fresh: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if fresh.is_dir():
        remove_tree(path)
    fresh.replace(path)
