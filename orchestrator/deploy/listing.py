"""The images in the storage: their layers, and who else has them."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from orchestrator.deploy.names import APP, SERVICE
from orchestrator.deploy.state import AppStore
from orchestrator.tools.images import StoredImage, list_images
from orchestrator.tools.oci import Blob, read_manifest
from orchestrator.tools.podman import Engine


@dataclass(frozen=True, slots=True)
class ListedLayer:
    """A layer. `shared_with` names the other images that have it, as app/service."""

    digest: str
    size: int
    shared_with: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image of an application; `releases` use it. `size` is that of all its layers, in bytes."""

    app: str
    service: str
    image_id: str
    names: tuple[str, ...]
    size: int
    releases: tuple[str, ...]
    layers: tuple[ListedLayer, ...]


def list_app_images(state_dir: Path, app: str | None, *, engine: Engine) -> tuple[ListedImage, ...]:
    """The images of one application, of all when None; layers shared with any application's are told.

    Those without layers are what a Dockerfile's first instructions made, and are left out.
    """
    images = list_images(engine, APP)
    layers: dict[str, tuple[Blob, ...]] = {
        image.image_id: read_manifest(engine.storage_reference(image.image_id), environment=engine.environment)[
            0
        ].layers
        for image in images
    }
    named = {image.image_id: _name(state_dir, image) for image in images}
    holders: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for image in images:
        for blob in layers[image.image_id]:
            holders[blob.digest][image.image_id] = f"{image.labels[APP]}/{named[image.image_id]}"
    return tuple(
        ListedImage(
            app=image.labels[APP],
            service=named[image.image_id],
            image_id=image.image_id,
            names=image.names,
            size=sum(blob.size for blob in layers[image.image_id]),
            releases=_releases(state_dir, image.labels[APP], image.image_id),
            layers=tuple(
                ListedLayer(blob.digest, blob.size, _others(holders[blob.digest], image.image_id))
                for blob in layers[image.image_id]
            ),
        )
        for image in images
        if layers[image.image_id] and (app is None or image.labels[APP] == app)
    )


def _name(state_dir: Path, image: StoredImage) -> str:
    """What a release calls the image, which tells its platform, else the service its label names."""
    records = AppStore(state_dir, image.labels[APP]).releases()
    names = {found.image_id: name for record in records for name, found in record.names.items()}
    return names.get(image.image_id, image.labels.get(SERVICE, ""))


def _others(holders: dict[str, str], image_id: str) -> tuple[str, ...]:
    return tuple(sorted({name for holder, name in holders.items() if holder != image_id}))


def _releases(state_dir: Path, app: str, image_id: str) -> tuple[str, ...]:
    records = AppStore(state_dir, app).releases()
    return tuple(record.id for record in records if image_id in {image.image_id for image in record.stored_images})
