"""A directory for bytes that live seconds: in memory when they fit there easily, else on the given disk."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import BusyError
from orchestrator.files import free_bytes, locked, no_space_is_an_error, remove_tree

MEMORY = Path("/dev/shm")
_PREFIX = "orchestrator-image-"
_SHARE = 4
"""Memory is used when at least this many times the need is free there."""


def fits_memory(need: int, *, memory: Path = MEMORY) -> bool:
    """Whether `need` bytes would lie in memory rather than on a disk."""
    return memory.is_dir() and free_bytes(memory) >= _SHARE * need


@contextmanager
def scratch_directory(disk: Path, *, need: int, memory: Path = MEMORY) -> Iterator[Path]:
    """A private directory with room for `need` bytes; removed at the end, also one a killed run left behind.

    Raises `DiskError` when not even an empty directory can be made.
    """
    parent = memory if fits_memory(need, memory=memory) else disk
    with no_space_is_an_error(parent):
        parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(parent)
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        with locked(directory / "lock", holder="a temporary directory"):
            yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    """Directories of ours whose lock nobody holds any more. Other users' are theirs."""
    for directory in parent.glob(f"{_PREFIX}*"):
        lock = directory / "lock"
        if directory.lstat().st_uid != os.geteuid() or not lock.is_file():
            continue
        try:
            with locked(lock, holder="a temporary directory"):
                remove_tree(directory)
        except (BusyError, FileNotFoundError):
            continue
