"""Finds every shared library as ld.so(8) would, but inside the tree an image will have."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from orchestrator.build.elf import Elf, read_elf
from orchestrator.build.tree import Tree
from orchestrator.errors import ImageError

_HINT = "link it with a library from the dev shell, so that its store path is in the RUNPATH and thus in the image"


@dataclass(frozen=True, slots=True)
class _Object:
    """A loaded file: the path it was found under and what loaded it."""

    path: str
    elf: Elf
    loader: "_Object | None" = None


@dataclass(frozen=True, slots=True)
class _Objects:
    """All ELF files of a tree, the tree, and the directories of LD_LIBRARY_PATH."""

    tree: Tree
    elves: Mapping[str, Elf]
    environment: tuple[str, ...]

    def find(self, path: str, machine: tuple[int, int, int]) -> Elf | None:
        """The library at `path` when it is one for `machine`."""
        resolved = self.tree.resolve(path)
        elf = self.elves.get(resolved) if resolved else None
        return elf if elf and elf.machine == machine else None


def check_elf(tree: Tree, *, environment: tuple[str, ...] = ()) -> None:
    """Every dynamic executable and library of the tree finds its interpreter and libraries inside the tree.

    `environment` are the directories of LD_LIBRARY_PATH.

    Raises `ImageError` naming the file and the library, and `ElfError` for a damaged file.
    """
    objects = _Objects(
        tree, {path: elf for path, source in tree.files.items() if (elf := read_elf(source))}, environment
    )
    programs = {path: elf for path, elf in sorted(objects.elves.items()) if _is_program(elf)}
    loaded: dict[str, str] = {}
    for path, elf in programs.items():
        loaded |= _load_program(objects, path, elf)
    if not loaded:
        return  # static programs load nothing, so libraries beside them are never used
    reached = {tree.resolve(path) for path in loaded.values()}
    loaders = dict.fromkeys(elf.interpreter or "" for elf in programs.values())
    defaults = tuple(directory for loader in loaders for directory in _built_in_directories(objects, loader))
    for path, elf in _modules_first(objects):
        if not _is_program(elf) and path not in reached:
            found = _load(objects, _Object(path, elf), defaults=defaults, loaded=dict(loaded))
            reached |= {tree.resolve(path) for path in found.values()}


def _modules_first(objects: _Objects) -> list[tuple[str, Elf]]:
    """What no other file needs comes first: it is loaded by itself, and what it needs may be found through it alone."""
    needed = {name for elf in objects.elves.values() for name in elf.needed}
    return sorted(objects.elves.items(), key=lambda item: (PurePosixPath(item[0]).name in needed, item[0]))


def _is_program(elf: Elf) -> bool:
    """A dynamic executable. A library may name an interpreter as well (libc does, to print its version)."""
    return elf.interpreter is not None and elf.soname is None


def _load_program(objects: _Objects, path: str, elf: Elf) -> dict[str, str]:
    """What the loader maps for one executable: library name to path."""
    interpreter = elf.interpreter or ""
    loader = objects.find(interpreter, elf.machine)
    if loader is None:
        raise ImageError(
            f"{path} needs the dynamic loader {interpreter}, which is not in the image",
            hint="build it inside the dev shell (whose linker names a loader in the store), or link it statically",
        )
    loaded = {loader.soname or PurePosixPath(interpreter).name: interpreter}
    return _load(objects, _Object(path, elf), defaults=_built_in_directories(objects, interpreter), loaded=loaded)


def _load(objects: _Objects, first: _Object, *, defaults: tuple[str, ...], loaded: dict[str, str]) -> dict[str, str]:
    """Breadth first, as the loader does; a name that is loaded already is not searched again."""
    queue = [first]
    for item in queue:
        for name in item.elf.needed:
            if name in loaded:
                continue
            found = _find_library(objects, item, name, defaults)
            if found is None:
                raise ImageError(
                    f"{item.path} needs {name}, which is not in the image",
                    hint=_HINT,
                    details=[f"searched {directory}" for directory in _search_path(objects, item, defaults)],
                )
            loaded[name] = found.path
            if found.elf.soname:
                loaded.setdefault(found.elf.soname, found.path)
            queue.append(found)
    return loaded


def _find_library(objects: _Objects, item: _Object, name: str, defaults: tuple[str, ...]) -> _Object | None:
    candidates = (
        [name] if "/" in name else [f"{directory}/{name}" for directory in _search_path(objects, item, defaults)]
    )
    for candidate in candidates:
        if elf := objects.find(candidate, item.elf.machine):
            return _Object(candidate, elf, loader=item)
    return None


def _search_path(objects: _Objects, item: _Object, defaults: tuple[str, ...]) -> Iterator[str]:
    """ld.so(8): without a RUNPATH the RPATH of the object and of all that loaded it; LD_LIBRARY_PATH; the RUNPATH;
    defaults."""
    if not item.elf.runpath:
        ancestor: _Object | None = item
        while ancestor is not None:
            if not ancestor.elf.runpath:
                yield from _expanded(ancestor, ancestor.elf.rpath)
            ancestor = ancestor.loader
    yield from objects.environment
    yield from _expanded(item, item.elf.runpath)
    yield from defaults


def _expanded(item: _Object, directories: tuple[str, ...]) -> Iterator[str]:
    origin = item.path.rpartition("/")[0]
    for directory in directories:
        yield directory.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)


def _built_in_directories(objects: _Objects, interpreter: str) -> tuple[str, ...]:
    """The directories a loader searches last are strings inside it: its own store path's in Nix, /lib elsewhere."""
    source = objects.tree.files[objects.tree.resolve(interpreter) or interpreter]
    return tuple(
        directory.decode() for directory in dict.fromkeys(re.findall(rb"\0(/[!-~]{1,250})/(?=\0)", source.read_bytes()))
    )
