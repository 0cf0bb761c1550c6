"""What can go: images no release uses, old releases when asked, caches beyond a number of bytes.

Only what carries our labels and names, or lies in our cache directory. Applications somebody is working on are left
alone, and so is all that a recorded release needs: each of them is a promised rollback.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from orchestrator.deploy.images import NAMES
from orchestrator.deploy.lock import locked_app
from orchestrator.deploy.names import APP
from orchestrator.deploy.state import AppStore, list_apps
from orchestrator.errors import BusyError
from orchestrator.events import Emit, Note
from orchestrator.files import locked, remove_tree, tree_size
from orchestrator.image.packing import packed_files, packed_lock
from orchestrator.tools.images import StoredImage, list_images, used_images
from orchestrator.tools.podman import Engine

Kind = Literal["release", "image", "artifact", "toolchain", "layer", "log", "check"]
SETTLED_SECONDS = 900.0
"""A cache entry younger than this may belong to a build that has not become an image yet."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """Something that can go, why, and how. `size` in bytes; an image's counts layers it shares with others."""

    kind: Kind
    name: str
    size: int
    reason: str
    remove: Callable[[], object]


def collect_garbage(
    state_dir: Path,
    cache_dir: Path,
    *,
    engine: Engine,
    keep_bytes: int,
    keep_releases: int | None,
    dry_run: bool,
    emit: Emit,
    clock: Callable[[], float] = time.time,
) -> tuple[Garbage, ...]:
    """What was removed, or with `dry_run` would be.

    Releases beyond `keep_releases` go too; None keeps them all, as each application's own setting said.
    """
    images = list_images(engine, APP)
    apps = {*list_apps(state_dir), *(image.labels[APP] for image in images)}
    with ExitStack() as stack:
        idle = [app for app in sorted(apps) if _free(stack, locked_app(state_dir, app), app, emit)]
        still = _free(stack, packed_lock(cache_dir), "the cache of compressed layers", emit)
        found = (
            *(item for app in idle for item in _of_app(AppStore(state_dir, app), images, engine, keep_releases)),
            *_old_entries(cache_dir, keep_bytes, layers=still, before=clock() - SETTLED_SECONDS),
            *_orphaned_logs(cache_dir, apps),
            *_checks(cache_dir),
        )
        for item in found if not dry_run else ():
            item.remove()
    return found


def _free(stack: ExitStack, lock: AbstractContextManager[object], name: str, emit: Emit) -> bool:
    try:
        stack.enter_context(lock)
    except BusyError:
        emit(Note(f"{name} is being worked on and is left alone", level="warning"))
        return False
    return True


def _of_app(
    store: AppStore, images: Sequence[StoredImage], engine: Engine, keep_releases: int | None
) -> Iterator[Garbage]:
    """Releases first: what they used goes with them. A container's image stays, whoever started it."""
    old = store.superfluous(keep_releases) if keep_releases is not None else ()
    for record in old:
        reason = f"more than {keep_releases} releases"
        yield Garbage("release", f"{store.app} {record.id}", 0, reason, partial(store.forget, record))
    kept = [record for record in store.releases() if record not in old]
    used = {image.image_id for record in kept for image in record.stored_images} | used_images(engine)
    for image in images:
        if image.labels[APP] != store.app or image.image_id in used:
            continue
        for name in image.names:
            if name.startswith(NAMES):
                yield Garbage("image", name, image.size, "no release uses it", partial(engine.remove_image, name))


def _old_entries(cache_dir: Path, keep_bytes: int, *, layers: bool, before: float) -> Iterator[Garbage]:
    """What is beyond `keep_bytes`, not used for longest first: artifacts and dev shells, of which the newest of each
    kind stays, and with `layers` compressed layers, which a push makes again."""
    groups: list[tuple[Kind, Path]] = [("toolchain", cache_dir / "toolchains")]
    groups += [("artifact", service) for service in sorted(cache_dir.glob("artifacts/*/*"))]
    aged: list[tuple[float, Kind, Path]] = []
    kept = 0
    for kind, directory in groups:
        newest, *others = sorted(_dated(directory), reverse=True) or [(0.0, directory)]
        kept += tree_size(newest[1])
        aged += [(used, kind, path) for used, path in others]
    aged += [(path.stat().st_mtime, "layer", path) for path in packed_files(cache_dir) if layers]
    for used, kind, path in sorted(aged, reverse=True):
        size = tree_size(path)
        kept += size
        if kept > keep_bytes and used < before:
            yield _tree(cache_dir, kind, path, "not used for longest")


def _dated(directory: Path) -> Iterable[tuple[float, Path]]:
    return [(path.stat().st_mtime, path) for path in directory.glob("*") if path.is_dir()]


def _orphaned_logs(cache_dir: Path, apps: set[str]) -> Iterator[Garbage]:
    for directory in sorted(cache_dir.glob("logs/*")):
        app = directory.name
        if app in apps or any((cache_dir / room / app).is_dir() for room in ("artifacts", "workspaces")):
            continue
        yield _tree(cache_dir, "log", directory, "its application is gone")


def _checks(cache_dir: Path) -> Iterator[Garbage]:
    """What `build --check` left for a closer look, unless one is under way."""
    for directory in sorted(path for path in cache_dir.glob("check/*") if path.is_dir()):
        with suppress(BusyError), locked(directory.with_name(f"{directory.name}.lock"), holder="a check"):
            yield _tree(cache_dir, "check", directory, "left by build --check")


def _tree(cache_dir: Path, kind: Kind, path: Path, reason: str) -> Garbage:
    name = str(path.relative_to(cache_dir))
    return Garbage(kind, name, tree_size(path), reason, partial(remove_tree, path))
