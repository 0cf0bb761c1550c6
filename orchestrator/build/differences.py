"""The first file in which two builds of the same sources differ, shown so that a person sees why."""

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import unified_diff
from itertools import islice
from pathlib import Path

SHOWN_LINES = 40
SHOWN_PLACES = 5
_LONG_LINE = 400
_AROUND = 48
_NEAR = 16
"""Differing bytes closer together than this are shown as one place."""

_PRINTABLE = re.compile(rb"[\x20-\x7e]{4,}")


@dataclass(frozen=True, slots=True)
class Difference:
    """A path that differs ("." for a lone file), what of it does, and lines that show how."""

    path: str
    what: str
    lines: tuple[str, ...]


def find_difference(one: Path, two: Path) -> Difference | None:
    """The first difference in sorted order of paths: presence, kind, mode, link target or content. None for none."""
    paths = sorted({*_paths(one), *_paths(two)})
    return next((found for path in paths if (found := _compare(path, one / path, two / path))), None)


def _paths(root: Path) -> Iterator[str]:
    yield "."
    for directory, directories, names in os.walk(root):
        for name in (*directories, *names):
            yield str(Path(directory, name).relative_to(root))


def _compare(path: str, one: Path, two: Path) -> Difference | None:
    kinds = _kind(one), _kind(two)
    if kinds[0] != kinds[1]:
        return Difference(path, f"the first build gave {kinds[0]}, the second {kinds[1]}", ())
    modes = one.lstat().st_mode, two.lstat().st_mode
    if modes[0] != modes[1]:
        return Difference(path, f"the first build gave mode {modes[0]:o}, the second {modes[1]:o}", ())
    if one.is_symlink():
        targets = one.readlink(), two.readlink()
        return Difference(path, f"links to {targets[0]} and to {targets[1]}", ()) if targets[0] != targets[1] else None
    if not one.is_file():
        return None
    contents = one.read_bytes(), two.read_bytes()
    return _describe(path, *contents) if contents[0] != contents[1] else None


def _kind(path: Path) -> str:
    if path.is_symlink():
        return "a link"
    if path.is_dir():
        return "a directory"
    return "a file" if path.exists() else "nothing"


def _describe(path: str, one: bytes, two: bytes) -> Difference:
    texts = _text_lines(one), _text_lines(two)
    if texts[0] is not None and texts[1] is not None:
        shown = unified_diff(texts[0], texts[1], "first build", "second build", lineterm="")
        return Difference(path, "the text differs", tuple(islice(shown, SHOWN_LINES)))
    places = differing_places(one, two)
    what = f"{sum(end - start for start, end in places)} bytes differ in {len(places)} places"
    if len(one) != len(two):
        what += f", and the sizes: {len(one)} and {len(two)} bytes"
    lines = [line for start, end in places[:SHOWN_PLACES] for line in _show(start, end, one, two)]
    return Difference(path, what, tuple(lines))


def _text_lines(content: bytes) -> list[str] | None:
    """The lines of a text that can be read as such; None for binaries and for minified code."""
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError:
        return None
    return None if "\0" in "".join(lines) or any(len(line) > _LONG_LINE for line in lines) else lines


def differing_places(one: bytes, two: bytes) -> list[tuple[int, int]]:
    """The offsets [start, end) at which two contents differ, up to the shorter one's end."""
    places: list[tuple[int, int]] = []
    for base in range(0, min(len(one), len(two)), 4096):
        left, right = one[base : base + 4096], two[base : base + 4096]
        if left == right:
            continue
        for offset, (a, b) in enumerate(zip(left, right, strict=False), start=base):
            if a == b:
                continue
            if places and offset - places[-1][1] < _NEAR:
                places[-1] = (places[-1][0], offset + 1)
            else:
                places.append((offset, offset + 1))
    return places


def _show(start: int, end: int, one: bytes, two: bytes) -> Iterator[str]:
    section = section_at(one, start)
    yield f"at byte {start} ({start:#x}){f', section {section}' if section else ''}:"
    for name, content in (("first", one), ("second", two)):
        yield f"  {name + ':':8}{content[start : min(end, start + _NEAR)].hex(' ')}  {_strings(content, start, end)}"


def _strings(content: bytes, start: int, end: int) -> str:
    """Printable text that touches the place."""
    base = max(0, start - _AROUND)
    window = content[base : end + _AROUND]
    found = [
        m.group().decode() for m in _PRINTABLE.finditer(window) if m.end() + base > start and m.start() + base < end
    ]
    return repr(" … ".join(found)) if found else ""


def section_at(content: bytes, offset: int) -> str | None:
    """The name of the ELF section (64-bit, little-endian) that holds a byte of the file; None when there is none."""
    if content[:6] != b"\x7fELF\x02\x01" or len(content) < 64:
        return None
    (table,) = struct.unpack_from("<Q", content, 40)
    size, count, names = struct.unpack_from("<HHH", content, 58)
    if size != 64 or table + count * size > len(content) or names >= count:
        return None
    headers = [struct.unpack_from("<IIQQQQ", content, table + index * size) for index in range(count)]
    names_at = headers[names][4]
    for name, kind, _, _, start, length in headers:
        if kind != 8 and start <= offset < start + length:  # 8: a section without bytes in the file
            return content[names_at + name : content.index(b"\0", names_at + name)].decode(errors="replace")
    return None
