"""zstd: compresses one file, with the same result for the same version."""

from pathlib import Path

from orchestrator.errors import DiskError, ImageError
from orchestrator.files import says_no_space
from orchestrator.process import Cancel, ProcessError, require, run

LEVEL = 12
"""Pinned: the level is part of what a digest depends on."""

_HINT = "install it: apt-get install --no-install-recommends zstd"


def version() -> str:
    """What `zstd --version` prints. Raises `ProgramMissing`."""
    return run([str(_zstd()), "--version"]).stdout.strip()


def compress_file(source: Path, target: Path, *, cancel: Cancel | None = None) -> None:
    """Write `target` anew. Raises `DiskError` when the file system is full, `ImageError` on other failures."""
    # One thread: what several write depends on nothing either, but differs from what one does.
    argv = [str(_zstd()), "--quiet", "--force", f"-{LEVEL}", "--single-thread", "-o", str(target), str(source)]
    try:
        run(argv, cancel=cancel)
    except ProcessError as error:
        if says_no_space(error.completed.stderr):
            raise DiskError(f"no space left to compress {target.name}", hint="free some space") from error
        raise ImageError(f"zstd could not compress {source}", details=error.details) from error


def _zstd() -> Path:
    return require("zstd", reason="compress layers", hint=_HINT)
