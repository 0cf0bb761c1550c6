"""Where a backend listens and what it answers, read from literals in its source."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from orchestrator.detect.evidence import Evidence
from orchestrator.detect.program import Program
from orchestrator.detect.sources import Hit, search
from orchestrator.errors import ProjectError

DEFAULT_PORT = 3000
HEALTH_PATHS = ("/health", "/healthz", "/up", "/api/health", "/ready")
READY_PATHS = ("/ready", "/readyz", "/health/ready", "/api/ready")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a language's sources say where they listen: `port` has groups for the number.

    Files whose path `tests` matches somewhere are left out.
    """

    suffixes: tuple[str, ...]
    tests: re.Pattern[str] | None
    reads_port: re.Pattern[str]
    port: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class RouteDialect(Dialect):
    """How they say what they answer, too: `path_of` gives the path of a `route` hit."""

    route: re.Pattern[str]
    path_of: Callable[[re.Match[str]], str]


def find_port(root: Path, program: Program, dialect: Dialect, given: int | None) -> tuple[int, tuple[Evidence, ...]]:
    """The port given, else the one the source names.

    Raises `ProjectError` when it names several and does not read PORT.
    """
    if given is not None:
        return given, ()
    directory = program.directory
    hits = tuple(_hits(root, directory, dialect, dialect.port))
    ports = {int(next(filter(None, hit.match.groups()))): hit for hit in hits}
    reads = _port_reader(root, program, dialect)
    if len(ports) > 1 and reads is None:
        raise ProjectError(
            f"the backend's port is not clear: {', '.join(map(str, sorted(ports)))}",
            hint="say it with --backend-port",
            details=[f"{hit.path}:{hit.line}" for hit in ports.values()],
        )
    if len(ports) == 1:
        port, hit = next(iter(ports.items()))
        return port, (Evidence(f"listens on port {port}", hit.path, hit.line),)
    if reads is not None:
        return DEFAULT_PORT, (reads,)
    return DEFAULT_PORT, (Evidence(f"no port found in the source, so {DEFAULT_PORT}", directory.as_posix()),)


def find_routes(root: Path, directory: PurePosixPath, dialect: RouteDialect) -> dict[str, Evidence]:
    """Each path the source answers to GET requests, with where it says so."""
    routes: dict[str, Evidence] = {}
    for hit in _hits(root, directory, dialect, dialect.route):
        path = dialect.path_of(hit.match)
        routes.setdefault(path, Evidence(f"GET {path}", hit.path, hit.line))
    return routes


def choose_health(routes: dict[str, Evidence], directory: PurePosixPath) -> tuple[str | None, tuple[Evidence, ...]]:
    """The first of the usual paths that is a route."""
    for path in HEALTH_PATHS:
        if path in routes:
            return path, (routes[path],)
    return None, (Evidence("no health endpoint found, so any answer below 500 will do", directory.as_posix()),)


def choose_ready(routes: dict[str, Evidence]) -> tuple[str | None, tuple[Evidence, ...]]:
    """The first of the usual paths that is a route."""
    path = next((path for path in READY_PATHS if path in routes), None)
    return path, (routes[path],) if path else ()


def choose_api(routes: dict[str, Evidence], prefix: str) -> tuple[str | None, tuple[Evidence, ...]]:
    """The first route below the API prefix that takes no parameters."""
    for path, evidence in routes.items():
        if path.startswith(f"{prefix}/") and not set(path) & set("{}:*<>"):
            return path, (evidence,)
    return None, ()


def _port_reader(root: Path, program: Program, dialect: Dialect) -> Evidence | None:
    """Where PORT is read: somewhere in the source, or by what serves the program."""
    if program.reads_port:
        return Evidence(f"{program.binary} is served on PORT, given {DEFAULT_PORT}", program.lock_file.as_posix())
    reads = next(_hits(root, program.directory, dialect, dialect.reads_port), None)
    return Evidence(f"reads PORT, given {DEFAULT_PORT}", reads.path, reads.line) if reads is not None else None


def _hits(root: Path, directory: PurePosixPath, dialect: Dialect, pattern: re.Pattern[str]) -> Iterator[Hit]:
    hits = search(root, directory, dialect.suffixes, pattern)
    return (hit for hit in hits if dialect.tests is None or not dialect.tests.search(hit.path))
