"""Which JavaScript package manager a directory uses, by the rules of docs/detection.md."""

import os
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.detect.evidence import Evidence
from orchestrator.detect.sources import line_of, read_json_object
from orchestrator.errors import ProjectError

LOCK_FILES = {
    "pnpm-lock.yaml": "pnpm",
    "bun.lock": "bun",
    "bun.lockb": "bun",
    "yarn.lock": "yarn",
    "package-lock.json": "npm",
    "npm-shrinkwrap.json": "npm",
}
SUPPORTED = frozenset({"npm", "pnpm"})


@dataclass(frozen=True, slots=True)
class PackageManager:
    """`lock_file` is where the lock is or would be, relative to the monorepo."""

    name: str
    lock_file: PurePosixPath
    evidence: Evidence


def read_manifest(root: Path, directory: PurePosixPath) -> dict[str, Any]:
    """The `package.json` of `directory`. Raises `ProjectError` when it is not a JSON object."""
    return read_json_object(root / directory / "package.json")


def dependencies(manifest: dict[str, Any]) -> dict[str, str]:
    """Every declared dependency by exact name, development ones included."""
    merged: dict[str, str] = {}
    for field in ("devDependencies", "optionalDependencies", "dependencies"):
        declared = manifest.get(field)
        if isinstance(declared, dict):
            merged.update({str(name): str(version) for name, version in declared.items()})
    return merged


def detect_package_manager(root: Path, directory: PurePosixPath) -> PackageManager:
    """The nearest `packageManager` field or lock file, in a directory in this order, up to the monorepo's root; then
    the nearest `engines` that names a manager; then npm.

    Raises `ProjectError` when two lock files of different managers contradict each other, or when the manager
    is one that is not supported yet.
    """
    manager = _nearest(root, directory) or _wanted(root, directory) or _default(root, directory)
    if manager.name not in SUPPORTED:
        raise ProjectError(
            f"{directory} uses {manager.name}, which is not supported yet: {manager.evidence}",
            hint="npm (package-lock.json) and pnpm are; --frontend-build does not change how packages install",
        )
    return manager


def _nearest(root: Path, directory: PurePosixPath) -> PackageManager | None:
    for place in (directory, *directory.parents):
        if found := _declared(root, directory, place) or _locked(root, place):
            return found
    return None


def _declared(root: Path, directory: PurePosixPath, place: PurePosixPath) -> PackageManager | None:
    declared = _manifest(root, place).get("packageManager")
    if not isinstance(declared, str) or not declared:
        return None
    evidence = _evidence(root, place, f"packageManager is {declared}", '"packageManager"')
    return _named(root, directory, declared.partition("@")[0], place, evidence)


def _locked(root: Path, place: PurePosixPath) -> PackageManager | None:
    present = [name for name in LOCK_FILES if (root / place / name).is_file()]
    managers = {LOCK_FILES[name] for name in present}
    if len(managers) > 1:
        raise ProjectError(
            f"{place}: the lock files {', '.join(present)} contradict each other",
            hint='keep the one in use, or set "packageManager" in package.json',
        )
    if not present:
        return None
    path = place / present[0]
    return PackageManager(managers.pop(), path, Evidence("lock file", path.as_posix()))


def _wanted(root: Path, directory: PurePosixPath) -> PackageManager | None:
    """The manager that `engines` names, npm apart: it is there wherever Node is, whatever is used."""
    for place in (directory, *directory.parents):
        engines = _manifest(root, place).get("engines")
        for name in ("pnpm", "yarn", "bun"):
            if isinstance(engines, dict) and name in engines:
                return _named(root, directory, name, place, _evidence(root, place, f"engines has {name}", '"engines"'))
    return None


def _manifest(root: Path, place: PurePosixPath) -> dict[str, Any]:
    """The package.json of `place`, empty where there is none."""
    return read_manifest(root, place) if (root / place / "package.json").is_file() else {}


def _evidence(root: Path, place: PurePosixPath, claim: str, field: str) -> Evidence:
    path = place / "package.json"
    return Evidence(claim, path.as_posix(), line_of(root / path, field))


def _named(root: Path, directory: PurePosixPath, name: str, place: PurePosixPath, evidence: Evidence) -> PackageManager:
    """A manager said in the package.json of `place`: its lock file is there if it is nowhere else."""
    return PackageManager(name, _lock_of(root, directory, name) or place / _lock_name(name), evidence)


def _default(root: Path, directory: PurePosixPath) -> PackageManager:
    """npm, whose lock file is in the root of the workspace where the directory is a member of one."""
    place = next((place for place in directory.parents if _has_member(root, place, directory)), directory)
    evidence = Evidence("no lock file and no packageManager field, so npm", (directory / "package.json").as_posix())
    return PackageManager("npm", place / "package-lock.json", evidence)


def _has_member(root: Path, place: PurePosixPath, directory: PurePosixPath) -> bool:
    """https://docs.npmjs.com/cli/using-npm/workspaces"""
    workspaces = _manifest(root, place).get("workspaces")
    patterns = workspaces.get("packages") if isinstance(workspaces, dict) else workspaces
    member = directory.relative_to(place).as_posix()
    named = patterns if isinstance(patterns, list) else []
    return any(fnmatchcase(member, os.path.normpath(str(pattern))) for pattern in named)


def _lock_of(root: Path, directory: PurePosixPath, manager: str) -> PurePosixPath | None:
    for place in (directory, *directory.parents):
        for name, owner in LOCK_FILES.items():
            if owner == manager and (root / place / name).is_file():
                return place / name
    return None


def _lock_name(manager: str) -> str:
    return next((name for name, owner in LOCK_FILES.items() if owner == manager), "package-lock.json")
