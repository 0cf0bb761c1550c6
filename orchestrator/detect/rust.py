"""Rust backends: packages with binaries, as cargo finds them, and how axum and its like say routes and ports."""

import re
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.detect.evidence import Evidence
from orchestrator.detect.program import Candidate, Program
from orchestrator.detect.routes import RouteDialect
from orchestrator.detect.sources import find_named, line_of, read_toml
from orchestrator.errors import ProjectError

WEB_FRAMEWORKS = ("axum", "actix-web", "rocket", "warp", "poem", "salvo", "tide", "hyper")

DIALECT = RouteDialect(
    suffixes=(".rs",),
    tests=None,
    reads_port=re.compile(r"\"PORT\""),
    port=re.compile(
        r"[\"'](?:0\.0\.0\.0|127\.0\.0\.1|localhost|\[::\]):(?P<address>\d{2,5})[\"']"
        r"|\[\s*(?:0\s*,\s*0\s*,\s*0\s*,\s*0|127\s*,\s*0\s*,\s*0\s*,\s*1)\s*\]\s*,\s*(?P<tuple>\d{2,5})"
        r"|\"PORT\"[^;]*?unwrap_or(?:_else)?\([^;]*?(?P<fallback>\d{4,5})"
    ),
    route=re.compile(r"\.route\(\s*\"(?P<path>/[^\"]*)\"\s*,\s*(?:\w+::)*get\b|#\[get\(\"(?P<attribute>/[^\"]*)\""),
    path_of=lambda match: match["path"] or match["attribute"],
)


def find_rust(root: Path, below: PurePosixPath, *, depth: int) -> tuple[Candidate, ...]:
    """The packages with a binary in and below a directory, at most `depth` down."""
    directories = [below / path for path in find_named(root / below, "Cargo.toml", depth=depth)]
    manifests = {path: read_toml(root / path / "Cargo.toml") for path in directories}
    return tuple(
        Candidate("rust", path, serves=_web_framework(manifest) is not None)
        for path, manifest in manifests.items()
        if "package" in manifest and _binaries(root, path, manifest)
    )


def describe_rust(root: Path, directory: PurePosixPath, wanted: str | None) -> Program:
    """The package's binary. Raises `ProjectError` listing them when several could be meant."""
    manifest = read_toml(root / directory / "Cargo.toml")
    path = (directory / "Cargo.toml").as_posix()
    name = str(manifest["package"]["name"])
    binary, why = _binary(root, directory, manifest, wanted)
    framework = _web_framework(manifest) or "no web framework"
    found = Evidence(f"package {name}, {framework}", path, line_of(root / path, "name"))
    lock_file = _workspace_root(root, directory) / "Cargo.lock"
    return Program("rust", directory, lock_file, name, binary, (found, why))


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
