"""Libraries that packages of other people's making count on: what was compiled elsewhere names no store path.

Source of the names: the manylinux policies (https://peps.python.org/pep-0600/), less what is glibc's and so there
already, and less what shows windows.
"""

import re
from collections.abc import Callable
from pathlib import Path

from orchestrator.build.elf import read_elf

_LIBRARY = re.compile(r"\.so(\.|$)|\.node$")
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
    libraries = tuple(path for path in sorted(tree.rglob("*")) if _LIBRARY.search(path.name) and path.is_file())
    needed = {name for path in libraries for name in _needed(path)} - {path.name for path in libraries}
    for package, names in _PACKAGES.items():
        if wanted := sorted(needed & names):
            provided = provide(package) / "lib"
            (tree / "lib").mkdir(exist_ok=True)
            for name in wanted:
                if (provided / name).exists():
                    (tree / "lib" / name).symlink_to(provided / name)


def _needed(path: Path) -> tuple[str, ...]:
    elf = read_elf(path)
    return elf.needed if elf is not None else ()
