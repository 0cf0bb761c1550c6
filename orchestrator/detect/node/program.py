"""Node backends, in JavaScript or TypeScript: packages with a server, and how Node starts it."""

import re
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.detect.evidence import Evidence
from orchestrator.detect.frontend import BUILT_ON_VITE
from orchestrator.detect.node.entry import START_SCRIPTS, choose_entry, usual_files
from orchestrator.detect.node.package import NodePackage, read_package
from orchestrator.detect.node.routes import SOURCE_SUFFIXES, TESTS
from orchestrator.detect.packages import dependencies, detect_package_manager, read_manifest
from orchestrator.detect.program import Candidate, Program
from orchestrator.detect.routes import Dialect
from orchestrator.detect.sources import find_named
from orchestrator.errors import ProjectError

WEB_FRAMEWORKS = (
    "@nestjs/core",
    "@hono/node-server",
    "@apollo/server",
    "@hapi/hapi",
    "@loopback/rest",
    "express",
    "fastify",
    "koa",
    "restify",
    "polka",
    "h3",
    "micro",
    "apollo-server",
    "apollo-server-express",
    "graphql-yoga",
    "socket.io",
)
FRONTENDS = frozenset(
    {
        "vite",
        *BUILT_ON_VITE,
        "@remix-run/node",
        "@remix-run/serve",
        "next",
        "nuxt3",
        "gatsby",
        "react-scripts",
        "@vue/cli-service",
        "@angular/core",
        "@docusaurus/core",
        "expo",
        "react-native",
        "electron",
    }
)
"""What packages depend on that people look at, whatever serves them."""

DIALECT = Dialect(
    suffixes=SOURCE_SUFFIXES,
    tests=TESTS,
    reads_port=re.compile(
        r"\benv\.PORT\b|\benv\[\s*[\"'`]PORT[\"'`]\s*\]"
        r"|\{[^{}]*\bPORT\b[^{}]*\}\s*=\s*process\.env\b"
        r"|\.get(?:OrThrow)?(?:<[^<>()]*>)?\(\s*[\"'`]PORT[\"'`]"
        r"|\bPORT\s*:\s*(?:z\.|port\(|num\(|Joi\.)"
    ),
    port=re.compile(
        r"\.listen\(\s*(?:\{[^{}]*?\bport\s*:\s*)?(?P<listen>\d{2,5})\b"
        r"|\bserve\(\s*\{[^{}]*?\bport\s*:\s*(?P<serve>\d{2,5})\b"
        r"|\benv(?:\.PORT\b|\[\s*[\"'`]PORT[\"'`]\s*\])\s*\)?\s*(?:\|\||\?\?)\s*[\"'`]?(?P<fallback>\d{2,5})\b"
        r"|\{[^{}]*\bPORT\s*=\s*[\"'`]?(?P<default>\d{2,5})\b[^{}]*\}\s*=\s*process\.env\b"
        r"|\.get(?:<[^<>()]*>)?\(\s*[\"'`]PORT[\"'`]\s*(?:,|\)\s*(?:\|\||\?\?))\s*[\"'`]?(?P<configured>\d{2,5})\b"
        r"|\bPORT\s*:\s*(?:z|port|num|Joi)\b[^\n]{0,120}?\bdefault\s*[(:]\s*[\"'`]?(?P<declared>\d{2,5})\b"
        r"|\b(?:const|let|var)\s+(?:port|PORT)\s*(?::\s*\w+\s*)?=\s*[\"'`]?(?P<constant>\d{2,5})\b"
    ),
)

_HTTP = re.compile(r"[\"'](?:node:)?(?:https?|http2|ws|@trpc/server/adapters/standalone)[\"']")
_OPENS = re.compile(r"\b(?:create(?:Secure|HTTP)?Server|(?:new\s+)?(?:\w+\.)?(?:WebSocket)?Server)\(")
_SERVES = re.compile(r"\.listen\(|\bserve\(|\bstartStandaloneServer\(")
_NOT_DEPLOYED = frozenset({"test", "tests", "__tests__"})


def find_node(root: Path, below: PurePosixPath, *, depth: int) -> tuple[Candidate, ...]:
    """The packages with a server in and below a directory, at most `depth` down, apart from tests and frontends.

    Raises `ProjectError` when a package.json cannot be understood.
    """
    places = (below / path for path in find_named(root / below, "package.json", depth=depth))
    deployed = (place for place in places if not _NOT_DEPLOYED & set(place.relative_to(below).parts))
    return tuple(Candidate("node", place, serves=True) for place in deployed if _is_server(root, place))


def describe_node(root: Path, directory: PurePosixPath, wanted: str | None) -> Program:
    """The program of the package in a directory: what its start script runs, or the file or command `wanted`.

    Raises `ProjectError` when it is not clear what Node should run, and when the package manager is not supported.
    """
    manifest = read_manifest(root, directory)
    package = read_package(root, directory)
    entry = choose_entry(package, wanted)
    manager = detect_package_manager(root, directory)
    return Program(
        "node",
        directory,
        manager.lock_file,
        package.name,
        entry.file.as_posix(),
        (_framework_evidence(package, manifest), *entry.evidence, *_build_evidence(package), manager.evidence),
        entry.start,
        package_manager=manager,
        build_script=bool(package.build),
    )


def _is_server(root: Path, directory: PurePosixPath) -> bool:
    manifest = read_manifest(root, directory)
    if FRONTENDS & dependencies(manifest).keys():
        return False
    package = read_package(root, directory)
    framework = _web_framework(manifest) is not None
    if framework and _starts(package) and not is_workspace(root, directory):
        return True
    texts = (_text(root, directory / file) for file in _entry_files(package))
    return any(_listens(text) or (framework and _SERVES.search(text) is not None) for text in texts)


def _listens(text: str) -> bool:
    """Whether a source makes a server of Node's own, or one of a package that needs no framework."""
    return _HTTP.search(text) is not None and _OPENS.search(text) is not None


def _web_framework(manifest: dict[str, Any]) -> str | None:
    declared = manifest.get("dependencies")
    names = declared.keys() if isinstance(declared, dict) else ()
    feathers = (name for name in names if name.startswith("@feathersjs/"))
    return next((name for name in WEB_FRAMEWORKS if name in names), None) or next(feathers, None)


def _starts(package: NodePackage) -> bool:
    return any(package.scripts.get(script) for script in START_SCRIPTS)


def is_workspace(root: Path, directory: PurePosixPath) -> bool:
    """Whether the package in a directory is the root of a workspace."""
    manifest = read_manifest(root, directory)
    return "workspaces" in manifest or (root / directory / "pnpm-workspace.yaml").is_file()


def _entry_files(package: NodePackage) -> tuple[PurePosixPath, ...]:
    """The sources of what Node would run, else those with the usual names of programs."""
    try:
        entry = choose_entry(package, None)
    except ProjectError:
        return () if _starts(package) else usual_files(package)
    return tuple(file for file in (entry.source, entry.file) if file is not None and package.has(file))


def _text(root: Path, path: PurePosixPath) -> str:
    return (root / path).read_text(errors="replace")


def _framework_evidence(package: NodePackage, manifest: dict[str, Any]) -> Evidence:
    framework = _web_framework(manifest)
    named = f"package {package.name}" if package.name else "package without a name"
    if framework is None:
        return package.evidence(f"{named}, no web framework", "name")
    return package.evidence(f"{named} depends on {framework}", framework)


def _build_evidence(package: NodePackage) -> tuple[Evidence, ...]:
    return (package.evidence(f"built with `{package.build}`", "build"),) if package.build else ()
