"""The images of an application, as far as the orchestrator named them."""

from collections.abc import Iterable

from orchestrator.deploy.names import APP
from orchestrator.deploy.state import ReleaseRecord
from orchestrator.tools.images import StoredImage, list_images
from orchestrator.tools.podman import Engine

NAMES = "localhost/orchestrator/"
"""Only names below this are ours to take away; others the user gave."""


def remove_images(engine: Engine, app: str, *, kept: tuple[ReleaseRecord, ...]) -> None:
    """Remove the application's images no kept release uses."""
    _remove(engine, _unused(engine, app, kept))


def retain_images(
    engine: Engine,
    app: str,
    *,
    kept: tuple[ReleaseRecord, ...],
    dropped: tuple[ReleaseRecord, ...],
    keep_bytes: int | None,
) -> None:
    """Remove the images of dropped releases; those never deployed only when they have more than `keep_bytes`, if given.

    The latter are what `build` and failed deploys made; `orchestrator gc` removes them in any case.
    """
    unused = _unused(engine, app, kept)
    gone = {image.reference for record in dropped for image in record.stored_images}
    undeployed = {name: image for name, image in unused.items() if name not in gone}
    size = sum({image.image_id: image.size for image in undeployed.values()}.values())
    if keep_bytes is None or size <= keep_bytes:
        unused = {name: image for name, image in unused.items() if name in gone}
    _remove(engine, unused)


def _unused(engine: Engine, app: str, kept: tuple[ReleaseRecord, ...]) -> dict[str, StoredImage]:
    """By name. One image can have several names of ours, and those of others."""
    used = {image.reference for record in kept for image in record.stored_images}
    images = list_images(engine, f"{APP}={app}")
    return {name: image for image in images for name in image.names if name.startswith(NAMES) and name not in used}


def _remove(engine: Engine, names: Iterable[str]) -> None:
    for name in names:
        engine.remove_image(name)
