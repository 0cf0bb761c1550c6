"""What a Python project's modules can run: objects that servers know, functions that make one, and scripts."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal

from orchestrator.detect.evidence import Evidence
from orchestrator.detect.python.modules import Module, Modules, is_module_name, main_guard, module_assignments

Interface = Literal["asgi", "wsgi"]

_CONSTRUCTORS: Mapping[str, tuple[Interface, str]] = {
    "fastapi.FastAPI": ("asgi", "FastAPI"),
    "fastapi.applications.FastAPI": ("asgi", "FastAPI"),
    "starlette.applications.Starlette": ("asgi", "Starlette"),
    "litestar.Litestar": ("asgi", "Litestar"),
    "litestar.app.Litestar": ("asgi", "Litestar"),
    "quart.Quart": ("asgi", "Quart"),
    "falcon.asgi.App": ("asgi", "Falcon"),
    "django.core.asgi.get_asgi_application": ("asgi", "Django"),
    "flask.Flask": ("wsgi", "Flask"),
    "bottle.Bottle": ("wsgi", "Bottle"),
    "bottle.default_app": ("wsgi", "Bottle"),
    "falcon.App": ("wsgi", "Falcon"),
    "falcon.API": ("wsgi", "Falcon"),
    "django.core.wsgi.get_wsgi_application": ("wsgi", "Django"),
}
_DJANGO_SETTINGS: Mapping[str, Interface] = {"WSGI_APPLICATION": "wsgi", "ASGI_APPLICATION": "asgi"}
_FACTORY = re.compile(r"(?:create|make|get|build)_app(?:lication)?")
_WRAPPERS = ("Middleware", "ASGIApp")
"""Ends of the names of classes whose objects are applications around another."""

_SCRIPTS = ("main.py", "app.py", "server.py")


@dataclass(frozen=True, slots=True)
class Application:
    """An object a server can serve, or with `factory` the function that makes it: `name` in `module`.

    `base` is the directory, relative to the project, that the module is imported from. `inner`: another application
    passes requests on to it.
    """

    module: str
    name: str
    interface: Interface
    framework: str
    base: PurePosixPath
    evidence: Evidence
    factory: bool = False
    inner: bool = False

    @property
    def binary(self) -> str:
        return f"{self.module}:{self.name}"

    @property
    def names(self) -> tuple[str, ...]:
        """What it may be called to choose it."""
        return self.binary, self.module


@dataclass(frozen=True, slots=True)
class Script:
    """A program of the project's own: `binary` is its file or function, `start` what the interpreter is given."""

    binary: str
    name: str
    start: tuple[str, ...]
    evidence: Evidence

    @property
    def names(self) -> tuple[str, ...]:
        """What it may be called to choose it."""
        return self.binary, self.name


def find_applications(modules: Modules) -> tuple[Application, ...]:
    """The objects the modules make when they are imported; of Django what its settings name, else what is made."""
    makers = _makers(modules)
    made = _made_objects(modules, makers)
    _add_wrapped(modules, made)
    inner = {name for module in modules for name in _mounted(modules, module)}
    objects = [replace(found, inner=found.inner or name in inner) for name, found in made.items()]
    settings = {found.binary: found for module in modules for found in _django_settings(module)}
    declared = {found.interface for found in settings.values()}
    kept = (found for found in objects if found.framework != "Django" or found.interface not in declared)
    return (*settings.values(), *kept)


def find_factories(modules: Modules) -> tuple[Application, ...]:
    """The functions with a usual name that make an application and need no arguments."""
    makers = _makers(modules)
    return tuple(
        Application(
            module.name,
            node.name,
            *_CONSTRUCTORS[makers[name]],
            module.base,
            module.evidence(f"{module.name}:{node.name} makes a {_CONSTRUCTORS[makers[name]][1]} application", node),
            factory=True,
        )
        for module in modules
        for name, node in _functions(module)
        if name in makers and _FACTORY.fullmatch(node.name) and not _needs_arguments(node.args)
    )


def find_scripts(modules: Modules, directory: PurePosixPath) -> tuple[Script, ...]:
    """The files with a usual name that say what happens when they are run, and the packages that can be run."""
    return tuple(script for module in modules if (script := _script(module, directory)) is not None)


def _makers(modules: Modules) -> dict[str, str]:
    """The functions of modules that return an application, by dotted name, with what they construct it with."""
    made = {}
    for module in modules:
        for name, node in _functions(module):
            if constructor := _constructor(modules, module, node):
                made[name] = constructor
    return made


def _functions(module: Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in module.tree.body:
        if isinstance(node, ast.FunctionDef):
            yield f"{module.name}.{node.name}", node


def _constructor(modules: Modules, module: Module, function: ast.FunctionDef) -> str:
    """What a function makes the application with that it returns; "" when it does neither."""
    within = list(ast.walk(function))
    if not any(isinstance(node, ast.Return) and node.value is not None for node in within):
        return ""
    called = (modules.origin(module, node.func) for node in within if isinstance(node, ast.Call))
    return next((name for name in (*called, modules.origin(module, function.returns)) if name in _CONSTRUCTORS), "")


def _made_objects(modules: Modules, makers: Mapping[str, str]) -> dict[str, Application]:
    """The applications that calls of constructors and makers give, by dotted name."""
    found: dict[str, Application] = {}
    known = {**{name: name for name in _CONSTRUCTORS}, **makers}
    for module in modules:
        for name, value in module_assignments(module.tree):
            called = [modules.origin(module, call.func) for call in _calls(value)]
            if constructor := next((known[function] for function in called if function in known), ""):
                interface, framework = _CONSTRUCTORS[constructor]
                found.setdefault(f"{module.name}.{name}", _application(module, name, value, interface, framework))
    return found


def _add_wrapped(modules: Modules, made: dict[str, Application]) -> None:
    """Add the applications that are a middleware around another, which then is an inner one."""
    for module in modules:
        for name, value in module_assignments(module.tree):
            dotted = f"{module.name}.{name}"
            for wrapped in _wrapped(modules, module, value):
                if wrapped in made and wrapped != dotted:
                    inner = made[wrapped]
                    made[dotted] = _application(module, name, value, inner.interface, inner.framework)
                    made[wrapped] = replace(inner, inner=True)


def _wrapped(modules: Modules, module: Module, value: ast.expr) -> Iterator[str]:
    if isinstance(value, ast.Call) and module.meaning(value.func).endswith(_WRAPPERS):
        for argument in (*value.args, *(keyword.value for keyword in value.keywords)):
            yield modules.origin(module, argument)


def _application(module: Module, name: str, node: ast.expr, interface: Interface, framework: str) -> Application:
    evidence = module.evidence(f"{module.name}:{name} is a {framework} application", node)
    return Application(module.name, name, interface, framework, module.base, evidence)


def _calls(value: ast.expr) -> Iterator[ast.Call]:
    """The call a value is, and those among its arguments; none when it is no call."""
    if isinstance(value, ast.Call):
        yield from (node for node in ast.walk(value) if isinstance(node, ast.Call))


def _mounted(modules: Modules, module: Module) -> Iterator[str]:
    """What a module mounts into applications: `app.mount("/x", inner)`, `Mount("/x", app=inner)`."""
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="mount") | ast.Name(id="Mount") | ast.Attribute(attr="Mount")):
                named = [keyword.value for keyword in node.keywords if keyword.arg == "app"]
                yield from (modules.origin(module, argument) for argument in (*node.args[1:2], *named))


def _django_settings(module: Module) -> Iterator[Application]:
    for name, value in module_assignments(module.tree):
        if name in _DJANGO_SETTINGS and isinstance(value, ast.Constant) and isinstance(value.value, str):
            target, _, attribute = value.value.rpartition(".")
            if target and is_module_name(value.value):
                evidence = module.evidence(f"{name} is {value.value}", value)
                yield Application(target, attribute, _DJANGO_SETTINGS[name], "Django", module.base, evidence)


def _needs_arguments(arguments: ast.arguments) -> bool:
    positional = len(arguments.posonlyargs) + len(arguments.args)
    return positional > len(arguments.defaults) or None in arguments.kw_defaults


def _script(module: Module, directory: PurePosixPath) -> Script | None:
    path = module.path.relative_to(directory)
    if path.name == "__main__.py" and "." in module.name:
        package = module.name.rpartition(".")[0]
        evidence = Evidence(f"{package} can be run", module.path.as_posix())
        return Script(path.as_posix(), package, ("-m", package), evidence)
    guard = main_guard(module.tree)
    if guard is None or path.name not in _SCRIPTS or path.parent.as_posix() not in (".", "src"):
        return None
    return Script(path.as_posix(), path.name, (path.as_posix(),), module.evidence(f"{path} can be run", guard))
