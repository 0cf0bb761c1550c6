"""Planning is pure, and puts the API where the page can reach it."""

from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from orchestrator.detect.backend import Backend
from orchestrator.detect.evidence import Evidence
from orchestrator.detect.frontend import ApiVariable, Frontend
from orchestrator.detect.packages import PackageManager
from orchestrator.errors import ProjectError, UsageError
from orchestrator.plan import api_base, make_plan
from orchestrator.project import Project
from orchestrator.settings import Health, Service, Services, Settings, Web

SETTINGS = Settings(name="app", state_dir=Path("/s"), cache_dir=Path("/c"))
WHY = Evidence("because", "file", 1)
VARIABLE = ApiVariable("VITE_API_URL", keeps_prefix=True, loses_empty=False, evidence=(WHY,))
FRONTEND = Frontend(
    framework="vite",
    directory=PurePosixPath("web"),
    package_manager=PackageManager("npm", PurePosixPath("package-lock.json"), WHY),
    build_script="vite build",
    output=PurePosixPath("web/dist"),
    api_variable=VARIABLE,
    evidence=(WHY,),
)
BACKEND = Backend(
    framework="rust",
    directory=PurePosixPath("api"),
    lock_file=PurePosixPath("api/Cargo.lock"),
    package="api",
    binary="server",
    port=3000,
    health_path="/health",
    api_path="/api/v1/things",
    evidence=(WHY,),
)
PROJECT = Project(root=Path("/repo"), frontend=FRONTEND, backend=BACKEND, has_flake=True)


def test_the_same_input_gives_the_same_plan():
    assert make_plan(SETTINGS, PROJECT) == make_plan(SETTINGS, PROJECT)


def test_the_layout_changes_what_runs_and_not_what_is_built():
    single = make_plan(SETTINGS.model_copy(update={"layout": "single"}), PROJECT)
    assert single.layout == "single"
    assert replace(single, layout="pod") == make_plan(SETTINGS, PROJECT)


def test_one_container_has_one_backend():
    several = SETTINGS.model_copy(update={"services": Services(backend=Service(replicas=2))})
    with pytest.raises(UsageError, match="one container has one backend"):
        make_plan(several.model_copy(update={"layout": "single"}), PROJECT)


def test_in_one_container_nginx_and_the_backend_need_two_ports():
    settings = SETTINGS.model_copy(update={"layout": "single"})
    with pytest.raises(UsageError, match="port 8080, which nginx has"):
        make_plan(settings, replace(PROJECT, backend=replace(BACKEND, port=8080)))


def test_only_fetching_has_the_network():
    for build in make_plan(SETTINGS, PROJECT).builds:
        assert [(step.name, step.network) for step in build.steps] == [("fetch", True), ("build", False)]


def test_npm_installs_where_the_lock_file_is_and_builds_where_the_frontend_is():
    frontend = make_plan(SETTINGS, PROJECT).builds[0]
    assert [str(step.directory) for step in frontend.steps] == [".", "web"]


def test_pnpm_installs_what_its_lock_file_says():
    manager = PackageManager("pnpm", PurePosixPath("pnpm-lock.yaml"), WHY)
    assert PROJECT.frontend is not None
    project = replace(PROJECT, frontend=replace(PROJECT.frontend, package_manager=manager))
    fetch, build = make_plan(SETTINGS, project).builds[0].steps
    assert fetch.argv[:3] == ("pnpm", "install", "--frozen-lockfile")
    assert build.argv == ("pnpm", "run", "build")


@pytest.mark.parametrize(
    ("keeps_prefix", "loses_empty", "setting", "expected"),
    [
        (True, False, None, ""),
        (True, True, None, "/."),
        (False, False, None, "/api"),
        (False, True, None, "/api"),
        (True, False, "/backend", "/backend"),
    ],
)
def test_the_api_base_is_relative_and_survives_the_code_s_default(
    keeps_prefix: bool, loses_empty: bool, setting: str | None, expected: str
):
    variable = replace(VARIABLE, keeps_prefix=keeps_prefix, loses_empty=loses_empty)
    assert api_base(SETTINGS.model_copy(update={"api_base": setting}), variable) == expected


def test_the_web_server_proxies_the_prefix_and_the_health_path():
    proxy = make_plan(SETTINGS, PROJECT).web.proxy
    assert proxy is not None
    assert (proxy.prefix, proxy.exact, proxy.port) == ("/api", ("/health",), 3000)


def test_readiness_is_what_is_said_else_what_is_found_else_the_health_path():
    found = replace(PROJECT, backend=replace(BACKEND, ready_path="/ready"))
    plan = make_plan(SETTINGS, found)
    assert plan.backend is not None and plan.web.proxy is not None
    assert (plan.backend.ready_path, plan.backend.health_path) == ("/ready", "/health")
    assert plan.web.proxy.exact == ("/health", "/ready")
    said = make_plan(SETTINGS.model_copy(update={"health": Health(path="/up")}), found).backend
    assert said is not None and (said.ready_path, said.health_path) == ("/up", "/up")
    both = make_plan(SETTINGS.model_copy(update={"health": Health(path="/up", ready_path="/r")}), found).backend
    assert both is not None and (both.ready_path, both.health_path) == ("/r", "/up")


def test_a_backend_alone_gets_everything_and_a_frontend_alone_nothing():
    alone = make_plan(SETTINGS, replace(PROJECT, frontend=None))
    assert alone.web.static is None and alone.web.proxy is not None and alone.web.proxy.prefix == "/"
    page = make_plan(SETTINGS, replace(PROJECT, backend=None))
    assert page.web.proxy is None and page.backend is None and page.web.spa


def test_a_frontend_without_a_build_script_needs_a_command():
    project = replace(PROJECT, frontend=replace(FRONTEND, build_script=None))
    with pytest.raises(ProjectError, match="no build script"):
        make_plan(SETTINGS, project)
    given = make_plan(SETTINGS.model_copy(update={"frontend_build": "make site"}), project)
    assert given.builds[0].steps[1].argv == ("bash", "-c", "make site")


@pytest.mark.parametrize(
    ("env", "said", "expected"), [("PRO", None, False), ("DEV", None, True), ("DEV", False, False), ("PRO", True, True)]
)
def test_what_the_user_says_wins_over_the_preset(env: str, said: bool | None, expected: bool) -> None:
    settings = SETTINGS.model_copy(update={"env": env, "web": Web(source_maps=said)})
    assert make_plan(settings, PROJECT).web.options.source_maps is expected


def test_the_prefix_is_kept_unless_it_is_to_be_stripped() -> None:
    kept, stripped = (
        make_plan(SETTINGS.model_copy(update={"strip_prefix": strip}), PROJECT) for strip in (False, True)
    )
    assert kept.web.proxy is not None and not kept.web.proxy.strip
    assert stripped.web.proxy is not None and stripped.web.proxy.strip


UV = replace(
    BACKEND,
    framework="python",
    lock_file=PurePosixPath("uv.lock"),
    package="",
    binary="main:app",
    start=("-m", "gunicorn", "main:app"),
)
NPM = replace(
    BACKEND,
    framework="node",
    lock_file=PurePosixPath("package-lock.json"),
    binary="dist/server.js",
    start=("--enable-source-maps", "dist/server.js"),
    package_manager=PackageManager("npm", PurePosixPath("package-lock.json"), WHY),
    build_script=True,
)


def test_python_is_installed_with_the_network_and_arranged_without():
    build = make_plan(SETTINGS, replace(PROJECT, backend=UV)).builds[1]
    assert [(step.name, step.argv[0], step.network) for step in build.steps] == [
        ("inspect", "python3", False),
        ("fetch", "uv", True),
        ("build", "uv", False),
        ("build", "uv", False),
        ("build", "python3", False),
    ]
    assert {"--locked", "--no-dev"} <= set(build.steps[1].argv) and "--offline" in build.steps[2].argv
    pinned = replace(UV, lock_file=PurePosixPath("api/requirements.txt"))
    fetch, check = make_plan(SETTINGS, replace(PROJECT, backend=pinned)).builds[1].steps[1:3]
    assert fetch.argv[-1] == "requirements.txt" and check.argv == ("uv", "pip", "check")


@pytest.mark.parametrize(
    ("script", "own", "built"),
    [(True, None, [("npm", "run", "build")]), (False, None, []), (True, "make", [("bash", "-c", "make")])],
)
def test_node_is_built_if_anything_says_how(script: bool, own: str | None, built: list[tuple[str, ...]]):
    settings = SETTINGS.model_copy(update={"backend_build": own})
    build = make_plan(settings, replace(PROJECT, backend=replace(NPM, build_script=script))).builds[1]
    assert [step.argv for step in build.steps if step.name == "build"] == built
    assert [(step.name, str(step.directory)) for step in build.steps][:2] == [("inspect", "api"), ("fetch", ".")]


def test_an_interpreter_is_started_where_it_looks_for_code():
    plans = [make_plan(SETTINGS, replace(PROJECT, backend=backend)).backend for backend in (UV, NPM, BACKEND)]
    assert [(plan.command, plan.directory) for plan in plans if plan is not None] == [
        (("/app/bin/python", "-m", "gunicorn", "main:app"), "/app/src"),
        (("/app/bin/node", "--enable-source-maps", "dist/server.js"), "/app/src/api"),
        ((), "/"),
    ]


@pytest.mark.parametrize("backend", [UV, NPM])
def test_an_interpreters_packages_are_for_this_machine_only(backend: Backend):
    settings = SETTINGS.model_copy(update={"platforms": ("linux/arm64",)})
    with pytest.raises(UsageError, match="for this machine's own platform only"):
        make_plan(settings, replace(PROJECT, backend=backend), host="linux/amd64")


def test_a_build_command_is_no_way_to_install_python():
    with pytest.raises(UsageError, match="--backend-build does not go with a Python backend"):
        make_plan(SETTINGS.model_copy(update={"backend_build": "make"}), replace(PROJECT, backend=UV))
