"""What is /app in the image of a Node backend: Node, the monorepo's own code, the packages it needs in production."""

import os
import platform
from collections.abc import Collection, Iterator
from pathlib import Path

from orchestrator.build.node_modules import Installed, find_installed
from orchestrator.build.own_code import copy_file, copy_own_code

_MODULES = "node_modules"
_PREBUILT = f"linux-{ {'x86_64': 'x64', 'aarch64': 'arm64'}.get(platform.machine(), platform.machine()) }"


def make_application(project: Path, root: Path, tree: Path, interpreter: Path, projects: Collection[Path]) -> Installed:
    """Lay out `tree`: bin/node and, below src/, everything where it is below the monorepo's `root`.

    What was built is part of `project`, the backend's own directory; `projects` are all there are below `root`. Raises
    `ValueError` when a package is missing.
    """
    root, project = root.resolve(), project.resolve()
    installed = find_installed(project, root)
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "node").symlink_to(interpreter)
    copy_own_code(project, tree / "src" / project.relative_to(root), projects)
    for package in installed.packages:
        target = tree / "src" / package.relative_to(root)
        if _MODULES in package.relative_to(root).parts:
            _copy_package(package, target)
        else:
            copy_own_code(package, target, projects)
    for generated in _generated(installed):
        _copy_package(generated, tree / "src" / generated.relative_to(root))
    for place, package in (installed.places | _hoisted(project, root, installed)).items():
        if place != package:
            link = tree / "src" / place.relative_to(root)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(package, place.parent.resolve()))
    return installed


def _generated(installed: Installed) -> frozenset[Path]:
    """Code that packages write beside themselves (https://www.prisma.io/docs/orm/prisma-client)."""
    parents = (parent for package in installed.packages for parent in package.parents if parent.name == _MODULES)
    return frozenset(parent / ".prisma" for parent in parents if (parent / ".prisma").is_dir())


def _hoisted(project: Path, root: Path, installed: Installed) -> dict[Path, Path]:
    """pnpm's links by which a package finds what it uses without declaring it (https://pnpm.io/settings#hoist)."""
    found = {}
    for place in (project, *project.parents):
        links = place / _MODULES / ".pnpm" / _MODULES
        for link in (*links.glob("*"), *links.glob("@*/*")):
            if link.is_symlink() and (package := link.resolve()) in installed.packages:
                found[link] = package
        if place == root:
            break
    return found


def _copy_package(package: Path, target: Path) -> None:
    """A package without those nested in it, which are there for themselves, and without what its compiling left."""
    for path in _files(package):
        copy_file(path, target / path.relative_to(package))


def _files(package: Path) -> Iterator[Path]:
    compiled = (package / "binding.gyp").is_file()
    for directory, subdirectories, names in os.walk(package):
        here = Path(directory)
        subdirectories[:] = sorted(name for name in subdirectories if name != _MODULES)
        place = here.relative_to(package).parts
        if _is_foreign(place):
            continue
        left = compiled and place[:1] == ("build",)
        yield from (here / name for name in names if _is_for_glibc(name) and (not left or name.endswith(".node")))


def _is_foreign(place: tuple[str, ...]) -> bool:
    """Whether a directory has addons for another platform (https://github.com/prebuild/prebuildify)."""
    return place[:1] == ("prebuilds",) and len(place) > 1 and place[1] != _PREBUILT


def _is_for_glibc(name: str) -> bool:
    return not (name.endswith(".node") and "musl" in name)
