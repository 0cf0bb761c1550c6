"""Which frontend a monorepo has: framework, output directory, and the variable its code finds the API with."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.detect.evidence import Evidence
from orchestrator.detect.packages import PackageManager, dependencies, detect_package_manager, read_manifest
from orchestrator.detect.sources import find_named, line_of, resolve_inside, search
from orchestrator.errors import ProjectError

SEARCH_DEPTH = 2
SCRIPT_SUFFIXES = (".ts", ".tsx", ".js", ".jsx", ".mjs", ".vue", ".svelte")
BUILT_ON_VITE = (
    "@sveltejs/kit",
    "nuxt",
    "astro",
    "@remix-run/dev",
    "@react-router/dev",
    "vitepress",
    "@tanstack/start",
)
"""Frameworks that depend on Vite and are not plain Vite applications."""

_CONFIG_NAMES = tuple(f"vite.config.{suffix}" for suffix in ("ts", "js", "mts", "mjs", "cts", "cjs"))
_OUT_DIR = re.compile(r"\boutDir\s*:\s*[\"'`]([^\"'`]+)[\"'`]")
_OUT_DIR_FLAG = re.compile(r"--outDir[= ](\S+)")
_API_VARIABLE = re.compile(
    r"import\.meta\.env\.(?P<name>VITE_\w*(?:API|BACKEND|SERVER)\w*|VITE_BASE_URL)\b(?P<rest>[^\n;]*)"
)
_APPENDED_PATH = re.compile(r"(?:\}|[\"'`]?\s*\+\s*[\"'`])(?P<path>/[A-Za-z0-9_./-]+)")


@dataclass(frozen=True, slots=True)
class ApiVariable:
    """The variable the source reads its API's address from.

    `keeps_prefix`: the code appends paths that already start with the API prefix, so the variable must stand
    for the origin itself. `loses_empty`: an empty value would fall through to the default (`||`).
    """

    name: str
    keeps_prefix: bool
    loses_empty: bool
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class Frontend:
    """`directory` and `output` are relative to the monorepo."""

    framework: str
    directory: PurePosixPath
    package_manager: PackageManager
    build_script: str | None
    output: PurePosixPath
    api_variable: ApiVariable | None
    evidence: tuple[Evidence, ...]


def detect_frontend(
    root: Path, *, given: str | None, api_prefix: str, build_command: str | None = None
) -> Frontend | None:
    """The frontend below `root`, or the one in the directory `given`, built by `build_command` where one is given.

    Raises `ProjectError` when there are several, or when the directory given holds none.
    """
    if given is not None:
        directory = resolve_inside(root, given, flag="--frontend-dir")
        if not (root / directory / "package.json").is_file():
            raise ProjectError(f"--frontend-dir {given}: there is no package.json in {root / directory}")
    else:
        candidates = [path for path in find_named(root, "package.json", depth=SEARCH_DEPTH) if _is_vite(root, path)]
        if len(candidates) > 1:
            raise ProjectError(
                f"{root} has {len(candidates)} frontends: {', '.join(map(str, candidates))}",
                hint="choose one with --frontend-dir",
            )
        if not candidates:
            return None
        directory = candidates[0]
    return _describe(root, directory, api_prefix, build_command)


def _describe(root: Path, directory: PurePosixPath, api_prefix: str, build_command: str | None) -> Frontend:
    manifest = read_manifest(root, directory)
    if "vite" not in dependencies(manifest):
        raise ProjectError(
            f"{directory}/package.json does not depend on vite, the one frontend framework supported so far",
            hint="for a backend only, leave --frontend-dir out or pass --skip frontend",
        )
    script = _scripts(manifest).get("build")
    output, output_evidence = _output(root, directory, build_command or script)
    path = (directory / "package.json").as_posix()
    found = Evidence("depends on vite", path, line_of(root / path, '"vite"'))
    manager = detect_package_manager(root, directory)
    return Frontend(
        framework="vite",
        directory=directory,
        package_manager=manager,
        build_script=script,
        output=directory / output,
        api_variable=_api_variable(root, directory, api_prefix),
        evidence=(found, manager.evidence, output_evidence),
    )


def _is_vite(root: Path, directory: PurePosixPath) -> bool:
    declared = dependencies(read_manifest(root, directory))
    return "vite" in declared and not any(name in declared for name in BUILT_ON_VITE)


def _scripts(manifest: dict[str, Any]) -> dict[str, str]:
    scripts = manifest.get("scripts")
    return {str(k): str(v) for k, v in scripts.items()} if isinstance(scripts, dict) else {}


def _output(root: Path, directory: PurePosixPath, script: str | None) -> tuple[str, Evidence]:
    """The output directory relative to `directory`: the command's flag, the configuration, Vite's default."""
    if script and (flag := _OUT_DIR_FLAG.search(script)):
        return flag[1], Evidence(f"output directory {flag[1]}, from `{script}`", directory.as_posix())
    for name in _CONFIG_NAMES:
        path = root / directory / name
        if path.is_file():
            relative = (directory / name).as_posix()
            if match := _OUT_DIR.search(path.read_text(errors="replace")):
                return match[1], Evidence(f"output directory {match[1]}", relative, line_of(path, "outDir"))
            return "dist", Evidence("output directory dist, Vite's default", relative)
    return "dist", Evidence("output directory dist, Vite's default", (directory / "package.json").as_posix())


def _api_variable(root: Path, directory: PurePosixPath, api_prefix: str) -> ApiVariable | None:
    hits = tuple(search(root, directory, SCRIPT_SUFFIXES, _API_VARIABLE))
    if not hits:
        return None
    name = hits[0].match["name"]
    others = {hit.match["name"] for hit in hits} - {name}
    if others:
        raise ProjectError(
            f"the frontend reads several API variables: {', '.join(sorted({name} | others))}",
            hint="set api_base in orchestrator.toml, or use one variable",
            details=[f"{hit.path}:{hit.line} reads {hit.match['name']}" for hit in hits],
        )
    appended = next(
        (
            hit
            for hit in search(root, directory, SCRIPT_SUFFIXES, _APPENDED_PATH)
            if f"{hit.match['path']}/".startswith(f"{api_prefix}/")
        ),
        None,
    )
    evidence = [Evidence(f"reads {name}", hit.path, hit.line) for hit in hits]
    if appended:
        evidence.append(Evidence(f"appends {appended.match['path']} to it", appended.path, appended.line))
    return ApiVariable(
        name=name,
        keeps_prefix=appended is not None,
        loses_empty=any(re.match(r"\s*\)?\s*\|\|", hit.match["rest"]) for hit in hits),
        evidence=tuple(evidence),
    )
