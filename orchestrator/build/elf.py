"""Reads the few ELF facts the dynamic loader goes by. Layout as in the System V gABI, chapters 4 and 5."""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from orchestrator.errors import ImageError

_MAGIC = b"\x7fELF"
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 10, 14, 15, 29
_MAX_TABLE = 64 << 20
"""Bytes no honest dynamic section, string table or program header table exceeds."""


class ElfError(ImageError):
    """A file begins like an ELF file and is not one."""


@dataclass(frozen=True, slots=True)
class Elf:
    """What the loader needs to know of one executable or library.

    `interpreter` is None for libraries and static executables. `machine` is (class, byte order, e_machine): the
    loader passes over libraries of another machine. `rpath` and `runpath` keep `$ORIGIN` as written.
    """

    machine: tuple[int, int, int]
    interpreter: str | None
    needed: tuple[str, ...]
    soname: str | None
    rpath: tuple[str, ...]
    runpath: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where fields are in files of one class (32 or 64 bits); offsets in bytes."""

    header: struct.Struct
    segment: struct.Struct
    segment_fields: tuple[int, int, int, int]
    """Positions of p_type, p_offset, p_vaddr and p_filesz in a program header."""
    dynamic: struct.Struct


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int


def read_elf(path: Path) -> Elf | None:
    """The ELF facts of a file, or None when it is not an ELF file. Raises `ElfError` when it is a damaged one."""
    with path.open("rb") as file:
        if file.read(4) != _MAGIC:
            return None
        try:
            return _read(file)
        except (struct.error, ValueError, UnicodeDecodeError) as error:
            raise ElfError(
                f"{path} is a damaged ELF file: {error}", hint="build it again; the file may have been cut off"
            ) from error


def _read(file: BinaryIO) -> Elf:
    ident = _bytes_at(file, 0, 16)
    layout = _layout(elf_class=ident[4], byte_order=ident[5])
    fields = layout.header.unpack(_bytes_at(file, 16, layout.header.size))
    segments = _segments(file, layout, table=fields[4], entry_size=fields[8], count=fields[9])
    entries = _dynamic_entries(file, layout, segments)
    strings = _string_table(file, segments, entries)
    return Elf(
        machine=(ident[4], ident[5], fields[1]),
        interpreter=_interpreter(file, segments),
        needed=tuple(_string(strings, value) for tag, value in entries if tag == _DT_NEEDED),
        soname=next((_string(strings, value) for tag, value in entries if tag == _DT_SONAME), None),
        rpath=_directories(strings, entries, _DT_RPATH),
        runpath=_directories(strings, entries, _DT_RUNPATH),
    )


def _layout(*, elf_class: int, byte_order: int) -> _Layout:
    if elf_class not in (1, 2) or byte_order not in (1, 2):
        raise ValueError("unknown class or byte order")
    order = "<" if byte_order == 1 else ">"
    if elf_class == 1:
        return _Layout(
            struct.Struct(f"{order}HHIIIIIHHH"), struct.Struct(f"{order}8I"), (0, 1, 2, 4), struct.Struct(f"{order}iI")
        )
    return _Layout(
        struct.Struct(f"{order}HHIQQQIHHH"),
        struct.Struct(f"{order}IIQQQQQQ"),
        (0, 2, 3, 5),
        struct.Struct(f"{order}qQ"),
    )


def _segments(file: BinaryIO, layout: _Layout, *, table: int, entry_size: int, count: int) -> tuple[_Segment, ...]:
    if count and entry_size != layout.segment.size:
        raise ValueError(f"program headers of {entry_size} bytes")
    kind, offset, address, size = layout.segment_fields
    return tuple(
        _Segment(fields[kind], fields[offset], fields[address], fields[size])
        for fields in layout.segment.iter_unpack(_bytes_at(file, table, count * entry_size))
    )


def _dynamic_entries(file: BinaryIO, layout: _Layout, segments: tuple[_Segment, ...]) -> tuple[tuple[int, int], ...]:
    dynamic = next((segment for segment in segments if segment.kind == _PT_DYNAMIC), None)
    if dynamic is None:
        return ()
    whole = dynamic.size - dynamic.size % layout.dynamic.size
    entries = []
    for tag, value in layout.dynamic.iter_unpack(_bytes_at(file, dynamic.offset, whole)):
        if tag == _DT_NULL:
            break
        entries.append((tag, value))
    return tuple(entries)


def _string_table(file: BinaryIO, segments: tuple[_Segment, ...], entries: tuple[tuple[int, int], ...]) -> bytes:
    values = dict(entries)
    if _DT_STRTAB not in values:
        return b""
    offset = _file_offset(segments, values[_DT_STRTAB])
    return _bytes_at(file, offset, min(values.get(_DT_STRSZ, _MAX_TABLE), _size(file) - offset))


def _file_offset(segments: tuple[_Segment, ...], address: int) -> int:
    for segment in segments:
        if segment.kind == _PT_LOAD and segment.address <= address < segment.address + segment.size:
            return address - segment.address + segment.offset
    raise ValueError(f"address {address:#x} is in no segment")


def _interpreter(file: BinaryIO, segments: tuple[_Segment, ...]) -> str | None:
    segment = next((segment for segment in segments if segment.kind == _PT_INTERP), None)
    if segment is None:
        return None
    return _bytes_at(file, segment.offset, segment.size).split(b"\0")[0].decode()


def _directories(strings: bytes, entries: tuple[tuple[int, int], ...], wanted: int) -> tuple[str, ...]:
    return tuple(
        directory
        for tag, value in entries
        if tag == wanted
        for directory in _string(strings, value).split(":")
        if directory
    )


def _string(strings: bytes, offset: int) -> str:
    end = strings.find(b"\0", offset)
    if not 0 <= offset < len(strings) or end < 0:
        raise ValueError(f"string {offset} is outside the string table")
    return strings[offset:end].decode()


def _bytes_at(file: BinaryIO, offset: int, size: int) -> bytes:
    if size > _MAX_TABLE or offset + size > _size(file):
        raise ValueError(f"{size} bytes at {offset} are beyond the end")
    file.seek(offset)
    return file.read(size)


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size
