"""What a monorepo holds, as far as its files tell."""

from dataclasses import dataclass
from pathlib import Path

from orchestrator.detect.backend import Backend, detect_backend
from orchestrator.detect.frontend import Frontend, detect_frontend
from orchestrator.errors import ProjectError, UsageError
from orchestrator.settings import Settings

SERVICES = ("frontend", "backend")


@dataclass(frozen=True, slots=True)
class Project:
    """`root` is the monorepo's real path; `has_flake` tells whether it brings its own dev shell."""

    root: Path
    frontend: Frontend | None
    backend: Backend | None
    has_flake: bool


def detect_project(settings: Settings) -> Project:
    """Look at the monorepo. Raises `UsageError` when it is not there, `ProjectError` when nothing is found in it."""
    root = _root(settings.monorepo)
    wanted = _wanted_services(settings)
    frontend = (
        detect_frontend(
            root,
            given=settings.frontend_dir,
            api_prefix=settings.api_prefix,
            build_command=settings.frontend_build,
        )
        if "frontend" in wanted
        else None
    )
    backend = (
        detect_backend(
            root,
            given=settings.backend_dir,
            binary=settings.backend_bin,
            port=settings.backend_port,
            api_prefix=settings.api_prefix,
        )
        if "backend" in wanted
        else None
    )
    if frontend is None and backend is None:
        raise ProjectError(
            f"nothing to deploy was found in {root}",
            hint="looked for a package.json that depends on vite or on a web framework of Node, a Cargo.toml with a"
            " binary, a go.mod with a main package, and a Python project with a web application; point at them with"
            " --frontend-dir and --backend-dir",
        )
    return Project(root=root, frontend=frontend, backend=backend, has_flake=(root / "flake.nix").is_file())


def _root(monorepo: Path) -> Path:
    if not monorepo.is_dir():
        raise UsageError(f"--monorepo {monorepo}: there is no such directory")
    return monorepo.resolve()


def _wanted_services(settings: Settings) -> frozenset[str]:
    unknown = [name for name in (*settings.only, *settings.skip) if name not in SERVICES]
    if unknown:
        raise UsageError(f"there is no service called {unknown[0]}", hint=f"services are: {', '.join(SERVICES)}")
    return frozenset(settings.only or SERVICES) - frozenset(settings.skip)
