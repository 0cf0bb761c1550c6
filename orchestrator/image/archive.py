"""Writes one layer as an archive: the same plan gives the same bytes anywhere.

Format: OCI Image Format Specification 1.0, layers as uncompressed pax archives, entries sorted, all owned by root.
"""

import hashlib
import io
import struct
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, assert_never

from orchestrator.errors import ImageError
from orchestrator.files import sha256
from orchestrator.image.layers import Directory, Entry, File, LayerPlan, Link

_CHUNK = 1 << 20
_FORMAT = "1"
"""Part of every layer's key: raise it when the same plan would give other bytes."""


class Sink(Protocol):
    """An open file, or a connection."""

    def write(self, data: bytes | memoryview, /) -> int: ...


@dataclass(frozen=True, slots=True)
class Layer:
    """A measured layer. `size` is that of its archive in bytes; `written` is whether the storage lacked it."""

    name: str
    diff_id: str
    size: int
    written: bool


@dataclass(frozen=True, slots=True)
class KeyedLayer:
    """A planned layer whose files have been read.

    `key` identifies what it is made of: paths, kinds, modes, link targets and contents (hexadecimal SHA-256).
    `digests` are those of its files' contents, by path in the image; store files have none, since they are not read:
    their path identifies what they hold.
    """

    plan: LayerPlan
    key: str
    digests: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Archive:
    """A layer ready to be written, any number of times; gzipped twins are already made."""

    name: str
    members: tuple["_Member", ...]

    def write(self, sink: Sink) -> None:
        """Write all of it. Raises `ImageError` when a file is not what it was when its layer was keyed."""
        size = 0
        buffer = memoryview(bytearray(_CHUNK))
        for member in self.members:
            sink.write(member.header)
            if member.file is not None:
                _write_content(member.file, member.size, member.digest, sink, buffer)
            size += len(member.header) + _blocks(member.size)
        end = 2 * tarfile.BLOCKSIZE
        sink.write(bytes(end + -(size + end) % tarfile.RECORDSIZE))

    def measure(self) -> Layer:
        """Its digest and size. Raises `ImageError` as `write` does."""
        sink = _Measure()
        self.write(sink)
        return Layer(self.name, f"sha256:{sink.digest.hexdigest()}", sink.size, written=False)


def key_layer(layer: LayerPlan) -> KeyedLayer:
    """Read a layer's files, those of the store apart."""
    files = (entry for entry in layer.entries if isinstance(entry, File) and not entry.immutable)
    digests = {file.path: content_digest(file) for file in files}
    key = hashlib.sha256(f"{_FORMAT}\0{zlib.ZLIB_RUNTIME_VERSION}\0".encode())
    for entry in layer.entries:
        key.update("\0".join(_identity(entry, digests)).encode() + b"\0\0")
    return KeyedLayer(layer, key.hexdigest(), digests)


def layer_key(layer: LayerPlan) -> str:
    """The key alone."""
    return key_layer(layer).key


def _identity(entry: Entry, digests: Mapping[str, str]) -> tuple[str, ...]:
    match entry:
        case Directory():
            return ("directory", entry.path, f"{entry.mode:o}")
        case Link():
            return ("link", entry.path, entry.target)
        case File():
            content = digests.get(entry.path, "store")
            return ("file", entry.path, f"{entry.mode:o}", content, "twin" if entry.twin else "")
        case _:
            assert_never(entry)


def content_digest(file: File) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    if isinstance(file.source, bytes):
        return hashlib.sha256(file.source).hexdigest()
    return sha256(file.source)


def modified(file: File, digest: str | None = None) -> int:
    """The file's mtime in seconds: from its content, since nginx makes ETags of mtime and size; 1 in the store.

    `digest` is the content's, where it is known.
    """
    return 1 if file.immutable else 1 + int((digest or content_digest(file))[:8], 16) % (1 << 30)


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


def archive_layer(layer: KeyedLayer) -> Archive:
    """Make the twins and the headers."""
    return Archive(layer.plan.name, tuple(_member(entry, layer.digests) for entry in final_entries(layer.plan)))


@dataclass(frozen=True, slots=True)
class _Member:
    """A tar header and the file whose `size` bytes follow it; `digest` is "" where the content cannot change."""

    header: bytes
    file: File | None = None
    size: int = 0
    digest: str = ""


def _member(entry: Entry, digests: Mapping[str, str]) -> _Member:
    """Headers are tarfile's; contents go from file to sink in large pieces, which its own writer copies thrice."""
    info = tarfile.TarInfo(entry.path)
    info.mtime = 1
    match entry:
        case Directory():
            info.type, info.mode = tarfile.DIRTYPE, entry.mode
        case Link():
            info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, entry.target
        case File():
            digest = digests.get(entry.path)
            info.mode, info.mtime, info.size = entry.mode, modified(entry, digest), _content_size(entry)
            return _Member(info.tobuf(tarfile.PAX_FORMAT), entry, info.size, digest or "")
        case _:
            assert_never(entry)
    return _Member(info.tobuf(tarfile.PAX_FORMAT))


class _Measure:
    """Where bytes go that are only counted and hashed."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | memoryview) -> int:
        self.digest.update(data)
        self.size += len(data)
        return len(data)


def _write_content(file: File, size: int, digest: str, sink: Sink, buffer: memoryview) -> None:
    """`size` bytes, filled up to whole blocks. Raises `ImageError` when the file holds fewer, or others."""
    seen = hashlib.sha256()
    left = size
    with io.BytesIO(file.source) if isinstance(file.source, bytes) else file.source.open("rb", buffering=0) as source:
        while left and (length := source.readinto(buffer[: min(left, len(buffer))])):
            sink.write(buffer[:length])
            if digest:
                seen.update(buffer[:length])
            left -= length
    if left or (digest and seen.hexdigest() != digest):
        raise ImageError(f"{file.path} changed while it was read", hint="run the command again")
    sink.write(bytes(_blocks(size) - size))


def _content_size(file: File) -> int:
    return len(file.source) if isinstance(file.source, bytes) else file.source.stat().st_size


def _blocks(size: int) -> int:
    """`size` rounded up to what an archive counts in."""
    return size + -size % tarfile.BLOCKSIZE
