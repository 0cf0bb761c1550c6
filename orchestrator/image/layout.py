"""The JSON around measured layers, the OCI layout a push reads, and the memory of which layers are known.

Formats: OCI Image Format Specification 1.0 (config, manifest, image layout). Ids: an image id is 64 lower-case
hexadecimal digits, as podman prints it; digests carry "sha256:".
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.files import no_space_is_an_error, read_json, write_json
from orchestrator.image.archive import Layer
from orchestrator.image.layers import ImagePlan, LayerPlan
from orchestrator.tools.platforms import PLATFORMS

CREATED = "1970-01-01T00:00:01Z"
"""When every image was made, as far as it says itself."""

KEPT_RECORDS = 1000
"""Known layers remembered in the cache; a record is about 150 bytes."""

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
VERSION = b'{"imageLayoutVersion":"1.0.0"}'
"""The content of `oci-layout`, by which a directory is known as a layout."""

_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True, slots=True)
class Documents:
    """The JSON around an image's layers."""

    config: bytes
    manifest: bytes

    @property
    def image_id(self) -> str:
        return hashlib.sha256(self.config).hexdigest()

    @property
    def manifest_digest(self) -> str:
        return digest_of(self.manifest)


@dataclass(frozen=True, slots=True)
class LayerRecords:
    """Which archive a layer key stands for, so that a known layer is not measured again."""

    directory: Path

    def find(self, layer: LayerPlan, key: str) -> Layer | None:
        """The layer measured for `key` before; None when unknown or when the record is damaged."""
        match read_json(self._path(key)):
            case {"diff_id": str(diff_id), "size": int(size)} if len(diff_id) == len("sha256:") + 64:
                return Layer(layer.name, diff_id, size, written=False)
            case _:
                return None

    def remember(self, key: str, layer: Layer) -> None:
        """Record a measured layer. Raises `DiskError` when the file system is full."""
        write_json(self._path(key), {"diff_id": layer.diff_id, "size": layer.size}, durable=False)

    def forget(self, key: str) -> None:
        """The layer will be measured again."""
        self._path(key).unlink(missing_ok=True)

    def trim(self) -> None:
        """Forget the oldest records beyond `KEPT_RECORDS`."""
        records = sorted(self.directory.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        for record in records[KEPT_RECORDS:]:
            record.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}.json"


def make_documents(plan: ImagePlan, layers: tuple[Layer, ...], *, architecture: str) -> Documents:
    """The image's config and manifest; `architecture` in OCI terms ("amd64", "arm64")."""
    config = canonical(
        {
            **describe_architecture(architecture),
            "config": _config_section(plan),
            "created": CREATED,
            "history": [{"created": CREATED, "created_by": f"layer {layer.name}"} for layer in layers],
            "rootfs": {"diff_ids": [layer.diff_id for layer in layers], "type": "layers"},
        }
    )
    descriptors: list[Mapping[str, str | int]] = [
        {"digest": layer.diff_id, "mediaType": _LAYER_TYPE, "size": layer.size} for layer in layers
    ]
    manifest = make_manifest(config, descriptors)
    return Documents(config, manifest)


def describe_architecture(architecture: str) -> dict[str, str]:
    """A platform as configs and indexes write it; `variant` where OCI has a usual one ("v8" of arm64)."""
    known = PLATFORMS.get(f"linux/{architecture}")
    variant = {"variant": known.variant} if known and known.variant else {}
    return {"architecture": architecture, "os": "linux"} | variant


def make_manifest(config: bytes, layers: Sequence[Mapping[str, str | int]]) -> bytes:
    """The manifest of an image with this config; `layers` are the descriptors of its layers, bottom first."""
    return canonical(
        {
            "config": {"digest": digest_of(config), "mediaType": _CONFIG_TYPE, "size": len(config)},
            "layers": list(layers),
            "mediaType": MANIFEST_TYPE,
            "schemaVersion": 2,
        }
    )


def _config_section(plan: ImagePlan) -> dict[str, Any]:
    config = plan.config
    section: dict[str, Any] = {
        "Entrypoint": list(config.entrypoint),
        "Labels": dict(config.labels),
        "StopSignal": config.stop_signal,
        "User": config.user,
        "WorkingDir": config.directory,
    }
    if config.command:
        section["Cmd"] = list(config.command)
    if config.environment:
        section["Env"] = [f"{name}={value}" for name, value in config.environment]
    if config.ports:
        section["ExposedPorts"] = {f"{port}/tcp": {} for port in config.ports}
    return section


def blobs_directory(layout: Path) -> Path:
    """Where a layout's blobs are; made when absent."""
    directory = layout / "blobs" / "sha256"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def write_layout(layout: Path, documents: Documents) -> None:
    """Complete a layout whose layers are in place. Raises `DiskError` when the file system is full."""
    blobs = blobs_directory(layout)
    index = {
        "manifests": [
            {"digest": documents.manifest_digest, "mediaType": MANIFEST_TYPE, "size": len(documents.manifest)}
        ],
        "schemaVersion": 2,
    }
    with no_space_is_an_error(layout):
        (blobs / documents.image_id).write_bytes(documents.config)
        (blobs / documents.manifest_digest.removeprefix("sha256:")).write_bytes(documents.manifest)
        (layout / "index.json").write_bytes(canonical(index))
        (layout / "oci-layout").write_bytes(VERSION)


def canonical(value: Any) -> bytes:
    """JSON with one way to write it: sorted, without white space."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def digest_of(content: bytes) -> str:
    """`sha256:` and the hexadecimal digest."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
