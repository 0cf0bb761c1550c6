"""The ways to build one cargo workspace: the orchestrator's, plain cargo's, cargo-chef's, and cache mounts."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from benchmarks.cargo_workspace import write_workspace
from benchmarks.container import BUILDER, make_base_images
from benchmarks.lab import REPOSITORY, Orchestrator
from benchmarks.measure import BenchmarkError, run_checked, run_measured
from benchmarks.towns import IDENTITY, read_trace

LEAF = "anyhow"
CARGO_CHEF = "0.1.78"

Change = Callable[[Path], None]
"""What is done to a clone before it is built."""

_LEAF_VERSION = "1.0.100"
_PLAIN_VARIABLES = {"CARGO_INCREMENTAL": "0", "CARGO_PROFILE_RELEASE_STRIP": "symbols"}
"""As we build, so that all ways make the same binary; what is cooked under another profile is of no use later."""

_APP_LINE = ("crates/app/src/main.rs", '"app-v1')
_DEEP_LINE = ("crates/deep/src/m0.rs", "1000")
_MEMORY = """\
import resource, sys
from orchestrator.cli.errors import run_command
from orchestrator.cli import orchestrator_command
code = run_command(orchestrator_command, sys.argv[2:])
open(sys.argv[1], "w").write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
sys.exit(code)
"""
_CONTAINERFILE = f"""\
FROM {BUILDER}
ENV HOME=/root SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt CARGO_HOME=/cargo
ENV {" ".join(f"{name}={value}" for name, value in _PLAIN_VARIABLES.items())}
WORKDIR /app
COPY backend .
RUN --mount=type=cache,target=/cargo --mount=type=cache,target=/app/target \\
    cargo build --release --locked -p app --bin app && cp target/release/app /app/app
"""


@dataclass
class Subject:
    """A monorepo with the workspace as its backend, its clones below `base`, and what can be changed in one."""

    base: Path
    _numbers: int = field(default=0, init=False)

    @cached_property
    def mono(self) -> Path:
        """The monorepo: the backend with its lock file and the example's flake, committed."""
        root = self.base / "mono"
        write_workspace(root / "backend")
        for name in ("flake.nix", "flake.lock"):
            shutil.copy(REPOSITORY / "examples/towns" / name, root)
        run_checked(("cargo", "generate-lockfile", "--quiet"), cwd=root / "backend")
        (root / ".gitignore").write_text("target\n")
        for argv in (("init", "--quiet"), ("add", "--all"), (*IDENTITY, "commit", "--quiet", "--message", "x")):
            run_checked(("git", *argv), cwd=root)
        return root

    def clone(self, change: Change | None = None) -> Path:
        """A fresh clone at a path of its own, changed."""
        root = self.base / f"clone {self._number()}"
        run_checked(("git", "clone", "--quiet", str(self.mono), str(root)))
        if change is not None:
            change(root)
        return root

    def nothing(self, root: Path) -> None:
        """No change."""

    def app_line(self, root: Path) -> None:
        """A line of the binary becomes one it never was."""
        self._change(root, *_APP_LINE)

    def deep_line(self, root: Path) -> None:
        """A line of the library everything hangs on becomes one it never was."""
        self._change(root, *_DEEP_LINE)

    def bump(self, root: Path) -> None:
        """Another version of a leaf dependency."""
        run_checked(("cargo", "update", "--quiet", LEAF, "--precise", _LEAF_VERSION), cwd=root / "backend")

    def dependants(self) -> set[str]:
        """The leaf dependency and everything that depends on it."""
        tree = ("cargo", "tree", "--invert", LEAF, "--prefix", "none", "--format", "{p}")
        said = run_checked(tree, cwd=self.clone(self.bump) / "backend")
        return {line.split()[0] for line in said.splitlines() if line}

    def _change(self, root: Path, path: str, text: str) -> None:
        original = run_checked(("git", "show", f"HEAD:backend/{path}"), cwd=root)
        if text not in original:
            raise BenchmarkError(f"{path} has no {text} any more")
        (root / "backend" / path).write_text(original.replace(text, f"{text}{self._number()}", 1))

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers


class Way(Protocol):
    """Someone else's way. All answer in seconds."""

    def cold(self) -> float:
        """Build with nothing there, not even what is downloaded."""

    def changed(self, change: Change) -> float:
        """Build the workspace with a change, on what earlier builds left."""

    def bumped(self) -> float:
        """Build it with another version of a leaf dependency."""


@dataclass(frozen=True, slots=True)
class Built:
    """One of our builds: seconds of its phases, the cache's report, its newest entry, bytes of memory at most."""

    seconds: float
    save_seconds: float
    report: dict[str, Any]
    entry: dict[str, Any]
    memory: int

    @property
    def units(self) -> set[str]:
        """The packages that were compiled."""
        return {unit["name"] for unit in self.report["units"]}


@dataclass(frozen=True, slots=True)
class Ours:
    """`orchestrator build`, every time of a fresh clone; its phases are read from the trace."""

    subject: Subject
    program: Orchestrator

    def worked(self, change: Change) -> Built:
        """In the workspace as the last build left it."""
        return self._build(self.subject.clone(change))

    def restored(self, change: Change) -> Built:
        """With what was fetched and the store alone: target/, sources and records are removed before."""
        workspace = self.program.cache / "workspaces" / "bench" / "backend"
        for path in workspace.glob("*"):
            if path.name not in ("cargo", "fetched.json", "lock"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return self._build(self.subject.clone(change))

    def entries(self) -> list[dict[str, Any]]:
        """The cache's entries, the newest last."""
        found = [json.loads(path.read_text()) for path in self.program.cache.glob("cache/entries/*/*.json")]
        return sorted(found, key=lambda entry: entry["created"])

    def discard(self) -> None:
        """Take what the cache holds out of the Nix store."""
        self.program.run("cache", "gc", "--max-bytes", "0", "--keep", "0")

    def _build(self, root: Path) -> Built:
        """Build a clone whose finished artifact is not there."""
        shutil.rmtree(self.program.cache / "artifacts", ignore_errors=True)
        trace, peak = self.program.temporary / "trace.json", self.program.temporary / "memory"
        arguments = ("build", "--name", "bench", "--monorepo", str(root), "--quiet", "--trace", str(trace))
        argv = (sys.executable, "-c", _MEMORY, str(peak), *arguments)
        run_measured(argv, env=self.program.environment, cwd=self.program.base, disk=self.subject.base)
        spans = {span.name: span.end - span.start for span in read_trace(json.loads(trace.read_text()))}
        return Built(
            seconds=sum(spans.get(name, 0.0) for name in ("sources", "fetch", "build")),
            save_seconds=spans["keep"],
            report=json.loads((self.program.cache / "cache/reports/bench/backend.json").read_text()),
            entry=self.entries()[-1],
            memory=int(peak.read_text()),
        )


@dataclass(frozen=True)
class Plain:
    """`cargo build` where it built before."""

    subject: Subject

    @cached_property
    def root(self) -> Path:
        return self.subject.clone()

    def cold(self) -> float:
        return self.changed(self.subject.nothing)

    def changed(self, change: Change) -> float:
        change(self.root)
        return self.build(self.root)

    def bumped(self) -> float:
        return self.changed(self.subject.bump)

    def build(self, root: Path) -> float:
        """Build any directory that has a backend."""
        argv = ("cargo", "build", "--release", "--locked", "--quiet", "-p", "app", "--bin", "app")
        return run_measured(
            argv, env={**os.environ, **_PLAIN_VARIABLES}, cwd=root / "backend", disk=self.subject.base
        ).usage.seconds


@dataclass(frozen=True)
class Chef:
    """cargo-chef: dependencies cooked into a directory that stands for its layer, fresh sources copied over it."""

    subject: Subject
    plain: Plain

    @cached_property
    def program(self) -> str:
        place = self.subject.base / "chef"
        install = ("cargo", "install", "--quiet", "--locked", "--root", str(place), f"cargo-chef@{CARGO_CHEF}")
        run_checked(install, env=dict(os.environ))
        return str(place / "bin" / "cargo-chef")

    @property
    def layer(self) -> Path:
        return self.subject.base / "cooked"

    def cold(self) -> float:
        root = self.subject.clone()
        return self._cook(root, self.layer) + self._build(root, self.layer)

    def changed(self, change: Change) -> float:
        return self._build(self.subject.clone(change), self.layer)

    def bumped(self) -> float:
        root, layer = self.subject.clone(self.subject.bump), self.subject.base / "cooked again"
        return self._cook(root, layer) + self._build(root, layer)

    def _cook(self, root: Path, layer: Path) -> float:
        layer.mkdir()
        prepare = (self.program, "chef", "prepare", "--recipe-path", str(layer / "recipe.json"))
        run_checked(prepare, cwd=root / "backend")
        cook = (self.program, "chef", "cook", "--release", "--recipe-path", "recipe.json", "-p", "app")
        environment = {**os.environ, **_PLAIN_VARIABLES, "CARGO": shutil.which("cargo") or "cargo"}
        return run_measured(cook, env=environment, cwd=layer, disk=self.subject.base).usage.seconds

    def _build(self, root: Path, layer: Path) -> float:
        """What COPY does is not counted."""
        place = self.subject.base / "over" / "backend"
        run_checked(("rm", "-rf", str(place.parent)))
        place.parent.mkdir()
        run_checked(("cp", "-a", str(layer), str(place)))
        run_checked(("cp", "-a", f"{root}/backend/.", str(place)))
        return self.plain.build(place.parent)


@dataclass(frozen=True, slots=True)
class Mounts:
    """`podman build` of a fresh clone with cache mounts for CARGO_HOME and target."""

    subject: Subject
    engine: Orchestrator

    def cold(self) -> float:
        make_base_images(self.engine)
        return self.changed(self.subject.nothing)

    def changed(self, change: Change) -> float:
        root = self.subject.clone(change)
        (root / "Containerfile").write_text(_CONTAINERFILE)
        certificates = "--volume=/etc/ssl/certs:/etc/ssl/certs:ro"
        arguments = ("build", "--layers", "--network=host", certificates, "--tag", "localhost/mounts", str(root))
        return self.engine.measure("engine", "--", *arguments).usage.seconds

    def bumped(self) -> float:
        return self.changed(self.subject.bump)
