"""What the TypeScript compiler makes of a package's sources: which files, and where.

Rules: https://www.typescriptlang.org/tsconfig (outDir, rootDir, include, exclude, files, extends).
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.detect.sources import is_source_directory
from orchestrator.errors import ProjectError

SUFFIXES = {".ts": ".js", ".tsx": ".js", ".mts": ".mjs", ".cts": ".cjs"}
"""Of sources, with those of what is made of them."""

_MAX_EXTENDS = 8
_STRING_OR_COMMENT = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?(?:\*/|\Z)', re.DOTALL)
_STRING_OR_COMMA = re.compile(r'"(?:[^"\\]|\\.)*"|,(?=\s*[}\]])', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Compiler:
    """Paths are relative to the monorepo; without `out_dir` each file is written beside its source."""

    config: PurePosixPath
    sources: tuple[PurePosixPath, ...]
    root_dir: PurePosixPath
    out_dir: PurePosixPath | None

    def output(self, source: PurePosixPath) -> PurePosixPath:
        """What it makes of a source. Raises `ProjectError` when it would not compile that."""
        if source not in self.sources or not source.is_relative_to(self.root_dir):
            raise ProjectError(f"{self.config} does not include {source}", hint='see "include", "exclude", "rootDir"')
        return self._made(source)

    def source(self, output: PurePosixPath) -> PurePosixPath | None:
        """What it makes an output of."""
        within = (source for source in self.sources if source.is_relative_to(self.root_dir))
        return next((source for source in within if self._made(source) == output), None)

    def _made(self, source: PurePosixPath) -> PurePosixPath:
        made = self.out_dir / source.relative_to(self.root_dir) if self.out_dir is not None else source
        return made.with_suffix(SUFFIXES.get(source.suffix, source.suffix))


@dataclass(frozen=True, slots=True)
class _Config:
    """What one file says; None is what it says nothing about. Paths and patterns are relative to the monorepo."""

    out_dir: PurePosixPath | None = None
    root_dir: PurePosixPath | None = None
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] | None = None
    files: tuple[str, ...] | None = None
    no_emit: bool | None = None
    composite: bool | None = None
    allow_js: bool | None = None

    def over(self, base: "_Config") -> "_Config":
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        inherited = {name: getattr(base, name) if value is None else value for name, value in said.items()}
        return _Config(**inherited)


def read_compiler(root: Path, config: PurePosixPath) -> Compiler | None:
    """What a tsconfig.json makes the compiler do; None where there is no such file.

    Raises `ProjectError` when it cannot be read, or says that nothing is written.
    """
    if not (root / config).is_file():
        return None
    said = _read_config(root, config, config.parent, _MAX_EXTENDS)
    if said.no_emit:
        raise ProjectError(
            f"{config} says noEmit: nothing is compiled", hint="give the build a configuration that emits"
        )
    sources = tuple(_sources(root, config.parent, said))
    common = config.parent if said.composite else _common(sources, config.parent)
    return Compiler(config, sources, said.root_dir or common, said.out_dir)


def read_jsonc(path: Path) -> dict[str, Any]:
    """The object of a JSON file with comments and trailing commas. Raises `ProjectError` naming file and position."""
    try:
        bare = _STRING_OR_COMMENT.sub(_only_strings, path.read_text(encoding="utf-8-sig"))
        value = json.loads(_STRING_OR_COMMA.sub(_only_strings, bare))
    except (OSError, ValueError, RecursionError) as error:
        raise ProjectError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ProjectError(f"{path} is not a JSON object")
    return value


def _only_strings(match: re.Match[str]) -> str:
    """A string as it is; anything else as blanks, so that lines keep their numbers."""
    return match[0] if match[0].startswith('"') else re.sub(r"[^\n]", " ", match[0])


def _read_config(root: Path, config: PurePosixPath, project: PurePosixPath, depth: int) -> _Config:
    if depth == 0:
        raise ProjectError(f"{config}: the chain of extends does not end")
    text = read_jsonc(root / config)
    said = _said(text, config.parent, project)
    for extended in reversed(_list(text.get("extends"))):
        if (base := _extended(root, config.parent, extended)) is not None:
            said = said.over(_read_config(root, base, project, depth - 1))
    return said


def _extended(root: Path, place: PurePosixPath, extended: str) -> PurePosixPath | None:
    """The file a configuration extends, if it belongs to the monorepo; those in packages say nothing about paths."""
    if not extended.startswith("."):
        return None
    path = os.path.normpath(place / extended)
    named = path if path.endswith(".json") else f"{path}.json"
    inside = named.isprintable() and not named.startswith("../")
    return PurePosixPath(named) if inside and (root / named).is_file() else None


def _said(text: Mapping[str, Any], place: PurePosixPath, project: PurePosixPath) -> _Config:
    declared = text.get("compilerOptions")
    options = declared if isinstance(declared, dict) else {}

    def path(name: str) -> PurePosixPath | None:
        value = options.get(name)
        return PurePosixPath(_joined(place, value, project)) if isinstance(value, str) else None

    def patterns(name: str) -> tuple[str, ...] | None:
        return tuple(_joined(place, value, project) for value in _list(text[name])) if name in text else None

    def flag(name: str) -> bool | None:
        return bool(options[name]) if name in options else None

    return _Config(
        path("outDir"),
        path("rootDir"),
        patterns("include"),
        patterns("exclude"),
        patterns("files"),
        flag("noEmit"),
        flag("composite"),
        flag("allowJs"),
    )


def _list(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, str)]


def _joined(place: PurePosixPath, path: str, project: PurePosixPath) -> str:
    """A path as a configuration in `place` means it, relative to the monorepo."""
    if path.startswith("${configDir}"):
        return os.path.normpath(f"{project}/{path.removeprefix('${configDir}')}")
    return os.path.normpath(place / path)


def _sources(root: Path, place: PurePosixPath, said: _Config) -> Iterator[PurePosixPath]:
    """The files that are compiled, apart from declarations."""
    included = said.include if said.include is not None else () if said.files is not None else (f"{place}/**/*",)
    include = [_pattern(path) for path in (*included, *(said.files or ()))]
    exclude = [_pattern(path) for path in said.exclude or ()]
    suffixes = (*SUFFIXES, ".js", ".mjs", ".cjs", ".jsx") if said.allow_js else tuple(SUFFIXES)
    for path in _files(root, place, suffixes):
        built = said.out_dir not in (None, place) and said.out_dir in path.parents
        declares = path.stem.endswith(".d")
        if not built and not declares and _any(include, path) and not _any(exclude, path):
            yield path


def _files(root: Path, place: PurePosixPath, suffixes: tuple[str, ...]) -> Iterator[PurePosixPath]:
    for current, children, names in os.walk(root / place):
        children[:] = sorted(child for child in children if is_source_directory(child))
        here = place / PurePosixPath(os.path.relpath(current, root / place))
        yield from (here / name for name in sorted(names) if name.endswith(suffixes))


def _any(patterns: list[re.Pattern[str]], path: PurePosixPath) -> bool:
    return any(pattern.fullmatch(path.as_posix()) for pattern in patterns)


def _pattern(path: str) -> re.Pattern[str]:
    """A pattern of include or exclude; a directory stands for all that is in it."""
    normal = os.path.normpath(path)
    last = normal.rpartition("/")[2]
    whole = normal if "." in last.strip(".") or ("*" in last and last != "**") else f"{normal}/**/*"
    whole = os.path.normpath(whole.replace("**/**/", "**/"))
    escaped = re.escape(whole).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
    return re.compile(escaped)


def _common(sources: tuple[PurePosixPath, ...], place: PurePosixPath) -> PurePosixPath:
    """The deepest directory that holds them all."""
    parents = [f"/{source.parent}" for source in sources]
    return PurePosixPath(os.path.commonpath(parents)).relative_to("/") if parents else place
