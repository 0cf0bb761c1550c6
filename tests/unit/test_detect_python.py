"""Python backends: which object is served and by what, what fixes its dependencies, and what it answers."""

import sys
import types
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.detect.backend import Backend
from orchestrator.detect.python.program import describe_python, find_python
from orchestrator.errors import ProjectError
from tests.unit.test_detect import MAIN, backend, crate, write

APP = "from fastapi import FastAPI\n\napp = FastAPI()\n"
SITE = "from fastapi import FastAPI\n\nsite = FastAPI()\n"
FLASK = "from flask import Flask\n\napp = Flask(__name__)\n"
SCRIPT = 'import os\n\nif __name__ == "__main__":\n    serve(int(os.environ["PORT"]))\n'
BUILD = '[build-system]\nrequires = ["uv_build"]\nbuild-backend = "uv_build"\n'
UVICORN = {"requirements.txt": "fastapi==0.120\nuvicorn==0.38\n"}
GUNICORN = {"requirements.txt": "Flask==3.1\ngunicorn==23.0\n"}


def project(name: str = "api", dependencies: str = '"fastapi", "uvicorn"', extra: str = "") -> str:
    return f'{extra}\n[project]\nname = "{name}"\nversion = "0"\ndependencies = [{dependencies}]\n'


def lock(**packages: str) -> str:
    """A uv.lock of packages, with the dependencies of each as they are written there."""
    return "version = 1\n" + "".join(
        f'\n[[package]]\nname = "{name}"\nversion = "1"\n{dependencies}\n' for name, dependencies in packages.items()
    )


LOCK = lock(api='dependencies = [{ name = "fastapi" }, { name = "uvicorn" }]', fastapi="", uvicorn="")


def detected(root: Path, files: dict[str, str] | None = None, **options: object) -> Backend:
    found = backend(write(root, files or {}), **options)
    assert found is not None
    return found


def test_a_uv_project_is_found_with_evidence(tmp_path: Path):
    main = APP + '\n\n@app.get("/health")\ndef health(): ...\n'
    found = detected(tmp_path, {"api/pyproject.toml": project(), "api/uv.lock": LOCK, "api/main.py": main})
    assert (found.framework, str(found.directory), str(found.lock_file)) == ("python", "api", "api/uv.lock")
    assert (found.package, found.binary, found.health_path) == ("", "main:app", "/health")
    claims = {item.claim: (item.path, item.line) for item in found.evidence}
    assert claims["project api"] == ("api/pyproject.toml", 2)
    assert claims["requires fastapi"] == ("api/pyproject.toml", 5)
    assert claims["main:app is a FastAPI application"] == ("api/main.py", 3)
    assert claims["served by uvicorn"] == ("api/uv.lock", 14)
    assert claims["GET /health"] == ("api/main.py", 6)


@pytest.mark.parametrize(
    ("files", "target"),
    [
        ({"towns/api/__init__.py": APP}, "towns.api:app"),
        ({"src/main.py": APP}, "src.main:app"),
        ({"main.py": "from fastapi import FastAPI as F\n\nservice: F = F()\n"}, "main:service"),
        ({"main.py": "import fastapi as f\n\ntry:\n    app = f.FastAPI()\nexcept OSError:\n    raise\n"}, "main:app"),
        ({"main.py": APP, "tests/app.py": APP, "test_main.py": APP, "old_test.py": APP}, "main:app"),
        ({"main.py": APP, "odd-name/main.py": APP, "class/main.py": APP, "py2.py": "print 1"}, "main:app"),
        ({"main.py": APP, "look.py": "from other import FastAPI\n\napp = FastAPI()\n"}, "main:app"),
        ({"main.py": APP, "router.py": "from fastapi import APIRouter\n\nrouter = APIRouter()\n"}, "main:app"),
        ({"main.py": APP + 'sub = FastAPI()\napp.mount("/x", sub)\n'}, "main:app"),
        ({"main.py": APP + 'from admin import site\napp.mount("/a", app=site)\n', "admin.py": SITE}, "main:app"),
        ({"main.py": APP + "import socketio\nboth = socketio.ASGIApp(server, app)\ndb = Admin(app)\n"}, "main:both"),
        ({"main.py": "from fastapi import FastAPI\n\napp = Traced(FastAPI(), level=1)\n"}, "main:app"),
        ({"main.py": APP + SCRIPT, "server.py": SCRIPT}, "main:app"),
    ],
)
def test_the_object_that_is_served(tmp_path: Path, files: dict[str, str], target: str):
    assert detected(tmp_path, {**UVICORN, **files}).binary == target


def test_a_factory_is_called_unless_the_module_calls_it(tmp_path: Path):
    factory = "from flask import Flask\n\ndef create_app(name='x'):\n    app = Flask(name)\n    return app\n"
    needy = factory.replace("name='x'", "name")
    found = detected(tmp_path / "1", {**GUNICORN, "shop/__init__.py": factory, "make.py": needy})
    assert (found.binary, found.start) == ("shop:create_app", ("-m", "gunicorn", "shop:create_app()"))
    calling = "from shop import create_app\n\napplication = create_app('prod')\n"
    found = detected(tmp_path / "2", {**GUNICORN, "shop/__init__.py": needy, "wsgi.py": calling})
    assert (found.binary, found.start) == ("wsgi:application", ("-m", "gunicorn", "wsgi:application"))


def test_several_applications_are_listed_and_named_with_a_flag(tmp_path: Path):
    files = {**UVICORN, "main.py": APP, "admin.py": SITE}
    with pytest.raises(ProjectError, match=r"requirements\.txt has 2 programs: admin:site, main:app") as caught:
        detected(tmp_path, files)
    assert caught.value.hint == "choose one with --backend-bin: admin:site, main:app"
    assert caught.value.details[0] == "admin:site is a FastAPI application (admin.py:3)"
    assert detected(tmp_path, binary="main").binary == "main:app"
    assert detected(tmp_path, binary="admin:site").binary == "admin:site"
    with pytest.raises(ProjectError, match="no program called other"):
        detected(tmp_path, binary="other")


def made(interface: str) -> str:
    name = f"get_{interface}_application"
    return f"from django.core.{interface} import {name}\n\napplication = {name}()\n"


DJANGO = {
    "mysite/manage.py": SCRIPT,
    "mysite/mysite/settings.py": 'WSGI_APPLICATION = "mysite.wsgi.application"\n',
    "mysite/mysite/wsgi.py": made("wsgi"),
    "mysite/mysite/asgi.py": made("asgi"),
}


def test_django_is_served_by_the_server_there_is(tmp_path: Path):
    found = detected(tmp_path, {**DJANGO, "requirements.txt": "Django==5\ngunicorn==23\nuvicorn==1\n"})
    assert found.start == ("-m", "gunicorn", "--chdir", "mysite", "mysite.wsgi:application")
    claims = {str(item) for item in found.evidence}
    assert "WSGI_APPLICATION is mysite.wsgi.application (mysite/mysite/settings.py:1)" in claims
    found = detected(tmp_path, {"requirements.txt": "Django==5\nuvicorn==1\n"})
    assert found.binary == "mysite.asgi:application"
    assert "'--app-dir', 'mysite'" in found.start[1]


def test_what_only_looks_like_a_web_framework_is_none(tmp_path: Path):
    write(
        tmp_path,
        {
            "api/Cargo.toml": crate("api"),
            "api/src/main.rs": MAIN,
            "api/pyproject.toml": project("bindings", extra='[build-system]\nbuild-backend = "maturin"\n'),
            "stubs/requirements.txt": "django-stubs==5\nflask_cors\ndjango/x.whl\n# flask\n-c fastapi.txt\ngit+https://x.org/flask\n",
            "stubs/main.py": "import django\n" + SCRIPT,
            "crawler/requirements.txt": "aiohttp==3\n",
            "crawler/main.py": "import aiohttp\n" + SCRIPT,
            "library/pyproject.toml": project("library"),
            "library/library.py": "import fastapi\n",
            "tests/requirements.txt": "fastapi\n",
            "tests/main.py": APP,
        },
    )
    assert detected(tmp_path).framework == "rust"
    assert detected(tmp_path, given="api").framework == "rust"
    assert detected(tmp_path, given="crawler").start == ("main.py",)
    found = find_python(tmp_path, PurePosixPath(), depth=3)
    assert [(str(one.directory), one.serves) for one in found] == [("crawler", False), ("stubs", False)]
    assert backend(write(tmp_path / "tools", {"tool/requirements.txt": "", "tool/main.py": SCRIPT})) is None
    write(tmp_path, {"crawler/main.py": "from aiohttp import web\n" + SCRIPT})
    with pytest.raises(ProjectError, match="2 backends: api, crawler"):
        detected(tmp_path)
    write(tmp_path, {"api/pyproject.toml": project(), "api/main.py": APP})
    with pytest.raises(ProjectError, match=r"a Cargo\.toml and a pyproject\.toml"):
        detected(tmp_path, given="api")


def test_an_installed_project_is_imported_without_src(tmp_path: Path):
    files = {"pyproject.toml": project("API.x", extra=BUILD), "uv.lock": LOCK, "src/towns/main.py": APP}
    found = detected(tmp_path, files)
    assert (found.package, found.binary) == ("api-x", "towns.main:app")
    found = detected(tmp_path, {"pyproject.toml": project(extra=BUILD + "[tool.uv]\npackage = false\n")})
    assert (found.package, found.binary) == ("", "src.towns.main:app")


def test_a_member_is_locked_with_its_workspace(tmp_path: Path):
    workspace = '[tool.uv.workspace]\nmembers = ["./packages/*"]\nexclude = ["packages/old"]\n'
    locked = lock(
        api='dependencies = [{ name = "fastapi", extra = ["standard"] }]',
        fastapi='[package.optional-dependencies]\nstandard = [{ name = "uvicorn" }]',
        uvicorn="",
    )
    files = {
        "pyproject.toml": workspace,
        "uv.lock": locked,
        "packages/api/pyproject.toml": project(dependencies='"fastapi[standard]"'),
        "packages/api/main.py": APP,
        "packages/library/pyproject.toml": project("library", ""),
        "packages/library/library.py": "",
    }
    found = detected(tmp_path, files, given=".")
    assert (str(found.directory), str(found.lock_file)) == ("packages/api", "uv.lock")
    write(tmp_path, {"pyproject.toml": workspace + project("all"), "site.py": SITE})
    assert detected(tmp_path, given=".").binary == "site:site"
    write(tmp_path, {"packages/old/pyproject.toml": project("old"), "packages/old/main.py": APP})
    assert str(detected(tmp_path, given="packages/old").lock_file) == "packages/old/uv.lock"


def test_a_server_only_some_other_member_or_group_needs_is_not_there(tmp_path: Path):
    locked = lock(api='dependencies = [{ name = "fastapi" }]', fastapi="", uvicorn="")
    files = {"pyproject.toml": project(dependencies='"fastapi"'), "uv.lock": locked, "main.py": APP}
    with pytest.raises(ProjectError, match="nothing among its dependencies serves main:app") as caught:
        detected(tmp_path, files)
    assert caught.value.hint == "add uvicorn to its dependencies: uv add uvicorn"
    with pytest.raises(ProjectError) as caught:
        detected(tmp_path / "pip", {"requirements.txt": "flask\nuvicorn\n", "main.py": FLASK})
    assert caught.value.hint == "add gunicorn to requirements.txt"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"pyproject.toml": project()}, "uv.lock"),
        ({"pyproject.toml": project(), **UVICORN}, "requirements.txt"),
        ({"pyproject.toml": project(), **UVICORN, "uv.lock": LOCK}, "uv.lock"),
        ({"pyproject.toml": "[tool.ruff]\n", **UVICORN, "uv.lock": LOCK}, "requirements.txt"),
        ({"pyproject.toml": project(), **UVICORN, "poetry.lock": ""}, "requirements.txt"),
        ({"pyproject.toml": project(dependencies="\"fastapi[standard]>=0.115; python_version > '3'\"")}, "uv.lock"),
        (
            {"requirements.txt": "-r base.txt\n", "base.txt": "\ufefffastapi [all]==1 \\\n  --hash=x\n"},
            "requirements.txt",
        ),
    ],
)
def test_what_fixes_the_dependencies(tmp_path: Path, files: dict[str, str], expected: str):
    assert str(detected(tmp_path, {"main.py": APP, **files}).lock_file) == expected


@pytest.mark.parametrize(
    ("files", "name", "command"),
    [
        ({"pyproject.toml": project(), "poetry.lock": ""}, "poetry.lock", "poetry export"),
        ({"pyproject.toml": '[tool.poetry.dependencies]\nfastapi = "*"\n'}, "poetry.lock", "poetry export"),
        ({"pyproject.toml": project(), "pdm.lock": ""}, "pdm.lock", "pdm export"),
        ({"Pipfile": '[packages]\nfastapi = "*"\n'}, "Pipfile.lock", "pipenv requirements"),
    ],
)
def test_locks_of_other_tools_come_with_the_command_to_export_them(
    tmp_path: Path, files: dict[str, str], name: str, command: str
):
    with pytest.raises(ProjectError, match=rf"^{name} is how") as caught:
        detected(tmp_path, {"main.py": APP, **files})
    assert command in (caught.value.hint or "")
    assert "uvx migrate-to-uv" in (caught.value.hint or "")


def ran(start: tuple[str, ...], module: str, function: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments that the code of `start` gives to a server."""
    seen: list[str] = []
    fake = types.ModuleType(module)
    setattr(fake, function, lambda arguments=None: seen.extend(arguments or sys.argv))
    monkeypatch.setitem(sys.modules, module.partition(".")[0], types.ModuleType(module.partition(".")[0]))
    monkeypatch.setitem(sys.modules, module, fake)
    monkeypatch.setattr(sys, "argv", ["-c"])
    assert start[0] == "-c"
    try:
        exec(start[1], {})
    except SystemExit as stopped:
        assert not stopped.code
    return seen[1:]


def test_the_servers_listen_where_host_and_port_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PORT", "3001")
    monkeypatch.delenv("HOST", raising=False)
    factory = "def create_app():\n    return Made()\n"
    asgi = detected(tmp_path / "1", {**UVICORN, "main.py": "from fastapi import FastAPI as Made\n" + factory})
    arguments = ["main:create_app", "--factory", "--host", "0.0.0.0", "--port", "3001"]
    assert ran(asgi.start, "uvicorn.main", "main", monkeypatch) == arguments
    files = {"requirements.txt": "flask==3\nwaitress==3\n", "main.py": "from flask import Flask as Made\n" + factory}
    wsgi = detected(tmp_path / "2", files)
    assert ran(wsgi.start, "waitress.runner", "run", monkeypatch) == [
        "--listen=0.0.0.0:3001",
        "--call",
        "main:create_app",
    ]


def test_scripts_are_run_where_there_is_no_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    commands = '[project.scripts]\ntowns = "towns.cli:main"\nbad = "towns-cli:main"\n'
    scripts = {
        "pyproject.toml": project(extra=BUILD) + commands,
        "uv.lock": LOCK,
        "src/towns/cli.py": "import fastapi\n",
    }
    found = detected(tmp_path / "1", {**scripts, "main.py": SCRIPT}, binary="towns")
    assert (found.binary, found.start[0]) == ("towns.cli:main", "-c")
    assert found.start[1] == "import sys; from towns.cli import main; sys.exit(main())"
    unpackaged = {**scripts, "pyproject.toml": project() + commands, "towns/__main__.py": ""}
    found = detected(tmp_path / "2", unpackaged, given=".")
    assert (found.binary, found.start) == ("towns/__main__.py", ("-m", "towns"))
    with pytest.raises(ProjectError, match=r"2 programs: server\.py, towns/__main__\.py"):
        detected(tmp_path / "2", {"server.py": SCRIPT}, given=".")
    with pytest.raises(ProjectError, match=r"nothing to run"):
        detected(tmp_path / "3", {**UVICORN, "main.py": "", "deep/main.py": SCRIPT}, given=".")


def test_ports_are_read_from_scripts_and_do_not_matter_to_servers(tmp_path: Path):
    two = 'uvicorn.run(app, port=8001)\napp.run("0.0.0.0", port=8002)\n'
    assert detected(tmp_path / "1", {**UVICORN, "main.py": APP + two}).port == 3000
    assert detected(tmp_path / "2", {**UVICORN, "main.py": APP + two[:28], "test_x.py": two}).port == 8001
    script = "import fastapi\n" + SCRIPT.replace('int(os.environ["PORT"])', "None")
    with pytest.raises(ProjectError, match="8001, 8002"):
        detected(tmp_path / "3", {**UVICORN, "main.py": script + two})
    found = detected(tmp_path / "4", {**UVICORN, "main.py": script + 'os.getenv("PORT", 8003)'})
    assert found.port == 8003


ROUTERS = {
    **UVICORN,
    "main.py": APP
    + """
from routers import towns
from routers.health import router as health

app.include_router(towns.api, prefix=towns.PREFIX)
app.include_router(health)
app.include_router(unknown, prefix=settings.prefix)
""",
    "routers/towns.py": """
from fastapi import APIRouter

PREFIX = "/api"
api = APIRouter(prefix="/v1")

@api.post("/")
def add(): ...

@api.get("/{id}")
def one(): ...

@api.get(
    "/towns"
)
def all(): ...
""",
    "routers/health.py": """
from fastapi import APIRouter

router = APIRouter()
lost = APIRouter()

@router.get("/healthz")
def ok(): ...

@lost.get("/health")
def no(): ...
""",
}
BLUEPRINTS = {
    **GUNICORN,
    "shop/__init__.py": """
from flask import Flask

def create_app():
    app = Flask(__name__)
    from .views import bp
    app.register_blueprint(bp, url_prefix="/api/v1")

    @app.route("/healthz", methods=["get"])
    def ok(): ...

    @app.route("/health", methods=["POST"])
    def no(): ...

    return app
""",
    "shop/views.py": """
from flask import Blueprint

bp = Blueprint("views", __name__, url_prefix="/never")

@bp.route("/towns")
def towns(): ...
""",
}
URLS = {
    **DJANGO,
    "requirements.txt": "django==5\ngunicorn==23\n",
    "mysite/mysite/urls.py": """
from django.urls import include, path

urlpatterns = [
    path("api/", include("towns.urls")),
    path("x/", include([path("health", v)])),
    path("healthz", v),
]
""",
    "mysite/towns/urls.py": """
from django.urls import path

urlpatterns = [path("v1/<int:id>", v)]
urlpatterns += [path("v1/towns", v), path("health", v)]
""",
}
LISTS = {
    "requirements.txt": "starlette==1\nuvicorn==1\n",
    "main.py": """
from starlette.applications import Starlette
from starlette.routing import Mount, Route

api = [Route("/towns", v)]
admin = Mount("/admin", routes=[Route("/health", v)])
app = Starlette(routes=[Route("/healthz", v), Mount("/api/v1", routes=api), admin])
""",
}


@pytest.mark.parametrize("files", [ROUTERS, BLUEPRINTS, URLS, LISTS], ids=["fastapi", "flask", "django", "starlette"])
def test_routes_have_the_prefixes_of_what_they_are_included_in(tmp_path: Path, files: dict[str, str]):
    found = detected(tmp_path, files)
    assert (found.health_path, found.api_path) == ("/healthz", "/api/v1/towns")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"pyproject.toml": "[project"}, "cannot be read"),
        ({"pyproject.toml": "project = 1\n"}, r"\[project\] is not a table"),
        ({"pyproject.toml": "[project]\nversion = '1'\n"}, "no valid name"),
        ({"pyproject.toml": project() + "scripts = { a = 1 }\n"}, r"\[project\.scripts\] are not strings"),
        ({"pyproject.toml": project(dependencies="1")}, "dependencies are not strings"),
        ({"requirements.txt": "-r a.txt\n", "a.txt": "--requirement=./requirements.txt\n"}, "includes itself"),
        ({"requirements.txt": "-r ../up.txt\n"}, "outside of the monorepo"),
        ({"requirements.txt": "-r none.txt\n"}, r"none\.txt cannot be read"),
        ({"requirements.txt": "fastapi", "main.py": "x = f(\n"}, "nothing to run"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, files: dict[str, str], message: str):
    with pytest.raises(ProjectError, match=message):
        backend(write(tmp_path, files))


def test_requirements_that_are_not_utf_8_are_named(tmp_path: Path):
    (tmp_path / "requirements.txt").write_bytes("fastapi\n".encode("utf-16"))
    with pytest.raises(ProjectError, match=r"requirements\.txt is not UTF-8"):
        backend(tmp_path)


TOML = ["[project]", "name", "=", '"api"', "dependencies", "scripts", "[", "]", "[[package]]", "[tool.uv.workspace]"]
CODE = [
    "from . import app",
    "from fastapi import FastAPI",
    "app",
    "FastAPI(",
    ")",
    "def create_app(): ",
    "return ",
    "if ",
]
ODD = ["-r ", "requirements.txt", "\\", "\0", "'", "\n", "    "]
PIECES = st.sampled_from([*TOML, *CODE, *ODD])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(texts=st.lists(st.one_of(st.text(max_size=40), st.lists(PIECES).map("".join)), min_size=4, max_size=4))
def test_no_file_is_too_odd(tmp_path: Path, texts: list[str]):
    for name, text in zip(("pyproject.toml", "requirements.txt", "uv.lock", "main.py"), texts, strict=True):
        (tmp_path / name).write_text(text, errors="ignore")
    for wanted in (None, "main"):
        try:
            find_python(tmp_path, PurePosixPath(), depth=1)
            describe_python(tmp_path, PurePosixPath(), wanted)
        except ProjectError:
            pass


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("flask==3.0.0", ""),
        ("flask == 3.0.0  # the one", ""),
        ("flask===3.0.0 ; python_version >= '3.9'", ""),
        ("flask==3.0.0 \\\n    --hash=sha256:00", ""),
        ("flask @ https://e.org/flask-3.whl", ""),
        ("flask", "requirements.txt:2 does not fix the version of flask"),
        ("flask>=3", "requirements.txt:2 does not fix the version of flask"),
        ("flask==3.*", "requirements.txt:2 does not fix the version of flask"),
        ("flask>=3 ; python_version=='3.9'", "requirements.txt:2 does not fix the version of flask"),
        ("-e .", "requirements.txt:2 installs a directory: -e ."),
        ("./lib", "requirements.txt:2 installs a directory: ./lib"),
    ],
)
def test_requirements_have_to_fix_every_version(tmp_path: Path, line: str, said: str):
    (tmp_path / "requirements.txt").write_text(f"gunicorn==23.0.0\n{line}\nflask==3.0.0\n")
    (tmp_path / "app.py").write_text("from flask import Flask\napp = Flask(__name__)\n")
    if not said:
        assert describe_python(tmp_path, PurePosixPath(), None).binary == "app:app"
        return
    with pytest.raises(ProjectError) as caught:
        describe_python(tmp_path, PurePosixPath(), None)
    assert caught.value.message == said
