"""Which backend a monorepo has: its language and program, its port, its health and API paths."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from orchestrator.detect.evidence import Evidence
from orchestrator.detect.languages import MANIFESTS, detector, languages_below
from orchestrator.detect.packages import PackageManager
from orchestrator.detect.program import Candidate, Language
from orchestrator.detect.routes import choose_api, choose_health, choose_ready, find_port
from orchestrator.detect.sources import resolve_inside
from orchestrator.errors import ProjectError

SEARCH_DEPTH = 3


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
    language = detector(chosen.language)
    program = language.describe(root, chosen.directory, binary)
    listening, listening_evidence = find_port(root, program, language.dialect, port)
    routes = language.routes(root, program.directory)
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
    if not manifests and _is_main_package(root, directory):
        return Candidate("go", directory, serves=True)
    if not manifests and not any(detector(language).is_workspace(root, directory) for language in _here(place)):
        raise ProjectError(
            f"--backend-dir {given}: there is no Cargo.toml, go.mod, pyproject.toml, requirements.txt or package.json"
            f" in {place}",
            hint="Rust, Go, Python and Node are what backends can be written in so far",
        )
    for language in manifests:
        if detector(language).owns(root, directory):
            return Candidate(language, directory, serves=True)
    found = _choose(root, _candidates(root, directory))
    if found is None:
        raise ProjectError(f"nothing in the workspace {place} makes a program")
    return found


def _is_main_package(root: Path, directory: PurePosixPath) -> bool:
    """Whether a directory without a go.mod of its own has sources of a module around it."""
    from orchestrator.detect.golang import module_of

    return any((root / directory).glob("*.go")) and module_of(root, directory) is not None


def _here(place: Path) -> tuple[Language, ...]:
    return tuple(dict.fromkeys(language for name, language in MANIFESTS.items() if (place / name).is_file()))


def _manifests(root: Path, directory: PurePosixPath) -> dict[Language, str]:
    """The languages of a directory with their manifests; beside another's, Python and Node only if they have a program.

    The pyproject.toml in a Rust package is often there to make a Python package of it, or for a tool; the package.json
    in a Python project to make its style sheets.
    """
    found: dict[Language, str] = {}
    for language in _here(root / directory):
        manifest = detector(language).declares(root, directory)
        beside = bool(found) and language in ("python", "node")
        if manifest and (not beside or detector(language).runs(root, directory)):
            found[language] = manifest
    return found


def _only_candidate(root: Path) -> Candidate | None:
    """Python scripts without a web framework are more often tools than backends: these have to be pointed at."""
    found = _candidates(root, PurePosixPath())
    return _choose(root, tuple(one for one in found if one.serves or one.language != "python"))


def _candidates(root: Path, below: PurePosixPath) -> tuple[Candidate, ...]:
    languages = languages_below(root, below, depth=SEARCH_DEPTH)
    found = [one for language in languages for one in detector(language).find(root, below, depth=SEARCH_DEPTH)]
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
