"""Hashed assets of earlier releases, for pages that are still open in browsers after a swap.

Their names carry their content's hash, so those of all releases lie beside each other in one directory, which every
web container sees. A page left open loads its lazy parts from there.
"""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.files import no_space_is_an_error, remove_tree
from orchestrator.image.nginx import HASHED_NAME
from orchestrator.tools.podman import Engine

KEEP_SECONDS = 7 * 24 * 3600
"""How long after its last deploy an asset is kept."""


def assets_dir(engine: Engine, app: str) -> Path:
    """The directory the application's web containers see."""
    return engine.dirs.base / "assets" / app


def keep_assets(directory: Path, site: Path | None, *, clock: Callable[[], float] = time.time) -> None:
    """Add a built site's hashed assets to those kept, and drop what no deploy has had for `KEEP_SECONDS`.

    Raises `DiskError` when there is no room.
    """
    now = clock()
    for source, name in _hashed_files(site) if site is not None else ():
        kept = directory / name
        if not kept.exists():
            _copy(source, kept)
        os.utime(kept, (now, now))
    for path in directory.rglob("*"):
        if path.is_file() and path.stat().st_mtime < now - KEEP_SECONDS:
            path.unlink()


def forget_assets(engine: Engine, app: str) -> None:
    """Remove all that was kept for an application."""
    remove_tree(assets_dir(engine, app))


def _hashed_files(site: Path) -> Iterator[tuple[Path, Path]]:
    """Each file and its path below the site."""
    for path in sorted(site.rglob("*")):
        relative = path.relative_to(site)
        if path.is_file() and path.suffix != ".map" and re.search(HASHED_NAME, f"/{relative.as_posix()}"):
            yield path, relative


def _copy(source: Path, target: Path) -> None:
    """Whole or not at all, readable by the container's user."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with no_space_is_an_error(target), tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        copied = Path(shutil.copyfile(source, Path(scratch, "file")))
        copied.chmod(0o644)
        copied.replace(target)
