"""How each language is built: the steps of a service, and what they leave. Decided without I/O."""

from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal, assert_never

from orchestrator.detect.backend import Backend
from orchestrator.detect.packages import PackageManager
from orchestrator.errors import UsageError
from orchestrator.settings import Settings
from orchestrator.tools.platforms import PLATFORMS

_INSTALL = {"npm": ("npm", "ci"), "pnpm": ("pnpm", "install", "--frozen-lockfile", "--prefer-offline")}
"""What installs exactly what the lock file says, by package manager."""

GO_LISTING = (
    "package {{.ImportPath}} {{.Standard}} {{len .CgoFiles}}"
    "{{with .Module}} {{.Main}} {{.Path}} {{.Version}}{{with .Replace}} => {{.Path}} {{.Version}}{{end}}{{end}}"
)
"""The line `go list` prints for each package that is linked (https://pkg.go.dev/cmd/go, "List packages")."""

CARGO_TARGET_PROBE = (
    """printf 'std %s\\n' "$(rustc --print target-libdir --target "$1")"; """
    """for name in "$1" "${1/riscv64gc/riscv64}" "${1/-unknown-/-}" "${1/riscv64gc-unknown-/riscv64-}"; do """
    """if cc=$(command -v "$name-gcc" || command -v "$name-cc"); then """
    """printf 'compiler %s\\nstart %s\\n' "$cc" "$("$cc" -print-file-name=crt1.o)"; break; fi; done"""
)
"""Prints where the dev shell has the standard library, a C compiler and a libc for the target `$1`."""


PYTHON_PROBE = (
    "import os, platform; print('interpreter', platform.python_version(), os.path.realpath('/proc/self/exe'))"
)
"""Prints the version of the dev shell's Python and the very program it is, behind wrappers and virtual environments."""

NODE_PROBE = "`interpreter ${process.version} ${process.execPath}`"
"""The same of the dev shell's Node."""

ARRANGE_PYTHON = "nix/python/arrange.py"
"""The orchestrator's own script that makes the tree of a Python backend's image."""

_UV_SYNC = ("uv", "sync", "--no-dev", "--no-editable")
_UV_REQUIREMENTS = 'uv venv --quiet "$VIRTUAL_ENV" && uv pip sync "$1"'


@dataclass(frozen=True, slots=True)
class Step:
    """One program run inside the build workspace, in the dev shell.

    An "inspect" step compiles nothing: what it prints decides how, and whether, the next one builds.
    `directory` is relative to the monorepo's root. Only a step with `network` can reach the network and the
    user's registry credentials.
    """

    name: Literal["fetch", "inspect", "build"]
    argv: tuple[str, ...]
    directory: PurePosixPath
    network: bool
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class CargoOutput:
    """The artifact is the executable cargo names for this package's binary target."""

    package: str
    binary: str


@dataclass(frozen=True, slots=True)
class GoOutput:
    """The artifact is the program `go build` makes of a main package, named by its path in the module."""

    package: str
    binary: str


@dataclass(frozen=True, slots=True)
class PythonOutput:
    """The artifact is what is /app in the image: a virtual environment with the monorepo's own code in src/.

    `package` is the name the project is installed under, "" where its files are run as they are.
    """

    package: str


@dataclass(frozen=True, slots=True)
class NodeOutput:
    """The artifact is what is /app in the image: Node, and in src/ the monorepo's code with the packages it uses.

    `entry` is the file Node is given, relative to the project.
    """

    entry: str


@dataclass(frozen=True, slots=True)
class TreeOutput:
    """The artifact is a directory, relative to the monorepo's root."""

    directory: PurePosixPath


Output = CargoOutput | GoOutput | PythonOutput | NodeOutput | TreeOutput


@dataclass(frozen=True, slots=True)
class Recipe:
    """The steps of a build in their order, and what the last one leaves."""

    steps: tuple[Step, ...]
    output: Output


def backend_recipe(settings: Settings, backend: Backend, platform: str) -> Recipe:
    """How a backend is built for a platform, "" standing for this machine's.

    Raises `UsageError` for a platform or a build command of the user's own that does not go with its language.
    """
    match backend.framework:
        case "rust":
            recipe = Recipe(_cargo_steps(backend, platform), CargoOutput(backend.package, backend.binary))
        case "go":
            recipe = Recipe(_go_steps(backend), GoOutput(backend.package, backend.binary))
        case "python":
            _check_interpreted(backend, platform)
            _check_python(settings, backend)
            return Recipe(_python_steps(backend), PythonOutput(backend.package))
        case "node":
            _check_interpreted(backend, platform)
            return Recipe(_node_steps(settings, backend), NodeOutput(backend.binary))
        case _:
            assert_never(backend.framework)
    return _with_own_build(recipe, settings, backend)


def frontend_steps(
    manager: PackageManager, directory: PurePosixPath, own: str | None, environment: tuple[tuple[str, str], ...]
) -> tuple[Step, ...]:
    """How a frontend is built: with its build script, unless the user has a command of their `own`."""
    build = ("bash", "-c", own) if own else (manager.name, "run", "build")
    return (install_step(manager), Step("build", build, directory, network=False, environment=environment))


def install_step(manager: PackageManager) -> Step:
    """Installs exactly what the lock file says."""
    return Step("fetch", _INSTALL[manager.name], manager.lock_file.parent, network=True)


def _with_own_build(recipe: Recipe, settings: Settings, backend: Backend) -> Recipe:
    """The user's own command in place of the last step."""
    if not settings.backend_build:
        return recipe
    own = Step("build", ("bash", "-c", settings.backend_build), backend.directory, network=False)
    *others, build = recipe.steps
    return replace(recipe, steps=(*others, replace(own, environment=build.environment)))


def _cargo_steps(backend: Backend, platform: str) -> tuple[Step, ...]:
    """For another platform the dev shell is first asked what it has for it."""
    target = PLATFORMS[platform].rust if platform else ""
    inspect = Step("inspect", ("bash", "-c", CARGO_TARGET_PROBE, "probe", target), backend.directory, network=False)
    build = (
        *("cargo", "build", "--release", "--locked", "--offline"),
        *(("--target", target) if target else ()),
        *("-p", backend.package, "--bin", backend.binary),
        "--message-format=json-render-diagnostics",
    )
    return (
        *((inspect,) if target else ()),
        Step("fetch", ("cargo", "fetch", "--locked"), backend.directory, network=True),
        Step("build", build, backend.directory, network=False),
    )


def _go_steps(backend: Backend) -> tuple[Step, ...]:
    """Vendored modules need no fetch. `go list` says what is linked, and whether any of it needs a C compiler."""
    offline = ("GOPROXY", "off")
    fetch = Step("fetch", ("go", "mod", "download", "-modcacherw"), backend.directory, network=True)
    build = (
        *("go", "build", "-v", "-trimpath", "-buildvcs=false"),
        *("-ldflags", "-s -w", backend.package),
    )
    listing = ("go", "list", "-deps", "-f", GO_LISTING, backend.package)
    return (
        *(() if backend.lock_file.name == "modules.txt" else (fetch,)),
        Step("inspect", listing, backend.directory, network=False, environment=(offline,)),
        Step("build", build, backend.directory, network=False, environment=(offline,)),
    )


def _python_steps(backend: Backend) -> tuple[Step, ...]:
    """uv installs what the lock file says, then once more without the network what the monorepo has itself.

    What it built of that earlier is of no use any more.
    """
    directory, lock_file = backend.directory, backend.lock_file
    fetch: tuple[str, ...]
    build: tuple[str, ...]
    if lock_file.name == "uv.lock":
        fetch, build = (*_UV_SYNC, "--locked"), (*_UV_SYNC, "--frozen", "--offline")
    else:
        fetch, build = ("bash", "-c", _UV_REQUIREMENTS, "fetch", lock_file.name), ("uv", "pip", "check")
    return (
        Step("inspect", ("python3", "-c", PYTHON_PROBE), directory, network=False),
        Step("fetch", fetch, directory, network=True),
        Step("build", build, directory, network=False),
        Step("build", ("uv", "cache", "prune", "--quiet"), directory, network=False),
        Step("build", ("python3", ARRANGE_PYTHON), directory, network=False),
    )


def _node_steps(settings: Settings, backend: Backend) -> tuple[Step, ...]:
    """What is installed for the build is more than the image gets."""
    manager = backend.package_manager
    assert manager is not None
    probe = Step("inspect", ("node", "-p", NODE_PROBE), backend.directory, network=False)
    steps = (probe, install_step(manager))
    if settings.backend_build:
        build: tuple[str, ...] = ("bash", "-c", settings.backend_build)
    elif backend.build_script:
        build = (manager.name, "run", "build")
    else:
        return steps
    return (*steps, Step("build", build, backend.directory, network=False))


def _check_interpreted(backend: Backend, platform: str) -> None:
    if platform:
        raise UsageError(
            f"{backend.directory} cannot be built for {platform} here: packages of {backend.framework.title()} are"
            " installed for this machine's own platform only",
            hint=f"build on a machine of that platform, or without: --platform {platform}",
        )


def _check_python(settings: Settings, backend: Backend) -> None:
    if settings.backend_build:
        raise UsageError(
            f"--backend-build does not go with a Python backend ({backend.directory}): what is installed says its lock"
            " file",
            hint="let the project's build system do it: [build-system] in pyproject.toml",
        )
