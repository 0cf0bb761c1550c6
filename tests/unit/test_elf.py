"""The ELF reader and the library search, on files made here: facts read, rubbish refused, ld.so's order kept."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.build.elf import ElfError, read_elf
from orchestrator.build.linkage import check_elf
from orchestrator.build.tree import Tree
from orchestrator.errors import ImageError

LOADER = "/store/libc/lib/ld.so"


def make_elf(
    *,
    needed: tuple[str, ...] = (),
    interpreter: str | None = None,
    soname: str | None = None,
    rpath: str | None = None,
    runpath: str | None = None,
    bits: int = 64,
    order: str = "<",
    machine: int = 62,
    trailer: bytes = b"",
) -> bytes:
    """A file with program headers, a dynamic section and a string table: all the loader goes by."""
    wide = bits == 64
    header = struct.Struct(order + ("HHIQQQIHHH" if wide else "HHIIIIIHHH"))
    segment = struct.Struct(order + ("IIQQQQQQ" if wide else "8I"))
    dynamic = struct.Struct(order + ("qQ" if wide else "iI"))
    tags = [(1, name) for name in needed]
    tags += [(tag, text) for tag, text in ((14, soname), (15, rpath), (29, runpath)) if text is not None]
    strings, offsets = b"\0", []
    for _, text in tags:
        offsets.append(len(strings))
        strings += text.encode() + b"\0"
    interp = interpreter.encode() + b"\0" if interpreter else b""
    count = 3 if interpreter else 2
    table = 16 + header.size
    at_interp = table + count * segment.size
    at_strings = at_interp + len(interp)
    at_dynamic = at_strings + len(strings)
    base = 0x400000
    entries = [(tag, offset) for (tag, _), offset in zip(tags, offsets, strict=True)]
    entries += [(5, base + at_strings), (10, len(strings)), (0, 0)]
    body = interp + strings + b"".join(dynamic.pack(*entry) for entry in entries)
    size = at_dynamic + len(entries) * dynamic.size

    def program_header(kind: int, offset: int, length: int) -> bytes:
        address = base + offset
        if wide:
            return segment.pack(kind, 4, offset, address, address, length, length, 8)
        return segment.pack(kind, offset, address, address, length, length, 4, 4)

    headers = program_header(1, 0, size) + program_header(2, at_dynamic, len(entries) * dynamic.size)
    if interpreter:
        headers += program_header(3, at_interp, len(interp))
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    start = header.pack(3, machine, 1, 0, table, 0, 0, 16 + header.size, segment.size, count)
    return ident + start + headers + body + trailer


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_facts_are_read(tmp_path: Path, bits: int, order: str) -> None:
    path = tmp_path / "program"
    path.write_bytes(
        make_elf(
            needed=("a.so", "b.so"), interpreter=LOADER, rpath="/r", runpath="$ORIGIN/../lib:/x", bits=bits, order=order
        )
    )
    elf = read_elf(path)
    assert elf is not None
    assert elf.interpreter == LOADER
    assert elf.needed == ("a.so", "b.so")
    assert elf.rpath == ("/r",)
    assert elf.runpath == ("$ORIGIN/../lib", "/x")
    assert elf.soname is None
    assert elf.machine == (bits // 32, 1 if order == "<" else 2, 62)


def test_other_files_are_not_elf(tmp_path: Path) -> None:
    for content in (b"", b"\x7fEL", b"#!/bin/sh\n"):
        (tmp_path / "file").write_bytes(content)
        assert read_elf(tmp_path / "file") is None


@given(data=st.data())
def test_damage_is_a_typed_error_or_another_reading(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(make_elf(needed=("a.so",), interpreter=LOADER, runpath="/x"))
    for position in data.draw(st.lists(st.integers(4, len(content) - 1), max_size=6)):
        content[position] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content[: data.draw(st.integers(4, len(content)))])
    try:
        read_elf(path)
    except ElfError as error:
        assert str(path) in error.message


def test_a_cut_off_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "cut"
    path.write_bytes(make_elf(needed=("a.so",))[:-40])
    with pytest.raises(ElfError, match="cut is a damaged ELF file"):
        read_elf(path)


class Image:
    """A tree under construction."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.files: dict[str, Path] = {}
        self.links: dict[str, str] = {}

    def add(self, path: str, content: bytes) -> None:
        host = self.directory / str(len(self.files))
        host.write_bytes(content)
        self.files[path] = host

    def check(self, *environment: str) -> None:
        check_elf(Tree(self.files, self.links), environment=environment)


@pytest.fixture
def image(tmp_path: Path) -> Image:
    made = Image(tmp_path)
    made.add(LOADER, make_elf(soname="ld.so", trailer=b"\0/store/libc/lib/\0/usr/lib/\0"))
    made.add("/store/libc/lib/libc.so", make_elf(soname="libc.so", needed=("ld.so",)))
    return made


def test_the_interpreter_must_be_in_the_tree(image: Image) -> None:
    image.add("/app", make_elf(interpreter="/lib64/ld-linux.so.2"))
    with pytest.raises(ImageError, match=r"/app needs the dynamic loader /lib64/ld-linux\.so\.2, which is not"):
        image.check()


def test_a_library_is_found_by_runpath_origin_and_built_in_directories(image: Image) -> None:
    image.add("/opt/lib/libx.so", make_elf(soname="libx.so"))
    image.add("/opt/bin/app", make_elf(interpreter=LOADER, runpath="$ORIGIN/../lib", needed=("libx.so", "libc.so")))
    image.check()


def test_a_missing_library_is_named_with_its_user_and_the_places_searched(image: Image) -> None:
    image.add("/app", make_elf(interpreter=LOADER, runpath="/nowhere", needed=("libssl.so.3",)))
    with pytest.raises(ImageError, match=r"/app needs libssl\.so\.3, which is not in the image") as caught:
        image.check()
    assert caught.value.details == ("searched /nowhere", "searched /store/libc/lib", "searched /usr/lib")
    assert caught.value.hint


def test_libraries_of_libraries_are_searched_too(image: Image) -> None:
    image.add("/app", make_elf(interpreter=LOADER, runpath="/lib", needed=("liba.so",)))
    image.add("/lib/liba.so", make_elf(needed=("libb.so",)))
    with pytest.raises(ImageError, match=r"/lib/liba\.so needs libb\.so"):
        image.check()


def test_runpath_is_not_inherited_but_rpath_is(image: Image) -> None:
    image.add("/lib/libb.so", make_elf())
    image.add("/one/liba.so", make_elf(needed=("libb.so",)))
    image.add("/app", make_elf(interpreter=LOADER, rpath="/one:/lib", needed=("liba.so",)))
    image.check()
    image.add("/app", make_elf(interpreter=LOADER, runpath="/one:/lib", needed=("liba.so",)))
    with pytest.raises(ImageError, match=r"/one/liba\.so needs libb\.so"):
        image.check()


def test_a_library_already_loaded_is_not_searched_again(image: Image) -> None:
    image.add("/lib/libb.so", make_elf(soname="libb.so"))
    image.add("/one/liba.so", make_elf(needed=("libb.so",)))
    image.add("/app", make_elf(interpreter=LOADER, runpath="/one:/lib", needed=("libb.so", "liba.so")))
    image.check()


def test_a_library_of_another_machine_is_passed_over(image: Image) -> None:
    image.add("/arm/liba.so", make_elf(machine=183))
    image.add("/app", make_elf(interpreter=LOADER, runpath="/arm", needed=("liba.so",)))
    with pytest.raises(ImageError, match=r"/app needs liba\.so"):
        image.check()
    image.add("/x86/liba.so", make_elf())
    image.add("/app", make_elf(interpreter=LOADER, runpath="/arm:/x86", needed=("liba.so",)))
    image.check()


def test_links_are_followed_inside_the_tree(image: Image) -> None:
    image.add("/real/liba.so.1", make_elf(soname="liba.so.1"))
    image.links |= {"/lib": "real", "/real/liba.so": "../lib/liba.so.1", "/loop": "loop"}
    image.add("/app", make_elf(interpreter=LOADER, runpath="/loop:/lib", needed=("liba.so",)))
    image.check()
    image.links["/real/liba.so"] = "/gone"
    with pytest.raises(ImageError, match=r"needs liba\.so"):
        image.check()


def test_a_plugin_no_program_loads_is_checked_with_what_programs_load(image: Image) -> None:
    image.add("/app", make_elf(interpreter=LOADER, needed=("libc.so",)))
    image.add("/plugins/a.so", make_elf(needed=("libc.so",)))
    image.check()
    image.add("/plugins/b.so", make_elf(needed=("libz.so",)))
    with pytest.raises(ImageError, match=r"/plugins/b\.so needs libz\.so"):
        image.check()


def test_a_plugin_is_searched_for_libraries_where_the_programs_loader_looks_last(image: Image) -> None:
    image.add("/app", make_elf(interpreter=LOADER, needed=("libc.so",)))
    image.add("/usr/lib/libz.so", make_elf())
    image.add("/plugins/a.so", make_elf(needed=("libz.so",)))
    image.check()


def test_what_only_a_plugin_loads_is_found_through_it(image: Image) -> None:
    """As in wheels of Python: the libraries that come along find each other by the RPATH of the module alone."""
    image.add("/app", make_elf(interpreter=LOADER, needed=("libc.so",)))
    image.add("/a.libs/liba.so", make_elf(needed=("libb.so",)))
    image.add("/a.libs/libb.so", make_elf())
    image.add("/zz/module.so", make_elf(rpath="$ORIGIN/../a.libs", needed=("liba.so",)))
    image.check()
    del image.files["/zz/module.so"]
    with pytest.raises(ImageError, match=r"/a\.libs/liba\.so needs libb\.so"):
        image.check()


def test_ld_library_path_counts_for_programs_and_plugins(image: Image) -> None:
    image.add("/app", make_elf(interpreter=LOADER, needed=("liba.so",)))
    image.add("/plugin.so", make_elf(needed=("libb.so",)))
    image.add("/env/liba.so", make_elf())
    image.add("/env/libb.so", make_elf())
    image.check("/env")
    with pytest.raises(ImageError, match=r"/app needs liba\.so"):
        image.check()


def test_a_library_that_names_an_interpreter_is_a_library(image: Image) -> None:
    image.add("/lib/libc.so.6", make_elf(soname="libc.so.6", interpreter="/lib64/elsewhere"))
    image.check()


def test_static_programs_need_nothing(tmp_path: Path) -> None:
    image = Image(tmp_path)
    image.add("/app", make_elf())
    image.add("/README", b"text")
    image.check()


def test_tree_resolves_as_the_kernel_does() -> None:
    tree = Tree({"/a/b": Path("x")}, {"/l": "a", "/up": "../../l/../l/b", "/abs": "/l/b"})
    assert tree.resolve("/l/b") == "/a/b"
    assert tree.resolve("/up") == "/a/b"
    assert tree.resolve("/a/./b") == "/a/b"
    assert tree.resolve("//abs") == "/a/b"
    assert tree.resolve("/a") is None
    assert tree.resolve("/c") is None
