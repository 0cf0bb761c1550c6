"""Finds addresses of the developer's machine in a built frontend: in a visitor's browser they lead nowhere.

Only addresses code can ask for count: strings that are an address as a whole, links and sources of HTML, `url()` of
CSS, values of JSON. Comments, source maps, texts, licences and sentences that mention an address do not. Neither does
a bare `http://localhost` without port and path: libraries parse relative URLs against it and never ask for it.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from orchestrator.detect.frontend import SCRIPT_SUFFIXES, Frontend
from orchestrator.detect.sources import search
from orchestrator.errors import ImageError
from orchestrator.events import Emit, Note
from orchestrator.image.javascript import Literal, string_literals

_HOST = (
    r"(?:localhost|127(?:\.\d{1,3}){3}|0\.0\.0\.0|\[::1?\]|10(?:\.\d{1,3}){3}|192\.168(?:\.\d{1,3}){2}"
    r"|172\.(?:1[6-9]|2\d|3[01])(?:\.\d{1,3}){2}|169\.254(?:\.\d{1,3}){2}|host\.docker\.internal)"
)
_LOCAL = re.compile(rf"(?P<scheme>https?:|wss?:)?//(?P<host>{_HOST})(?P<rest>(?::\d*)?(?:[/?#][^\s\"'`<>\\]*)?)", re.I)
_ANY_HOST = re.compile(_HOST, re.I)
_INSIDE_JSON = re.compile(r"[:,\[]\s*\\?\"(?=(?:https?|wss?):)", re.I)
_CSS_URL = re.compile(r"url\(\s*[\"']?(?=[a-z]*:?//)|@import\s+[\"']", re.I)
_CSS_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_JSON_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_BASES = ("localhost", "127.0.0.1", "[::1]")
_LINKS = frozenset(("src", "href", "action", "formaction", "poster", "data", "srcset"))
_SHOWN = 5
_SOURCES = (*SCRIPT_SUFFIXES, ".html", ".css", ".json", ".env", ".env.production")
_ORIGIN = re.compile(rf"^((?:https?:|wss?:)?//{_HOST}(?::\d+)?).*", re.I | re.DOTALL)


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """An address in a built file; `line` and `column` count from 1."""

    path: str
    line: int
    column: int
    url: str


def check_addresses(site: Path, root: Path, frontend: Frontend, *, allow: bool, emit: Emit) -> None:
    """Refuse a built frontend that asks the visitor's own machine, unless that is allowed.

    `root` is the monorepo, whose sources tell where an address comes from. Raises `ImageError`.
    """
    settled = (frontend.api_variable.name,) if frontend.api_variable else ()
    found = tuple(find_addresses(site, settled=settled))
    if not found:
        return
    lines = [f"{item.path}:{item.line}:{item.column} {item.url}" for item in found[:_SHOWN]]
    more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    if allow:
        emit(Note(f"--allow-absolute-urls: the page will ask {', '.join(lines + more)}", "warning"))
        return
    first = found[0]
    raise ImageError(
        f"the built frontend asks {first.url}, which is the visitor's own machine ({first.path}, line {first.line}, "
        f"column {first.column})",
        details=[*lines, *more, *_origins(root, frontend, found)],
        hint=_advice(root, frontend, first),
    )


def find_addresses(site: Path, *, settled: Sequence[str] = ()) -> Iterator[LocalAddress]:
    """Every local address in the files below `site`, in the order of their names.

    `settled` variables have a value, so what stands behind `.NAME ||` or `.NAME ??` is never used.
    """
    for path in sorted(site.rglob("*")):
        reader = _READERS.get(path.suffix.lower())
        if reader is None or not path.is_file() or path.is_symlink():
            continue
        text = path.read_text(errors="replace")
        if _ANY_HOST.search(text) is None:
            continue
        for start, url in reader(text):
            if not _is_settled(text, start, settled):
                line = text.count("\n", 0, start) + 1
                yield LocalAddress(path.relative_to(site).as_posix(), line, start - text.rfind("\n", 0, start), url)


def _in_script(text: str) -> Iterator[tuple[int, str]]:
    for literal in string_literals(text):
        yield from _in_literal(literal)


def _in_literal(literal: Literal) -> Iterator[tuple[int, str]]:
    if (whole := _LOCAL.fullmatch(literal.text)) and _counts(whole, more=literal.open_ended):
        yield literal.start, literal.text + ("${…}" if literal.open_ended else "")
        return
    for opening in _INSIDE_JSON.finditer(literal.text):
        if (found := _LOCAL.match(literal.text, opening.end())) and _counts(found, more=False):
            yield literal.start + found.start(), found[0]


def _in_json(text: str) -> Iterator[tuple[int, str]]:
    for string in _JSON_STRING.finditer(text):
        if (found := _LOCAL.fullmatch(string[1].replace("\\/", "/"))) and _counts(found, more=False):
            yield string.start(1), found[0]


def _in_style(text: str) -> Iterator[tuple[int, str]]:
    code = _CSS_COMMENT.sub(lambda comment: re.sub(r"[^\n]", " ", comment[0]), text)
    for opening in _CSS_URL.finditer(code):
        if (found := _LOCAL.match(code, opening.end())) and _counts(found, more=False):
            yield found.start(), found[0].partition(")")[0]


def _in_page(text: str) -> Iterator[tuple[int, str]]:
    parser = _PageParser(text)
    parser.feed(text)
    parser.close()
    yield from parser.found


class _PageParser(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=False)
        self.found: list[tuple[int, str]] = []
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]
        self._script = ""

    def _here(self) -> int:
        line, column = self.getpos()
        return self._lines[line - 1] + column

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._script = tag if tag in ("script", "style") else ""
        for name, value in attrs:
            link = _LOCAL.match(value or "") if name in _LINKS else None
            if link and _counts(link, more=False):
                self.found.append((self._here(), link[0]))

    def handle_data(self, data: str) -> None:
        reader = {"script": _in_script, "style": _in_style}.get(self._script)
        if reader is not None:
            self.found += [(self._here() + start, url) for start, url in reader(data)]

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002  # html.parser's signature
        self._script = ""


_READERS: dict[str, Callable[[str], Iterator[tuple[int, str]]]] = {
    **dict.fromkeys((".js", ".mjs", ".cjs"), _in_script),
    **dict.fromkeys((".json", ".webmanifest"), _in_json),
    **dict.fromkeys((".html", ".htm"), _in_page),
    ".css": _in_style,
}


def _counts(found: re.Match[str], *, more: bool) -> bool:
    """Whether the address is one to ask, not a base to parse against. `more` follows it when the program runs."""
    if found["scheme"] is None and not found["rest"].startswith(":"):
        return False
    return more or found["host"].lower() not in _BASES or found["rest"] not in ("", "/")


def _is_settled(text: str, start: int, settled: Sequence[str]) -> bool:
    before = text[max(0, start - 100) : start]
    return any(re.search(rf"\.{re.escape(name)}\s*(?:\?\?|\|\|)\s*[\"'`]$", before) for name in settled)


def _origins(root: Path, frontend: Frontend, found: Sequence[LocalAddress]) -> list[str]:
    """Where in the sources the addresses are written, as far as they are."""
    hosts = dict.fromkeys(_origin(item.url) for item in found)
    hits = (hit for host in hosts for hit in search(root, frontend.directory, _SOURCES, re.compile(re.escape(host))))
    return [f"written in {hit.path}:{hit.line}" for _, hit in zip(range(_SHOWN), hits, strict=False)]


def _advice(root: Path, frontend: Frontend, first: LocalAddress) -> str:
    override = "--allow-absolute-urls deploys it all the same"
    pattern = re.compile(rf"(?:env\.(?P<name>[A-Z][A-Z0-9_]*)\b[^\n]*)?{re.escape(_origin(first.url))}")
    hit = next(search(root, frontend.directory, _SOURCES, pattern), None)
    place = f"{hit.path}:{hit.line}" if hit else "the code that asks"
    if hit is not None and hit.match["name"]:
        name = hit.match["name"]
        return f"{place} reads {name}: set it for the build, to a relative address; {override}"
    if variable := frontend.api_variable:
        return f"let {place} read {variable.name}, which is set to a relative address for every build; {override}"
    example = 'import.meta.env.VITE_API_URL ?? "http://localhost:3000"'
    return f"let {place} read a variable, which is then set for every build: {example}; {override}"


def _origin(url: str) -> str:
    """Scheme, host and port: how the address is likely written in the sources."""
    return _ORIGIN.sub(r"\1", url)
