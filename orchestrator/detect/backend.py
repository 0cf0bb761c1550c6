"""Which backend a monorepo has: the Rust package and binary, its port, its health and API paths."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.detect.evidence import Evidence
from orchestrator.detect.sources import find_named, line_of, read_toml, resolve_inside, search
from orchestrator.errors import ProjectError

SEARCH_DEPTH = 3
DEFAULT_PORT = 3000
WEB_FRAMEWORKS = ("axum", "actix-web", "rocket", "warp", "poem", "salvo", "tide", "hyper")
HEALTH_PATHS = ("/health", "/healthz", "/up", "/api/health", "/ready")

READY_PATHS = ("/ready", "/readyz", "/health/ready", "/api/ready")

_READS_PORT = re.compile(r"\"PORT\"")
_PORT_LITERAL = re.compile(
    r"[\"'](?:0\.0\.0\.0|127\.0\.0\.1|localhost|\[::\]):(?P<address>\d{2,5})[\"']"
    r"|\[\s*(?:0\s*,\s*0\s*,\s*0\s*,\s*0|127\s*,\s*0\s*,\s*0\s*,\s*1)\s*\]\s*,\s*(?P<tuple>\d{2,5})"
    r"|\"PORT\"[^;]*?unwrap_or(?:_else)?\([^;]*?(?P<fallback>\d{4,5})"
)
_ROUTE = re.compile(r"\.route\(\s*\"(?P<path>/[^\"]*)\"\s*,\s*(?:\w+::)*get\b|#\[get\(\"(?P<attribute>/[^\"]*)\"")


@dataclass(frozen=True, slots=True)
class Backend:
    """`directory` and `lock_file` are relative to the monorepo; `ready_path` tells whether what it needs is there."""

    framework: str
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
    directory = _given_package(root, given) if given is not None else _only_package(root)
    if directory is None:
        return None
    manifest = read_toml(root / directory / "Cargo.toml")
    path = (directory / "Cargo.toml").as_posix()
    name = str(manifest["package"]["name"])
    chosen, why = _binary(root, directory, manifest, binary)
    listening, listening_evidence = _port(root, directory, port)
    health, health_evidence = _health(root, directory)
    ready, ready_evidence = _ready(root, directory)
    api, api_evidence = _api(root, directory, api_prefix)
    found = Evidence(
        f"package {name}, {_web_framework(manifest) or 'no web framework'}",
        path,
        line_of(root / path, "name"),
    )
    return Backend(
        framework="rust",
        directory=directory,
        lock_file=_workspace_root(root, directory) / "Cargo.lock",
        package=name,
        binary=chosen,
        port=listening,
        health_path=health,
        api_path=api,
        ready_path=ready,
        evidence=(found, why, *listening_evidence, *health_evidence, *ready_evidence, *api_evidence),
    )


def _given_package(root: Path, given: str) -> PurePosixPath:
    directory = resolve_inside(root, given, flag="--backend-dir")
    if not (root / directory / "Cargo.toml").is_file():
        raise ProjectError(
            f"--backend-dir {given}: there is no Cargo.toml in {root / directory}",
            hint="Rust is the one backend language supported so far",
        )
    if "package" in read_toml(root / directory / "Cargo.toml"):
        return directory
    return _choose(
        root, [directory / path for path in find_named(root / directory, "Cargo.toml", depth=SEARCH_DEPTH)]
    ) or _no_binary(root, directory)


def _only_package(root: Path) -> PurePosixPath | None:
    return _choose(root, list(find_named(root, "Cargo.toml", depth=SEARCH_DEPTH)))


def _choose(root: Path, directories: list[PurePosixPath]) -> PurePosixPath | None:
    """Packages with a binary, those with a web framework preferred; several left is an error."""
    manifests = {path: read_toml(root / path / "Cargo.toml") for path in directories}
    runnable = [
        path for path, manifest in manifests.items() if "package" in manifest and _binaries(root, path, manifest)
    ]
    serving = [path for path in runnable if _web_framework(manifests[path])]
    candidates = serving or runnable
    if len(candidates) > 1:
        raise ProjectError(
            f"{root} has {len(candidates)} backends: {', '.join(map(str, candidates))}",
            hint="choose one with --backend-dir",
        )
    return candidates[0] if candidates else None


def _no_binary(root: Path, directory: PurePosixPath) -> PurePosixPath:
    raise ProjectError(f"no package of the workspace {root / directory} has a binary")


def _web_framework(manifest: dict[str, Any]) -> str | None:
    declared = manifest.get("dependencies", {})
    return next((name for name in WEB_FRAMEWORKS if name in declared), None)


def _binaries(root: Path, directory: PurePosixPath, manifest: dict[str, Any]) -> tuple[str, ...]:
    """Names of the binary targets, as cargo finds them (The Cargo Book, "Target auto-discovery")."""
    package = manifest["package"]
    names = {str(target["name"]): None for target in manifest.get("bin", []) if "name" in target}
    source = root / directory / "src"
    if package.get("autobins", True):
        if (source / "main.rs").is_file() and not any(t.get("path") == "src/main.rs" for t in manifest.get("bin", [])):
            names[str(package["name"])] = None
        for path in sorted((source / "bin").glob("*")):
            if path.suffix == ".rs" or (path / "main.rs").is_file():
                names[path.stem] = None
    return tuple(names)


def _binary(root: Path, directory: PurePosixPath, manifest: dict[str, Any], wanted: str | None) -> tuple[str, Evidence]:
    path = (directory / "Cargo.toml").as_posix()
    names = _binaries(root, directory, manifest)
    default = manifest["package"].get("default-run")
    if wanted is not None:
        if wanted not in names:
            raise ProjectError(
                f"{path} has no binary called {wanted}",
                hint=f"its binaries are: {', '.join(names) or 'none'}",
            )
        return wanted, Evidence(f"binary {wanted}, chosen by --backend-bin", path)
    if default is not None:
        return str(default), Evidence(f"binary {default}", path, line_of(root / path, "default-run"))
    if not names:
        raise ProjectError(f"{path} has no binary to run", hint="point --backend-dir at the package that serves")
    if len(names) > 1:
        raise ProjectError(
            f"{path} has {len(names)} binaries: {', '.join(names)}",
            hint="choose one with --backend-bin, or set default-run in Cargo.toml",
        )
    return names[0], Evidence(f"binary {names[0]}, the only one", path)


def _workspace_root(root: Path, directory: PurePosixPath) -> PurePosixPath:
    """The nearest directory upwards whose manifest has a `[workspace]`, else the package itself."""
    for place in (directory, *directory.parents):
        manifest = root / place / "Cargo.toml"
        if manifest.is_file() and "workspace" in (table := read_toml(manifest)):
            excluded = [str(path) for path in table["workspace"].get("exclude", [])]
            if directory.relative_to(place).as_posix() not in excluded:
                return place
    return directory


def _port(root: Path, directory: PurePosixPath, given: int | None) -> tuple[int, tuple[Evidence, ...]]:
    if given is not None:
        return given, ()
    hits = tuple(search(root, directory, (".rs",), _PORT_LITERAL))
    ports = {int(next(filter(None, hit.match.groups()))): hit for hit in hits}
    reads = next(search(root, directory, (".rs",), _READS_PORT), None)
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
        return DEFAULT_PORT, (Evidence(f"reads PORT, given {DEFAULT_PORT}", reads.path, reads.line),)
    return DEFAULT_PORT, (Evidence(f"no port found in the source, so {DEFAULT_PORT}", directory.as_posix()),)


def _health(root: Path, directory: PurePosixPath) -> tuple[str | None, tuple[Evidence, ...]]:
    routes = _routes(root, directory)
    for path in HEALTH_PATHS:
        if path in routes:
            return path, (routes[path],)
    return None, (Evidence("no health endpoint found, so any answer below 500 will do", directory.as_posix()),)


def _ready(root: Path, directory: PurePosixPath) -> tuple[str | None, tuple[Evidence, ...]]:
    routes = _routes(root, directory)
    path = next((path for path in READY_PATHS if path in routes), None)
    return path, (routes[path],) if path else ()


def _api(root: Path, directory: PurePosixPath, prefix: str) -> tuple[str | None, tuple[Evidence, ...]]:
    """The first route below the API prefix that takes no parameters."""
    for path, evidence in _routes(root, directory).items():
        if path.startswith(f"{prefix}/") and not set(path) & set("{}:*<>"):
            return path, (evidence,)
    return None, ()


def _routes(root: Path, directory: PurePosixPath) -> dict[str, Evidence]:
    routes: dict[str, Evidence] = {}
    for hit in search(root, directory, (".rs",), _ROUTE):
        path = hit.match["path"] or hit.match["attribute"]
        routes.setdefault(path, Evidence(f"GET {path}", hit.path, hit.line))
    return routes
