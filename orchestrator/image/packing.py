"""Compressed layers, ready to be pushed: made once, kept in the cache, the same bytes for the same layer.

What an image weighs in a registry is decided here. gzip is read by everything; zstd is smaller and quicker to unpack.
Settings are pinned; the compressor's own version is part of where its results are kept, since it may change them.
"""

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never

from orchestrator.files import locked, no_space_is_an_error, sha256
from orchestrator.process import Cancel
from orchestrator.tools import zstd

Compression = Literal["gzip", "zstd"]

KEPT_BYTES = 2 << 30
"""How much the compressed layers of all applications may take; the ones used longest ago go first."""

_GZIP_LEVEL = 6
_CHUNK = 1 << 20
_LOCK_SECONDS = 900
_TYPES: dict[Compression, str] = {
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
}


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """A compressed layer in the cache. `digest` and `size` (bytes) are those of the compressed file at `path`."""

    path: Path
    digest: str
    size: int
    media_type: str

    def descriptor(self) -> dict[str, str | int]:
        """How a manifest refers to it."""
        return {"digest": self.digest, "mediaType": self.media_type, "size": self.size}


@dataclass(frozen=True, slots=True)
class PackedLayers:
    """The compressed layers of one compressor; a file's name holds what it was made from, its digest and its size."""

    directory: Path
    compression: Compression

    def find(self, diff_id: str) -> PackedLayer | None:
        """The compressed form of a layer; None when it was never made or is damaged."""
        for path in self.directory.glob(f"{_hex(diff_id)}.*"):
            _, digest, size = path.name.split(".")
            if path.stat().st_size == int(size):
                os.utime(path)
                return PackedLayer(path, f"sha256:{digest}", int(size), _TYPES[self.compression])
            path.unlink()
        return None

    def pack(self, diff_id: str, archive: Path, *, cancel: Cancel) -> PackedLayer:
        """Compress a layer's archive. Raises `DiskError` when the file system is full."""
        temporary = self.directory / f"{_hex(diff_id)[:16]}.tmp"
        try:
            with no_space_is_an_error(temporary):
                self._compress(archive, temporary, cancel)
                digest, size = sha256(temporary), temporary.stat().st_size
                final = self.directory / f"{_hex(diff_id)}.{digest}.{size}"
                temporary.rename(final)
        finally:
            temporary.unlink(missing_ok=True)
        return PackedLayer(final, f"sha256:{digest}", size, _TYPES[self.compression])

    def _compress(self, archive: Path, target: Path, cancel: Cancel) -> None:
        match self.compression:
            case "gzip":
                with archive.open("rb") as source, target.open("wb") as sink:
                    for chunk in gzip_chunks(iter(lambda: source.read(_CHUNK), b"")):
                        cancel.check()
                        sink.write(chunk)
            case "zstd":
                zstd.compress_file(archive, target, cancel=cancel)
            case _:
                assert_never(self.compression)


def open_packed_layers(cache_dir: Path, compression: Compression) -> PackedLayers:
    """The cache of one compressor, empty at first and after an update of the compressor."""
    version = zlib.ZLIB_RUNTIME_VERSION if compression == "gzip" else zstd.version()
    level = _GZIP_LEVEL if compression == "gzip" else zstd.LEVEL
    key = hashlib.sha256(f"{version} {level}".encode()).hexdigest()[:12]
    directory = _room(cache_dir) / f"{compression}-{key}"
    directory.mkdir(parents=True, exist_ok=True)
    return PackedLayers(directory, compression)


def gzip_chunks(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """A gzip stream (RFC 1952) without name and time, so that only zlib's version can make a difference."""
    deflate = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    checksum, size = 0, 0
    yield b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    for chunk in chunks:
        checksum, size = zlib.crc32(chunk, checksum), size + len(chunk)
        yield deflate.compress(chunk)
    yield deflate.flush() + struct.pack("<II", checksum, size & 0xFFFFFFFF)


@contextmanager
def packing(cache_dir: Path) -> Iterator[None]:
    """Only one process adds to the cache at a time; when it is done the layers used longest ago make room."""
    with packed_lock(cache_dir, wait_seconds=_LOCK_SECONDS):
        yield
        trim_packed_layers(cache_dir)


def packed_lock(cache_dir: Path, *, wait_seconds: float = 0) -> AbstractContextManager[None]:
    """Keeps others from adding to the cache and removing from it.

    Raises `BusyError` when another process is at it for longer than `wait_seconds`.
    """
    return locked(_room(cache_dir) / "lock", holder="compressing layers", wait_seconds=wait_seconds)


def packed_files(cache_dir: Path) -> tuple[Path, ...]:
    """The compressed layers of all compressors, the one used last first."""
    files = [path for path in _room(cache_dir).glob("*/*.*.*") if path.is_file()]
    return tuple(sorted(files, key=lambda path: path.stat().st_mtime, reverse=True))


def trim_packed_layers(cache_dir: Path, *, keep: int = KEPT_BYTES) -> None:
    """Remove the compressed layers used longest ago until at most `keep` bytes are left, of all compressors."""
    for path in packed_files(cache_dir):
        keep -= path.stat().st_size
        if keep < 0:
            path.unlink(missing_ok=True)


def _room(cache_dir: Path) -> Path:
    return cache_dir / "packed"


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
