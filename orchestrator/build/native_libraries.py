"""Libraries that packages of other people's making count on: what was compiled elsewhere names no store path.

Source of the names: the manylinux policies (https://peps.python.org/pep-0600/), less what is glibc's and so there
already, and less what shows windows.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.build.elf import read_elf

_PACKAGES = {
    "stdenv.cc.cc.lib": frozenset({"libstdc++.so.6", "libgcc_s.so.1", "libgomp.so.1", "libatomic.so.1"}),
    "zlib": frozenset({"libz.so.1"}),
}
"""nixpkgs' packages and the libraries they have."""


def link_libraries(tree: Path, provide: Callable[[str], Path]) -> None:
    """Put links into `tree`/lib to the libraries its extension modules need and it does not have itself.

    `provide` gives the store path of a package of nixpkgs, and is asked only for what is needed. What no package of
    the list has is found out when the image is checked.
    """
    present = {path.name for path in tree.rglob("*.so*")}
    needed = set(_needed(tree)) - present
    for package, names in _PACKAGES.items():
        if wanted := sorted(needed & names):
            libraries = provide(package) / "lib"
            for name in wanted:
                if (libraries / name).exists():
                    (tree / "lib" / name).symlink_to(libraries / name)


def _needed(tree: Path) -> Iterator[str]:
    for path in sorted(tree.rglob("*.so*")):
        elf = read_elf(path) if path.is_file() and not path.is_symlink() else None
        yield from elf.needed if elf is not None else ()
