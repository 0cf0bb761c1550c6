"""From an image plan into the engine's storage, by an OCI layout of our own (`builders` has the other way)."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from orchestrator.build.disk import Need, check_space
from orchestrator.errors import ImageError
from orchestrator.events import Emit
from orchestrator.image.archive import Layer, layer_key, measure_layer, write_layer
from orchestrator.image.layers import File, ImagePlan, LayerPlan
from orchestrator.image.layout import (
    Documents,
    LayerRecords,
    blobs_directory,
    make_documents,
    write_layout,
)
from orchestrator.image.offer import offered
from orchestrator.image.scratch import fits_memory, scratch_directory
from orchestrator.plan import build_name
from orchestrator.process import Cancel
from orchestrator.tools.oci import (
    BlobMissing,
    copy_layout,
    copy_offered,
)
from orchestrator.tools.platforms import architecture_name, host_platform
from orchestrator.tools.podman import Engine


@dataclass(frozen=True, slots=True)
class Image:
    """An image in the engine's storage; run it by `image_id`.

    `image_id` is 64 lower-case hexadecimal digits, `manifest_digest` begins with "sha256:", `size` is that of all
    layers' archives in bytes, `reference` is a name the storage gave it when it was stored, `store_paths` are those of
    the Nix store that are in it. `platform` is what it is for, "" for this machine's.
    """

    service: str
    image_id: str
    manifest_digest: str
    size: int
    reference: str
    layers: tuple[Layer, ...]
    store_paths: tuple[Path, ...] = ()
    platform: str = ""

    @property
    def name(self) -> str:
        """The service, with its architecture where that is not this machine's: "backend-arm64"."""
        return build_name(self.service, self.platform)


@dataclass(frozen=True)
class Workshop:
    """What both ways need: the application's name, the engine, where to keep things, whom to tell, when to stop."""

    app: str
    engine: Engine
    cache_dir: Path
    emit: Emit
    cancel: Cancel

    @cached_property
    def records(self) -> LayerRecords:
        return LayerRecords(self.cache_dir / "layers")

    def reference(self, service: str, image_id: str) -> str:
        return f"localhost/orchestrator/{self.app}-{service}:{image_id[:12]}"


def store_layout(plan: ImagePlan, workshop: Workshop, *, check: Callable[[], None]) -> Image:
    """Write the layers that are not known, and have the engine's storage take what it lacks.

    Nothing is written when the storage has the image. `check` runs before it is stored and raises when it must
    not be. Raises `DiskError` when a file system is full.
    """
    keys = tuple(layer_key(layer) for layer in plan.layers)
    try:
        return _store(plan, keys, workshop, check=check)
    except BlobMissing:
        # A known layer has left the storage, with the last image that had it.
        for key in keys:
            workshop.records.forget(key)
        return _store(plan, keys, workshop, check=check)


def _store(plan: ImagePlan, keys: tuple[str, ...], workshop: Workshop, *, check: Callable[[], None]) -> Image:
    known = tuple(workshop.records.find(layer, key) for layer, key in zip(plan.layers, keys, strict=True))
    need = sum(layer_bytes(layer) for layer, found in zip(plan.layers, known, strict=True) if found is None)
    # In memory a new layer lies twice: in the layout, and in skopeo's temporary file while it unpacks it.
    in_memory = fits_memory(2 * need)
    _check_room(plan, workshop, need if in_memory else 2 * need)
    with scratch_directory(workshop.engine.scratch, need=2 * need) as scratch:
        layout = blobs_directory(scratch / "layout") if in_memory else None
        with ThreadPoolExecutor() as pool:
            write = partial(_known_or_new, directory=layout, workshop=workshop)
            layers = tuple(pool.map(write, plan.layers, keys, known))
        documents = make_documents(plan, layers, architecture=_architecture(plan))
        image = _image(plan, layers, documents, workshop)
        if not workshop.engine.image_exists(image.image_id):
            check()
            copy = _copy_layout if in_memory else _copy_offered
            copy(plan, image, documents, scratch, workshop)
    workshop.records.trim()
    return image


def _check_room(plan: ImagePlan, workshop: Workshop, need: int) -> None:
    """New layers in the engine's storage, and in a temporary file beside it where memory has no room for one."""
    check_space([Need(workshop.engine.root, need, f"new layers of the {plan.service} image")])


def _copy_layout(_plan: ImagePlan, image: Image, documents: Documents, scratch: Path, workshop: Workshop) -> None:
    """From the layout in memory, which lacks the layers the storage should have."""
    write_layout(scratch / "layout", documents)
    engine = workshop.engine
    destination = engine.storage_reference(image.reference)
    copy_layout(scratch / "layout", destination, environment=engine.environment, cancel=workshop.cancel)


def _copy_offered(plan: ImagePlan, image: Image, documents: Documents, scratch: Path, workshop: Workshop) -> None:
    """Without a layout: skopeo's temporary files are all that a disk has to hold beside the storage."""
    engine = workshop.engine
    with offered(documents, dict(zip(image.layers, plan.layers, strict=True)), scratch) as offer:
        try:
            copy_offered(
                offer.reference,
                engine.storage_reference(image.reference),
                authfile=offer.authfile,
                scratch=scratch,
                environment=engine.environment,
                cancel=workshop.cancel,
            )
        except ImageError as error:
            raise (offer.failures or [error])[0] from error


def _known_or_new(
    layer: LayerPlan, key: str, known: Layer | None, *, directory: Path | None, workshop: Workshop
) -> Layer:
    """A layer that is not known is written into `directory`, or only measured where there is none, and remembered."""
    if known is not None:
        return known
    workshop.cancel.check()
    written = write_layer(layer, directory) if directory else measure_layer(layer)
    if layer_key(layer) != key:
        raise ImageError(f"files of the {layer.name} layer changed while it was written", hint="run the command again")
    workshop.records.remember(key, written)
    return written


def layer_bytes(layer: LayerPlan) -> int:
    """Bytes of a layer's files, gzipped twins not counted."""
    return sum(
        len(entry.source) if isinstance(entry.source, bytes) else entry.source.stat().st_size
        for entry in layer.entries
        if isinstance(entry, File)
    )


def _image(plan: ImagePlan, layers: tuple[Layer, ...], documents: Documents, workshop: Workshop) -> Image:
    return Image(
        service=plan.service,
        image_id=documents.image_id,
        manifest_digest=documents.manifest_digest,
        size=sum(layer.size for layer in layers),
        reference=workshop.reference(plan.service, documents.image_id),
        layers=layers,
        platform=plan.platform,
    )


def _architecture(plan: ImagePlan) -> str:
    return architecture_name(plan.platform or host_platform())
