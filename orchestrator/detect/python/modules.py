"""The modules of a Python project, read without running them: under which names they are imported, what names mean."""

import ast
import keyword
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from orchestrator.detect.evidence import Evidence
from orchestrator.detect.python.project import read_project
from orchestrator.detect.sources import MAX_SOURCE_BYTES, is_source_directory

_LEFT_OUT = frozenset({"tests", "test", "migrations", "site-packages"})
_USUAL_NAMES = frozenset({"__main__.py", "main.py", "app.py", "server.py"})
_MAX_REEXPORTS = 8
_TELLING = re.compile(
    rb"\b(?:fastapi|starlette|litestar|quart|flask|django|falcon|bottle|sanic|aiohttp|tornado|__main__|manage\.py"
    rb"|[AW]SGI_APPLICATION|urlpatterns|(?:create|make|get|build)_app\w*|APIRouter|Blueprint|Middleware|ASGIApp"
    rb"|include_router|register_blueprint|mount)\b",
    re.IGNORECASE,
)
"""What a module has in it that makes an application, serves it, mounts it or gives it routes; parsing is slow."""


@dataclass(frozen=True, slots=True)
class Module:
    """`path` is relative to the monorepo; `name` ("towns.api") is how it is imported from `base`.

    `base`, relative to the project, is the directory of Django's manage.py, else the project itself. `names` are what
    imports anywhere in the module bind, with what they mean ("fastapi.FastAPI").
    """

    path: PurePosixPath
    name: str
    base: PurePosixPath
    tree: ast.Module
    names: Mapping[str, str]

    def meaning(self, node: ast.AST | None) -> str:
        """What a name or attribute stands for, dotted; "" for any other expression."""
        attributes: list[str] = []
        while isinstance(node, ast.Attribute):
            attributes.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return ""
        return ".".join((self.names.get(node.id, f"{self.name}.{node.id}"), *reversed(attributes)))

    def evidence(self, claim: str, node: ast.stmt | ast.expr) -> Evidence:
        return Evidence(claim, self.path.as_posix(), node.lineno)


@dataclass(frozen=True, slots=True)
class Modules:
    """A project's modules by name, and its files that this Python cannot read ("api/main.py:3: invalid syntax")."""

    by_name: Mapping[str, Module]
    unreadable: tuple[str, ...]

    def __iter__(self) -> Iterator[Module]:
        return iter(self.by_name.values())

    def origin(self, module: Module, node: ast.AST | None) -> str:
        """What an expression stands for, through the modules that only pass it on."""
        name = module.meaning(node)
        for _ in range(_MAX_REEXPORTS):
            owner, _, attribute = name.rpartition(".")
            if owner not in self.by_name or attribute not in self.by_name[owner].names:
                break
            name = self.by_name[owner].names[attribute]
        return name

    def imports(self, package: str) -> bool:
        """Whether any of them imports a package, or something in it."""
        imported = (name for module in self for name in _imported_names(module.tree))
        return any(name == package or name.startswith(f"{package}.") for name in imported)


def read_modules(root: Path, directory: PurePosixPath, *, packaged: bool) -> Modules:
    """The modules of the project in a directory that may tell what it serves, apart from tests, migrations and projects
    within it.

    `packaged`: what is in src/ is imported without it.
    """
    found: dict[str, Module] = {}
    unreadable: list[str] = []
    for path in _source_files(root, directory):
        base = _base(root, directory, path)
        if name := _module_name(path.relative_to(directory / base), packaged=packaged):
            try:
                source = (root / path).read_bytes()
                if path.name not in _USUAL_NAMES and not _TELLING.search(source):
                    continue
                tree = _parse(source)
            except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
                unreadable.append(_said(path, error))
            else:
                package = name if path.name == "__init__.py" else name.rpartition(".")[0]
                found.setdefault(name, Module(path, name, base, tree, dict(_bindings(tree, package))))
    return Modules(found, tuple(unreadable))


def module_assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """The names a module assigns when it is imported, with their values; also within `if`, `try` and `with`."""
    for statement in _imported_statements(tree):
        match statement:
            case ast.Assign(targets=[ast.Name(id=name), *_], value=value):
                yield name, value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value
            case ast.AugAssign(target=ast.Name(id=name), value=value):
                yield name, value


def main_guard(tree: ast.Module) -> ast.If | None:
    """The `if __name__ == "__main__":` of a module."""
    return next((node for node in tree.body if isinstance(node, ast.If) and _is_main_test(node.test)), None)


def is_module_name(name: str) -> bool:
    """Whether a dotted name can stand in an import statement."""
    return all(part.isidentifier() and not keyword.iskeyword(part) for part in name.split("."))


def _source_files(root: Path, directory: PurePosixPath) -> Iterator[PurePosixPath]:
    for current, children, names in os.walk(root / directory):
        here = directory / PurePosixPath(os.path.relpath(current, root / directory))
        children[:] = sorted(child for child in children if _belongs(root, here / child))
        for name in sorted(names):
            if name.endswith(".py") and not _is_test(name) and _is_small(Path(current, name)):
                yield here / name


def _belongs(root: Path, directory: PurePosixPath) -> bool:
    return (
        is_source_directory(directory.name)
        and directory.name not in _LEFT_OUT
        and not (root / directory / "pyvenv.cfg").is_file()
        and read_project(root, directory) is None
    )


def _is_test(name: str) -> bool:
    return name == "conftest.py" or name.startswith("test_") or name.endswith("_test.py")


def _is_small(path: Path) -> bool:
    return path.is_file() and path.stat().st_size <= MAX_SOURCE_BYTES


def _base(root: Path, directory: PurePosixPath, path: PurePosixPath) -> PurePosixPath:
    """The nearest directory upwards with a manage.py, from which Django imports; else the project's."""
    within = path.relative_to(directory)
    return next(
        (place for place in within.parents if (root / directory / place / "manage.py").is_file()), within.parents[-1]
    )


def _module_name(path: PurePosixPath, *, packaged: bool) -> str:
    """The name of a file's module; "" where it cannot be imported."""
    parts = path.with_suffix("").parts
    if packaged and parts[0] == "src":
        parts = parts[1:]
    name = ".".join(parts[:-1] if parts[-1:] == ("__init__",) else parts)
    return name if is_module_name(name) else ""


def _parse(source: bytes) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


def _said(path: PurePosixPath, error: BaseException) -> str:
    place = f"{path}:{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else path.as_posix()
    return f"{place}: {error.msg if isinstance(error, SyntaxError) else error}"


def _imported_names(tree: ast.Module) -> Iterator[str]:
    """What a module imports from other packages, dotted."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases):
                yield from (alias.name for alias in aliases)
            case ast.ImportFrom(module=str(module), names=aliases, level=0):
                yield from (f"{module}.{alias.name}" for alias in aliases)


def _bindings(tree: ast.Module, package: str) -> Iterator[tuple[str, str]]:
    """Each name that imports bind, with what it means."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases):
                for alias in aliases:
                    first = alias.name.partition(".")[0]
                    yield (alias.asname, alias.name) if alias.asname else (first, first)
            case ast.ImportFrom(names=aliases):
                source = _imported_module(node, package)
                for alias in aliases:
                    yield alias.asname or alias.name, f"{source}.{alias.name}"


def _imported_module(node: ast.ImportFrom, package: str) -> str:
    """The absolute name of what a `from` statement imports from."""
    if not node.level:
        return node.module or ""
    parents = package.split(".")
    kept = parents[: max(len(parents) - node.level + 1, 0)]
    return ".".join((*kept, node.module) if node.module else kept)


def _imported_statements(tree: ast.Module) -> Iterator[ast.stmt]:
    waiting = list(reversed(tree.body))
    while waiting:
        statement = waiting.pop()
        match statement:
            case ast.If() if _is_main_test(statement.test):
                continue
            case ast.If() | ast.Try():
                handlers = statement.handlers if isinstance(statement, ast.Try) else []
                inner = (*statement.body, *(line for handler in handlers for line in handler.body), *statement.orelse)
                waiting.extend(reversed(inner))
            case ast.With():
                waiting.extend(reversed(statement.body))
            case _:
                yield statement


def _is_main_test(test: ast.expr) -> bool:
    match test:
        case ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]):
            sides = (left, right)
            return any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides) and any(
                isinstance(side, ast.Constant) and side.value == "__main__" for side in sides
            )
    return False
