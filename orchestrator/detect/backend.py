"""Which backend a monorepo has: its language and program, its port, its health and API paths."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import assert_never

from orchestrator.detect import golang, rust
from orchestrator.detect.evidence import Evidence
from orchestrator.detect.node import program as node
from orchestrator.detect.node.routes import find_node_routes
from orchestrator.detect.packages import PackageManager
from orchestrator.detect.program import Candidate, Language, Program
from orchestrator.detect.python import program as python
from orchestrator.detect.python.project import is_workspace, read_project
from orchestrator.detect.routes import Dialect, choose_api, choose_health, choose_ready, find_port, find_routes
from orchestrator.detect.sources import read_toml, resolve_inside
from orchestrator.errors import ProjectError

SEARCH_DEPTH = 3

_DIALECTS: Mapping[Language, Dialect] = {
    "rust": rust.DIALECT,
    "go": golang.DIALECT,
    "python": python.DIALECT,
    "node": node.DIALECT,
}


@dataclass(frozen=True, slots=True)
class Backend:
    """`directory` and `lock_file` are relative to the monorepo; `ready_path` tells whether what it needs is there.

    `framework` is "rust", "go", "python" or "node"; `package` and `binary` are what its build tool calls the source and
    the program, and `start` the arguments of the interpreter where one runs it (see `Program`).
    """

    framework: Language
    directory: PurePosixPath
    lock_file: PurePosixPath
    package: str
    binary: str
    port: int
    health_path: str | None
    api_path: str | None
    evidence: tuple[Evidence, ...]
    ready_path: str | None = None
    start: tuple[str, ...] = ()
    package_manager: PackageManager | None = None
    build_script: bool = False


def detect_backend(
    root: Path, *, given: str | None, binary: str | None, port: int | None, api_prefix: str
) -> Backend | None:
    """The backend below `root`, or the one in the directory `given`.

    Raises `ProjectError` listing the candidates, and the flag that decides, when package, binary or port are
    ambiguous, or when the directory given holds none.
    """
    chosen = _given_candidate(root, given) if given is not None else _only_candidate(root)
    if chosen is None:
        return None
    program = _describe(root, chosen, binary)
    listening, listening_evidence = _find_port(root, program, port)
    routes = _find_routes(root, program)
    health, health_evidence = choose_health(routes, program.directory)
    ready, ready_evidence = choose_ready(routes)
    api, api_evidence = choose_api(routes, api_prefix)
    return Backend(
        framework=program.language,
        directory=program.directory,
        lock_file=program.lock_file,
        package=program.package,
        binary=program.binary,
        port=listening,
        health_path=health,
        api_path=api,
        ready_path=ready,
        evidence=(*program.evidence, *listening_evidence, *health_evidence, *ready_evidence, *api_evidence),
        start=program.start,
        package_manager=program.package_manager,
        build_script=program.build_script,
    )


def _describe(root: Path, chosen: Candidate, binary: str | None) -> Program:
    match chosen.language:
        case "rust":
            return rust.describe_rust(root, chosen.directory, binary)
        case "go":
            return golang.describe_go(root, chosen.directory, binary)
        case "python":
            return python.describe_python(root, chosen.directory, binary)
        case "node":
            return node.describe_node(root, chosen.directory, binary)
        case _:
            assert_never(chosen.language)


def _find_port(root: Path, program: Program, given: int | None) -> tuple[int, tuple[Evidence, ...]]:
    return find_port(root, program, _DIALECTS[program.language], given)


def _find_routes(root: Path, program: Program) -> dict[str, Evidence]:
    match program.language:
        case "rust":
            return find_routes(root, program.directory, rust.DIALECT)
        case "go":
            return find_routes(root, program.directory, golang.DIALECT)
        case "python":
            return python.find_python_routes(root, program.directory)
        case "node":
            return find_node_routes(root, program.directory)
        case _:
            assert_never(program.language)


def _given_candidate(root: Path, given: str) -> Candidate:
    """A package, module or project in the directory itself, a main package of Go, or the only candidate below it."""
    directory = resolve_inside(root, given, flag="--backend-dir")
    place = root / directory
    manifests = _manifests(root, directory)
    if len(manifests) > 1:
        raise ProjectError(
            f"--backend-dir {given}: there is {' and '.join(f'a {name}' for name in manifests.values())} in {place}",
            hint="point it at the directory of the program's own package, such as cmd/api",
        )
    if not manifests and any(place.glob("*.go")) and golang.module_of(root, directory) is not None:
        return Candidate("go", directory, serves=True)
    is_root = (place / "go.work").is_file() or is_workspace(root, directory)
    if not manifests and not is_root:
        raise ProjectError(
            f"--backend-dir {given}: there is no Cargo.toml, go.mod, pyproject.toml, requirements.txt or package.json"
            f" in {place}",
            hint="Rust, Go, Python and Node are what backends can be written in so far",
        )
    for language in manifests:
        if _is_own(root, directory, language):
            return Candidate(language, directory, serves=True)
    found = _choose(root, _candidates(root, directory))
    if found is None:
        raise ProjectError(f"nothing in the workspace {place} makes a program")
    return found


def _manifests(root: Path, directory: PurePosixPath) -> dict[Language, str]:
    """The languages of a directory with their manifests; beside another's, Python and Node only if they have a program.

    The pyproject.toml in a Rust package is often there to make a Python package of it, or for a tool; the package.json
    in a Python project to make its style sheets.
    """
    names: dict[Language, str] = {"rust": "Cargo.toml", "go": "go.mod"}
    found = {language: name for language, name in names.items() if (root / directory / name).is_file()}
    project = read_project(root, directory)
    if project is not None and (not found or python.makes_program(root, directory)):
        found["python"] = project.manifest.name
    if (root / directory / "package.json").is_file() and (not found or _makes_server(root, directory)):
        found["node"] = "package.json"
    return found


def _makes_server(root: Path, directory: PurePosixPath) -> bool:
    return bool(node.find_node(root, directory, depth=0))


def _is_own(root: Path, directory: PurePosixPath, language: Language) -> bool:
    """Whether the manifest in a directory is one of a program's own, not only of a workspace."""
    match language:
        case "rust":
            return "package" in read_toml(root / directory / "Cargo.toml")
        case "go":
            return True
        case "python":
            return not is_workspace(root, directory) or python.makes_program(root, directory)
        case "node":
            return not node.is_workspace(root, directory) or _makes_server(root, directory)
        case _:
            assert_never(language)


def _only_candidate(root: Path) -> Candidate | None:
    """Python scripts without a web framework are more often tools than backends: these have to be pointed at."""
    found = _candidates(root, PurePosixPath())
    return _choose(root, tuple(one for one in found if one.serves or one.language != "python"))


def _candidates(root: Path, below: PurePosixPath) -> tuple[Candidate, ...]:
    finders = (rust.find_rust, golang.find_go, python.find_python, node.find_node)
    found = [candidate for find in finders for candidate in find(root, below, depth=SEARCH_DEPTH)]
    return tuple(sorted(found, key=lambda candidate: (len(candidate.directory.parts), candidate.directory)))


def _choose(root: Path, found: tuple[Candidate, ...]) -> Candidate | None:
    """Those that depend on a web framework are preferred; several left is an error."""
    candidates = [candidate for candidate in found if candidate.serves] or list(found)
    if len(candidates) > 1:
        raise ProjectError(
            f"{root} has {len(candidates)} backends: {', '.join(str(found.directory) for found in candidates)}",
            hint="choose one with --backend-dir",
        )
    return candidates[0] if candidates else None
