"""What `doctor` looks at, and what it advises."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from orchestrator.cli.results import CheckResult, DoctorResult
from orchestrator.errors import OrchestratorError
from orchestrator.files import free_bytes
from orchestrator.process import Cancel, base_environment, find, run
from orchestrator.settings import default_cache_dir, default_state_dir

LITTLE_SPACE_BYTES = 5_000_000_000

PROGRAMS: tuple[tuple[str, str, str, Literal["warning", "missing"]], ...] = (
    (
        "nix",
        "evaluates the dev shell",
        "install Nix (https://nixos.org/download) or: apt-get install nix-bin",
        "missing",
    ),
    ("git", "says which files belong to the monorepo", "apt-get install git", "warning"),
    ("bwrap", "gives each build a workspace of its own", "apt-get install bubblewrap", "warning"),
    ("podman", "stores images and runs containers", "apt-get install podman", "missing"),
    ("skopeo", "copies images into the engine's storage", "apt-get install skopeo", "missing"),
    ("buildah", "is the other assembler (--assembler buildah)", "apt-get install buildah", "warning"),
)


def examine(environ: Mapping[str, str], *, cancel: Cancel) -> DoctorResult:
    """Every check, none of which changes anything but our own engine configuration."""
    checks = (*_check_programs(environ, cancel), *_check_space(environ), _check_engine(environ, cancel))
    return DoctorResult(ready=all(check.state != "missing" for check in checks), checks=checks)


def _check_programs(environ: Mapping[str, str], cancel: Cancel) -> Iterator[CheckResult]:
    for program, purpose, advice, verdict in PROGRAMS:
        path = find(program)
        if path is None:
            yield CheckResult(name=program, state=verdict, found=f"not installed; it {purpose}", advice=advice)
        else:
            version = _version(path, environ, cancel)
            yield CheckResult(name=program, state="ok", found=f"{version} ({path})", advice=None)


def _version(program: Path, environ: Mapping[str, str], cancel: Cancel) -> str:
    said = run([str(program), "--version"], env=base_environment(environ), timeout=20, check=False, cancel=cancel)
    number = re.search(r"\d+(\.\d+)+", said.stdout)
    return number[0] if number else "version unknown"


def _check_space(environ: Mapping[str, str]) -> Iterator[CheckResult]:
    places: dict[str, Callable[[], Path]] = {
        "space for workspaces": lambda: default_cache_dir(environ),
        "space for images": lambda: default_state_dir(environ),
        "space for the Nix store": lambda: Path("/nix/store"),
    }
    for name, place in places.items():
        path = place()
        free = free_bytes(path)
        enough = free >= LITTLE_SPACE_BYTES
        yield CheckResult(
            name=name,
            state="ok" if enough else "warning",
            found=f"{free / 1e9:.1f} GB free at {path}",
            advice=None if enough else "a Rust build wants some gigabytes; a deploy that cannot fit is refused",
        )


def _check_engine(environ: Mapping[str, str], cancel: Cancel) -> CheckResult:
    from orchestrator.tools.podman import open_engine

    try:
        engine = open_engine(default_state_dir(environ), cancel=cancel)
        run(engine.argv("info", "--format", "json"), env=engine.environment, timeout=60, cancel=cancel)
    except OrchestratorError as error:
        return CheckResult(name="container engine", state="missing", found=error.message, advice=error.hint)
    return CheckResult(name="container engine", state="ok", found=f"works, stores in {engine.root}", advice=None)
