"""Writes layers and the OCI layout around them: the same plan gives the same bytes anywhere.

Formats: OCI Image Format Specification 1.0 (layer, config, manifest, image layout), layers as uncompressed pax
archives. Ids: an image id is 64 lower-case hexadecimal digits, as podman prints it; digests carry "sha256:".
"""

import hashlib
import io
import json
import struct
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, assert_never

from orchestrator.errors import ImageError
from orchestrator.files import no_space_is_an_error, read_json, sha256, write_json
from orchestrator.image.layers import Directory, Entry, File, ImagePlan, LayerPlan, Link

CREATED = "1970-01-01T00:00:01Z"
"""When every image was made, as far as it says itself."""

KEPT_RECORDS = 1000
"""Known layers remembered in the cache; a record is about 150 bytes."""

_FORMAT = "1"
"""Part of every layer's key: raise it when the same plan would give other bytes."""

_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True, slots=True)
class Layer:
    """A finished layer. `size` is that of its archive in bytes; `written` is False when it was known already."""

    name: str
    diff_id: str
    size: int
    written: bool


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
        return _digest(self.manifest)


def layer_key(layer: LayerPlan) -> str:
    """Identifies a layer by its input: paths, kinds, modes, link targets and contents. Hexadecimal SHA-256.

    Store files are not read: their path identifies their content.
    """
    key = hashlib.sha256(f"{_FORMAT}\0{zlib.ZLIB_RUNTIME_VERSION}\0".encode())
    for entry in layer.entries:
        key.update("\0".join(_identity(entry)).encode() + b"\0\0")
    return key.hexdigest()


def _identity(entry: Entry) -> tuple[str, ...]:
    match entry:
        case Directory():
            return ("directory", entry.path, f"{entry.mode:o}")
        case Link():
            return ("link", entry.path, entry.target)
        case File():
            content = "store" if entry.immutable else content_digest(entry)
            return ("file", entry.path, f"{entry.mode:o}", content, "twin" if entry.twin else "")
        case _:
            assert_never(entry)


def content_digest(file: File) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    if isinstance(file.source, bytes):
        return hashlib.sha256(file.source).hexdigest()
    return sha256(file.source)


def modified(file: File) -> int:
    """The file's mtime in seconds: from its content, since nginx makes ETags of mtime and size; 1 in the store."""
    return 1 if file.immutable else 1 + int(content_digest(file)[:8], 16) % (1 << 30)


def final_entries(layer: LayerPlan) -> Iterator[Entry]:
    """The entries with a gzipped twin after each file that asked for one and is larger than it."""
    for entry in layer.entries:
        yield entry
        if isinstance(entry, File) and entry.twin:
            content = _content(entry)
            packed = compress(content)
            if len(packed) < len(content):
                yield File(f"{entry.path}.gz", packed, entry.mode)


def compress(content: bytes) -> bytes:
    """gzip (RFC 1952) at level 9 without name or time, so that only zlib's version can make a difference."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    header = b"\x1f\x8b\x08\0\0\0\0\0\x02\xff"
    trailer = struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF)
    return header + deflate.compress(content) + deflate.flush() + trailer


def _content(file: File) -> bytes:
    return file.source if isinstance(file.source, bytes) else file.source.read_bytes()


def write_layer(layer: LayerPlan, directory: Path) -> Layer:
    """Write a layer's archive into `directory`, named by its digest.

    Raises `DiskError` when the file system is full, and `ImageError` when a file changes while it is read.
    """
    temporary = directory / f".{layer.name}.tmp"
    with no_space_is_an_error(temporary):
        try:
            with temporary.open("wb") as file:
                sink = _Hashing(file)
                _write_archive(layer, sink)
            temporary.rename(directory / sink.digest.hexdigest())
        finally:
            temporary.unlink(missing_ok=True)
    return Layer(layer.name, f"sha256:{sink.digest.hexdigest()}", sink.size, written=True)


class _Hashing:
    """A file that knows the digest and the size of what was written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.digest = hashlib.sha256()
        self.size = 0
        self._file = file

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._file.write(data)


def _write_archive(layer: LayerPlan, sink: _Hashing) -> None:
    with tarfile.open(  # type: ignore[call-overload]  # typeshed wants IO[bytes]; a stream needs write() alone
        fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 20, copybufsize=1 << 20
    ) as archive:
        for entry in final_entries(layer):
            _add(archive, entry)


def _add(archive: tarfile.TarFile, entry: Entry) -> None:
    member = tarfile.TarInfo(entry.path)
    member.mtime = 1
    match entry:
        case Directory():
            member.type, member.mode = tarfile.DIRTYPE, entry.mode
            archive.addfile(member)
        case Link():
            member.type, member.mode, member.linkname = tarfile.SYMTYPE, 0o777, entry.target
            archive.addfile(member)
        case File():
            member.mode, member.mtime = entry.mode, modified(entry)
            _add_file(archive, member, entry)
        case _:
            assert_never(entry)


def _add_file(archive: tarfile.TarFile, member: tarfile.TarInfo, entry: File) -> None:
    if isinstance(entry.source, bytes):
        member.size = len(entry.source)
        archive.addfile(member, io.BytesIO(entry.source))
        return
    member.size = entry.source.stat().st_size
    with entry.source.open("rb") as file:
        try:
            archive.addfile(member, file)
        except OSError as error:
            if error.errno is not None:
                raise
            raise ImageError(f"{entry.source} changed while it was read", hint="run the command again") from error


@dataclass(frozen=True, slots=True)
class LayerRecords:
    """Which archive a layer key stands for, so that a known layer is neither written nor hashed again."""

    directory: Path

    def find(self, layer: LayerPlan, key: str) -> Layer | None:
        """The layer written for `key` before; None when unknown or when the record is damaged."""
        match read_json(self._path(key)):
            case {"diff_id": str(diff_id), "size": int(size)} if len(diff_id) == len("sha256:") + 64:
                return Layer(layer.name, diff_id, size, written=False)
            case _:
                return None

    def remember(self, key: str, layer: Layer) -> None:
        """Record a written layer. Raises `DiskError` when the file system is full."""
        write_json(self._path(key), {"diff_id": layer.diff_id, "size": layer.size})

    def forget(self, key: str) -> None:
        """The layer will be written again."""
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
    config = _canonical(
        {
            "architecture": architecture,
            "config": _config_section(plan),
            "created": CREATED,
            "history": [{"created": CREATED, "created_by": f"layer {layer.name}"} for layer in layers],
            "os": "linux",
            "rootfs": {"diff_ids": [layer.diff_id for layer in layers], "type": "layers"},
        }
    )
    manifest = _canonical(
        {
            "config": {"digest": _digest(config), "mediaType": _CONFIG_TYPE, "size": len(config)},
            "layers": [{"digest": layer.diff_id, "mediaType": _LAYER_TYPE, "size": layer.size} for layer in layers],
            "mediaType": _MANIFEST_TYPE,
            "schemaVersion": 2,
        }
    )
    return Documents(config, manifest)


def _config_section(plan: ImagePlan) -> dict[str, Any]:
    config = plan.config
    section: dict[str, Any] = {
        "Entrypoint": list(config.entrypoint),
        "Labels": dict(config.labels),
        "StopSignal": config.stop_signal,
        "User": config.user,
        "WorkingDir": "/",
    }
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
            {"digest": documents.manifest_digest, "mediaType": _MANIFEST_TYPE, "size": len(documents.manifest)}
        ],
        "schemaVersion": 2,
    }
    with no_space_is_an_error(layout):
        (blobs / documents.image_id).write_bytes(documents.config)
        (blobs / documents.manifest_digest.removeprefix("sha256:")).write_bytes(documents.manifest)
        (layout / "index.json").write_bytes(_canonical(index))
        (layout / "oci-layout").write_bytes(_canonical({"imageLayoutVersion": "1.0.0"}))


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
