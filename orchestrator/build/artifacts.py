"""Finished builds: kept by what went into them, so that an unchanged service is not built again."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.build.inventory import Component, from_json, to_json
from orchestrator.build.snapshot import Snapshot
from orchestrator.files import no_space_is_an_error, read_json, remove_tree, tree_size, write_json
from orchestrator.plan import BuildPlan
from orchestrator.recipes import CargoOutput, GoOutput

KEEP = 5
"""How many artifacts of one service are kept: rollbacks run from images, this only saves builds."""

FORMAT = 3
"""Part of every key; raised when the same inputs begin to give another artifact."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A finished build. `path` is the binary or the directory, `size` its bytes.

    `components` are the packages it is made of, None when they are not known.
    """

    path: Path
    size: int
    components: tuple[Component, ...] | None = None


def artifact_key(build: BuildPlan, snapshot: Snapshot, toolchain_key: str, extra: Sequence[str] = ()) -> str:
    """Hex digest of everything an artifact depends on."""
    parts = [FORMAT, asdict(build), snapshot.digest, toolchain_key, list(extra)]
    return hashlib.sha256(json.dumps(parts, default=str, sort_keys=True).encode()).hexdigest()


def find_artifact(cache_dir: Path, app: str, build: BuildPlan, key: str) -> Artifact | None:
    """The artifact saved under `key`; None when there is none or when it is damaged."""
    directory = _directory(cache_dir, app, build.service) / key
    saved = read_json(directory / "artifact.json")
    path = directory / _name(build)
    if not isinstance(saved, dict) or not path.exists() or tree_size(path) != saved.get("size"):
        return None
    os.utime(directory)
    return Artifact(path, saved["size"], from_json(saved.get("components")))


def save_artifact(
    cache_dir: Path,
    app: str,
    build: BuildPlan,
    key: str,
    product: Path,
    *,
    components: tuple[Component, ...] | None = None,
) -> Artifact:
    """Copy `product` out of the workspace, whole or not at all, and drop the oldest beyond `KEEP`.

    Raises `DiskError` when the disk is full.
    """
    directory = _directory(cache_dir, app, build.service)
    fresh = directory / f".{key}.new"
    remove_tree(fresh)
    try:
        with no_space_is_an_error(directory):
            fresh.mkdir(parents=True)
            _copy(product, fresh / _name(build))
            record = {"size": tree_size(fresh / _name(build)), "service": build.service}
            known = {} if components is None else {"components": to_json(components)}
            write_json(fresh / "artifact.json", record | known)
            remove_tree(directory / key)
            fresh.rename(directory / key)
    except BaseException:
        remove_tree(fresh)
        raise
    _prune(directory)
    final = directory / key / _name(build)
    return Artifact(final, tree_size(final), components)


def _directory(cache_dir: Path, app: str, service: str) -> Path:
    return cache_dir / "artifacts" / app / service


def _name(build: BuildPlan) -> str:
    """A binary keeps its name: it is what `ps` shows in the container."""
    return build.output.binary if isinstance(build.output, CargoOutput | GoOutput) else "tree"


def _copy(product: Path, path: Path) -> None:
    """A plain copy with modes of our own: what the builder's umask was must not reach an image."""
    if product.is_file():
        shutil.copyfile(product, path)
        path.chmod(0o755)
        return
    shutil.copytree(product, path, symlinks=True, copy_function=_copy_file)
    for directory, _, _ in os.walk(path):
        Path(directory).chmod(0o755)


def _copy_file(source: str, destination: str, *, follow_symlinks: bool = True) -> str:
    shutil.copyfile(source, destination, follow_symlinks=follow_symlinks)
    if not Path(destination).is_symlink():
        Path(destination).chmod(0o755 if os.access(source, os.X_OK) else 0o644)
    return destination


def _prune(directory: Path) -> None:
    by_age = sorted(directory.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in by_age[KEEP:]:
        remove_tree(path)
