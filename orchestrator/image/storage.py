"""Two ways from an image plan into the engine's storage: an OCI layout of our own, or the Dockerfile."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from orchestrator.build.disk import Need, check_space
from orchestrator.errors import ImageError
from orchestrator.events import Emit, Line
from orchestrator.files import locked
from orchestrator.image.archive import Layer, layer_key, measure_layer, write_layer
from orchestrator.image.dockerfile import write_context
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
    build_argv,
    build_image,
    buildah_argv,
    copy_layout,
    copy_offered,
    read_manifest,
)
from orchestrator.tools.platforms import architecture_name, host_platform
from orchestrator.tools.podman import Engine

_BUILD_WAIT_SECONDS = 600
_WORKING_CONTAINER = re.compile(r"(^|-)working-container(-[0-9]+)?$")


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
    need = sum(_size(layer) for layer, found in zip(plan.layers, known, strict=True) if found is None)
    # In memory a new layer lies twice: in the layout, and in skopeo's temporary file while it unpacks it.
    in_memory = fits_memory(2 * need)
    _check_room(plan, workshop, need if in_memory else 2 * need)
    with scratch_directory(workshop.engine.scratch, need=2 * need) as scratch:
        layout = blobs_directory(scratch / "layout") if in_memory else None
        layers = tuple(
            found or _new_layer(layer, key, layout, workshop)
            for layer, key, found in zip(plan.layers, keys, known, strict=True)
        )
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


def _new_layer(layer: LayerPlan, key: str, directory: Path | None, workshop: Workshop) -> Layer:
    """The layer written into `directory`, or only measured where there is none; remembered for the next time."""
    workshop.cancel.check()
    written = write_layer(layer, directory) if directory else measure_layer(layer)
    if layer_key(layer) != key:
        raise ImageError(f"files of the {layer.name} layer changed while it was written", hint="run the command again")
    workshop.records.remember(key, written)
    return written


def _size(layer: LayerPlan) -> int:
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


def build_dockerfile(
    plan: ImagePlan, workshop: Workshop, *, program: Literal["buildah", "podman"], check: Callable[[], None]
) -> Image:
    """Have buildah or podman build the plan's Dockerfile into the engine's storage, with its layer cache.

    The image id is the same everywhere from an empty layer cache only: the cache keeps the time stamps of
    earlier builds. Raises `ImageError` with the program's last lines, `DiskError` when a file system is full.
    """
    check()
    with (
        locked_context(workshop.cache_dir, workshop.app, plan.service) as context,
        scratch_directory(workshop.engine.scratch, need=sum(_size(layer) for layer in plan.layers)) as scratch,
    ):
        write_context(plan, context)
        image_id, made = _build(plan, workshop, program=program, context=context, scratch=scratch)
    image = _describe(plan, image_id, workshop)
    if len(made) != len(image.layers):
        return image
    layers = tuple(replace(layer, written=new) for layer, new in zip(image.layers, made, strict=True))
    return replace(image, layers=layers)


@contextmanager
def locked_context(cache_dir: Path, app: str, service: str) -> Iterator[Path]:
    """The directory of a service's build context, for one writer or builder at a time."""
    context = cache_dir / "contexts" / app / service
    with locked(context.parent / f"{service}.lock", holder=app, wait_seconds=_BUILD_WAIT_SECONDS):
        yield context


def _build(
    plan: ImagePlan, workshop: Workshop, *, program: Literal["buildah", "podman"], context: Path, scratch: Path
) -> tuple[str, tuple[bool, ...]]:
    engine = workshop.engine
    storage = buildah_argv(root=engine.root, runroot=engine.runroot, driver=engine.driver)
    id_file = scratch / "id"
    argv = build_argv(
        storage if program == "buildah" else engine.argv(),
        context=context,
        id_file=id_file,
        timestamp=_timestamp(plan),
        platform=plan.platform,
    )
    with _no_leftovers(engine):
        made = build_image(
            argv,
            environment=engine.environment,
            scratch=scratch,
            on_line=lambda text: workshop.emit(Line(plan.service, text)),
            cancel=workshop.cancel,
        )
    return id_file.read_text().strip().removeprefix("sha256:"), made


def _timestamp(plan: ImagePlan) -> int:
    """Seconds since 1970, from the content.

    These programs give all files of an image one time. Were it constant, nginx would give two files of the same
    length the same ETag, and browsers would keep the old one.
    """
    return 1 + int("".join(layer_key(layer)[:8] for layer in plan.layers), 16) % (1 << 30)


@contextmanager
def _no_leftovers(engine: Engine) -> Iterator[None]:
    """A build that fails, is stopped or was killed leaves its working container mounted; take those away.

    One build at a time in a storage, so that a working container nobody here made has lost its maker.
    """
    with locked(engine.root.parent / "build.lock", holder="this storage", wait_seconds=_BUILD_WAIT_SECONDS):
        _remove_working_containers(engine)
        try:
            yield
        except BaseException:
            _remove_working_containers(engine.undisturbed)
            raise


def _remove_working_containers(engine: Engine) -> None:
    """buildah names them `working-container`, `<image>-working-container`, `working-container-1` and so on."""
    listed = engine.ask("ps", "--all", "--external", "--no-trunc", "--format", "{{.ID}} {{.State}} {{.Names}}").stdout
    for line in listed.splitlines():
        container, state, name = line.split(maxsplit=2)
        if state.lower() == "storage" and _WORKING_CONTAINER.search(name):
            engine.ask("rm", "--force", container)


def _describe(plan: ImagePlan, image_id: str, workshop: Workshop) -> Image:
    """The built image, named, and as the storage describes it."""
    reference = workshop.reference(plan.service, image_id)
    workshop.engine.tag_image(image_id, reference)
    manifest, digest = read_manifest(
        workshop.engine.storage_reference(reference), environment=workshop.engine.environment
    )
    return Image(
        service=plan.service,
        image_id=image_id,
        manifest_digest=digest,
        size=sum(blob.size for blob in manifest.layers),
        reference=reference,
        layers=tuple(
            Layer(layer.name, blob.digest, blob.size, written=True)
            for layer, blob in zip(plan.layers, manifest.layers, strict=True)
        ),
        platform=plan.platform,
    )
