"""From an image plan into the engine's storage, by layers of our own making (`builders` has the other way)."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from orchestrator.build.disk import Need, check_space
from orchestrator.errors import ImageError
from orchestrator.events import Emit
from orchestrator.image.archive import Archive, Layer, archive_layer, key_layer, layer_key
from orchestrator.image.layers import ImagePlan, LayerPlan
from orchestrator.image.layout import Documents, LayerRecords, make_documents
from orchestrator.image.offer import offered
from orchestrator.image.scratch import fits_memory, scratch_directory
from orchestrator.plan import build_name
from orchestrator.process import Cancel
from orchestrator.tools.oci import LayerDiffers, copy_offered
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


def store_layers(plan: ImagePlan, workshop: Workshop, *, check: Callable[[], None]) -> Image:
    """Have the engine's storage take the layers it lacks; a layer that is known is not even measured.

    Nothing is written when the storage has the image. `check` runs before it is stored and raises when it must
    not be. Raises `DiskError` when a file system is full.
    """
    try:
        return _store(plan, workshop, check=check)
    except LayerDiffers:
        # A record says of a layer what its files do not give.
        for layer in plan.layers:
            workshop.records.forget(layer_key(layer))
        return _store(plan, workshop, check=check)


def _store(plan: ImagePlan, workshop: Workshop, *, check: Callable[[], None]) -> Image:
    with ThreadPoolExecutor() as pool:
        made = dict(pool.map(partial(_known_or_measured, workshop=workshop), plan.layers))
    documents = make_documents(plan, tuple(made), architecture=_architecture(plan))
    image = _image(plan, tuple(made), documents, workshop)
    if not workshop.engine.image_exists(image.image_id):
        check()
        image = _marked(image, workshop.engine)
        _copy(image, documents, made, workshop)
    workshop.records.trim()
    return image


def _known_or_measured(plan: LayerPlan, *, workshop: Workshop) -> tuple[Layer, Callable[[], Archive]]:
    """What is recorded of a layer, or is measured and recorded now; with what makes its archive."""
    workshop.cancel.check()
    keyed = key_layer(plan)
    known = workshop.records.find(plan, keyed.key)
    if known is not None:
        return known, partial(archive_layer, keyed)
    archive = archive_layer(keyed)
    measured = archive.measure()
    workshop.records.remember(keyed.key, measured)
    return measured, lambda: archive


def _marked(image: Image, engine: Engine) -> Image:
    """The image with the layers marked that the storage lacks."""
    missing = engine.missing_layers([layer.diff_id for layer in image.layers])
    return replace(
        image, layers=tuple(replace(layer, written=new) for layer, new in zip(image.layers, missing, strict=True))
    )


def _copy(
    image: Image, documents: Documents, layers: Mapping[Layer, Callable[[], Archive]], workshop: Workshop
) -> None:
    """skopeo reads the layers the storage lacks; its temporary files are all that has to lie beside the storage."""
    engine = workshop.engine
    need = sum(layer.size for layer in image.layers if layer.written)
    beside = 0 if fits_memory(need) else need
    check_space([Need(engine.root, need + beside, f"new layers of the {image.service} image")])
    with (
        scratch_directory(engine.scratch, need=need) as scratch,
        offered(documents, layers, scratch) as offer,
    ):
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
