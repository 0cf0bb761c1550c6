"""From the engine's storage to what registries have: the same image with compressed layers, each made once.

An image in the storage has uncompressed layers. What leaves this machine has the same config, hence the same image id,
and a manifest of its own that names the compressed layers.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from orchestrator.errors import ImageError
from orchestrator.events import Emit
from orchestrator.image.attestations import Attestations, about_pushed
from orchestrator.image.layout import Documents, blobs_directory, make_manifest
from orchestrator.image.packing import Compression, PackedLayer, PackedLayers, open_packed_layers, packing
from orchestrator.image.provenance import MEDIA_TYPE as PROVENANCE_TYPE
from orchestrator.image.referrers import Attachment
from orchestrator.image.sbom import MEDIA_TYPE as SBOM_TYPE
from orchestrator.image.scratch import scratch_directory
from orchestrator.image.single import SINGLE
from orchestrator.plan import build_name
from orchestrator.process import Cancel
from orchestrator.tools.oci import extract_layers, read_config
from orchestrator.tools.platforms import host_platform
from orchestrator.tools.podman import Engine


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


@dataclass(frozen=True)
class Dock:
    """What all that leaves this machine needs: the engine, where to keep things, whom to tell, when to stop."""

    engine: Engine
    cache_dir: Path
    emit: Emit
    cancel: Cancel


@dataclass(frozen=True, slots=True)
class PackedImage:
    """An image as registries have it; each of its layers once, wherever the manifest names it."""

    source: Source
    documents: Documents
    layers: tuple[PackedLayer, ...]

    @property
    def platform(self) -> str:
        return self.source.platform or host_platform()

    def attachments(self, name: str) -> tuple[Attachment, ...]:
        """What is known about the image, which others know by `name`."""
        attestations = self.source.attestations
        if attestations is None:
            return ()
        provenance = about_pushed(attestations.provenance, name, self.documents.manifest_digest)
        return (Attachment(SBOM_TYPE, attestations.sbom), Attachment(PROVENANCE_TYPE, provenance))


def tag_of(service: str, tag: str) -> str:
    """A service's tag in the one repository: TAG-SERVICE, or TAG for an image that holds them all."""
    return tag if service == SINGLE else f"{tag}-{service}"


def by_service(sources: Sequence[Source]) -> Iterator[tuple[str, tuple[Source, ...]]]:
    """Each service with its images, in the order of their platforms."""
    ordered = sorted(sources, key=lambda source: (source.service, source.platform or host_platform()))
    for service, group in groupby(ordered, key=lambda source: source.service):
        yield service, tuple(group)


@contextmanager
def packed_image(source: Source, compression: Compression, dock: Dock) -> Iterator[PackedImage]:
    """The image with its layers compressed; they stay in the cache while the block runs.

    Raises `DiskError`, `BusyError` while another process is at it, and `ImageError` when the image is gone.
    """
    config = _config(source, dock.engine)
    diff_ids = tuple(json.loads(config)["rootfs"]["diff_ids"])
    with packing(dock.cache_dir):
        layers = _pack(source, diff_ids, open_packed_layers(dock.cache_dir, compression), dock)
        documents = Documents(config, make_manifest(config, [layer.descriptor() for layer in layers]))
        yield PackedImage(source, documents, tuple({layer.digest: layer for layer in layers}.values()))


def _config(source: Source, engine: Engine) -> bytes:
    if not engine.image_exists(source.image_id):
        raise ImageError(f"{source.reference} is not on this machine any more", hint="run: orchestrator deploy")
    config = read_config(engine.storage_reference(source.reference), environment=engine.environment)
    if hashlib.sha256(config).hexdigest() != source.image_id:
        raise ImageError(
            f"{source.reference} is not the image that was deployed any more", hint="run: orchestrator deploy"
        )
    return config


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
