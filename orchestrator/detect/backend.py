"""Which backend a monorepo has: its language and program, its port, its health and API paths."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import assert_never

from orchestrator.detect import golang, rust
from orchestrator.detect.evidence import Evidence
from orchestrator.detect.program import Candidate, Language, Program
from orchestrator.detect.routes import Dialect, choose_api, choose_health, choose_ready, find_port, find_routes
from orchestrator.detect.sources import read_toml, resolve_inside
from orchestrator.errors import ProjectError

SEARCH_DEPTH = 3


@dataclass(frozen=True, slots=True)
class Backend:
    """`directory` and `lock_file` are relative to the monorepo; `ready_path` tells whether what it needs is there.

    `framework` is "rust" or "go"; `package` and `binary` are what its build tool calls the source and the program.
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
    program, dialect = _describe(root, chosen, binary)
    listening, listening_evidence = find_port(root, program.directory, dialect, port)
    routes = find_routes(root, program.directory, dialect)
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
    )


def _describe(root: Path, chosen: Candidate, binary: str | None) -> tuple[Program, Dialect]:
    match chosen.language:
        case "rust":
            return rust.describe_rust(root, chosen.directory, binary), rust.DIALECT
        case "go":
            return golang.describe_go(root, chosen.directory, binary), golang.DIALECT
        case _:
            assert_never(chosen.language)


def _given_candidate(root: Path, given: str) -> Candidate:
    """A package or module in the directory itself, a main package of Go, or the only candidate below it."""
    directory = resolve_inside(root, given, flag="--backend-dir")
    place = root / directory
    manifests = [name for name in ("Cargo.toml", "go.mod") if (place / name).is_file()]
    if len(manifests) > 1:
        raise ProjectError(
            f"--backend-dir {given}: there is a Cargo.toml and a go.mod in {place}",
            hint="point it at the directory of the program's own package, such as cmd/api",
        )
    if not manifests and any(place.glob("*.go")) and golang.module_of(root, directory) is not None:
        return Candidate("go", directory, serves=True)
    if manifests == ["go.mod"]:
        return Candidate("go", directory, serves=True)
    if not manifests and not (place / "go.work").is_file():
        raise ProjectError(
            f"--backend-dir {given}: there is no Cargo.toml or go.mod in {place}",
            hint="Rust and Go are the backend languages supported so far",
        )
    if manifests and "package" in read_toml(place / "Cargo.toml"):
        return Candidate("rust", directory, serves=True)
    found = _choose(root, _candidates(root, directory))
    if found is None:
        raise ProjectError(f"nothing in the workspace {place} makes a program")
    return found


def _only_candidate(root: Path) -> Candidate | None:
    return _choose(root, _candidates(root, PurePosixPath()))


def _candidates(root: Path, below: PurePosixPath) -> tuple[Candidate, ...]:
    found = (*rust.find_rust(root, below, depth=SEARCH_DEPTH), *golang.find_go(root, below, depth=SEARCH_DEPTH))
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
