"""How the first difference between two builds is shown."""

import struct
from pathlib import Path

import pytest

from orchestrator.build.differences import Difference, differing_places, find_difference, section_at


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("one", "two"):
        (tmp_path / name / "assets").mkdir(parents=True)
        (tmp_path / name / "index.html").write_text("<p>\nsame\n</p>\n")
        (tmp_path / name / "link").symlink_to("index.html")
    return tmp_path / "one", tmp_path / "two"


def test_equal_trees_have_none(trees: tuple[Path, Path]) -> None:
    assert find_difference(*trees) is None


def test_text_is_shown_as_a_diff(trees: tuple[Path, Path]) -> None:
    (trees[1] / "index.html").write_text("<p>\nbuilt at 12:00\n</p>\n")
    (trees[1] / "later").write_text("this comes second")
    found = find_difference(*trees)
    assert found is not None
    assert found.path == "index.html"
    assert {"-same", "+built at 12:00"} <= set(found.lines)


def test_what_one_build_lacks_is_said(trees: tuple[Path, Path]) -> None:
    (trees[1] / "assets" / "a.js").write_text("")
    assert find_difference(*trees) == Difference("assets/a.js", "the first build gave nothing, the second a file", ())


def test_modes_and_links_count(trees: tuple[Path, Path]) -> None:
    (trees[0] / "link").unlink()
    (trees[0] / "link").symlink_to("assets")
    found = find_difference(*trees)
    assert found is not None
    assert found.what == "links to assets and to index.html"
    (trees[0] / "assets").chmod(0o700)
    found = find_difference(*trees)
    assert found is not None
    assert (found.path, found.what) == ("assets", "the first build gave mode 40700, the second 40755")


def test_binaries_are_shown_by_place_with_their_strings(tmp_path: Path) -> None:
    content = bytes(5000) + b"panicked at /build/one/src/main.rs" + bytes(5000)
    (tmp_path / "one").write_bytes(content)
    (tmp_path / "two").write_bytes(content.replace(b"/one/", b"/two/") + b"x")
    found = find_difference(tmp_path / "one", tmp_path / "two")
    assert found is not None
    assert found.path == "."
    assert found.what == "3 bytes differ in 1 places, and the sizes: 10034 and 10035 bytes"
    assert found.lines[0] == "at byte 5019 (0x139b):"
    assert found.lines[1].startswith("  first:  6f 6e 65")
    assert "panicked at /build/one/src/main.rs" in found.lines[1]
    assert "panicked at /build/two/src/main.rs" in found.lines[2]


def test_minified_code_is_no_text_to_diff(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("a" * 3000 + "1")
    (tmp_path / "two").write_text("a" * 3000 + "2")
    found = find_difference(tmp_path / "one", tmp_path / "two")
    assert found is not None
    assert found.what == "1 bytes differ in 1 places"
    assert len(" ".join(found.lines)) < 500


def test_places_close_together_are_one() -> None:
    one = bytearray(20_000)
    two = bytearray(one)
    two[10], two[20], two[9000] = 1, 1, 1
    assert differing_places(bytes(one), bytes(two)) == [(10, 21), (9000, 9001)]


def test_the_section_of_an_elf_file_is_named() -> None:
    names = b"\0.text\0.names\0"
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", header, 40, 64 + 16 + len(names))
    struct.pack_into("<HHH", header, 58, 64, 3, 2)
    rows = [(0, 0, 0, 0), (1, 1, 64, 16), (7, 3, 80, len(names))]
    table = b"".join(struct.pack("<IIQQQQ24x", name, kind, 0, 0, at, size) for name, kind, at, size in rows)
    content = bytes(header) + bytes(16) + names + table
    assert section_at(content, 70) == ".text"
    assert section_at(content, 81) == ".names"
    assert section_at(content, 3) is None
    assert section_at(b"text", 0) is None
