"""The other way into the engine's storage: buildah or podman builds the plan's Dockerfile, with its layer cache."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from orchestrator.events import Line
from orchestrator.files import locked
from orchestrator.image.archive import Layer, layer_key
from orchestrator.image.dockerfile import write_context
from orchestrator.image.layers import File, ImagePlan
from orchestrator.image.scratch import scratch_directory
from orchestrator.image.storage import Image, Workshop
from orchestrator.tools.oci import build_argv, build_image, buildah_argv, read_manifest
from orchestrator.tools.podman import Engine

_BUILD_WAIT_SECONDS = 600
_WORKING_CONTAINER = re.compile(r"(^|-)working-container(-[0-9]+)?$")


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
        scratch_directory(workshop.engine.scratch, need=_content_bytes(plan)) as scratch,
    ):
        write_context(plan, context)
        image_id, made = _build(plan, workshop, program=program, context=context, scratch=scratch)
    image = _describe(plan, image_id, workshop)
    if len(made) != len(image.layers):
        return image
    layers = tuple(replace(layer, written=new) for layer, new in zip(image.layers, made, strict=True))
    return replace(image, layers=layers)


def _content_bytes(plan: ImagePlan) -> int:
    """Bytes of an image's files, gzipped twins not counted."""
    return sum(
        len(entry.source) if isinstance(entry.source, bytes) else entry.source.stat().st_size
        for entry in plan.entries
        if isinstance(entry, File)
    )


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
