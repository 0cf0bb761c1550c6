"""Which of the machine's libraries and programs are copied into the store, and the trees they are copied from.

An image can contain only what is in the store, so whatever a built program may need at run time is copied: the C
library, the usual shared libraries, nginx, the interpreters. They are taken from the installed Debian packages and
not from freshly fetched `.deb` files: apt has verified them, they are there without a network, and the copy is
byte for byte what the machine's compiler linked against. Two machines with the same package versions get the same
store paths.
"""

import fnmatch
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from orchestrator import process
from orchestrator.tools.debian import Debian
from orchestrator.tools.hosttools import Python

Tree = Mapping[str, Path]
"""What a copied tree consists of: place in the package → file on this machine."""

_DEVELOPMENT = ("include/*", "lib/pkgconfig/*.pc", "share/pkgconfig/*.pc")

SEED_PROGRAMS = (
    "bash", "basename", "cat", "chmod", "cp", "cut", "dirname", "env", "expr", "false", "find", "grep", "gzip", "head",
    "install", "ln", "ls", "mkdir", "mktemp", "mv", "patchelf", "readlink", "realpath", "rm", "rmdir", "sed", "seq",
    "sort", "tail", "tar", "tee", "test", "touch", "tr", "true", "uniq", "wc", "xargs",
)  # fmt: skip
"""What the builders of the package set need."""

_C_LIBRARIES = ("c", "m", "dl", "pthread", "rt", "resolv", "util", "nss_dns", "nss_files")
"""The parts of glibc a program may need. Without conversion modules, locales, audit and profiling libraries."""


@dataclass(frozen=True, slots=True)
class Library:
    """A copied package made of Debian packages. `keep` are patterns of the places it consists of."""

    packages: str
    keep: tuple[str, ...]
    headers: str = ""
    programs: str | None = None
    main: str = ""


LIBRARIES: Mapping[str, Library] = {
    "glibc": Library(
        "libc6",
        ("lib/ld-linux*", *(f"lib/lib{name}.so.*" for name in _C_LIBRARIES)),
    ),
    "libgcc": Library("libgcc-s1", ("lib/libgcc_s.so.1",)),
    "libstdcxx": Library("libstdc++6", ("lib/libstdc++.so.6*",)),
    "zlib": Library("zlib1g", ("lib/libz.so.*",), headers="zlib1g-dev"),
    "openssl": Library("libssl3", ("lib/lib*.so.3",), headers="libssl-dev", programs="openssl-programs"),
    "pcre2": Library("libpcre2-8-0", ("lib/libpcre2-8.so.*",), headers="libpcre2-dev"),
    "libxcrypt": Library("libcrypt1", ("lib/libcrypt.so.*",), headers="libcrypt-dev"),
    "ncurses": Library(
        "libtinfo6 libncursesw6",
        ("lib/libtinfo.so.*", "lib/libncursesw.so.*"),
        headers="libncurses-dev",
    ),
    "libffi": Library("libffi8", ("lib/libffi.so.*",), headers="libffi-dev"),
    "sqlite": Library("libsqlite3-0", ("lib/lib*.so.*",), headers="libsqlite3-dev", programs="sqlite-programs"),
    "libpq": Library("libpq5", ("lib/lib*.so.*",), headers="libpq-dev", programs="postgresql-programs"),
    "bash": Library("bash", ("bin/bash",), main="bash"),
    "nginx": Library("nginx nginx-common", ("bin/nginx", "conf/mime.types"), main="nginx"),
}
"""In the order of their needs: a library comes before what links to it."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A package to be copied: its tree, its headers' tree and how it is called."""

    version: str
    tree: Tree
    headers: Tree | None = None
    headers_package: str | None = None
    programs: str | None = None
    main: str = ""


@dataclass(frozen=True, slots=True)
class Module:
    """An installed Python distribution and the names of those it requires."""

    version: str
    tree: Tree
    requires: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Needs:
    """Shared libraries a tree needs: the packages that have them, and loose files that none has."""

    packages: tuple[str, ...] = ()
    loose: Tree = field(default_factory=dict)


def find_copies(debian: Debian, python: Python, node: tuple[str, Path] | None) -> dict[str, Copy]:
    """Every package of the table that is on this machine, then the interpreters."""
    copies = {
        attr: _library(library, debian) for attr, library in LIBRARIES.items() if debian.has(*library.packages.split())
    }
    copies["python3-unwrapped"] = Copy(version=_python_release(python), tree=python_tree(python), main="python3")
    if node:
        copies["nodejs-slim"] = Copy(version=node[0], tree={"bin/node": node[1]}, main="node")
    return copies


def _library(library: Library, debian: Debian) -> Copy:
    packages, headers = library.packages.split(), library.headers.split()
    have_headers = bool(headers) and debian.has(*headers)
    development = _placed(debian, headers, _DEVELOPMENT)
    tree = _placed(debian, packages, library.keep)
    return Copy(
        version=debian.version(packages[0]),
        tree=tree | _development_names(_placed(debian, headers, ("lib/*.so",)), tree),
        headers=development if have_headers else None,
        headers_package=library.headers or None,
        programs=library.programs,
        main=library.main,
    )


def _development_names(names: Tree, tree: Tree) -> dict[str, Path]:
    """The `libz.so` names the linker looks for, as far as they stand for libraries of `tree`."""
    files = {path.resolve() for path in tree.values()}
    return {place: path for place, path in names.items() if path.resolve() in files}


def _placed(debian: Debian, packages: Iterable[str], keep: Sequence[str]) -> dict[str, Path]:
    """The files of Debian packages whose place in a store package matches one of the patterns."""
    tree: dict[str, Path] = {}
    for path in (path for package in packages for path in debian.files(package)):
        place = store_place(str(path))
        if place and any(fnmatch.fnmatchcase(place, pattern) for pattern in keep) and path.is_file():
            tree.setdefault(place, path)
    return tree


def store_place(path: str) -> str | None:
    """Where a file of a Debian package goes: `/usr/lib/x86_64-linux-gnu/libz.so.1` → `lib/libz.so.1`.

    None for directories without a place, and for plugins below a library directory.
    """
    for pattern, place in _PLACES:
        if found := pattern.fullmatch(path):
            return place + found[1]
    return None


_PLACES = tuple(
    (re.compile(pattern), place)
    for pattern, place in (
        (r"(?:/usr)?/s?bin/([^/]+)", "bin/"),
        (r"(?:/usr)?/lib/[^/]+-linux-gnu/pkgconfig/(.+)", "lib/pkgconfig/"),
        (r"/usr/share/pkgconfig/(.+)", "share/pkgconfig/"),
        (r"(?:/usr)?/lib(?:64|/[^/]+-linux-gnu)/([^/]+\.so[^/]*)", "lib/"),
        (r"/usr/include/[^/]+-linux-gnu/(.+)", "include/"),
        (r"/usr/include/(.+)", "include/"),
        (r"/etc/nginx/(mime\.types)", "conf/"),
    )
)


def python_tree(python: Python) -> dict[str, Path]:
    """An interpreter with its standard library, without tests, graphical modules and other people's packages."""
    tree = {f"bin/{name}": python.program for name in (f"python{python.version}", "python3", "python")}
    for directory, subdirectories, names in os.walk(python.library):
        relative = os.path.relpath(directory, python.library)
        subdirectories[:] = [name for name in subdirectories if not _left_out(name)]
        for name in names:
            if not _left_out(name):
                place = os.path.normpath(f"lib/python{python.version}/{relative}/{name}")
                tree[place] = Path(directory, name)
    return tree


def _left_out(name: str) -> bool:
    """Parts of the standard library that no server needs or that need libraries we do not ship."""
    return name in _LEFT_OUT or any(fnmatch.fnmatchcase(name, pattern) for pattern in _LEFT_OUT_PATTERNS)


_LEFT_OUT = {
    "__pycache__", "dist-packages", "site-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "turtle.py",
    "lib2to3", "pydoc_data",
}  # fmt: skip
_LEFT_OUT_PATTERNS = (
    "config-*", "*.a", "_tkinter.*", "nis.*.so", "_dbm.*.so", "_gdbm.*.so", "ossaudiodev.*.so", "_test*.so", "xx*.so",
    "_ctypes_test*.so", "_xx*.so", "libpython*",
)  # fmt: skip


def _python_release(python: Python) -> str:
    """The full version, from the interpreter itself: the running one may be another of the same series."""
    said = process.run([str(python.program), "-IS", "-c", "import platform; print(platform.python_version())"])
    return said.stdout.strip()


def find_modules(names: Iterable[str], python: Python) -> dict[str, Module]:
    """The installed Python distributions called `names` and all they require, by normal name."""
    modules: dict[str, Module] = {}
    waiting = [normal_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name not in modules:
            modules[name] = _module(name, python)
            waiting.extend(modules[name].requires)
    return dict(sorted(modules.items()))


def _module(name: str, python: Python) -> Module:
    distribution = metadata.distribution(name)
    requires = {required for text in distribution.requires or () if (required := required_name(text))}
    return Module(distribution.version, _module_tree(distribution, python), tuple(sorted(requires)))


def _module_tree(distribution: metadata.Distribution, python: Python) -> dict[str, Path]:
    """The distribution's files as they were installed, also when we run from a package set made of them."""
    root = Path(str(distribution.locate_file("")))
    made_of = root.parents[2] / "nix-support/host-source"
    if made_of.exists():
        source = Path(made_of.read_text().strip())
        return {str(path.relative_to(source)): path for path in source.rglob("*") if path.is_file()}
    site = f"lib/python{python.version}/site-packages"
    return {f"{site}/{file}": root / str(file) for file in distribution.files or () if _belongs(str(file))}


def _belongs(file: str) -> bool:
    """Bytecode, and what an installer noted about this one installation, are not part of a package."""
    return "__pycache__" not in file and not file.startswith("..") and Path(file).name not in _INSTALLERS_NOTES


_INSTALLERS_NOTES = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}


def required_name(requirement: str) -> str | None:
    """`pydantic-core==2.1; python_version>"3"` → `pydantic-core`; None for an extra's or another system's."""
    text, _, marker = requirement.partition(";")
    if re.search(r"extra\s*==|python_version\s*<|win32|Windows|PyPy", marker):
        return None
    found = re.match(r"[A-Za-z0-9._-]+", text.strip())
    return normal_name(found[0]) if found else None


def normal_name(name: str) -> str:
    """PyPI's normal form of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def seed_tree() -> dict[str, Path]:
    """The programs that build everything else, with every library they need and the dynamic loader.

    Raises `ProgramMissing` when one is absent.
    """
    programs = {
        name: process.require(name, reason="copy this machine's libraries into the Nix store", hint=_seed_hint(name))
        for name in SEED_PROGRAMS
    }
    tree = {f"bin/{name}": path for name, path in programs.items()}
    return tree | {"bin/sh": programs["bash"]} | _loaded(programs.values())


def _seed_hint(name: str) -> str:
    return f"apt-get install {name if name == 'patchelf' else 'coreutils findutils sed grep tar gzip'}"


def needs(tree: Tree, provided: Mapping[str, str]) -> Needs:
    """What the ELF files of `tree` need. `provided` gives the package that has a library: file name → package."""
    own = {Path(place).name for place in tree}
    wanted = {
        place: path
        for place, path in _loaded(path for path in tree.values() if is_elf(path)).items()
        if Path(place).name not in own
    }
    packages = {provided[Path(place).name] for place in wanted if Path(place).name in provided}
    loose = {place: path for place, path in wanted.items() if Path(place).name not in provided}
    return Needs(packages=tuple(sorted(packages)), loose=loose)


def is_elf(path: Path) -> bool:
    """Whether it is a program or library of any machine (and not a library's development symlink or a script)."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _loaded(paths: Iterable[Path]) -> dict[str, Path]:
    """The shared libraries the dynamic loader would load for `paths`, and the loader itself, by place."""
    files = [str(path) for path in paths]
    if not files:
        return {}
    said = process.run(["ldd", *files], check=False).stdout
    found = re.findall(r"^\s+(?:\S+ => )?(/\S+) \(0x", said, re.MULTILINE)
    return {f"lib/{Path(path).name}": Path(path) for path in sorted(set(found))}


def stage(tree: Tree, directory: Path) -> None:
    """Write `tree` below `directory`: plain files, and symlinks where a name stands for a neighbour."""
    same_file: dict[tuple[Path, Path], list[str]] = {}
    for place, path in tree.items():
        target = directory / place
        same_file.setdefault((target.parent, path.resolve()), []).append(target.name)
    for (parent, real), names in same_file.items():
        name = real.name if real.name in names else max(names, key=len)
        parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(real, parent / name)
        (parent / name).chmod(0o755 if os.access(real, os.X_OK) else 0o644)
        for other in names:
            if other != name:
                (parent / other).symlink_to(name)
