"""What a Python project answers, read from its modules: routes with the prefixes of what they are included in.

FastAPI, Starlette, Flask, Quart, Bottle and Falcon register them on an object; Django and Starlette list them.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orchestrator.detect.evidence import Evidence
from orchestrator.detect.python.modules import Module, Modules, module_assignments

_ROUTERS = {
    "fastapi.APIRouter": "prefix",
    "fastapi.routing.APIRouter": "prefix",
    "flask.Blueprint": "url_prefix",
    "quart.Blueprint": "url_prefix",
}
"""What answers only where it is included, with the argument for its own prefix."""

_DECORATORS = ("get", "route", "api_route")
_BARE_DECORATORS = ("bottle.get", "bottle.route")
_ADDERS = ("add_route", "add_api_route", "add_url_rule")
_INCLUDERS = {"include_router": "prefix", "register_blueprint": "url_prefix"}
_LISTED = ("starlette.routing.Route", "fastapi.routing.APIRoute", "django.urls.path")
_INCLUDE = "django.urls.include"
_MOUNTS = ("starlette.routing.Mount", "fastapi.routing.Mount")
_MAX_DEPTH = 8


@dataclass(frozen=True, slots=True)
class _Route:
    """`owner` is the object, or the list, that has the route, by dotted name."""

    owner: str
    path: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class _Router:
    """Something that has to be included, with its own prefix; None when that is no literal."""

    name: str
    prefix: str | None


@dataclass(frozen=True, slots=True)
class _Inclusion:
    """`inner` answers below `prefix` of `outer`; None when that is no literal. `replaces` its own prefix."""

    inner: str
    outer: str
    prefix: str | None
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class _Place:
    """A node, the name that is assigned what it belongs to, and the prefix of the list it is in."""

    node: ast.AST
    owner: str
    prefix: str | None


@dataclass(frozen=True, slots=True)
class _Source:
    """A module among the others, and the texts that names stand for in all of them."""

    modules: Modules
    module: Module
    texts: Mapping[str, str]

    def origin(self, node: ast.AST | None) -> str:
        return self.modules.origin(self.module, node)

    def text(self, node: ast.AST | None) -> str | None:
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str) else None
        return self.texts.get(self.origin(node))


def find_module_routes(modules: Modules) -> dict[str, Evidence]:
    """Each path answered to GET requests, with where it says so; those whose prefix is not known are left out."""
    texts = {name: text for module in modules for name, text in _texts(module)}
    facts = [fact for module in modules for fact in _facts(_Source(modules, module, texts))]
    routers = {fact.name: fact for fact in facts if isinstance(fact, _Router)}
    included: dict[str, list[_Inclusion]] = {}
    for fact in facts:
        if isinstance(fact, _Inclusion):
            included.setdefault(fact.inner, []).append(fact)
    routes: dict[str, Evidence] = {}
    for route in (fact for fact in facts if isinstance(fact, _Route)):
        for prefix in _prefixes(route.owner, routers, included):
            path = re.sub(r"/{2,}", "/", f"/{prefix}{route.path}")
            routes.setdefault(path, Evidence(f"GET {path}", route.evidence.path, route.evidence.line))
    return routes


def _texts(module: Module) -> Iterator[tuple[str, str]]:
    for name, value in module_assignments(module.tree):
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield f"{module.name}.{name}", value.value


def _prefixes(
    owner: str, routers: Mapping[str, _Router], included: Mapping[str, list[_Inclusion]], depth: int = 0
) -> Iterator[str]:
    """The prefixes below which a router, an application or a list of routes answers."""
    if owner not in included and owner not in routers:
        yield ""
    own = routers[owner].prefix if owner in routers else ""
    for inclusion in included.get(owner, []) if depth < _MAX_DEPTH else []:
        inner = "" if inclusion.replaces else own
        if inclusion.prefix is not None and inner is not None:
            for outer in _prefixes(inclusion.outer, routers, included, depth + 1):
                yield f"{outer}{inclusion.prefix}{inner}"


def _facts(source: _Source) -> Iterator[_Route | _Router | _Inclusion]:
    """What a module says, read from the outside to the inside so that lists within lists have their prefix."""
    waiting = [_Place(source.module.tree, "", "")]
    while waiting:
        place = waiting.pop()
        match place.node:
            case ast.FunctionDef(decorator_list=decorators) | ast.AsyncFunctionDef(decorator_list=decorators):
                yield from (fact for decorator in decorators for fact in _decorated(source, decorator))
            case ast.Assign(targets=[ast.Name() as target, *_], value=ast.Call() as call):
                yield from _assigned(source, target, call)
            case ast.Call(func=ast.Attribute()) as call:
                yield from _called(source, call)
        if isinstance(place.node, ast.Call):
            yield from _listed(source, place, place.node)
        owner, prefix = _below(source, place)
        inner = (_Place(child, owner, prefix) for child in ast.iter_child_nodes(place.node))
        waiting.extend(reversed(tuple(inner)))


def _below(source: _Source, place: _Place) -> tuple[str, str | None]:
    """Owner and prefix of what is within a place."""
    match place.node:
        case ast.Assign(targets=[ast.Name(id=name), *_]) | ast.AugAssign(target=ast.Name(id=name)):
            return f"{source.module.name}.{name}", place.prefix
        case ast.AnnAssign(target=ast.Name(id=name)):
            return f"{source.module.name}.{name}", place.prefix
        case ast.Call() as call if source.origin(call.func) in (*_LISTED, *_MOUNTS):
            return place.owner, _joined(place.prefix, source.text(_argument(call, 0, "path", "route")))
    return place.owner, place.prefix


def _decorated(source: _Source, decorator: ast.expr) -> Iterator[_Route]:
    match decorator:
        case ast.Call(func=ast.Attribute(value=owner, attr=name)) if name in _DECORATORS:
            yield from _route(source, source.origin(owner), "", decorator)
        case ast.Call(func=function) if source.origin(function) in _BARE_DECORATORS:
            yield from _route(source, "", "", decorator)


def _assigned(source: _Source, target: ast.Name, call: ast.Call) -> Iterator[_Router]:
    argument = _ROUTERS.get(source.origin(call.func))
    if argument is not None:
        given = _argument(call, None, argument)
        yield _Router(f"{source.module.name}.{target.id}", source.text(given) if given is not None else "")


def _called(source: _Source, call: ast.Call) -> Iterator[_Route | _Inclusion]:
    """Routes and inclusions that a method of an application or a router registers."""
    match call.func:
        case ast.Attribute(value=owner, attr=name) if name in _ADDERS:
            yield from _route(source, source.origin(owner), "", call)
        case ast.Attribute(value=owner, attr=name) if name in _INCLUDERS and call.args:
            given = _argument(call, None, _INCLUDERS[name])
            prefix = source.text(given) if given is not None else ""
            replaces = name == "register_blueprint" and given is not None
            yield _Inclusion(source.origin(call.args[0]), source.origin(owner), prefix, replaces)
        case ast.Attribute(value=owner, attr="mount"):
            inner = source.origin(_argument(call, 1, "app"))
            yield _Inclusion(inner, source.origin(owner), source.text(_argument(call, 0, "path")))


def _listed(source: _Source, place: _Place, call: ast.Call) -> Iterator[_Route | _Inclusion]:
    """A route in a list, or what a list includes."""
    called = source.origin(call.func)
    prefix = _joined(place.prefix, source.text(_argument(call, 0, "path", "route")))
    if called in _MOUNTS:
        for inner in (_argument(call, 1, "app"), _argument(call, None, "routes")):
            if name := source.origin(inner):
                yield _Inclusion(name, place.owner, prefix)
    elif called in _LISTED:
        view = _argument(call, 1, "view")
        if not (isinstance(view, ast.Call) and source.origin(view.func) == _INCLUDE):
            yield from _route(source, place.owner, place.prefix, call)
        elif name := _included_list(source, _argument(view, 0, "arg")):
            yield _Inclusion(name, place.owner, prefix)


def _included_list(source: _Source, node: ast.AST | None) -> str:
    """The list of routes that Django's include() means; "" for one written out."""
    if isinstance(node, ast.Tuple) and node.elts:
        return _included_list(source, node.elts[0])
    name = source.text(node) or source.origin(node)
    return f"{name}.urlpatterns" if name in source.modules.by_name else name


def _route(source: _Source, owner: str, prefix: str | None, call: ast.Call) -> Iterator[_Route]:
    path = _joined(prefix, source.text(_argument(call, 0, "path", "rule", "route")))
    if path is not None and _answers_get(call):
        yield _Route(owner, path, source.module.evidence(f"GET {path}", call))


def _argument(call: ast.Call, position: int | None, *names: str) -> ast.expr | None:
    """An argument by its position, or by one of its names."""
    if position is not None and position < len(call.args):
        return call.args[position]
    return next((keyword.value for keyword in call.keywords if keyword.arg in names), None)


def _joined(prefix: str | None, path: str | None) -> str | None:
    return f"{prefix}{path}" if prefix is not None and path is not None else None


def _answers_get(call: ast.Call) -> bool:
    """Whether the methods a route is registered for, if it says so, have GET among them."""
    match _argument(call, None, "methods", "method"):
        case ast.List(elts=given) | ast.Tuple(elts=given) | ast.Set(elts=given):
            methods = given
        case ast.Constant() as one:
            methods = [one]
        case _:
            return True
    return any(isinstance(method, ast.Constant) and str(method.value).upper() == "GET" for method in methods)
