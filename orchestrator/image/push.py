"""Into a registry: addressed by digest, never sent twice.

The layout an image is pushed from holds exactly the bytes the registry will, so that only what the registry says it
lacks is sent, whatever this machine remembers.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from orchestrator.events import Note, PhaseFinished, PhaseStarted
from orchestrator.image.layout import Documents, blobs_directory, write_layout
from orchestrator.image.packed import Dock, PackedImage, Source, packed_image, tag_of
from orchestrator.image.packing import Compression
from orchestrator.image.referrers import attach
from orchestrator.image.scratch import scratch_directory
from orchestrator.tools.distribution import Registry
from orchestrator.tools.registry import Access, ConnectionDropped, Repository, push_layout

Result = TypeVar("Result")

RETRY_SECONDS = (1.0, 4.0, 15.0)
"""How long is waited before each new try after the connection broke. What has arrived is not sent again."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where images go: `tags` are those of the release.

    Each service's tag is TAG-SERVICE in one repository; an image that holds them all has the TAG itself.
    """

    repository: Repository
    tags: tuple[str, ...]
    compression: Compression
    access: Access


@dataclass(frozen=True, slots=True)
class Pushed:
    """An image in a registry.

    `digest` is that of the manifest there, `references` its tags (or its digest, where an index has the tags), `size`
    the bytes of all its blobs in the registry, `sent` the bytes of those that were not there before.
    """

    service: str
    image_id: str
    digest: str
    references: tuple[str, ...]
    size: int
    sent: int
    platform: str


@dataclass(frozen=True, slots=True)
class PushedDocuments:
    """An image in a registry and its documents there, byte for byte."""

    image: Pushed
    documents: Documents


def references_of(name: str, target: Target) -> tuple[str, ...]:
    """The names of a service in the one repository: TAG-SERVICE for each tag, TAG for an image that holds them all."""
    return tuple(f"{target.repository.name}:{tag_of(name, tag)}" for tag in target.tags)


def push_image(source: Source, target: Target, dock: Dock, *, references: tuple[str, ...]) -> PushedDocuments:
    """Push an image under its tags, or where there are none by its digest alone.

    Raises `RegistryError`, `DiskError`, and `ImageError` when it is gone.
    """
    started = time.monotonic()
    dock.emit(PhaseStarted(source.name, "push"))
    with _packed_layout(source, target.compression, dock) as (layout, image):
        documents = image.documents
        references = references or (f"{target.repository.name}@{documents.manifest_digest}",)
        there = [_send(layout, reference, target, dock) for reference in references]
    blobs = {layer.digest: layer.size for layer in image.layers} | {f"sha256:{source.image_id}": len(documents.config)}
    sent = sum(size for digest, size in blobs.items() if digest not in there[0])
    sent += _attach(image, target, dock)
    outcome = f"{sent / 1e6:.1f} of {sum(blobs.values()) / 1e6:.1f} MB sent" if sent else "nothing to send"
    dock.emit(PhaseFinished(source.name, "push", time.monotonic() - started, outcome=outcome))
    pushed = Pushed(
        service=source.service,
        image_id=source.image_id,
        digest=documents.manifest_digest,
        references=references,
        size=sum(blobs.values()),
        sent=sent,
        platform=image.platform,
    )
    return PushedDocuments(pushed, documents)


@contextmanager
def _packed_layout(source: Source, compression: Compression, dock: Dock) -> Iterator[tuple[Path, PackedImage]]:
    """A layout of hard links to compressed layers, in the directory that is yielded."""
    with scratch_directory(dock.cache_dir / "tmp", need=0, memory=Path(os.devnull)) as scratch:
        layout = scratch / "layout"
        blobs = blobs_directory(layout)
        with packed_image(source, compression, dock) as image:
            for layer in image.layers:
                (blobs / layer.digest.removeprefix("sha256:")).hardlink_to(layer.path)
        write_layout(layout, image.documents)
        yield layout, image


def _attach(image: PackedImage, target: Target, dock: Dock) -> int:
    """Attach what is known about the image; the bytes sent."""
    attachments = image.attachments(target.repository.name)
    if not attachments:
        return 0
    registry = Registry(target.repository, target.access)
    return persistently(lambda: attach(registry, image.documents.manifest, attachments), dock)


def _send(layout: Path, reference: str, target: Target, dock: Dock) -> frozenset[str]:
    """Push a layout's image; the digests of blobs that were there at first."""
    tries: list[frozenset[str]] = []

    def push() -> frozenset[str]:
        tries.append(frozenset())  # what a broken try sent is there at the next
        tries[-1] = push_layout(layout, reference, target.repository, target.access)
        return tries[0]

    return persistently(push, dock)


def persistently(work: Callable[[], Result], dock: Dock) -> Result:
    """Do it, again where the connection breaks. Raises `ConnectionDropped` when it still does."""
    for seconds in RETRY_SECONDS:
        try:
            return work()
        except ConnectionDropped as error:
            dock.emit(Note(f"{error.message}; trying again in {seconds:g} s", level="warning"))
            dock.cancel.wait(seconds)
            dock.cancel.check()
    return work()
