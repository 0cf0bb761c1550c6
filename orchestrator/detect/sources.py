"""Reading a monorepo's files: which there are, and on which line something stands."""

import json
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.errors import ProjectError, UsageError

NOT_SOURCES = frozenset({"node_modules", "target", "dist", "build", "out", "vendor", "venv", "__pycache__", "result"})
"""Directories that hold what tools made, not what people wrote."""

MAX_SOURCE_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Hit:
    """A match of a pattern: `path` relative to the monorepo, `line` from 1."""

    path: str
    line: int
    match: re.Match[str]


def find_named(root: Path, name: str, *, depth: int) -> tuple[PurePosixPath, ...]:
    """Directories (relative to `root`, nearest first) that hold a file called `name`, at most `depth` below."""
    found = []
    for directory, subdirectories, names in os.walk(root):
        relative = PurePosixPath(os.path.relpath(directory, root))
        subdirectories[:] = sorted(child for child in subdirectories if is_source_directory(child))
        if len(relative.parts) >= depth:
            subdirectories.clear()
        if name in names:
            found.append(relative)
    return tuple(sorted(found, key=lambda path: (len(path.parts), path)))


def search(root: Path, directory: PurePosixPath, suffixes: tuple[str, ...], pattern: re.Pattern[str]) -> Iterator[Hit]:
    """Every match of `pattern` in the sources below `directory`, file by file in a fixed order."""
    for path in _sources(root / directory, suffixes):
        text = path.read_text(errors="replace")
        relative = path.relative_to(root).as_posix()
        for match in pattern.finditer(text):
            yield Hit(relative, text.count("\n", 0, match.start()) + 1, match)


def line_of(path: Path, text: str) -> int | None:
    """The first line of `path` that contains `text`."""
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        if text in line:
            return number
    return None


def read_toml(path: Path) -> dict[str, Any]:
    """The file's table. Raises `ProjectError` naming file and position."""
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ProjectError(f"{path} cannot be read: {error}") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """The file's object. Raises `ProjectError` naming file and position."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ProjectError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ProjectError(f"{path} is not a JSON object")
    return value


def resolve_inside(root: Path, given: str, *, flag: str) -> PurePosixPath:
    """`given` as a path relative to the monorepo. Raises `UsageError` when it is missing or lies outside.

    A directory reached through a symbolic link counts as where it really is.
    """
    real_root = root.resolve()
    real = (root / given).resolve()
    if not real.is_dir():
        raise UsageError(f"{flag} {given}: there is no such directory in {root}")
    if not real.is_relative_to(real_root):
        raise UsageError(
            f"{flag} {given} leads out of the monorepo, to {real}",
            hint=f"directories are relative to {root}; pass a --monorepo that contains both",
        )
    return PurePosixPath(real.relative_to(real_root).as_posix())


def is_source_directory(name: str) -> bool:
    """Whether people's own files may be in a directory called so."""
    return name not in NOT_SOURCES and not name.startswith(".")


def _sources(directory: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    for current, subdirectories, names in os.walk(directory):
        subdirectories[:] = sorted(child for child in subdirectories if is_source_directory(child))
        for name in sorted(names):
            path = Path(current, name)
            if name.endswith(suffixes) and path.is_file() and path.stat().st_size <= MAX_SOURCE_BYTES:
                yield path
