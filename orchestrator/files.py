"""Bytes on disk: atomic writes, locks, content hashes, sizes, the data that ships with the package."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from orchestrator.errors import BusyError, DiskError


def write_atomically(path: Path, content: bytes | str, *, mode: int = 0o644, durable: bool = True) -> None:
    """Replace `path` whole or not at all: write beside it, fsync, rename.

    A file that is not `durable` may be empty or the old one after a power cut: for caches, whose reader sees that.

    Raises `DiskError` when the file system is full.
    """
    data = content.encode() if isinstance(content, str) else content
    with no_space_is_an_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with no_space_is_an_error(path), os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any, *, mode: int = 0o644, durable: bool = True) -> None:
    """`write_atomically` of `value` as sorted, indented JSON."""
    write_atomically(path, json.dumps(value, indent=2, sort_keys=True) + "\n", mode=mode, durable=durable)


def read_json(path: Path) -> Any:
    """The JSON in `path`, or None when it is absent or damaged (a damaged cache is no cache)."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def replace_symlink(link: Path, target: str) -> None:
    """Point `link` at `target` by rename(2): readers see the old or the new one, never neither."""
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, link)


@contextmanager
def locked(path: Path, *, holder: str, wait_seconds: float = 0) -> Iterator[None]:
    """Hold the flock on `path`; the kernel frees it when the process dies.

    Raises `BusyError` naming `holder` when it is not free within `wait_seconds`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=wait_seconds)
    except Timeout:
        raise BusyError(
            f"another orchestrator is already working on {holder}",
            hint=f"wait for it to finish (the lock is {path})",
        ) from None
    try:
        yield
    finally:
        lock.release()


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_size(root: Path) -> int:
    """Bytes of all regular files below `root`, links not followed."""
    if root.is_file():
        return root.stat().st_size
    return sum(
        os.lstat(os.path.join(directory, name)).st_size
        for directory, _, names in os.walk(root)
        for name in names
        if not os.path.islink(os.path.join(directory, name))
    )


def remove_tree(root: Path) -> None:
    """Remove a tree of ours, read-only directories included; an absent one is fine."""
    if root.is_symlink() or root.is_file():
        root.unlink()
        return

    def make_writable_and_retry(function: Any, path: str, _: Any) -> None:
        parent = os.path.dirname(path)
        for directory in (parent, path):
            if os.path.isdir(directory) and not os.path.islink(directory):
                os.chmod(directory, 0o700)
        function(path)

    if root.exists():
        shutil.rmtree(root, onerror=make_writable_and_retry)


def free_bytes(path: Path) -> int:
    """Bytes an ordinary user can still write on the file system of `path` (or of its nearest existing parent)."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


@contextmanager
def no_space_is_an_error(what: Path) -> Iterator[None]:
    """Turn ENOSPC and EDQUOT into a `DiskError` that names `what` and what is left there."""
    try:
        yield
    except OSError as error:
        if not is_no_space(error):
            raise
        raise no_space_error(what) from error


def is_no_space(error: OSError) -> bool:
    """Whether a file system or a quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def no_space_error(what: Path) -> DiskError:
    """The error for a full file system, with what is left on it."""
    return DiskError(
        f"no space left on the file system of {what} ({free_bytes(what.parent) // 1_000_000} MB free)",
        hint="free some space (see: orchestrator gc --dry-run) and run the command again; nothing is half-written",
    )


def says_no_space(text: str) -> bool:
    """Whether a program's output tells that a file system or a quota is full."""
    said = text.lower()
    return any(os.strerror(number).lower() in said for number in (errno.ENOSPC, errno.EDQUOT))


def resource(name: str) -> Path:
    """A directory or file that ships with the package ("templates", "nix"), in a checkout or an installed wheel."""
    package = Path(__file__).resolve().parent
    for base in (package / "_data", package.parent):
        if (base / name).exists():
            return base / name
    raise FileNotFoundError(f"the package is incomplete: {name} is missing beside {package}")
