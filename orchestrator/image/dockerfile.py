"""The Dockerfile of an image and its context: the layer plan for buildah, podman or docker."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import assert_never

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from orchestrator.files import (
    no_space_is_an_error,
    read_json,
    remove_tree,
    resource,
    write_atomically,
    write_json,
)
from orchestrator.image.archive import final_entries, layer_key, modified
from orchestrator.image.layers import Directory, Entry, File, ImagePlan, LayerPlan, Link

_FICLONE = 0x40049409
"""The ioctl that shares a file's blocks with another one on btrfs and xfs (ioctl_ficlone(2))."""


def render_dockerfile(plan: ImagePlan) -> str:
    """The Dockerfile's text: FROM scratch, metadata, and one COPY for each layer."""
    environment = Environment(
        loader=FileSystemLoader(resource("templates")), undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["json"] = json.dumps
    config = plan.config
    return environment.get_template("Dockerfile.j2").render(
        service=plan.service,
        labels=config.labels,
        user=config.user,
        environment=config.environment,
        ports=config.ports,
        stop_signal=config.stop_signal,
        entrypoint=list(config.entrypoint),
        command=list(config.command),
        directory=config.directory,
        directories=[name for name, _ in layer_directories(plan)],
    )


def layer_directories(plan: ImagePlan) -> tuple[tuple[str, LayerPlan], ...]:
    """Each layer with the directory of the context it is copied from, such as `2-runtime`."""
    return tuple((f"{number}-{layer.name}", layer) for number, layer in enumerate(plan.layers, start=1))


def write_context(plan: ImagePlan, context: Path) -> None:
    """Make `context` the build context of `plan`: its Dockerfile and a directory for each layer.

    Only layers that changed since the last call are written. Files of the store are hard-linked where possible.
    Raises `DiskError` when the file system is full.
    """
    context.mkdir(parents=True, exist_ok=True)
    wanted = {name: layer_key(layer) for name, layer in layer_directories(plan)}
    written = _written_before(context)
    current = {name for name, key in wanted.items() if written.get(name) == key and (context / name).is_dir()}
    write_json(context / "layers.json", {name: wanted[name] for name in current})
    _remove_others(context, keep=current | {"layers.json"})
    directory_modes = {entry.path: entry.mode for entry in plan.entries if isinstance(entry, Directory)}
    for name, layer in layer_directories(plan):
        if name not in current:
            with no_space_is_an_error(context):
                _write_tree(layer, context / name, directory_modes)
    write_atomically(context / "Dockerfile", render_dockerfile(plan))
    write_json(context / "layers.json", wanted)


def _written_before(context: Path) -> dict[str, str]:
    written = read_json(context / "layers.json")
    return written if isinstance(written, dict) else {}


def _remove_others(context: Path, *, keep: Iterable[str]) -> None:
    for child in context.iterdir():
        if child.name not in keep:
            remove_tree(child)


def _write_tree(layer: LayerPlan, root: Path, directory_modes: Mapping[str, int]) -> None:
    """The layer's files with their final modes; directories get theirs last, since some are read-only.

    Directories an earlier layer has are here as well, and COPY sets their mode again.
    """
    root.mkdir()
    for entry in final_entries(layer):
        _place(entry, root)
    for directory, _, _ in os.walk(root, topdown=False):
        path = Path(directory)
        path.chmod(0o755 if path == root else directory_modes[str(path.relative_to(root))])


def _place(entry: Entry, root: Path) -> None:
    path = root / entry.path
    match entry:
        case Directory():
            path.mkdir(parents=True, exist_ok=True)
        case Link():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(entry.target)
        case File():
            path.parent.mkdir(parents=True, exist_ok=True)
            _place_file(entry, path)
        case _:
            assert_never(entry)


def _place_file(file: File, path: Path) -> None:
    if file.immutable and isinstance(file.source, Path) and _linked(file.source, path, file.mode):
        return
    if isinstance(file.source, bytes):
        path.write_bytes(file.source)
    else:
        _copy(file.source, path)
    path.chmod(file.mode)
    os.utime(path, (modified(file), modified(file)))


def _linked(source: Path, path: Path, mode: int) -> bool:
    """A hard link, when the original already has the right mode and this file system and user may have one."""
    if source.stat().st_mode & 0o7777 != mode:
        return False
    try:
        path.hardlink_to(source)
    except OSError:
        return False
    return True


def _copy(source: Path, path: Path) -> None:
    try:
        with source.open("rb") as original, path.open("wb") as clone:
            fcntl.ioctl(clone, _FICLONE, original.fileno())
    except OSError:
        shutil.copyfile(source, path)
