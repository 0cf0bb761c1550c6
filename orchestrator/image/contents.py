"""Reads trees of this machine as entries of an image, and refuses what does not belong in one."""

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from posixpath import normpath

from orchestrator.build.references import STORE
from orchestrator.errors import ImageError
from orchestrator.image.layers import Directory, Entry, File, Link

COMPRESSIBLE = frozenset(
    {".css", ".csv", ".geojson", ".htm", ".html", ".ico", ".js", ".json", ".md", ".mjs", ".otf", ".svg", ".ttf"}
    | {".txt", ".wasm", ".webmanifest", ".xml"}
)
"""Extensions whose files get a gzipped twin; images, archives and web fonts are compressed already."""

SMALLEST_TWIN = 1024
"""Bytes below which a gzipped twin is not worth a second file."""

_HASHED_NAME = re.compile(r"[-.](?=[A-Za-z_-]*[0-9A-Z])[A-Za-z0-9_-]{8,}(\.[a-z0-9]+){1,2}")
_DEVELOPMENT = re.compile(
    r"(include|nix-support|lib/(pkgconfig|cmake|debug)|share/(man|doc|info|gtk-doc|aclocal|locale|i18n|pkgconfig))(/|$)"
    r"|lib/.*\.l?a$"
    r"|lib/python3\.\d+/((test|idlelib|tkinter|turtledemo|lib2to3|ensurepip|pydoc_data|config-[^/]*)(/|$)|.*\.opt-[12]\.pyc$)"
)

_Read = Callable[[str, Path, os.stat_result], Entry | None]


def read_store_paths(paths: Iterable[Path], *, store: Path = STORE) -> tuple[Entry, ...]:
    """Store paths under their own names, read-only; headers, manuals and static archives are left out.

    Raises `ImageError` for what cannot be in an image, such as a link that leaves the store.
    """
    entries: list[Entry] = []
    for path in paths:
        name = _image_path(path)

        def read(below: str, host: Path, status: os.stat_result, name: str = name) -> Entry | None:
            if _DEVELOPMENT.match(below):
                return None
            return _store_entry(f"{name}/{below}" if below else name, host, status, store)

        entries += _walk(path, read)
    return tuple(entries)


def read_site(tree: Path, image_root: str, *, source_maps: bool = False) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
    """A built frontend, below `image_root`, as (files named by a content hash, all others).

    Its source maps are left out unless they are asked for.
    Raises `ImageError` when it has no files, and for what cannot be served: a link that leaves the tree or leads
    nowhere, a device, a set-uid file.
    """

    def read(below: str, host: Path, status: os.stat_result) -> Entry | None:
        is_map = below.endswith(".map") and not stat.S_ISDIR(status.st_mode)
        if not below or (is_map and not source_maps):
            return None
        return _site_entry(f"{image_root}/{below}", host, status, tree)

    entries = _walk(tree, read)
    hashed = tuple(entry for entry in entries if isinstance(entry, File) and is_hashed(entry.path))
    if not any(isinstance(entry, File) for entry in entries):
        raise ImageError(
            f"the built frontend {tree} has no files", hint="check what its build script writes, and where"
        )
    named = set(hashed)
    return hashed, tuple(entry for entry in entries if entry not in named)


def read_program(path: Path, image_path: str) -> File:
    """An executable as a file of the image. Raises `ImageError` when it is none."""
    status = _status(path)
    entry = _regular(image_path, path, status)
    if not status.st_mode & 0o111:
        raise ImageError(f"{path} is not executable", hint="the build should have produced a program")
    return File(entry.path, path, mode=0o755)


def read_application(
    tree: Path, image_root: str, *, store: Path = STORE
) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
    """A tree with an interpreter, below `image_root`, as (what it depends on, the monorepo's own code).

    The latter is what is in src/, but not in a node_modules there.

    Raises `ImageError` for what cannot be in an image, such as a link that leads out of it.
    """
    own = f"{image_root}/src"

    def read(below: str, host: Path, status: os.stat_result) -> Entry | None:
        return _application_entry(f"{image_root}/{below}", host, status, tree, store) if below else None

    entries = _walk(tree, read)
    parts: tuple[list[Entry], list[Entry]] = ([], [])
    for entry in entries:
        path = f"{entry.path}/"
        parts[path.startswith(f"{own}/") and "/node_modules/" not in path].append(entry)
    return tuple(parts[0]), tuple(parts[1])


def is_hashed(path: str) -> bool:
    """Whether a file's name carries a content hash, as bundlers write it: `index-BxYz12_a.js`, `main.8f3a2b1c.css`."""
    return _HASHED_NAME.search(path.rpartition("/")[2]) is not None


def _image_path(path: Path) -> str:
    return str(path).lstrip("/")


def _walk(root: Path, read: _Read) -> list[Entry]:
    """Entries for `root` and all below it; what `read` gives None for is left out, directories with all they hold."""
    entries: list[Entry] = []
    pending = [("", root)]
    while pending:
        below, host = pending.pop()
        status = _status(host)
        entry = read(below, host, status)
        if entry is not None:
            entries.append(entry)
        if stat.S_ISDIR(status.st_mode) and (entry is not None or not below):
            pending += _children(below, host)
    return entries


def _children(below: str, host: Path) -> Iterator[tuple[str, Path]]:
    try:
        names = [child.name for child in host.iterdir()]
    except OSError as error:
        raise ImageError(f"{host} cannot be read: {error.strerror}") from error
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ImageError(f"{host} holds a file whose name is not UTF-8: {name!r}", hint="rename it") from None
        yield (f"{below}/{name}" if below else name), host / name


def _status(path: Path) -> os.stat_result:
    try:
        return path.lstat()
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from error


def _store_entry(path: str, host: Path, status: os.stat_result, store: Path) -> Entry:
    if stat.S_ISDIR(status.st_mode):
        return Directory(path, 0o555)
    if stat.S_ISLNK(status.st_mode):
        target = str(host.readlink())
        if not Path(normpath(host.parent / target)).is_relative_to(store):
            raise _leaves(host, target, hint="this package is not self-contained and cannot be in an image")
        return Link(path, target)
    entry = _regular(path, host, status)
    return File(entry.path, host, mode=0o555 if status.st_mode & 0o111 else 0o444, immutable=True)


def _site_entry(path: str, host: Path, status: os.stat_result, tree: Path) -> Entry:
    if stat.S_ISDIR(status.st_mode):
        return Directory(path)
    if stat.S_ISLNK(status.st_mode):
        target = str(host.readlink())
        hint = "replace the link with a copy of what it should serve"
        if target.startswith("/") or not host.resolve().is_relative_to(tree.resolve()):
            raise _leaves(host, target, hint=hint)
        if not host.exists():
            raise ImageError(f"{host} is a link to {target}, which does not exist", hint=hint)
        return Link(path, target)
    return _regular(path, host, status, twin=_wants_twin(host, status))


def _application_entry(path: str, host: Path, status: os.stat_result, tree: Path, store: Path) -> Entry:
    if stat.S_ISDIR(status.st_mode):
        return Directory(path)
    if stat.S_ISLNK(status.st_mode):
        target = str(host.readlink())
        place = Path(normpath(host.parent / target))
        if not place.is_relative_to(store) and (target.startswith("/") or not place.is_relative_to(tree)):
            raise _leaves(host, target, hint="replace the link with a copy of what it leads to")
        return Link(path, target)
    entry = _regular(path, host, status)
    return File(entry.path, host, mode=0o755 if status.st_mode & 0o111 else 0o644)


def _wants_twin(host: Path, status: os.stat_result) -> bool:
    return (
        host.suffix in COMPRESSIBLE
        and status.st_size >= SMALLEST_TWIN
        and not host.with_name(f"{host.name}.gz").exists()
    )


def _regular(path: str, host: Path, status: os.stat_result, *, twin: bool = False) -> File:
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{host} is a {_kind(status)}; an image holds files, directories and links", hint="remove it")
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise ImageError(f"{host} is set-uid or set-gid", hint=f"run: chmod ug-s {host}")
    return File(path, host, twin=twin)


def _kind(status: os.stat_result) -> str:
    kinds = {stat.S_IFSOCK: "socket", stat.S_IFIFO: "pipe", stat.S_IFLNK: "link", stat.S_IFDIR: "directory"}
    return kinds.get(stat.S_IFMT(status.st_mode), "device")


def _leaves(host: Path, target: str, *, hint: str) -> ImageError:
    return ImageError(f"{host} is a link to {target}, outside of what goes into the image", hint=hint)
