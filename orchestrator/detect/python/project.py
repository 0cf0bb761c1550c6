"""What a Python project declares: its name, its requirements, its scripts, and the file that fixes what is installed.

Formats: pyproject.toml, dependency specifiers and the normal form of names,
https://packaging.python.org/en/latest/specifications/; requirements files,
https://pip.pypa.io/en/stable/reference/requirements-file-format/; workspaces,
https://docs.astral.sh/uv/concepts/projects/workspaces/.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.detect.sources import line_of, read_toml
from orchestrator.errors import ProjectError

MANIFESTS = ("pyproject.toml", "requirements.txt", "Pipfile")

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_REQUIREMENT = re.compile(rf"\s*(?P<name>{_NAME})\s*(?:\[(?P<extras>[^\]]*)\])?(?=$|[\s(<>=!~;@,])")
_INCLUDE = re.compile(r"\s*(?:-r|--requirement)(?:\s+|=)?(?P<path>\S+)")
_PINNED = re.compile(r"===?\s*[^\s,*]+\s*(?:\\|--|$)|@\s*\S")
_DIRECTORY = re.compile(r"\s*(?:(?:-e|--editable)\b|\.{0,2}/|\.\.?\s*$|file:)")
_PIN_ADVICE = (
    "name what you want in requirements.in, and run: uv pip compile requirements.in --universal --generate-hashes"
    " -o requirements.txt"
)
_UV_ADVICE = "run uvx migrate-to-uv for a uv.lock, or lock the dependencies for pip: "
_OTHER_LOCKS = {
    "poetry.lock": "poetry export -f requirements.txt -o requirements.txt",
    "pdm.lock": "pdm export -o requirements.txt",
    "Pipfile.lock": "pipenv requirements > requirements.txt",
}
_BROUGHT = {("fastapi", "standard"): "uvicorn", ("fastapi", "all"): "uvicorn", ("litestar", "standard"): "uvicorn"}
"""Servers that come with an extra of a framework."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """A package by its normal name, with the extras asked for; `path` (relative to the monorepo) and `line` say so.

    `pinned`: one version will do, or an address is named.
    """

    name: str
    extras: frozenset[str]
    path: str
    line: int | None
    pinned: bool


@dataclass(frozen=True, slots=True)
class PythonProject:
    """`directory` and `manifest`, the file that declares it, are relative to the monorepo.

    `name` is in normal form, "" where there is no `[project]` to give one. `packaged`: uv installs the project itself.
    `scripts` are its commands with what they call ("towns.cli:main").
    """

    directory: PurePosixPath
    manifest: PurePosixPath
    name: str
    packaged: bool
    requires: tuple[Requirement, ...]
    scripts: Mapping[str, str]


def read_project(root: Path, directory: PurePosixPath) -> PythonProject | None:
    """The project in a directory: a `[project]`, requirements, or what Poetry or Pipenv declare; None without one.

    Raises `ProjectError` naming the file when it cannot be read or does not say what it has to.
    """
    manifest = _read_manifest(root, directory)
    if "project" in manifest:
        return _standard_project(root, directory, manifest)
    requirements = directory / "requirements.txt"
    if (root / requirements).is_file():
        return PythonProject(directory, requirements, "", False, read_requirements(root, requirements), {})
    return _other_project(root, directory, manifest)


def is_workspace(root: Path, directory: PurePosixPath) -> bool:
    """Whether the directory is the root of a uv workspace."""
    return "workspace" in _tool(_read_manifest(root, directory), "uv")


def find_lock(root: Path, project: PythonProject) -> PurePosixPath:
    """The file that fixes what is installed: uv.lock, there or not, or the requirements where only they are there."""
    locked = _workspace_root(root, project.directory) / "uv.lock"
    requirements = project.directory / "requirements.txt"
    if (project.name and (root / locked).is_file()) or not (root / requirements).is_file():
        return locked
    return requirements


def check_lock(root: Path, project: PythonProject, lock: PurePosixPath) -> None:
    """Raise `ProjectError` when another tool than uv or pip locks the dependencies, with the command to export them."""
    if (root / lock).is_file():
        return
    usual = {"Pipfile": "Pipfile.lock", "pyproject.toml": "" if project.name else "poetry.lock"}
    present = [name for name in _OTHER_LOCKS if (root / project.directory / name).is_file()]
    for name in (*present, usual.get(project.manifest.name, "")):
        if name:
            raise ProjectError(
                f"{project.directory / name} is how {project.directory} locks its dependencies, "
                "and only uv.lock and requirements.txt are supported so far",
                hint=f"{_UV_ADVICE}{_OTHER_LOCKS[name]}",
            )


def check_pins(root: Path, lock: PurePosixPath) -> None:
    """Raise `ProjectError` when requirements leave a version open: the same commit could give something else."""
    for required in read_requirements(root, lock):
        if not required.pinned:
            raise ProjectError(
                f"{required.path}:{required.line} does not fix the version of {required.name}", hint=_PIN_ADVICE
            )
    for number, line in enumerate(_read_lines(root, lock), start=1):
        if _DIRECTORY.match(line):
            raise ProjectError(
                f"{lock}:{number} installs a directory: {line.strip()}",
                hint="declare it in a pyproject.toml, as a workspace or a path of [tool.uv.sources], and run: uv lock",
            )


def installed_packages(root: Path, project: PythonProject, lock: PurePosixPath) -> frozenset[str]:
    """Normal names of the packages that are installed to run the project, as far as the files tell."""
    if lock.name == "uv.lock" and (root / lock).is_file():
        return _locked_packages(root / lock, project.name)
    requires = read_requirements(root, lock) if lock.name == "requirements.txt" else project.requires
    brought = {_BROUGHT.get((required.name, extra), "") for required in requires for extra in required.extras}
    return frozenset({required.name for required in requires} | brought) - {""}


def read_requirements(
    root: Path, path: PurePosixPath, including: tuple[PurePosixPath, ...] = ()
) -> tuple[Requirement, ...]:
    """The packages a requirements file names, and those of the files it includes.

    Raises `ProjectError` when one is missing, outside of the monorepo, not UTF-8, or includes itself.
    """
    if path in including:
        raise ProjectError(f"{path} includes itself: {' → '.join(map(str, (*including, path)))}")
    found: list[Requirement] = []
    for number, line in enumerate(_read_lines(root, path), start=1):
        if included := _INCLUDE.match(line):
            found.extend(read_requirements(root, _included(path, number, included["path"]), (*including, path)))
        elif required := _read_requirement(line, path, number):
            found.append(required)
    return tuple(found)


def normal_name(name: str) -> str:
    """The form in which two spellings of a package's name are equal."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _read_lines(root: Path, path: PurePosixPath) -> list[str]:
    try:
        text = (root / path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProjectError(f"{path} is not UTF-8: {error}", hint="save it as UTF-8") from error
    except (OSError, ValueError) as error:
        raise ProjectError(f"{path} cannot be read: {error}") from error
    return [re.sub(r"(?:^|\s)#.*", "", line) for line in text.splitlines()]


def _included(path: PurePosixPath, line: int, name: str) -> PurePosixPath:
    included = PurePosixPath(os.path.normpath(path.parent / name))
    if included.is_absolute() or ".." in included.parts or "://" in name:
        raise ProjectError(f"{path}:{line} includes {name}, which is outside of the monorepo")
    return included


def _read_requirement(text: str, path: PurePosixPath, line: int | None) -> Requirement | None:
    """The package a dependency specifier names; None for options, addresses and files."""
    found = _REQUIREMENT.match(text)
    if found is None:
        return None
    extras = frozenset(normal_name(extra.strip()) for extra in (found["extras"] or "").split(","))
    pinned = _PINNED.search(text.partition(";")[0]) is not None
    return Requirement(normal_name(found["name"]), extras - {""}, path.as_posix(), line, pinned)


def _read_manifest(root: Path, directory: PurePosixPath) -> dict[str, Any]:
    """The pyproject.toml of a directory, empty where there is none."""
    path = root / directory / "pyproject.toml"
    return read_toml(path) if path.is_file() else {}


def _standard_project(root: Path, directory: PurePosixPath, manifest: dict[str, Any]) -> PythonProject:
    path = directory / "pyproject.toml"
    table = _table(path, "[project]", manifest["project"])
    name = table.get("name")
    if not isinstance(name, str) or not re.fullmatch(_NAME, name):
        raise ProjectError(f"{path}: [project] has no valid name", hint='add for example: name = "api"')
    declared = _strings(path, "[project] dependencies", table.get("dependencies", []))
    requires = _requirements(root, path, declared)
    if (root / directory / "requirements.txt").is_file():
        requires = (*requires, *read_requirements(root, directory / "requirements.txt"))
    scripts = _table(path, "[project.scripts]", table.get("scripts", {}))
    _strings(path, "[project.scripts]", list(scripts.values()))
    packaged = _tool(manifest, "uv").get("package", "build-system" in manifest) is True
    return PythonProject(directory, path, normal_name(name), packaged, requires, scripts)


def _other_project(root: Path, directory: PurePosixPath, manifest: dict[str, Any]) -> PythonProject | None:
    """What `[tool.poetry]` or a Pipfile declares."""
    path, declared = directory / "pyproject.toml", _tool(manifest, "poetry").get("dependencies")
    if declared is None and (root / directory / "Pipfile").is_file():
        path = directory / "Pipfile"
        declared = read_toml(root / path).get("packages", {})
    if declared is None:
        return None
    return PythonProject(
        directory, path, "", False, _requirements(root, path, _table(path, "dependencies", declared)), {}
    )


def _requirements(root: Path, path: PurePosixPath, declared: Iterable[str]) -> tuple[Requirement, ...]:
    found = (_read_requirement(text, path, line_of(root / path, text)) for text in declared)
    return tuple(required for required in found if required is not None)


def _table(path: PurePosixPath, what: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ProjectError(f"{path}: {what} is not a table")
    return value


def _strings(path: PurePosixPath, what: str, value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ProjectError(f"{path}: {what} are not strings")
    return value


def _tool(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    """`[tool.NAME]`, empty where there is none."""
    tools = manifest.get("tool")
    table = tools.get(name) if isinstance(tools, dict) else None
    return table if isinstance(table, dict) else {}


def _workspace_root(root: Path, directory: PurePosixPath) -> PurePosixPath:
    """The workspace a project is a member of, as uv finds it: the next pyproject.toml above decides."""
    for place in directory.parents:
        if (root / place / "pyproject.toml").is_file():
            return place if _has_member(root, place, directory.relative_to(place)) else directory
    return directory


def _has_member(root: Path, workspace: PurePosixPath, member: PurePosixPath) -> bool:
    table = _tool(_read_manifest(root, workspace), "uv").get("workspace")
    return (
        isinstance(table, dict)
        and _is_matched(member, table.get("members"))
        and not _is_matched(member, table.get("exclude"))
    )


def _is_matched(path: PurePosixPath, patterns: object) -> bool:
    given = patterns if isinstance(patterns, list) else []
    return any(fnmatchcase(path.as_posix(), os.path.normpath(str(pattern))) for pattern in given)


def _locked_packages(lock: Path, name: str) -> frozenset[str]:
    """What a project needs at run time by a uv.lock; the whole lock where it does not know the project."""
    packages: dict[str, list[dict[str, Any]]] = {}
    for package in _tables(read_toml(lock).get("package")):
        packages.setdefault(str(package.get("name")), []).append(package)
    if name not in packages:
        return frozenset(packages)
    reached: set[tuple[str, str]] = set()
    waiting = [(name, "")]
    while waiting:
        asked = waiting.pop()
        if asked not in reached:
            reached.add(asked)
            waiting.extend(pair for package in packages.get(asked[0], []) for pair in _needs(package, asked[1]))
    return frozenset(package for package, _ in reached)


def _needs(package: dict[str, Any], extra: str) -> Iterator[tuple[str, str]]:
    """The packages, each with "" and with every extra asked for, that a locked package or one of its extras needs."""
    optional = package.get("optional-dependencies")
    extras = optional if isinstance(optional, dict) else {}
    for needed in _tables(extras.get(extra) if extra else package.get("dependencies")):
        asked = needed.get("extra")
        for wanted in ("", *(asked if isinstance(asked, list) else [])):
            yield str(needed.get("name")), str(wanted)


def _tables(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
