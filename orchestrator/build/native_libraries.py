"""Libraries that packages of other people's making count on: what was compiled elsewhere names no store path.

Source of the names: the manylinux policies (https://peps.python.org/pep-0600/), less what shows windows.
"""

import re
from collections.abc import Callable
from pathlib import Path

from orchestrator.build.elf import read_elf

_LIBRARY = re.compile(r"\.so(\.|$)|\.node$")
_GLIBC = frozenset({"libdl.so.2", "libm.so.6", "libnsl.so.1", "libpthread.so.0", "libresolv.so.2", "librt.so.1"})
_PACKAGES = {
    "stdenv.cc.cc.lib": frozenset({"libstdc++.so.6", "libgcc_s.so.1", "libgomp.so.1", "libatomic.so.1"}),
    "zlib": frozenset({"libz.so.1"}),
}
"""nixpkgs' packages and the libraries they have."""


def link_libraries(tree: Path, provide: Callable[[str], Path]) -> None:
    """Put links into `tree`/lib to the libraries its extension modules need and it does not have itself.

    glibc's come from where its interpreter in `tree`/bin has them. `provide` gives the store path of a package of
    nixpkgs, and is asked only for what is needed. What is nowhere there is found out when the image is checked.
    """
    libraries = tuple(path for path in sorted(tree.rglob("*")) if _LIBRARY.search(path.name) and path.is_file())
    needed = {name for path in libraries for name in _needed(path)} - {path.name for path in libraries}
    if needed & _GLIBC:
        _link(needed & _GLIBC, _glibc(tree), tree / "lib")
    for package, names in _PACKAGES.items():
        if needed & names:
            _link(needed & names, provide(package) / "lib", tree / "lib")


def _link(names: frozenset[str] | set[str], directory: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for name in sorted(names):
        if (directory / name).exists():
            (target / name).symlink_to(directory / name)


def _glibc(tree: Path) -> Path:
    """The directory of the loader that starts the tree's interpreter."""
    (interpreter,) = (tree / "bin").iterdir()
    elf = read_elf(interpreter)
    return Path(elf.interpreter or "/").parent if elf is not None else Path("/")


def _needed(path: Path) -> tuple[str, ...]:
    elf = read_elf(path)
    return elf.needed if elf is not None else ()
