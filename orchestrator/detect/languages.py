"""What differs between the languages of backends when they are looked for; only those there are files of are loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Protocol, assert_never

from orchestrator.detect.evidence import Evidence
from orchestrator.detect.program import Candidate, Language, Program
from orchestrator.detect.routes import Dialect, find_routes
from orchestrator.detect.sources import find_named, read_toml

MANIFESTS: dict[str, Language] = {
    "Cargo.toml": "rust",
    "go.mod": "go",
    "go.work": "go",
    "pyproject.toml": "python",
    "requirements.txt": "python",
    "Pipfile": "python",
    "package.json": "node",
}
"""Files in whose directory there may be a backend."""

_Asked = Callable[[Path, PurePosixPath], bool]


class Find(Protocol):
    """The candidates in and below a directory of the monorepo, at most `depth` down."""

    def __call__(self, root: Path, below: PurePosixPath, /, *, depth: int) -> tuple[Candidate, ...]: ...


@dataclass(frozen=True, slots=True)
class Detector:
    """How backends in one language are found; the functions take the monorepo and a directory in it.

    `declares` gives the name of the manifest of a project there, "" without one; `runs` tells whether the directory
    itself has a program, `is_workspace` whether it is the root of a workspace. `describe` raises `ProjectError`.
    """

    find: Find
    describe: Callable[[Path, PurePosixPath, str | None], Program]
    routes: Callable[[Path, PurePosixPath], dict[str, Evidence]]
    dialect: Dialect
    declares: Callable[[Path, PurePosixPath], str]
    runs: _Asked
    is_workspace: _Asked

    def owns(self, root: Path, directory: PurePosixPath) -> bool:
        """Whether the manifest in a directory is one of a program's own, not only of a workspace."""
        return not self.is_workspace(root, directory) or self.runs(root, directory)


def languages_below(root: Path, below: PurePosixPath, *, depth: int) -> tuple[Language, ...]:
    """The languages with a manifest in and below a directory, at most `depth` down."""
    found = (language for name, language in MANIFESTS.items() if find_named(root / below, name, depth=depth))
    return tuple(dict.fromkeys(found))


def detector(language: Language) -> Detector:
    """The detector of a language."""
    match language:
        case "rust":
            return _rust()
        case "go":
            return _go()
        case "python":
            return _python()
        case "node":
            return _node()
        case _:
            assert_never(language)


def _rust() -> Detector:
    from orchestrator.detect import rust

    def is_package(root: Path, directory: PurePosixPath) -> bool:
        return "package" in read_toml(root / directory / "Cargo.toml")

    return Detector(
        find=rust.find_rust,
        describe=rust.describe_rust,
        routes=partial(find_routes, dialect=rust.DIALECT),
        dialect=rust.DIALECT,
        declares=partial(_present, name="Cargo.toml"),
        runs=is_package,
        is_workspace=lambda root, directory: not is_package(root, directory),
    )


def _go() -> Detector:
    from orchestrator.detect import golang

    return Detector(
        find=golang.find_go,
        describe=golang.describe_go,
        routes=partial(find_routes, dialect=golang.DIALECT),
        dialect=golang.DIALECT,
        declares=partial(_present, name="go.mod"),
        runs=lambda root, directory: bool(_present(root, directory, name="go.mod")),
        is_workspace=lambda root, directory: bool(_present(root, directory, name="go.work")),
    )


def _python() -> Detector:
    from orchestrator.detect.python import program, project

    def manifest(root: Path, directory: PurePosixPath) -> str:
        found = project.read_project(root, directory)
        return found.manifest.name if found is not None else ""

    return Detector(
        find=program.find_python,
        describe=program.describe_python,
        routes=program.find_python_routes,
        dialect=program.DIALECT,
        declares=manifest,
        runs=program.makes_program,
        is_workspace=project.is_workspace,
    )


def _node() -> Detector:
    from orchestrator.detect.node import program, routes

    return Detector(
        find=program.find_node,
        describe=program.describe_node,
        routes=routes.find_node_routes,
        dialect=program.DIALECT,
        declares=partial(_present, name="package.json"),
        runs=lambda root, directory: bool(program.find_node(root, directory, depth=0)),
        is_workspace=program.is_workspace,
    )


def _present(root: Path, directory: PurePosixPath, *, name: str) -> str:
    return name if (root / directory / name).is_file() else ""
