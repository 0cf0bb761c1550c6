"""From the engine's storage into a registry: compressed once, addressed by digest, never sent twice.

An image in the storage has uncompressed layers. What is pushed has the same config, hence the same image id, and a
manifest of its own that names the compressed layers. The layout it is pushed from holds exactly the bytes the registry
will, so that only what the registry says it lacks is sent, whatever this machine remembers.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from orchestrator.errors import ImageError
from orchestrator.events import Emit, Note, PhaseFinished, PhaseStarted
from orchestrator.image.attestations import Attestations, about_pushed
from orchestrator.image.layout import Documents, blobs_directory, make_manifest, write_layout
from orchestrator.image.packing import Compression, PackedLayer, PackedLayers, open_packed_layers, packing
from orchestrator.image.provenance import MEDIA_TYPE as PROVENANCE_TYPE
from orchestrator.image.referrers import Attachment, attach
from orchestrator.image.sbom import MEDIA_TYPE as SBOM_TYPE
from orchestrator.image.scratch import scratch_directory
from orchestrator.image.single import SINGLE
from orchestrator.plan import build_name
from orchestrator.process import Cancel
from orchestrator.tools.distribution import Registry
from orchestrator.tools.oci import extract_layers, read_config
from orchestrator.tools.platforms import host_platform
from orchestrator.tools.podman import Engine
from orchestrator.tools.registry import Access, ConnectionDropped, Repository, push_layout

Result = TypeVar("Result")

RETRY_SECONDS = (1.0, 4.0, 15.0)
"""How long is waited before each new try after the connection broke. What has arrived is not sent again."""


@dataclass(frozen=True, slots=True)
class Source:
    """An image in the engine's storage: `image_id` is 64 hexadecimal digits, `reference` its name there.

    `attestations` are attached to it in the registry. `platform` is what it is for, "" for this machine's.
    """

    service: str
    image_id: str
    reference: str
    attestations: Attestations | None = None
    platform: str = ""

    @property
    def name(self) -> str:
        """As phases are told: "backend-arm64"."""
        return build_name(self.service, self.platform)


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


@dataclass(frozen=True)
class Dock:
    """What every push needs: the engine, where to keep things, whom to tell, when to stop."""

    engine: Engine
    cache_dir: Path
    emit: Emit
    cancel: Cancel


def references_of(name: str, target: Target) -> tuple[str, ...]:
    """The names of a service in the one repository: TAG-SERVICE for each tag, TAG for an image that holds them all."""
    suffix = "" if name == SINGLE else f"-{name}"
    return tuple(f"{target.repository.name}:{tag}{suffix}" for tag in target.tags)


def push_image(source: Source, target: Target, dock: Dock, *, references: tuple[str, ...]) -> PushedDocuments:
    """Push an image under its tags, or where there are none by its digest alone.

    Raises `RegistryError`, `DiskError`, and `ImageError` when it is gone.
    """
    started = time.monotonic()
    dock.emit(PhaseStarted(source.name, "push"))
    config = _config(source, dock.engine)
    with _packed_layout(source, config, target.compression, dock) as (layout, documents, layers):
        references = references or (f"{target.repository.name}@{documents.manifest_digest}",)
        there = [_send(layout, reference, target, dock) for reference in references]
    blobs = {layer.digest: layer.size for layer in layers} | {f"sha256:{source.image_id}": len(config)}
    sent = sum(size for digest, size in blobs.items() if digest not in there[0])
    sent += _attach(source, documents, target, dock)
    outcome = f"{sent / 1e6:.1f} of {sum(blobs.values()) / 1e6:.1f} MB sent" if sent else "nothing to send"
    dock.emit(PhaseFinished(source.name, "push", time.monotonic() - started, outcome=outcome))
    pushed = Pushed(
        service=source.service,
        image_id=source.image_id,
        digest=documents.manifest_digest,
        references=references,
        size=sum(blobs.values()),
        sent=sent,
        platform=source.platform or host_platform(),
    )
    return PushedDocuments(pushed, documents)


def _attach(source: Source, documents: Documents, target: Target, dock: Dock) -> int:
    """Attach what is known about the image; the bytes sent."""
    if source.attestations is None:
        return 0
    provenance = about_pushed(source.attestations.provenance, target.repository.name, documents.manifest_digest)
    attachments = (Attachment(SBOM_TYPE, source.attestations.sbom), Attachment(PROVENANCE_TYPE, provenance))
    registry = Registry(target.repository, target.access)
    return persistently(lambda: attach(registry, documents.manifest, attachments), dock)


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


def _config(source: Source, engine: Engine) -> bytes:
    config = read_config(engine.storage_reference(source.reference), environment=engine.environment)
    if hashlib.sha256(config).hexdigest() != source.image_id:
        raise ImageError(
            f"{source.reference} is not the image that was deployed any more", hint="run: orchestrator deploy"
        )
    return config


@contextmanager
def _packed_layout(
    source: Source, config: bytes, compression: Compression, dock: Dock
) -> Iterator[tuple[Path, Documents, tuple[PackedLayer, ...]]]:
    """A layout of hard links to compressed layers, in the directory that is yielded."""
    diff_ids = tuple(json.loads(config)["rootfs"]["diff_ids"])
    with scratch_directory(dock.cache_dir / "tmp", need=0, memory=Path(os.devnull)) as scratch:
        layout = scratch / "layout"
        blobs = blobs_directory(layout)
        with packing(dock.cache_dir):
            layers = _pack(source, diff_ids, open_packed_layers(dock.cache_dir, compression), dock)
            for layer in {layer.digest: layer for layer in layers}.values():
                (blobs / layer.digest.removeprefix("sha256:")).hardlink_to(layer.path)
        documents = Documents(config, make_manifest(config, [layer.descriptor() for layer in layers]))
        write_layout(layout, documents)
        yield layout, documents, layers


def _pack(source: Source, diff_ids: Sequence[str], packed: PackedLayers, dock: Dock) -> tuple[PackedLayer, ...]:
    """Every layer compressed: those that were before are not read again."""
    found = {diff_id: packed.find(diff_id) for diff_id in diff_ids}
    missing = [diff_id for diff_id, layer in found.items() if layer is None]
    if missing:
        with scratch_directory(dock.cache_dir / "tmp", need=_layer_bytes(source, dock)) as scratch:
            known = [diff_id for diff_id in diff_ids if diff_id not in missing]
            archive = _extract(source, scratch / "storage", known, dock)
            found |= {diff_id: packed.pack(diff_id, archive(diff_id), cancel=dock.cancel) for diff_id in missing}
    return tuple(layer for diff_id in diff_ids if (layer := found[diff_id]))


def _extract(source: Source, layout: Path, known: Sequence[str], dock: Dock) -> Callable[[str], Path]:
    """Have the storage write the layers that are not known; where each is."""
    blobs = blobs_directory(layout)
    for diff_id in known:
        (blobs / diff_id.removeprefix("sha256:")).touch()  # skopeo takes what stands there for done
    extract_layers(
        dock.engine.storage_reference(source.reference),
        layout,
        environment=dock.engine.environment,
        cancel=dock.cancel,
    )
    return lambda diff_id: blobs / diff_id.removeprefix("sha256:")


def _layer_bytes(source: Source, dock: Dock) -> int:
    listed = dock.engine.run("image", "inspect", "--format", "{{.Size}}", source.image_id)
    return int(listed.stdout)
