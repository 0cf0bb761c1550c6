"""The images in the engine's storage."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from orchestrator.errors import OrchestratorError
from orchestrator.tools.podman import Engine


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image of the storage. `size` in bytes counts layers other images have too."""

    image_id: str
    names: tuple[str, ...]
    labels: Mapping[str, str]
    size: int


class _Listed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = Field(alias="Id")
    names: list[str] | None = Field(None, alias="Names")
    labels: dict[str, str] | None = Field(None, alias="Labels")
    size: int = Field(alias="Size")


def used_images(engine: Engine) -> frozenset[str]:
    """The ids of images any container was made from, running or not."""
    return frozenset(engine.run("ps", "--all", "--external", "--no-trunc", "--format", "{{.ImageID}}").stdout.split())


def list_images(engine: Engine, label: str) -> tuple[StoredImage, ...]:
    """The images that have a label ("key" or "key=value"), by their first name."""
    listed = engine.run("images", *("--filter", f"label={label}"), *("--format", "json")).stdout
    try:
        parsed = TypeAdapter(list[_Listed]).validate_python(json.loads(listed or "[]"))
    except (ValueError, ValidationError) as error:
        raise OrchestratorError(f"podman images gave an answer that cannot be read: {error}") from error
    images = {
        item.id: StoredImage(item.id, tuple(sorted(item.names or ())), item.labels or {}, item.size) for item in parsed
    }
    return tuple(sorted(images.values(), key=lambda image: (image.names, image.image_id)))
