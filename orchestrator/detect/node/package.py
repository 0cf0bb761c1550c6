"""A Node package as its package.json describes it, and which of its files Node would take a path for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.detect.evidence import Evidence
from orchestrator.detect.packages import read_manifest
from orchestrator.detect.sources import line_of
from orchestrator.errors import ProjectError


@dataclass(frozen=True, slots=True)
class NodePackage:
    """`directory` is relative to the monorepo; `bin` has files by command; what is not said is empty."""

    root: Path
    directory: PurePosixPath
    name: str
    main: str
    bin: Mapping[str, str]
    scripts: Mapping[str, str]

    @property
    def path(self) -> str:
        """Its package.json."""
        return (self.directory / "package.json").as_posix()

    @property
    def build(self) -> str:
        """The build script."""
        return self.scripts.get("build", "")

    def evidence(self, claim: str, field: str) -> Evidence:
        """A claim that a field of package.json makes."""
        return Evidence(claim, self.path, line_of(self.root / self.path, f'"{field}"'))

    def has(self, file: PurePosixPath) -> bool:
        """Whether there is such a file in it."""
        try:
            return (self.root / self.directory / file).is_file()
        except (OSError, ValueError):
            return False

    def resolve(self, path: PurePosixPath) -> PurePosixPath | None:
        """The file Node takes a path for: itself, with a suffix, or the index of a directory.

        https://nodejs.org/api/modules.html, "File modules" and "Folders as modules".
        """
        files = (path, PurePosixPath(f"{path}.js"), path / "index.js")
        return next((file for file in files if self.has(file)), None)


def read_package(root: Path, directory: PurePosixPath) -> NodePackage:
    """The package in a directory.

    Raises `ProjectError` when package.json is no JSON object, or a field in it is not what npm's documentation says.
    """
    manifest = read_manifest(root, directory)
    path = (directory / "package.json").as_posix()
    name = _text(path, "name", manifest.get("name"))
    return NodePackage(
        root,
        directory,
        name,
        _text(path, "main", manifest.get("main")),
        _commands(path, name, manifest.get("bin")),
        _texts(path, "scripts", manifest.get("scripts")),
    )


def _commands(path: str, name: str, declared: Any) -> dict[str, str]:
    if isinstance(declared, str):
        return {name.rpartition("/")[2]: _text(path, "bin", declared)}
    return _texts(path, "bin", declared)


def _texts(path: str, field: str, declared: Any) -> dict[str, str]:
    if declared is None:
        return {}
    if not isinstance(declared, dict):
        raise ProjectError(f'{path}: "{field}" is not an object')
    return {key: _text(path, f"{field}.{key}", value) for key, value in declared.items() if key.isprintable()}


def _text(path: str, field: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ProjectError(f'{path}: "{field}" is not a string')
    if not value.isprintable():
        raise ProjectError(f'{path}: "{field}" has characters that cannot be printed')
    return value.strip()
