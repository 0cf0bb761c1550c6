"""Writes one layer as an archive: the same plan gives the same bytes anywhere.

Format: OCI Image Format Specification 1.0, layers as uncompressed pax archives, entries sorted, all owned by root.
"""

import hashlib
import io
import os
import struct
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, assert_never

from orchestrator.errors import ImageError
from orchestrator.files import no_space_is_an_error, sha256
from orchestrator.image.layers import Directory, Entry, File, LayerPlan, Link

_CHUNK = 1 << 20
_FORMAT = "1"
"""Part of every layer's key: raise it when the same plan would give other bytes."""


class Sink(Protocol):
    """An open file, or a connection."""

    def write(self, data: bytes, /) -> int: ...


@dataclass(frozen=True, slots=True)
class Layer:
    """A finished layer. `size` is that of its archive in bytes; `written` is False when it was known already."""

    name: str
    diff_id: str
    size: int
    written: bool


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


def measure_layer(layer: LayerPlan) -> Layer:
    """What `write_layer` would give, with nothing written. Raises `ImageError` when a file changes meanwhile."""
    with Path(os.devnull).open("wb") as file:
        sink = _Hashing(file)
        _write_archive(layer, sink)
    return Layer(layer.name, f"sha256:{sink.digest.hexdigest()}", sink.size, written=True)


def send_layer(layer: LayerPlan, file: Sink) -> None:
    """Write a layer's archive to an open file, such as a connection."""
    _write_archive(layer, file)


class _Hashing:
    """A file that knows the digest and the size of what was written to it."""

    def __init__(self, file: Sink) -> None:
        self.digest = hashlib.sha256()
        self.size = 0
        self._file = file

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._file.write(data)


def _write_archive(layer: LayerPlan, sink: Sink) -> None:
    """Headers are tarfile's; contents go from file to sink in large pieces, which its own writer copies thrice."""
    size = 0
    for entry in final_entries(layer):
        member = _member(entry)
        header = member.tobuf(tarfile.PAX_FORMAT)
        sink.write(header)
        if isinstance(entry, File):
            _write_content(entry, member.size, sink)
        size += len(header) + _blocks(member.size)
    end = 2 * tarfile.BLOCKSIZE
    sink.write(bytes(end + -(size + end) % tarfile.RECORDSIZE))


def _member(entry: Entry) -> tarfile.TarInfo:
    member = tarfile.TarInfo(entry.path)
    member.mtime = 1
    match entry:
        case Directory():
            member.type, member.mode = tarfile.DIRTYPE, entry.mode
        case Link():
            member.type, member.mode, member.linkname = tarfile.SYMTYPE, 0o777, entry.target
        case File():
            member.mode, member.mtime, member.size = entry.mode, modified(entry), _content_size(entry)
        case _:
            assert_never(entry)
    return member


def _write_content(entry: File, size: int, sink: Sink) -> None:
    """`size` bytes, filled up to whole blocks. Raises `ImageError` when the file has become shorter."""
    with io.BytesIO(entry.source) if isinstance(entry.source, bytes) else entry.source.open("rb") as file:
        left = size
        while left:
            chunk = file.read(min(left, _CHUNK))
            if not chunk:
                raise ImageError(f"{entry.path} changed while it was read", hint="run the command again")
            sink.write(chunk)
            left -= len(chunk)
    sink.write(bytes(_blocks(size) - size))


def _content_size(file: File) -> int:
    return len(file.source) if isinstance(file.source, bytes) else file.source.stat().st_size


def _blocks(size: int) -> int:
    """`size` rounded up to what an archive counts in."""
    return size + -size % tarfile.BLOCKSIZE
