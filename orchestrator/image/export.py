"""Images as files, for machines without a registry: an OCI layout of exactly the bytes a push would send.

Format: OCI Image Format Specification 1.1, image layout, with the names skopeo and podman know images by in it. Blobs
are named by their digest and the index is replaced last: the directory is a whole layout at any moment.
"""

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import DiskError, UsageError
from orchestrator.events import PhaseFinished, PhaseStarted
from orchestrator.files import free_bytes, locked, no_space_is_an_error, read_json, write_atomically
from orchestrator.image.index import make_index
from orchestrator.image.layout import MANIFEST_TYPE, VERSION, blobs_directory, canonical, digest_of
from orchestrator.image.packed import Dock, PackedImage, Source, by_service, packed_image, tag_of
from orchestrator.image.packing import Compression
from orchestrator.image.referrers import EMPTY, INDEX_TYPE, describe, make_artifact

_NAME = "org.opencontainers.image.ref.name"
_OWNER = "io.orchestrator.app"
_UNFINISHED = ".index.json."
"""What a first export leaves that is killed at once."""

_LOCK_SECONDS = 900


@dataclass(frozen=True, slots=True)
class ExportedImage:
    """An image in a layout under `names`, or the index of one service's images for several `platforms`.

    `digest` is that of the manifest or index; `platforms` are pairs of a platform and the digest of its image.
    """

    service: str
    digest: str
    names: tuple[str, ...]
    platforms: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Export:
    """What is in a layout now; `written` are the bytes of blobs that were not there before."""

    directory: Path
    images: tuple[ExportedImage, ...]
    written: int


def check_directory(directory: Path, app: str) -> None:
    """Raises `UsageError` unless `directory` can be written and is absent, empty, or an export of this application."""
    if problem := _problem(directory, app):
        raise UsageError(problem, hint="name a directory that is empty or does not exist yet")


def _problem(directory: Path, app: str) -> str | None:
    if ":" in str(directory):
        return f"{directory} has a colon, with which skopeo and podman begin an image's name"
    there = next(path for path in (directory, *directory.parents) if path.exists())
    if not there.is_dir():
        return f"{there} is not a directory"
    if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        return f"{there} cannot be written"
    if there != directory:
        return None
    owner = _owner(directory)
    if owner == app or (owner is None and all(path.name.startswith(_UNFINISHED) for path in directory.iterdir())):
        return None
    return f"{directory} holds {f'the images of {owner}' if owner else 'files that are no export'}"


def export_images(
    sources: Sequence[Source],
    directory: Path,
    *,
    app: str,
    tags: tuple[str, ...],
    compression: Compression,
    dock: Dock,
) -> Export:
    """Make `directory` a layout of these images and nothing else, each under TAG-SERVICE for every tag.

    What was exported before and is still needed is not written again. Raises `UsageError` for a directory that is not
    ours, `DiskError`, `BusyError` while another process exports, and `ImageError` when an image is gone.
    """
    with (
        locked(dock.cache_dir / "export.lock", holder="exporting images", wait_seconds=_LOCK_SECONDS),
        no_space_is_an_error(directory),
    ):
        check_directory(directory, app)
        if _owner(directory) is None:
            _write_index(directory, app, [])  # from now on it is ours, also when this is killed
        layout = _Layout(directory)
        images: list[ExportedImage] = []
        entries: list[Mapping[str, Any]] = []
        for service, members in by_service(sources):
            names = tuple(tag_of(service, tag) for tag in tags)
            made = [_export(source, names[0], layout, compression, dock) for source in members]
            described, platforms = _described(made, layout)
            images.append(ExportedImage(service, str(described["digest"]), names, platforms))
            entries += [{**described, "annotations": {_NAME: name}} for name in names]
            entries += [entry for one in made for entry in one.referrers]
        _write_index(directory, app, entries)
        layout.remove_others()
    return Export(directory, tuple(images), layout.written)


@dataclass(frozen=True, slots=True)
class _Written:
    """An image whose blobs are in the layout."""

    platform: str
    manifest: bytes
    referrers: tuple[Mapping[str, Any], ...]


class _Layout:
    """The blobs of a layout: which were needed so far, and how many bytes were written."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.blobs = blobs_directory(directory)
        self.written = 0
        self._needed: set[str] = set()

    def lacks(self, digest: str, size: int) -> bool:
        path = self._path(digest)
        return not path.is_file() or path.stat().st_size != size

    def require_room(self, size: int) -> None:
        """Raises `DiskError` with the numbers."""
        free = free_bytes(self.blobs)
        if free < size:
            text = f"{size / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free"
            raise DiskError(f"not enough space in {self.directory}: {text}", hint="name a directory on another disk")

    def put(self, content: bytes) -> None:
        """Write a small blob, unless it is there."""
        digest = digest_of(content)
        self._needed.add(self._path(digest).name)
        if self.lacks(digest, len(content)):
            write_atomically(self._path(digest), content)
            self.written += len(content)

    def copy(self, digest: str, size: int, source: Path) -> None:
        """Copy a blob from a file, unless it is there."""
        path = self._path(digest)
        self._needed.add(path.name)
        if self.lacks(digest, size):
            temporary = path.with_name(f".{path.name}")
            shutil.copyfile(source, temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            self.written += size

    def remove_others(self) -> None:
        """Remove what this export does not need, and what one that was killed left."""
        for path in self.blobs.iterdir():
            if path.name not in self._needed:
                path.unlink()

    def _path(self, digest: str) -> Path:
        return self.blobs / digest.removeprefix("sha256:")


def _export(source: Source, name: str, layout: _Layout, compression: Compression, dock: Dock) -> _Written:
    dock.emit(PhaseStarted(source.name, "export"))
    started, before = time.monotonic(), layout.written
    with packed_image(source, compression, dock) as image:
        missing = sum(layer.size for layer in image.layers if layout.lacks(layer.digest, layer.size))
        layout.require_room(missing)
        for layer in image.layers:
            dock.cancel.check()
            layout.copy(layer.digest, layer.size, layer.path)
        layout.put(image.documents.config)
        layout.put(image.documents.manifest)
        referrers = tuple(_attach(image, name, layout))
    outcome = f"{(layout.written - before) / 1e6:.1f} MB written" if layout.written > before else "unchanged"
    dock.emit(PhaseFinished(source.name, "export", time.monotonic() - started, outcome=outcome))
    return _Written(image.platform, image.documents.manifest, referrers)


def _attach(image: PackedImage, name: str, layout: _Layout) -> list[Mapping[str, Any]]:
    """Put what is known about the image beside it; the descriptors for the index, where tools look for a subject."""
    subject = describe(image.documents.manifest, MANIFEST_TYPE)
    entries: list[Mapping[str, Any]] = []
    for attachment in image.attachments(name):
        artifact = make_artifact(attachment, subject)
        for content in (EMPTY, attachment.content, artifact):
            layout.put(content)
        entries.append(describe(artifact, MANIFEST_TYPE) | {"artifactType": attachment.media_type})
    return entries


def _described(made: Sequence[_Written], layout: _Layout) -> tuple[dict[str, Any], tuple[tuple[str, str], ...]]:
    """The descriptor of a service's one image, or of the index of all; and the image for each platform."""
    platforms = tuple((image.platform, digest_of(image.manifest)) for image in made)
    if len(made) == 1:
        return describe(made[0].manifest, MANIFEST_TYPE), platforms
    index = make_index([(image.platform, image.manifest) for image in made])
    layout.put(index)
    return describe(index, INDEX_TYPE), platforms


def _write_index(directory: Path, app: str, entries: Sequence[Mapping[str, Any]]) -> None:
    index = {"annotations": {_OWNER: app}, "manifests": list(entries), "mediaType": INDEX_TYPE, "schemaVersion": 2}
    write_atomically(directory / "index.json", canonical(index))
    write_atomically(directory / "oci-layout", VERSION)


def _owner(directory: Path) -> str | None:
    """The application an export is of; None for anything else."""
    match read_json(directory / "index.json"):
        case {"annotations": {"io.orchestrator.app": str(app)}}:
            return app
        case _:
            return None
