"""Python backends: projects and what they serve, found without running them, and how the interpreter starts it."""

import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from orchestrator.detect.evidence import Evidence
from orchestrator.detect.program import Candidate, Program
from orchestrator.detect.python.apps import (
    Application,
    Script,
    find_applications,
    find_factories,
    find_scripts,
)
from orchestrator.detect.python.modules import Modules, is_module_name, read_modules
from orchestrator.detect.python.project import (
    MANIFESTS,
    PythonProject,
    check_lock,
    check_pins,
    find_lock,
    installed_packages,
    read_project,
    read_requirements,
)
from orchestrator.detect.python.routes import find_module_routes
from orchestrator.detect.python.servers import choose_server, server_arguments, usual_server
from orchestrator.detect.routes import Dialect
from orchestrator.detect.sources import find_named, line_of
from orchestrator.errors import ProjectError

WEB_FRAMEWORKS = {
    "fastapi": "fastapi",
    "fastapi-slim": "fastapi",
    "litestar": "litestar",
    "quart": "quart",
    "starlette": "starlette",
    "flask": "flask",
    "django": "django",
    "falcon": "falcon",
    "bottle": "bottle",
    "sanic": "sanic",
    "aiohttp": "aiohttp.web",
    "tornado": "tornado.web",
}
"""Packages of web frameworks, with what a program that serves imports; aiohttp and tornado are clients, too."""

DIALECT = Dialect(
    suffixes=(".py",),
    tests=re.compile(r"(?:^|/)(?:tests?/.+|test_[^/]*\.py|[^/]*_test\.py|conftest\.py)$"),
    reads_port=re.compile(r"[\"']PORT[\"']"),
    port=re.compile(
        r"\brun(?:_app)?\([^)]*?\bport\s*=\s*(?P<run>\d{2,5})\b"
        r"|Server\(\s*\(\s*[\"'][^\"']*[\"']\s*,\s*(?P<address>\d{2,5})\b"
        r"|\.listen\(\s*(?P<listen>\d{2,5})\b"
        r"|(?:environ\.get|getenv)\(\s*[\"']PORT[\"']\s*,\s*[\"']?(?P<fallback>\d{2,5})\b"
    ),
)

_ENTRY_POINT = re.compile(r"\s*(?P<module>[\w.]+)\s*:\s*(?P<function>[\w.]+)\s*")
_Runnable = Application | Script


@dataclass(frozen=True, slots=True)
class _Source:
    """A project in the monorepo `root`, what fixes what is installed for it, and its modules.

    `package` is the name the project itself is installed under, "" where it is not.
    """

    root: Path
    project: PythonProject
    lock: PurePosixPath
    package: str
    modules: Modules


def find_python(root: Path, below: PurePosixPath, *, depth: int) -> tuple[Candidate, ...]:
    """The projects with a program in and below a directory, at most `depth` down, apart from tests.

    One that depends on a web framework, and has files that this Python cannot read, may have a program in them.
    Raises `ProjectError` naming the manifest that cannot be read.
    """
    places = {below / path for name in MANIFESTS for path in find_named(root / below, name, depth=depth)}
    found = []
    for place in sorted(places):
        source = _read_source(root, place)
        if source is not None and not {"tests", "test"} & set(place.relative_to(below).parts):
            serves = _serves(source)
            if _programs(source) or (serves and source.modules.unreadable):
                found.append(Candidate("python", place, serves))
    return tuple(found)


def makes_program(root: Path, directory: PurePosixPath) -> bool:
    """Whether there is a Python project in the directory itself, with something to run."""
    source = _read_source(root, directory)
    return source is not None and bool(_programs(source))


def describe_python(root: Path, directory: PurePosixPath, wanted: str | None) -> Program:
    """What the project in a directory serves, or the script it runs.

    Raises `ProjectError` listing the programs when several could be meant, when the dependencies are locked by a tool
    that is not supported, and when there is no server for the application among them.
    """
    source = _read_source(root, directory)
    if source is None:
        raise ProjectError(f"{directory} is no Python project", hint="give it a pyproject.toml or a requirements.txt")
    check_lock(root, source.project, source.lock)
    installed = installed_packages(root, source.project, source.lock)
    chosen = _choose(source, installed, wanted)
    start, why = _start(source, installed, chosen)
    if source.lock.name == "requirements.txt":
        check_pins(root, source.lock)
    return Program(
        "python",
        directory,
        source.lock,
        source.package,
        chosen.binary,
        (*_project_evidence(source), chosen.evidence, *why, _lock_evidence(source)),
        start,
        reads_port=isinstance(chosen, Application),
    )


def find_python_routes(root: Path, directory: PurePosixPath) -> dict[str, Evidence]:
    """Each path the project answers to GET requests, with where it says so."""
    source = _read_source(root, directory)
    return find_module_routes(source.modules) if source is not None else {}


def _read_source(root: Path, directory: PurePosixPath) -> _Source | None:
    project = read_project(root, directory)
    if project is None:
        return None
    lock = find_lock(root, project)
    package = project.name if project.packaged and lock.name == "uv.lock" else ""
    return _Source(root, project, lock, package, read_modules(root, directory, packaged=bool(package)))


def _serves(source: _Source) -> bool:
    requires = source.project.requires
    declared = [WEB_FRAMEWORKS[required.name] for required in requires if required.name in WEB_FRAMEWORKS]
    modules = source.modules
    return bool(declared and modules.unreadable) or any(modules.imports(package) for package in declared)


def _programs(source: _Source) -> tuple[tuple[_Runnable, ...], ...]:
    """What can be run, the preferred kinds first; kinds of which there are none are left out."""
    modules = source.modules
    commands = _commands(source) if source.package else ()
    scripts = find_scripts(modules, source.project.directory)
    return tuple(kind for kind in (find_applications(modules), find_factories(modules), commands, scripts) if kind)


def _commands(source: _Source) -> tuple[Script, ...]:
    """The commands of an installed project; what cannot be written as an import is left out."""
    manifest, found = source.project.manifest, []
    for name, target in source.project.scripts.items():
        called = _ENTRY_POINT.fullmatch(target)
        if called and is_module_name(called["module"]) and is_module_name(called["function"]):
            module, function = called["module"], called["function"]
            code = f"import sys; from {module} import {function.partition('.')[0]}; sys.exit({function}())"
            line = line_of(source.root / manifest, target)
            evidence = Evidence(f"{name} calls {module}:{function}", manifest.as_posix(), line)
            found.append(Script(f"{module}:{function}", name, ("-c", code), evidence))
    return tuple(found)


def _choose(source: _Source, installed: frozenset[str], wanted: str | None) -> _Runnable:
    """The program wanted, else the only one of the preferred kind."""
    kinds = _programs(source)
    if not kinds:
        raise _nothing_to_run(source)
    if wanted is not None:
        kinds = _named(source, kinds, wanted)
    programs = _preferred(kinds[0], installed)
    if len(programs) > 1:
        names = ", ".join(program.binary for program in programs)
        raise ProjectError(
            f"{source.project.manifest} has {len(programs)} programs: {names}",
            hint=f"choose one with --backend-bin: {names}",
            details=[str(program.evidence) for program in programs],
        )
    return programs[0]


def _named(source: _Source, kinds: tuple[tuple[_Runnable, ...], ...], wanted: str) -> tuple[tuple[_Runnable, ...], ...]:
    """The programs of each kind that may be called so, and kinds without any left out."""
    found = (tuple(program for program in kind if wanted in program.names) for kind in kinds)
    named = tuple(kind for kind in found if kind)
    if not named:
        names = ", ".join(program.binary for kind in kinds for program in kind)
        raise ProjectError(
            f"{source.project.manifest} has no program called {wanted}", hint=f"its programs are: {names}"
        )
    return named


def _nothing_to_run(source: _Source) -> ProjectError:
    unreadable = source.modules.unreadable
    return ProjectError(
        f"{source.project.directory} has nothing to run: no application such as app = FastAPI(), and no script",
        hint=f"{len(unreadable)} of its files cannot be read by Python {platform.python_version()}, which looks for it"
        if unreadable
        else "point --backend-dir at the project that serves",
        details=unreadable,
    )


def _preferred(programs: tuple[_Runnable, ...], installed: frozenset[str]) -> tuple[_Runnable, ...]:
    """Without the applications inside of others, and of Django's two those that an installed server serves."""
    outer = tuple(one for one in programs if not (isinstance(one, Application) and one.inner)) or programs
    interface = "asgi" if "uvicorn" in installed and choose_server("wsgi", installed) is None else "wsgi"
    django = [one for one in outer if isinstance(one, Application) and one.framework == "Django"]
    other = [one for one in django if one.interface != interface]
    return tuple(one for one in outer if one not in other) if len(other) < len(django) else outer


def _start(
    source: _Source, installed: frozenset[str], chosen: _Runnable
) -> tuple[tuple[str, ...], tuple[Evidence, ...]]:
    """The interpreter's arguments, and the server they start."""
    if isinstance(chosen, Script):
        return chosen.start, ()
    server = choose_server(chosen.interface, installed)
    if server is None:
        raise _nothing_serves(source, chosen)
    served = Evidence(f"served by {server}", source.lock.as_posix(), _line_of_package(source, server))
    return server_arguments(server, chosen), (served,)


def _nothing_serves(source: _Source, application: Application) -> ProjectError:
    server = usual_server(application.interface)
    locked = source.lock.name == "uv.lock"
    return ProjectError(
        f"{source.project.manifest}: nothing among its dependencies serves {application.binary}",
        hint=f"add {server} to its dependencies: uv add {server}" if locked else f"add {server} to {source.lock}",
    )


def _project_evidence(source: _Source) -> Iterator[Evidence]:
    project = source.project
    if project.name:
        line = line_of(source.root / project.manifest, "[project]")
        yield Evidence(f"project {project.name}", project.manifest.as_posix(), line)
    required = next((one for one in project.requires if one.name in WEB_FRAMEWORKS), None)
    if required is not None:
        yield Evidence(f"requires {required.name}", required.path, required.line)


def _lock_evidence(source: _Source) -> Evidence:
    there = (source.root / source.lock).is_file()
    return Evidence("fixes the dependencies" if there else f"no {source.lock.name} yet", source.lock.as_posix())


def _line_of_package(source: _Source, package: str) -> int | None:
    """The line of the lock file with a package, as far as that is in the file itself."""
    path = source.root / source.lock
    if source.lock.name == "uv.lock":
        lines = path.read_text().splitlines() if path.is_file() else []
        return next((number for number, line in enumerate(lines, start=1) if line == f'name = "{package}"'), None)
    named = (one for one in read_requirements(source.root, source.lock) if one.name == package)
    return next((one.line for one in named if one.path == source.lock.as_posix()), None)
