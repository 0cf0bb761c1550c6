"""What a Node package answers, read from its sources: routes with the prefixes of what they are mounted on.

Express, Fastify, Koa's router, Hono, Polka and Restify register them on an object, hapi and Fastify in a table, and
Nest on classes. The sources are not parsed: what is written in an unusual way is left out, and so is every route whose
prefix is not known.
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from orchestrator.detect.evidence import Evidence
from orchestrator.detect.sources import find_named, search

SOURCE_SUFFIXES = (".js", ".mjs", ".cjs", ".ts", ".mts", ".cts")
TESTS = re.compile(r"(?:^|/)(?:__tests__|__mocks__|tests?|e2e)/|\.(?:test|spec|e2e-spec|d)\.[cm]?[jt]s$")

_MAX_DEPTH = 8
_MAX_ARGUMENTS = 600
_HANDED_IN = ""
"""Stands for what a file's functions are given to register routes on."""

_WHOLE = re.compile(r"\A.*\Z", re.DOTALL)
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)|(?:^|(?<=\s))//[^\n]*", re.DOTALL | re.MULTILINE)
_NAME = r"[A-Za-z_$][\w$]*"
_ASSIGNED = rf"(?<![\w$])(?P<name>{_NAME})\s*(?::[^=;\n]{{1,80}})?=\s*(?:await\s+)?"
_APPLICATION = re.compile(
    _ASSIGNED + r"(?:express|[Ff]astify|polka|restify\.createServer|Hapi\.server|hapi\.server|new\s+(?:OpenAPI)?Hono\b"
    r"(?:<[^()]*>)?)\((?:[^\n;]*?\.basePath\(\s*[\"'](?P<prefix>/[^\"']*)[\"'])?"
)
_ROUTER = re.compile(
    _ASSIGNED + r"(?:(?:express\.)?Router|new\s+(?:\w*\.)?\w*Router(?:<[^()]*>)?)"
    r"\((?:\s*\{[^{}]*?\bprefix\s*:\s*[\"'](?P<prefix>/[^\"']*)[\"'])?"
)
_RECEIVER = rf"(?<![\w$.])(?:this\.)?(?P<on>{_NAME})"
_GET = re.compile(
    _RECEIVER + r"\s*\.\s*get(?:<[^()]*?>)?\(\s*([\"'`])(?P<path>(?:/[^\"'`\n]*)?)\2\s*,"
    r"|" + _RECEIVER.replace("<on>", "<owner>") + r"\s*\.\s*route\(\s*([\"'`])(?P<at>/[^\"'`\n]*)\5\s*\)\s*\.\s*get\("
)
_TABLE = re.compile(_RECEIVER + r"\s*\.\s*route\(\s*\[?\s*\{(?P<fields>[^{}]{0,300})")
_TABLE_METHOD = re.compile(r"\bmethod\s*:\s*(?:\[[^\]]*)?[\"']GET[\"']", re.IGNORECASE)
_TABLE_PATH = re.compile(r"\b(?:url|path)\s*:\s*[\"'](?P<path>/[^\"']*)[\"']")
_MOUNT = re.compile(_RECEIVER + r"\s*\.\s*(?:use|route|register)\((?=[^)])")
_FIRST_LITERAL = re.compile(r"\s*[\"'`](?P<prefix>[^\"'`]*)[\"'`]\s*,")
_FIRST_UNKNOWN = re.compile(r"\s*(?:[\"'`\[]|[\w.]*(?:[A-Z]{2}|prefix|Prefix|path|Path|base|Base)[\w.]*\s*[,+])")
_OPTION = re.compile(r"\bprefix\s*(?::\s*(?:[\"'](?P<prefix>[^\"']*)[\"'])?|[,}])")
_IMPORTED = re.compile(
    rf"\bimport\s+(?:(?P<default>{_NAME})\s*,?\s*)?(?:\{{(?P<names>[^{{}}]*)\}}|\*\s+as\s+(?P<all>{_NAME}))?\s*"
    r"from\s*[\"'](?P<from>\.[^\"']*)[\"']"
    rf"|\b(?:const|let|var)\s+(?:(?P<required>{_NAME})|\{{(?P<picked>[^{{}}]*)\}})\s*=\s*"
    rf"require\(\s*[\"'](?P<of>\.[^\"']*)[\"']\s*\)(?:\.(?P<attribute>{_NAME}))?"
)
_REQUIRED = re.compile(rf"\brequire\(\s*[\"'](?P<of>\.[^\"']*)[\"']\s*\)(?:\.(?P<attribute>{_NAME}))?")
_PLAIN = re.compile(r"[\w\-./:{}*@~%]*")
_CONTROLLER = re.compile(r"@Controller\(\s*(?:(?P<bare>\))|([\"'`])(?P<path>[^\"'`]*)\2\s*\))?")
_NEST_GET = re.compile(r"@Get\(\s*(?:(?P<bare>\))|([\"'`])(?P<path>[^\"'`]*)\2\s*\))")
_GLOBAL_PREFIX = re.compile(r"\.setGlobalPrefix\(\s*(?:([\"'`])(?P<prefix>[^\"'`]*)\1\s*\))?")
_MORE_PREFIXES = re.compile(r"\.enableVersioning\(|\bRouterModule\.register\(")
_FUNCTION = re.compile(r"=>|\bfunction\b")
_STRING = re.compile(r"([\"'`])(?:(?!\1)[^\\\n]|\\.)*\1")
_PARAMETER = re.compile(rf"[(,]\s*(?P<name>{_NAME})\s*(?::[^,()]{{0,80}})?(?=[,)])|(?<![\w$])(?P<only>{_NAME})\s*=>")
_REGISTRAR = re.compile(r"app|server|route|fastify|instance|hono|express", re.IGNORECASE)
"""What functions call what they register routes on."""

_Object = tuple[str, str]
"""A file (relative to the monorepo) and a name in it."""


@dataclass(frozen=True, slots=True)
class _File:
    """`text` is without comments; `own` are the objects made in it with their own prefixes, the `applications` too.

    `given` are the names by which its functions call what they register routes on. `imports` are the files of the
    package that names stand for, with what they are called there ("" for all of it).
    """

    path: str
    text: str
    own: Mapping[str, str]
    applications: frozenset[str]
    given: frozenset[str]
    imports: Mapping[str, tuple[str, str]]

    def owner(self, name: str) -> _Object | None:
        """What routes are registered on under a name; None for what is none of this file's business."""
        if name in self.own:
            return self.path, name
        return (self.path, _HANDED_IN) if name in self.given else None


@dataclass(frozen=True, slots=True)
class _Found:
    """All files, and what each object is mounted on: with which prefix, None where it is not known."""

    files: Mapping[str, _File]
    mounts: dict[_Object, list[tuple[_Object, str | None]]] = field(default_factory=dict)

    def mount(self, inner: _Object, outer: _Object, prefix: str | None) -> None:
        places = self.mounts.setdefault(inner, [])
        if inner != outer and (outer, prefix) not in places:
            places.append((outer, prefix))

    def prefixes(self, owner: _Object, below: tuple[_Object, ...] = ()) -> Iterator[str]:
        """The prefixes under which an object answers, with what is mounted on it `below`."""
        path, name = owner
        own = self.files[path].own.get(name, "")
        if not self.mounts.get(owner) and name in self.files[path].applications:
            yield own
        for outer, prefix in self.mounts.get(owner, []):
            if prefix is not None and outer not in below and len(below) < _MAX_DEPTH:
                yield from (f"{above}/{prefix}/{own}" for above in self.prefixes(outer, (*below, owner)))


def find_node_routes(root: Path, directory: PurePosixPath) -> dict[str, Evidence]:
    """Each path the package answers to GET requests, with where it says so."""
    texts = dict(_read_texts(root, directory))
    found = _Found({path: _read_file(path, text, texts) for path, text in texts.items()})
    for file in found.files.values():
        _mount_own(found, file)
    for file in found.files.values():
        _mount_imported(found, file)
    routes: dict[str, Evidence] = {}
    for path, evidence in (*_object_routes(found), *_nest_routes(texts)):
        routes.setdefault(path, evidence)
    return routes


def _read_texts(root: Path, directory: PurePosixPath) -> Iterator[tuple[str, str]]:
    """The package's sources by path, without comments; packages within it and tests apart."""
    others = {directory / path for path in find_named(root / directory, "package.json", depth=_MAX_DEPTH)} - {directory}
    for hit in search(root, directory, SOURCE_SUFFIXES, _WHOLE):
        if not TESTS.search(hit.path) and others.isdisjoint(PurePosixPath(hit.path).parents):
            yield hit.path, _COMMENT.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), hit.match[0])


def _read_file(path: str, text: str, paths: Collection[str]) -> _File:
    applications = {match["name"]: match["prefix"] or "" for match in _APPLICATION.finditer(text)}
    routers = {match["name"]: match["prefix"] or "" for match in _ROUTER.finditer(text)}
    parameters = {match["name"] or match["only"] for match in _PARAMETER.finditer(text)}
    given = frozenset(name for name in parameters if _REGISTRAR.search(name))
    imports = dict(_imports(path, text, paths))
    return _File(path, text, routers | applications, frozenset(applications), given, imports)


def _imports(path: str, text: str, paths: Collection[str]) -> Iterator[tuple[str, tuple[str, str]]]:
    for match in _IMPORTED.finditer(text):
        imported = _imported_file(path, match["from"] or match["of"], paths)
        if imported is not None:
            whole = ((match["default"], "default"), (match["all"], ""), (match["required"], match["attribute"] or ""))
            yield from ((name, (imported, there)) for name, there in whole if name)
            for item in (match["names"] or match["picked"] or "").split(","):
                name, *renamed = re.findall(_NAME, item.replace(" as ", " ")) or [""]
                yield renamed[-1] if renamed else name, (imported, name)


def _imported_file(path: str, imported: str, paths: Collection[str]) -> str | None:
    """The file of the package that a relative import names; compilers take "./x.js" for ./x.ts."""
    named = os.path.normpath(PurePosixPath(path).parent / imported)
    stem = re.sub(r"\.[cm]?js$", "", named)
    stems = (stem, named, f"{named}/index")
    return next(
        (file for file in (named, *(s + suffix for s in stems for suffix in SOURCE_SUFFIXES)) if file in paths), None
    )


def _mount_own(found: _Found, file: _File) -> None:
    """Mount what a file makes on what it makes or is given."""
    for outer, arguments in _mountings(file):
        prefix = _prefix(arguments)
        for name in _names(arguments) & file.own.keys():
            found.mount((file.path, name), outer, prefix)


def _mount_imported(found: _Found, file: _File) -> None:
    """Mount what other files make, and call their functions with what routes are registered on."""
    for outer, arguments in _mountings(file):
        imported = [file.imports[name] for name in _names(arguments) & file.imports.keys()]
        for target in (*imported, *_required(found, file, arguments)):
            for inner in _exported(found, *target):
                found.mount(inner, outer, _prefix(arguments))
    for outer, target in _calls(found, file):
        for inner in _exported(found, *target):
            found.mount(inner, outer, "")


def _mountings(file: _File) -> Iterator[tuple[_Object, str]]:
    """What is mounted on, with the arguments that say what is."""
    for match in _MOUNT.finditer(file.text):
        outer = file.owner(match["on"])
        if outer is not None:
            yield outer, _arguments(file.text, match.end())


def _arguments(text: str, start: int) -> str:
    """The text from within a parenthesis to its end."""
    opened = 1
    for position in range(start, min(start + _MAX_ARGUMENTS, len(text))):
        opened += {"(": 1, ")": -1}.get(text[position], 0)
        if opened == 0:
            return text[start:position]
    return ""


def _prefix(arguments: str) -> str | None:
    """The prefix the arguments of `use`, `route` or `register` give; None when it is no literal."""
    if _FUNCTION.search(arguments):
        return None
    literal = _FIRST_LITERAL.match(arguments) or _OPTION.search(arguments)
    if literal is not None:
        prefix = literal["prefix"]
        return prefix if prefix is not None and _PLAIN.fullmatch(prefix) else None
    return None if _FIRST_UNKNOWN.match(arguments) else ""


def _names(arguments: str) -> set[str]:
    return set(re.findall(_NAME, _STRING.sub("", arguments)))


def _required(found: _Found, file: _File, arguments: str) -> Iterator[tuple[str, str]]:
    for match in _REQUIRED.finditer(arguments):
        imported = _imported_file(file.path, match["of"], found.files)
        if imported is not None:
            yield imported, match["attribute"] or ""


def _calls(found: _Found, file: _File) -> Iterator[tuple[_Object, tuple[str, str]]]:
    """What a file hands to functions of other files, with these: `routes(app)`, `require("./routes")(app)`."""
    for name, target in file.imports.items():
        for match in re.finditer(
            rf"(?<![\w$.]){re.escape(name)}(?:\.\w+)?\(\s*(?:this\.)?(?P<on>{_NAME})\s*[,)]", file.text
        ):
            if (outer := file.owner(match["on"])) is not None:
                yield outer, target
    for match in re.finditer(_REQUIRED.pattern + rf"\(\s*(?P<on>{_NAME})\s*[,)]", file.text):
        imported = _imported_file(file.path, match["of"], found.files)
        if imported is not None and (outer := file.owner(match["on"])) is not None:
            yield outer, (imported, match["attribute"] or "")


def _exported(found: _Found, path: str, name: str) -> Iterator[_Object]:
    """What an import brings: the object of that name, else all that have no other and are not mounted there."""
    file = found.files[path]
    if name in file.own:
        yield path, name
        return
    yield path, _HANDED_IN
    for own in file.own:
        named = name and re.search(rf"\bexport\s+(?:const|let|var)\s+{re.escape(own)}\b", file.text)
        if not named and all(outer[0] != path for outer, _ in found.mounts.get((path, own), [])):
            yield path, own


def _object_routes(found: _Found) -> Iterator[tuple[str, Evidence]]:
    for file in found.files.values():
        for name, path, position in sorted(_registered(file), key=lambda route: route[2]):
            owner = file.owner(name)
            if owner is not None and _PLAIN.fullmatch(path):
                for prefix in found.prefixes(owner):
                    yield _evidence(f"{prefix}/{path}", file.path, file.text, position)


def _registered(file: _File) -> Iterator[tuple[str, str, int]]:
    """The routes of a file: on what, the path, and where in the text."""
    for match in _GET.finditer(file.text):
        yield match["on"] or match["owner"], match["path"] or match["at"] or "", match.start()
    for match in _TABLE.finditer(file.text):
        path = _TABLE_PATH.search(match["fields"])
        if path is not None and _TABLE_METHOD.search(match["fields"]):
            yield match["on"], path["path"], match.start()


def _nest_routes(texts: Mapping[str, str]) -> Iterator[tuple[str, Evidence]]:
    """The routes of controllers; none when Nest is told more about prefixes than one for all."""
    found = [match["prefix"] for text in texts.values() for match in _GLOBAL_PREFIX.finditer(text)]
    if len(set(found)) > 1 or None in found or any(_MORE_PREFIXES.search(text) for text in texts.values()):
        return
    for file, text in texts.items():
        for controller, end in _controllers(text):
            for match in _NEST_GET.finditer(text, controller.end(), end):
                path = "/".join((*found[:1], controller["path"] or "", match["path"] or ""))
                if _PLAIN.fullmatch(path):
                    yield _evidence(path, file, text, match.start())


def _controllers(text: str) -> Iterator[tuple[re.Match[str], int]]:
    """The controllers whose path is clear, with where the next one begins."""
    found = list(_CONTROLLER.finditer(text))
    ends = (*(later.start() for later in found[1:]), len(text))
    for match, following in zip(found, ends, strict=False):
        if match["bare"] or match["path"] is not None:
            yield match, following


def _evidence(path: str, file: str, text: str, position: int) -> tuple[str, Evidence]:
    normal = re.sub(r"/{2,}", "/", f"/{path}").rstrip("/") or "/"
    return normal, Evidence(f"GET {normal}", file, text.count("\n", 0, position) + 1)
