"""The images of an application, as far as the orchestrator named them."""

from orchestrator.deploy.names import APP
from orchestrator.deploy.state import ReleaseRecord
from orchestrator.tools.podman import Engine

NAMES = "localhost/orchestrator/"
"""Only names below this are ours to take away; others the user gave."""


def remove_images(engine: Engine, app: str, *, kept: tuple[ReleaseRecord, ...]) -> None:
    """Remove the application's images no kept release uses: those of dropped releases and of failed deploys."""
    used = {image.reference for record in kept for image in record.images.values()}
    for name in engine.image_names(f"{APP}={app}"):
        if name.startswith(NAMES) and name not in used:
            engine.remove_image(name)
