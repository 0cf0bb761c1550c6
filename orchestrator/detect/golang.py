"""Go backends: modules, their main packages, and how net/http and the usual routers say routes and ports.

Formats: "Go Modules Reference" (go.mod, go.work, vendoring), https://go.dev/ref/mod.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from orchestrator.detect.evidence import Evidence
from orchestrator.detect.program import Candidate, Program
from orchestrator.detect.routes import RouteDialect
from orchestrator.detect.sources import find_named, line_of
from orchestrator.errors import ProjectError

WEB_PACKAGES = (
    "net/http",
    "github.com/gin-gonic/gin",
    "github.com/labstack/echo",
    "github.com/gofiber/fiber",
    "github.com/valyala/fasthttp",
    "github.com/go-chi/chi",
    "github.com/gorilla/mux",
    "google.golang.org/grpc",
)

_MAIN = re.compile(r"^package main\b", re.MULTILINE)
_MAIN_FUNCTION = re.compile(r"^func main\(\)", re.MULTILINE)
_LEFT_OUT = re.compile(r"^//go:build .*\bignore\b|^// \+build ignore\b", re.MULTILINE)
_MODULE = re.compile(r'^module\s+"?(?P<path>[^\s"]+)', re.MULTILINE)
_COMMENT = re.compile(r"//[^\n]*")
_GROUP = r"(?P<name>\w+)\s*:?=\s*\w+\.Group\(\s*\"(?P<prefix>/[^\"]*)\""
_BLOCK = re.compile(r"\.Route\(\s*\"(?P<prefix>/[^\"]*)\"\s*,\s*func\([^)]*\)\s*\{")


@dataclass(frozen=True, slots=True)
class _Module:
    """A module's directory (relative to the monorepo), its path, and the modules it requires from elsewhere."""

    directory: PurePosixPath
    path: str
    requires: tuple[str, ...]


def find_go(root: Path, below: PurePosixPath, *, depth: int) -> tuple[Candidate, ...]:
    """The modules with a main package in and below a directory, at most `depth` down."""
    directories = (below / path for path in find_named(root / below, "go.mod", depth=depth))
    found = ((directory, main_packages(root, directory)) for directory in directories)
    return tuple(Candidate("go", directory, _serves(root, directory)) for directory, mains in found if mains)


def module_of(root: Path, directory: PurePosixPath) -> PurePosixPath | None:
    """The directory of the module a directory belongs to; None outside of modules."""
    return next((place for place in (directory, *directory.parents) if (root / place / "go.mod").is_file()), None)


def describe_go(root: Path, directory: PurePosixPath, wanted: str | None) -> Program:
    """The main package in a directory, or in the module whose directory it is.

    Raises `ProjectError` listing them when several could be meant.
    """
    place = module_of(root, directory)
    if place is None:
        raise ProjectError(f"{directory} belongs to no Go module", hint="there is no go.mod in it or above it")
    module = _read_module(root, place)
    package, why = _choose_main(root, module, directory, wanted)
    path = (place / "go.mod").as_posix()
    found = Evidence(f"module {module.path}", path, line_of(root / path, "module"))
    lock_file, lock = _lock_file(root, module)
    name = _name(module, package)
    return Program("go", place, lock_file, package, name, (found, why, lock))


def main_packages(root: Path, module: PurePosixPath) -> tuple[str, ...]:
    """The main packages of a module as paths within it ("." or "./cmd/api"): its own and those in cmd/, else all."""
    found = [f"./{path}" if path != "." else "." for path in _mains(root / module)]
    usual = tuple(path for path in found if path == "." or re.fullmatch(r"\./cmd/[^/]+", path))
    return usual or tuple(found)


def _mains(module: Path) -> Iterator[str]:
    """Directories of the module, as the go command looks for them, that hold a main package."""
    for current, children, names in os.walk(module):
        here = Path(current)
        children[:] = sorted(
            child
            for child in children
            if child not in ("vendor", "testdata", "node_modules")
            and not child.startswith((".", "_"))
            and not (here / child / "go.mod").exists()
        )
        if any(_is_main(here / name) for name in names if name.endswith(".go") and not name.endswith("_test.go")):
            yield here.relative_to(module).as_posix()


def _is_main(path: Path) -> bool:
    text = path.read_text(errors="replace")
    return bool(_MAIN.search(text) and _MAIN_FUNCTION.search(text)) and not _LEFT_OUT.search(text)


def _serves(root: Path, module: PurePosixPath) -> bool:
    """Whether any of the module's own code imports a web package."""
    for current, children, names in os.walk(root / module):
        children[:] = [child for child in children if child not in ("vendor", "testdata", "node_modules")]
        for name in names:
            if name.endswith(".go") and not name.endswith("_test.go"):
                text = Path(current, name).read_text(errors="replace")
                if any(f'"{package}' in text for package in WEB_PACKAGES):
                    return True
    return False


def _choose_main(root: Path, module: _Module, directory: PurePosixPath, wanted: str | None) -> tuple[str, Evidence]:
    path = module.directory.as_posix()
    if directory != module.directory:
        package = f"./{directory.relative_to(module.directory)}"
        if not any(_is_main(source) for source in (root / directory).glob("*.go")):
            raise ProjectError(f"{directory} has no main package", hint=_said(main_packages(root, module.directory)))
        return package, Evidence(f"main package {package}, chosen by --backend-dir", directory.as_posix())
    packages = main_packages(root, module.directory)
    if not packages:
        raise ProjectError(f"{path} has no main package", hint="point --backend-dir at the module that serves")
    if wanted is not None:
        named = [package for package in packages if _name(module, package) == wanted]
        if len(named) != 1:
            raise ProjectError(f"{path} has no main package called {wanted}", hint=_said(packages))
        return named[0], Evidence(f"main package {named[0]}, chosen by --backend-bin", path)
    if len(packages) > 1:
        names = ", ".join(_name(module, package) for package in packages)
        raise ProjectError(
            f"{path} has {len(packages)} main packages: {', '.join(packages)}",
            hint=f"choose one with --backend-bin: {names}",
        )
    return packages[0], Evidence(f"main package {packages[0]}, the only one", path)


def _said(packages: tuple[str, ...]) -> str:
    return f"its main packages are: {', '.join(packages) or 'none'}"


def _name(module: _Module, package: str) -> str:
    """The program's name as `go build` chooses it: the last part of the import path that is no major version."""
    if package != ".":
        return package.rpartition("/")[2]
    parts = module.path.split("/")
    return parts[-2] if len(parts) > 1 and re.fullmatch(r"v[0-9]+", parts[-1]) else parts[-1]


def _read_module(root: Path, directory: PurePosixPath) -> _Module:
    text = _COMMENT.sub("", (root / directory / "go.mod").read_text(errors="replace"))
    named = _MODULE.search(text)
    if named is None:
        raise ProjectError(f"{directory / 'go.mod'} does not name its module", hint="run: go mod init PATH")
    local = {line.split()[0] for line in directives(text, "replace") if re.search(r"=>\s*\.{0,2}/", line)}
    requires = (line.split()[0] for line in directives(text, "require"))
    return _Module(directory, named["path"], tuple(path for path in requires if path not in local))


def directives(text: str, name: str) -> Iterator[str]:
    """What follows a directive of a go.mod or go.work file without comments, alone or in parentheses."""
    for block in re.finditer(rf"^{name}\s*(?:\((?P<many>[^)]*)\)|(?P<one>[^\n(]+))", text, re.MULTILINE):
        for line in (block["many"] or block["one"]).splitlines():
            if line.strip():
                yield line.strip()


def _lock_file(root: Path, module: _Module) -> tuple[PurePosixPath, Evidence]:
    """What fixes the dependencies: the vendored list, go.sum, or go.mod itself where there are none."""
    work = _work_file(root, module.directory)
    for place in dict.fromkeys((work or module.directory, module.directory)):
        vendored = place / "vendor" / "modules.txt"
        if (root / vendored).is_file():
            return vendored, Evidence("dependencies are vendored", vendored.as_posix())
    members = _members(root, work) if work is not None else {module.path}
    if all(path in members for path in module.requires):
        path = module.directory / "go.mod"
        return path, Evidence("requires no modules from elsewhere", path.as_posix())
    path = module.directory / "go.sum"
    return path, Evidence(f"requires {len(module.requires)} modules", (module.directory / "go.mod").as_posix())


def _work_file(root: Path, module: PurePosixPath) -> PurePosixPath | None:
    """The directory of the workspace a module is used in."""
    for place in (module, *module.parents):
        if (root / place / "go.work").is_file():
            return place if module in _used(root, place) else None
    return None


def _used(root: Path, work: PurePosixPath) -> tuple[PurePosixPath, ...]:
    text = _COMMENT.sub("", (root / work / "go.work").read_text(errors="replace"))
    return tuple(PurePosixPath(os.path.normpath(work / line.strip('"'))) for line in directives(text, "use"))


def _members(root: Path, work: PurePosixPath) -> set[str]:
    """The paths of a workspace's modules."""
    places = [place for place in _used(root, work) if (root / place / "go.mod").is_file()]
    return {_read_module(root, place).path for place in places}


def _path_of(match: re.Match[str]) -> str:
    """The whole path of a route: what it says itself, below the group or the block it stands in."""
    text, path = match.string, match["path"]
    prefix = "".join(block["prefix"].rstrip("/") for block in _blocks_around(text, match.start()))
    groups = {group["name"]: group["prefix"].rstrip("/") for group in re.finditer(_GROUP, text)}
    return prefix + groups.get(match["router"], "") + path


def _blocks_around(text: str, position: int) -> Iterator[re.Match[str]]:
    """The `Route("/prefix", func(r chi.Router) { … })` blocks a position is in, the outermost first."""
    for block in _BLOCK.finditer(text, 0, position):
        opened = 1
        for character in text[block.end() : position]:
            opened += {"{": 1, "}": -1}.get(character, 0)
            if opened == 0:
                break
        if opened > 0:
            yield block


DIALECT = RouteDialect(
    suffixes=(".go",),
    tests=re.compile(r"_test\.go$"),
    reads_port=re.compile(r"\"PORT\""),
    port=re.compile(
        r"\"(?:0\.0\.0\.0|127\.0\.0\.1|localhost|\[::\])?:(?P<address>\d{2,5})\""
        r"|\"PORT\"[^}]{0,200}?\"(?P<fallback>\d{4,5})\""
    ),
    route=re.compile(r"(?P<router>\w+)\.(?:HandleFunc|Handle|Get|GET)\(\s*\"(?:GET )?(?P<path>/[^\"]*)\""),
    path_of=_path_of,
)
