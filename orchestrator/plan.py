"""What will be done, decided without I/O: same settings and project, same plan."""

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from orchestrator.detect.backend import Backend
from orchestrator.detect.frontend import ApiVariable, Frontend
from orchestrator.errors import ProjectError, UsageError
from orchestrator.project import Project
from orchestrator.recipes import Output, Step, TreeOutput, backend_recipe, frontend_steps
from orchestrator.settings import Layout, Settings, Web
from orchestrator.tools.platforms import architecture_name, host_platform

Kind = Literal["frontend", "backend"]

PUBLIC_PORT = 8080
"""Where an image that can run alone listens: platforms expect it there, and it needs no privilege."""
HIGHEST_PORT = 65_535

_DEFAULTS = {"python": (("PYTHONUNBUFFERED", "1"),), "node": (("NODE_ENV", "production"),)}
"""Variables of the image by language: output at once; what Node's packages look for to be quick and say little."""


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """How one service is built. `framework` is "vite", "rust", "go", "python" or "node".

    `lock_file` is relative to the monorepo. `platform` is what it is built for, "" where that is this machine or makes
    no difference; `service` is then the name of the service alone, else with its architecture ("backend-arm64").
    """

    service: str
    kind: Kind
    framework: str
    directory: PurePosixPath
    lock_file: PurePosixPath
    steps: tuple[Step, ...]
    output: Output
    platform: str = ""


@dataclass(frozen=True, slots=True)
class Proxy:
    """What the web server hands to a backend listening on the pod's loopback.

    `prefix` is kept ("/api/x" goes to "/api/x") unless `strip`, then it is taken away ("/x"); "/" hands over
    everything; `exact` paths (health endpoints) too. Requests are shared among `replicas`.
    """

    backend: str
    port: int
    prefix: str
    exact: tuple[str, ...]
    strip: bool = False
    replicas: int = 1


@dataclass(frozen=True, slots=True)
class WebPlan:
    """The nginx of a release: a directory of files, an API, or both.

    `spa` serves index.html for unknown paths without a file extension. `options` are the user's.
    """

    static: str | None
    spa: bool
    proxy: Proxy | None
    options: Web = field(default_factory=Web)


@dataclass(frozen=True, slots=True)
class BackendPlan:
    """How a backend container runs: given PORT=`port` (the others of its `replicas` a port of theirs), HOST=0.0.0.0.

    `ready_path`, else `health_path`, is asked until it answers 2xx; without either, "/" must answer below 500.
    `health_path` tells afterwards whether it is alive. `api_path` is asked once through nginx before success is
    printed; None asks the former through nginx. `command` is an interpreter of the image and its arguments, run in
    `directory`; empty for a program of its own. `defaults` are variables of the image, less than a
    release's.
    """

    service: str
    port: int
    health_path: str | None
    api_path: str | None
    environment: tuple[tuple[str, str], ...] = ()
    ready_path: str | None = None
    replicas: int = 1
    command: tuple[str, ...] = ()
    directory: str = "/"
    defaults: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """One application: what is built, what is served, what runs; with `layout` "single" all of it in one container.

    `platforms` are those images are made for, "" standing for this machine's.
    """

    app: str
    builds: tuple[BuildPlan, ...]
    web: WebPlan
    backend: BackendPlan | None
    layout: Layout = "pod"
    platforms: tuple[str, ...] = ("",)


def make_plan(settings: Settings, project: Project, *, host: str | None = None) -> Plan:
    """Decide. `host` is this machine's platform.

    Raises `ProjectError` when a frontend cannot be built, `UsageError` where ports, layout or platforms do not fit.
    """
    _check_layout(settings, project)
    platforms = _plan_platforms(settings, host or host_platform())
    builds = []
    if project.frontend is not None:
        builds.append(_plan_frontend(settings, project.frontend))
    if project.backend is not None:
        builds += [_plan_backend(settings, project.backend, platform) for platform in platforms]
    return Plan(
        app=settings.name,
        builds=tuple(builds),
        web=_plan_web(settings, project),
        backend=_plan_backend_run(settings, project.backend) if project.backend else None,
        layout=settings.layout,
        platforms=platforms,
    )


def _plan_platforms(settings: Settings, host: str) -> tuple[str, ...]:
    """This machine's own first, as "": a build is the same whether its platform was asked for or not."""
    platforms = tuple(sorted("" if platform == host else platform for platform in settings.platforms)) or ("",)
    if settings.layout == "single" and platforms != ("",):
        raise UsageError(
            f"with the layout single images are made for {host} only", hint="leave --platform out, or take --layout pod"
        )
    return platforms


def build_name(service: str, platform: str) -> str:
    """What the build of a service for a platform is called; "" is this machine's."""
    return f"{service}-{architecture_name(platform)}" if platform else service


def _check_layout(settings: Settings, project: Project) -> None:
    if settings.layout == "pod" or project.backend is None:
        return
    if (replicas := settings.services.backend.replicas) > 1:
        raise UsageError(
            f"replicas = {replicas} does not go with the layout single: one container has one backend",
            hint="run several with the layout pod, or run the one image several times where it is deployed",
        )
    if project.backend.port == PUBLIC_PORT:
        raise UsageError(
            f"with the layout single the backend cannot listen on port {PUBLIC_PORT}, which nginx has there",
            hint="let it listen on the port PORT names, and pass another one: --backend-port 3000",
        )


def _plan_frontend(settings: Settings, frontend: Frontend) -> BuildPlan:
    if settings.frontend_build is None and frontend.build_script is None:
        raise ProjectError(
            f"{frontend.directory}/package.json has no build script",
            hint="add one, or pass --frontend-build COMMAND",
        )
    manager, variables = frontend.package_manager, _frontend_variables(settings, frontend)
    return BuildPlan(
        service="frontend",
        kind="frontend",
        framework=frontend.framework,
        directory=frontend.directory,
        lock_file=manager.lock_file,
        steps=frontend_steps(manager, frontend.directory, settings.frontend_build, variables),
        output=TreeOutput(frontend.output),
    )


def _frontend_variables(settings: Settings, frontend: Frontend) -> tuple[tuple[str, str], ...]:
    """The API variable, set so that the browser asks the page's own origin."""
    variable = frontend.api_variable
    if variable is None:
        return ()
    return ((variable.name, api_base(settings, variable)),)


def api_base(settings: Settings, variable: ApiVariable) -> str:
    """The relative value that makes the frontend's own code end up below the API prefix on its own origin.

    Where the code appends the prefix itself the value stands for the origin: empty, or "/." where `||` would
    discard an empty string (URL parsers drop the dot segment, RFC 3986 section 5.2.4).
    """
    if settings.api_base is not None:
        return settings.api_base
    if not variable.keeps_prefix:
        return settings.api_prefix
    return "/." if variable.loses_empty else ""


def _plan_backend(settings: Settings, backend: Backend, platform: str) -> BuildPlan:
    recipe = backend_recipe(settings, backend, platform)
    return BuildPlan(
        service=build_name("backend", platform),
        kind="backend",
        framework=backend.framework,
        directory=backend.directory,
        lock_file=backend.lock_file,
        steps=recipe.steps,
        output=recipe.output,
        platform=platform,
    )


def _plan_web(settings: Settings, project: Project) -> WebPlan:
    backend, options = project.backend, _web_options(settings)
    if backend is None:
        return WebPlan(static="frontend", spa=True, proxy=None, options=options)
    if project.frontend is None:
        proxy = Proxy("backend", backend.port, "/", (), replicas=settings.services.backend.replicas)
        return WebPlan(static=None, spa=False, proxy=proxy, options=options)
    prefix = settings.api_prefix
    asked = (settings.health.path or backend.health_path, _ready_path(settings, backend))
    exact = tuple(dict.fromkeys(path for path in asked if path and not path.startswith(f"{prefix}/")))
    replicas = settings.services.backend.replicas
    proxy = Proxy("backend", backend.port, prefix, exact, strip=settings.strip_prefix, replicas=replicas)
    return WebPlan(static="frontend", spa=True, proxy=proxy, options=options)


def _web_options(settings: Settings) -> Web:
    """The user's, and for what they left open what the preset says."""
    if settings.web.source_maps is not None:
        return settings.web
    return settings.web.model_copy(update={"source_maps": settings.env == "DEV"})


def _plan_backend_run(settings: Settings, backend: Backend) -> BackendPlan:
    replicas = settings.services.backend.replicas
    if backend.port + replicas - 1 > HIGHEST_PORT:
        raise UsageError(
            f"{replicas} replicas listen on port {backend.port} and those after it, and there are not that many",
            hint="pass a lower one with --backend-port",
        )
    return BackendPlan(
        service="backend",
        port=backend.port,
        health_path=settings.health.path or backend.health_path,
        api_path=backend.api_path,
        ready_path=_ready_path(settings, backend),
        replicas=replicas,
        command=_command(backend),
        directory=_directory(backend),
        defaults=_DEFAULTS.get(backend.framework, ()),
    )


def _command(backend: Backend) -> tuple[str, ...]:
    """The interpreter and its arguments; empty for a program of its own."""
    return (f"/app/bin/{backend.framework}", *backend.start) if backend.start else ()


def _directory(backend: Backend) -> str:
    """Python looks for modules where it starts, Node from each file upwards through the monorepo's directories."""
    match backend.framework:
        case "python":
            return "/app/src"
        case "node":
            return str(PurePosixPath("/app/src") / backend.directory)
        case _:
            return "/"


def _ready_path(settings: Settings, backend: Backend) -> str | None:
    """What is said counts more than what is found; a path said for both is not undone by one found for one."""
    return settings.health.ready_path or settings.health.path or backend.ready_path
