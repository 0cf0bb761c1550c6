"""Local addresses in a built frontend."""

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.detect.frontend import detect_frontend
from orchestrator.errors import ImageError
from orchestrator.events import Event, Note
from orchestrator.image.addresses import check_addresses, find_addresses
from orchestrator.image.javascript import string_literals

BAD = "http://localhost:3000/api"


def urls(tmp_path: Path, name: str, text: str, settled: tuple[str, ...] = ()) -> list[str]:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return [item.url for item in find_addresses(tmp_path, settled=settled)]


@pytest.mark.parametrize(
    ("name", "text", "url"),
    [
        ("assets/a.js", f'const a="{BAD}";fetch(a)', BAD),
        ("assets/a.js", "x=y/2;z='http://127.0.0.1:8000'", "http://127.0.0.1:8000"),
        ("assets/a.js", "f(`http://localhost:${p}/api`)", "http://localhost:${…}"),
        ("assets/a.js", "f(`http://localhost${p}`)", "http://localhost${…}"),
        ("assets/a.js", "f(`a${b?`${c}`:'x'}d`,'ws://0.0.0.0:1/s')", "ws://0.0.0.0:1/s"),
        ("a.mjs", "r=/['\"`]/.test(q)?'http://10.0.0.7/v1':0", "http://10.0.0.7/v1"),
        ("a.js", "u='http://192.168.1.20'", "http://192.168.1.20"),
        ("a.js", "u='//localhost:3000/x'", "//localhost:3000/x"),
        ("a.js", "u='http://172.20.0.2:80/'", "http://172.20.0.2:80/"),
        ("a.js", "u='http://[::1]:3000'", "http://[::1]:3000"),
        ("a.js", 'c=JSON.parse(\'{"api":"http://localhost:3000"}\')', "http://localhost:3000"),
        ("a.js", "/* it's */ f('http://localhost:3000')", "http://localhost:3000"),
        ("config.json", '{"api": "http:\\/\\/localhost:3000"}', "http://localhost:3000"),
        ("index.html", f'<p>\n<script src="{BAD}"></script>', BAD),
        ("index.html", f"<script>\nfetch('{BAD}')</script>", BAD),
        ("a.css", "b{background:url(http://localhost:3000/a.png)}", "http://localhost:3000/a.png"),
    ],
)
def test_an_address_code_can_ask_for_is_found(tmp_path: Path, name: str, text: str, url: str) -> None:
    assert urls(tmp_path, name, text) == [url]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.js", f"/*! licence: see {BAD} */var a='/api'"),
        ("a.js", f"// fetch('{BAD}')\nf('/api')"),
        ("a.js", f'/** @example fetch("{BAD}") */'),
        ("a.js", f"e('Start the server on {BAD} first')"),
        ("a.js", "new URL(p,'http://localhost')"),
        ("a.js", "u='http://localhost/'"),
        ("a.js", "u='https://example.org:3000/localhost'"),
        ("a.js", "h=location.hostname==='localhost'"),
        ("a.js", "u='http://localhost.example.org:80/'"),
        ("a.js", "u='http://172.32.0.1/'"),
        ("a.js", "r=/'http:\\/\\/localhost:3000'/"),
        ("a.js.map", f'{{"sourcesContent":["f(\\"{BAD}\\")"]}}'),
        ("LICENSE.txt", BAD),
        ("index.html", f"<!-- <script src='{BAD}'></script> --><p>{BAD}</p>"),
        ("a.css", f"/* url({BAD}) */"),
        ("a.json", f'{{"description": "listens on {BAD}"}}'),
    ],
)
def test_what_no_code_asks_for_does_not_count(tmp_path: Path, name: str, text: str) -> None:
    assert urls(tmp_path, name, text) == []


def test_a_fallback_behind_a_variable_with_a_value_is_never_used(tmp_path: Path) -> None:
    text = 'const e={VITE_API_URL:"/api"};f(e.VITE_API_URL||"http://localhost:3000")'
    assert urls(tmp_path, "a.js", text, ("VITE_API_URL",)) == []
    assert urls(tmp_path, "a.js", text, ("VITE_OTHER",)) == ["http://localhost:3000"]


def test_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text(f"a\n;b('{BAD}')")
    (item,) = find_addresses(tmp_path)
    assert (item.path, item.line, item.column) == ("a.js", 2, 5)


@given(st.lists(st.sampled_from(["a", "/", "'x'", '"y"', "`", "${", "}", "{", "//", "/*", "*/", "\n", "\\"])))
def test_any_text_is_read_to_its_end(parts: list[str]) -> None:
    for literal in string_literals("".join(parts)):
        assert "".join(parts).startswith(literal.text, literal.start)


@given(st.text(st.characters(exclude_characters="'\\\n", exclude_categories=["Cs"])))
def test_a_string_after_anything_harmless_is_found(text: str) -> None:
    assert [item.text for item in string_literals(f"a=b/c;/*'*/d(e)/f;'{text}'")] == [text]


@pytest.fixture
def monorepo(tmp_path: Path) -> Path:
    frontend = tmp_path / "frontend"
    (frontend / "src").mkdir(parents=True)
    (frontend / "package.json").write_text('{"scripts": {"build": "vite build"}, "devDependencies": {"vite": "5"}}')
    (frontend / "package-lock.json").write_text("{}")
    (frontend / "dist").mkdir()
    (frontend / "dist/a.js").write_text(f'f("{BAD}")')
    return tmp_path


def check(root: Path, source: str, *, allow: bool = False) -> list[Event]:
    (root / "frontend/src/api.ts").write_text(source)
    frontend = detect_frontend(root, given="frontend", api_prefix="/api")
    assert frontend is not None and frontend.directory == PurePosixPath("frontend")
    events: list[Event] = []
    check_addresses(root / "frontend/dist", root, frontend, allow=allow, emit=events.append)
    return events


def test_the_refusal_names_file_url_source_and_a_remedy(monorepo: Path) -> None:
    with pytest.raises(ImageError) as refused:
        check(monorepo, f'\nfetch("{BAD}")')
    error = refused.value
    assert BAD in error.message and "a.js, line 1, column 4" in error.message
    assert "written in frontend/src/api.ts:2" in error.details
    assert "VITE_API_URL" in (error.hint or "") and "--allow-absolute-urls" in (error.hint or "")


def test_the_variable_found_in_the_source_is_the_remedy(monorepo: Path) -> None:
    with pytest.raises(ImageError) as refused:
        check(monorepo, f'const base = import.meta.env.VITE_BACKEND_URL;\nfetch("{BAD}")')
    assert "let frontend/src/api.ts:2 read VITE_BACKEND_URL" in (refused.value.hint or "")


def test_a_variable_on_the_line_that_nobody_sets_is_named(monorepo: Path) -> None:
    with pytest.raises(ImageError) as refused:
        check(monorepo, f'const base = import.meta.env.VITE_HOST || "{BAD}"')
    assert "frontend/src/api.ts:1 reads VITE_HOST" in (refused.value.hint or "")


def test_it_is_said_when_it_is_allowed(monorepo: Path) -> None:
    (note,) = check(monorepo, "", allow=True)
    assert isinstance(note, Note) and note.level == "warning" and BAD in note.text
