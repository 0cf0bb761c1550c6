"""examples/towns in the lab: a copy that can be changed, deployed from nothing and again; the shared measurements."""

import json
import shutil
import socket
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.lab import REPOSITORY, Lab, Orchestrator
from benchmarks.measure import BenchmarkError, Usage, run_checked

EXAMPLE = "examples/towns"
IDENTITY = ("-c", "user.name=Benchmark", "-c", "user.email=benchmark@localhost")


@dataclass(frozen=True, slots=True)
class Rounds:
    """How often: `cold` for what starts from nothing and takes minutes, `warm` for what takes seconds."""

    cold: int
    warm: int

    @property
    def close(self) -> int:
        """For what takes seconds and has a goal of a few per cent."""
        return 3 * self.warm


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a source file, and the text in it that changes."""

    path: str
    text: str

    def change(self, root: Path, number: int) -> None:
        """Make the text another one, different for each `number`."""
        file = root / self.path
        original = run_checked(("git", "show", f"HEAD:{self.path}"), cwd=root)
        if self.text not in original:
            raise BenchmarkError(f"{self.path} has no line with {self.text!r} any more")
        file.write_text(original.replace(self.text, f"{self.text} {number}", 1))


FRONTEND_LINE = Line("frontend/src/App.tsx", "<h1>About")
BACKEND_LINE = Line("backend/src/routes.rs", '"status": "ready')


@dataclass(frozen=True, slots=True)
class Deploy:
    """One run of `deploy` or `build`: its JSON, its trace and what it used."""

    result: dict[str, Any]
    usage: Usage
    spans: tuple["Span", ...]

    @property
    def compiled_units(self) -> int:
        return sum(service["compiled_units"] for service in self.result["services"])

    @property
    def layer_bytes(self) -> int:
        """Bytes of the layers this run wrote."""
        return sum(size for size, written in _layers(self.result).values() if written)

    @property
    def image_bytes(self) -> int:
        """Bytes of all layers of all images, a shared layer counted once."""
        return sum(size for size, _ in _layers(self.result).values())


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of work of one service; seconds since the run began."""

    service: str
    name: str
    start: float
    end: float


def read_trace(events: list[dict[str, Any]]) -> tuple[Span, ...]:
    """The pieces of work of services in Chrome trace events; what belongs to the run as a whole is left out."""
    return tuple(
        Span(event["cat"], event["name"], event["ts"] / 1e6, (event["ts"] + event["dur"]) / 1e6)
        for event in events
        if event["ph"] == "X" and event["cat"] in ("frontend", "backend")
    )


def makespan(spans: tuple[Span, ...]) -> float:
    """Seconds from the first beginning to the last end."""
    return max(span.end for span in spans) - min(span.start for span in spans)


def longest_build(spans: tuple[Span, ...]) -> float:
    """Seconds of the service that took longest, from its first beginning to its last end."""
    services = {span.service for span in spans}
    return max(makespan(tuple(span for span in spans if span.service == service)) for service in services)


@dataclass
class Towns:
    """The example and what several benchmarks need to know of it; each is measured once, when first asked for."""

    lab: Lab
    rounds: Rounds
    _changes: int = field(default=0, init=False)
    _deployed: Orchestrator | None = field(default=None, init=False)

    @cached_property
    def root(self) -> Path:
        """A git repository of its own with the example's tracked files, as committed here or not."""
        root = self.lab.base / "towns"
        listed = run_checked(("git", "ls-files", "-z", EXAMPLE), cwd=REPOSITORY)
        for name in filter(None, listed.split("\0")):
            target = root / Path(name).relative_to(EXAMPLE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, target)
        for argv in (("init", "--quiet"), ("add", "--all"), (*IDENTITY, "commit", "--quiet", "--message", "towns")):
            run_checked(("git", *argv), cwd=root)
        return root

    @cached_property
    def port(self) -> int:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            return int(listener.getsockname()[1])

    @cached_property
    def cold(self) -> tuple[Deploy, ...]:
        """Deploys with empty caches; the last one stays deployed, by `self.deployed`."""
        return tuple(self._deploy_cold() for _ in range(self.rounds.cold))

    @property
    def deployed(self) -> Orchestrator:
        """The orchestrator of the last cold deploy."""
        assert self.cold and self._deployed is not None
        return self._deployed

    @cached_property
    def unchanged(self) -> tuple[Deploy, ...]:
        """Deploys of what is deployed. Raises `BenchmarkError` when one did something."""
        deploys = tuple(self.deploy(self.deployed) for _ in range(self.rounds.warm))
        if any(deploy.result["changed"] or deploy.layer_bytes for deploy in deploys):
            raise BenchmarkError("a deploy with nothing changed changed something")
        return deploys

    @cached_property
    def frontend_line(self) -> tuple[Deploy, ...]:
        """Deploys after a change of one line of the frontend."""
        return tuple(self._deploy_changed(FRONTEND_LINE) for _ in range(self.rounds.warm))

    @cached_property
    def backend_line(self) -> tuple[Deploy, ...]:
        """Deploys after a change of one line of the backend."""
        return tuple(self._deploy_changed(BACKEND_LINE) for _ in range(self.rounds.warm))

    def deploy(self, orchestrator: Orchestrator) -> Deploy:
        return self.command(orchestrator, "deploy", "--port", str(self.port))

    def command(self, orchestrator: Orchestrator, verb: str, *flags: str) -> Deploy:
        """Run `deploy` or `build` on the example, with JSON and a trace, and account for it."""
        trace = orchestrator.temporary / "trace.json"
        measured = orchestrator.measure(
            *(verb, "--name", "towns", "--monorepo", str(self.root), *flags),
            *("--json", "--quiet", "--trace", str(trace)),
        )
        return Deploy(json.loads(measured.stdout), measured.usage, read_trace(json.loads(trace.read_text())))

    def change(self, line: Line) -> None:
        """Change the line, and only it, against what is committed."""
        self._changes += 1
        self.restore()
        line.change(self.root, self._changes)

    def restore(self) -> None:
        """Put the sources back as they are committed."""
        run_checked(("git", "checkout", "--quiet", "--", "."), cwd=self.root)

    def _deploy_changed(self, line: Line) -> Deploy:
        self.change(line)
        deploy = self.deploy(self.deployed)
        if not deploy.result["changed"]:
            raise BenchmarkError(f"a change in {line.path} changed nothing")
        return deploy

    def _deploy_cold(self) -> Deploy:
        if self._deployed is not None:
            self._deployed.discard()
        self._deployed = self.lab.orchestrator("deploy")
        return self.deploy(self._deployed)


def _layers(result: dict[str, Any]) -> dict[str, tuple[int, bool]]:
    """diff id → size and whether this run wrote it in any image."""
    layers: dict[str, tuple[int, bool]] = {}
    for layer in (layer for image in result["images"] for layer in image["layers"]):
        written = layers.get(layer["diff_id"], (0, False))[1] or layer["written"]
        layers[layer["diff_id"]] = (layer["size"], written)
    return layers
