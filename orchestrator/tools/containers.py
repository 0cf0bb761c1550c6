"""Pods and containers: what podman is asked for, and its JSON parsed into types."""

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.errors import OrchestratorError
from orchestrator.tools.engine_config import SOCKET_ANNOTATION
from orchestrator.tools.podman import TIMEOUT, Engine

State = Literal["created", "running", "exited", "other"]

USER = "10001:10001"
"""Every container runs as this user and group."""

HARDENING = (
    "--read-only",
    "--read-only-tmpfs=false",
    *("--cap-drop", "all"),
    *("--security-opt", "no-new-privileges"),
    *("--user", USER),
)
_HOST_NAME = 63
"""How long a host name may be; podman would give the pod's whole name."""

_REMOVAL_TRIES = 10
_REMOVAL_PAUSE = 0.3
_TMP = "/tmp:rw,noexec,nosuid,nodev,size=64m,mode=1777"


@dataclass(frozen=True, slots=True)
class Mount:
    """A host directory or file a container sees at `target`."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container to run. `memory` includes swap; `publish` is podman's ADDRESS:PORT:PORT; `init` reaps children;
    `socket` is a host path its program listens on, removed before every start.

    `restarts` bounds how often a crash is answered with a restart: podman has no backoff, and an unbounded loop
    was measured at eight restarts a second.
    """

    name: str
    image_id: str
    labels: Mapping[str, str]
    memory: str
    cpus: float
    pids: int
    pod: str | None = None
    environment: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    publish: str | None = None
    socket: Path | None = None
    init: bool = False
    restarts: int = 10
    stop_signal: str = "SIGTERM"


@dataclass(frozen=True, slots=True)
class Container:
    """A container as podman knows it. `started` is UTC, `pid` 0 unless it runs, `restarts` counts answered crashes."""

    name: str
    id: str
    state: State
    exit_code: int
    started: datetime | None
    restarts: int
    image_id: str
    pid: int
    oom_killed: bool
    labels: Mapping[str, str]

    @property
    def running(self) -> bool:
        return self.state == "running"


class _Parsed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _State(_Parsed):
    status: str = Field(alias="Status")
    exit_code: int = Field(alias="ExitCode")
    started: datetime = Field(alias="StartedAt")
    pid: int = Field(alias="Pid")
    oom_killed: bool = Field(alias="OOMKilled")


class _Config(_Parsed):
    labels: dict[str, str] | None = Field(None, alias="Labels")


class _Inspected(_Parsed):
    id: str = Field(alias="Id")
    name: str = Field(alias="Name")
    image: str = Field(alias="Image")
    restarts: int = Field(0, alias="RestartCount")
    is_infra: bool = Field(False, alias="IsInfra")
    state: _State = Field(alias="State")
    config: _Config = Field(alias="Config")


_STATES: Mapping[str, State] = {
    "created": "created",
    "configured": "created",
    "initialized": "created",
    "running": "running",
    "exited": "exited",
    "stopped": "exited",
}


def create_pod(engine: Engine, name: str, labels: Mapping[str, str]) -> None:
    """An empty pod whose containers share one network. Raises `EngineError`."""
    engine.run(
        "pod",
        "create",
        *("--name", name),
        *("--hostname", name[:_HOST_NAME].rstrip("-")),
        *("--network", engine.network),
        *("--share", "net"),
        *_labels(labels),
    )


def run_container(engine: Engine, spec: ContainerSpec) -> None:
    """Create and start a hardened container. Its variables' values never appear in an argument list.

    Raises `EngineError`; a container that was created and could not start is left for the caller to look at.
    """
    inline = {name: value for name, value in spec.environment if "\n" not in value}
    passed = {name: value for name, value in spec.environment if "\n" in value}
    engine.run(
        "run",
        "--detach",
        *("--pull", "never"),
        *("--name", spec.name),
        *(("--pod", spec.pod) if spec.pod else ("--network", engine.network)),
        *_labels(spec.labels),
        *HARDENING,
        *("--tmpfs", _TMP),
        *("--memory", spec.memory),
        *("--memory-swap", spec.memory),
        *("--cpus", f"{spec.cpus:g}"),
        *("--pids-limit", str(spec.pids)),
        *("--restart", f"on-failure:{spec.restarts}"),
        *("--stop-signal", spec.stop_signal),
        *(("--init",) if spec.init else ()),
        *(("--annotation", f"{SOCKET_ANNOTATION}={spec.socket}") if spec.socket else ()),
        *(("--publish", spec.publish) if spec.publish else ()),
        *(part for mount in spec.mounts for part in ("--volume", _volume(mount))),
        *("--env-file", "/dev/stdin"),
        *(part for name in passed for part in ("--env", name)),
        spec.image_id,
        environment=passed,
        stdin="".join(f"{name}={value}\n" for name, value in inline.items()).encode(),
    )


def list_containers(engine: Engine, labels: Mapping[str, str]) -> tuple[Container, ...]:
    """Every container carrying all `labels`, running or not, by name; pods' infrastructure left out."""
    return inspect_containers(engine, _ids(engine, "ps", "--all", labels=labels))


def inspect_containers(engine: Engine, names: Iterable[str]) -> tuple[Container, ...]:
    """Those of the named containers that exist, by name."""
    wanted = tuple(names)
    if not wanted:
        return ()
    answer = engine.ask("container", "inspect", *wanted)
    try:
        parsed = [_Inspected.model_validate(item) for item in json.loads(answer.stdout or "[]")]
    except ValueError as error:
        raise OrchestratorError(f"podman inspect gave an answer that cannot be read: {error}") from error
    return tuple(sorted(map(_container, (item for item in parsed if not item.is_infra)), key=lambda c: c.name))


def list_pods(engine: Engine, labels: Mapping[str, str]) -> tuple[str, ...]:
    """The names of every pod carrying all `labels`."""
    return _ids(engine, "pod", "ps", "--format", "{{.Name}}", labels=labels)


def last_exit_code(engine: Engine, container_id: str) -> int | None:
    """The exit code of a container's latest death, also when it was restarted since; None when it never died.

    It goes by id: a name may have had another container before.
    """
    answer = engine.ask(
        "events",
        "--stream=false",
        *("--filter", f"container={container_id}"),
        *("--filter", "event=died"),
        "--format",
        "json",
    )
    codes = [json.loads(line).get("ContainerExitCode", 0) for line in answer.stdout.splitlines() if line.strip()]
    return int(codes[-1]) if codes else None


def read_logs(engine: Engine, name: str, *, tail: int) -> tuple[str, ...]:
    """The container's last `tail` lines, both streams; none when there is no such container."""
    answer = engine.ask("logs", "--tail", str(tail), name)
    return tuple((answer.stdout + answer.stderr).splitlines()) if answer.returncode == 0 else ()


def logs_argv(engine: Engine, names: Iterable[str], *, tail: int | None, follow: bool) -> tuple[str, ...]:
    """The command that shows the logs of several containers on the terminal, each line under its name."""
    return engine.argv(
        "logs",
        "--names",
        *(("--tail", str(tail)) if tail is not None else ()),
        *(("--follow",) if follow else ()),
        *names,
    )


def start_container(engine: Engine, name: str) -> None:
    """Start a stopped container. Raises `EngineError`."""
    engine.run("start", name)


def stop_container(engine: Engine, name: str, *, grace: float) -> None:
    """Send the stop signal, wait up to `grace` seconds, kill. A stopped or absent container is fine."""
    engine.run("stop", "--ignore", *("--time", f"{grace:.0f}"), name, timeout=grace + TIMEOUT)


def rename_container(engine: Engine, old: str, new: str) -> None:
    """Give a container another name. Raises `EngineError` when the name is taken."""
    engine.run("rename", old, new)


def remove_container(engine: Engine, name: str) -> None:
    """Kill and remove a container; an absent one is fine."""
    engine.run("rm", "--force", "--ignore", *("--time", "0"), name)


def remove_pod(engine: Engine, name: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Kill and remove a pod with its containers; an absent one is fine.

    A container that podman is restarting at this moment makes it fail, so it is tried again. Raises `EngineError`.
    """
    removal = ("pod", "rm", "--force", "--ignore", *("--time", "0"), name)
    for _ in range(_REMOVAL_TRIES - 1):
        if engine.ask(*removal).returncode == 0:
            return
        sleep(_REMOVAL_PAUSE)
    engine.run(*removal)


def memory_use(engine: Engine, names: Iterable[str]) -> Mapping[str, int]:
    """Bytes of memory each of the running containers uses, by name."""
    wanted = tuple(names)
    if not wanted:
        return {}
    answer = engine.ask("stats", "--no-stream", "--no-reset", *("--format", "{{.Name}} {{.MemUsageBytes}}"), *wanted)
    rows = (line.split() for line in answer.stdout.splitlines())
    return {row[0]: _bytes(row[1]) for row in rows if len(row) >= 2}


def _bytes(text: str) -> int:
    """podman's "1.91MiB" in bytes; 0 when it says nothing usable."""
    units = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9}
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]+)", text)
    return int(float(match[1]) * units.get(match[2], 0)) if match else 0


def _ids(engine: Engine, *command: str, labels: Mapping[str, str]) -> tuple[str, ...]:
    filters = (part for key, value in labels.items() for part in ("--filter", f"label={key}={value}"))
    quiet = () if "--format" in command else ("--quiet",)
    return tuple(engine.run(*command, *quiet, *filters).stdout.split())


def _labels(labels: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(part for key, value in labels.items() for part in ("--label", f"{key}={value}"))


def _volume(mount: Mount) -> str:
    return f"{mount.source}:{mount.target}:{'rw' if mount.writable else 'ro'}"


def _container(item: _Inspected) -> Container:
    return Container(
        name=item.name,
        id=item.id,
        state=_STATES.get(item.state.status, "other"),
        exit_code=item.state.exit_code,
        started=_moment(item.state.started),
        restarts=item.restarts,
        image_id=item.image,
        pid=item.state.pid,
        oom_killed=item.state.oom_killed,
        labels=item.config.labels or {},
    )


def _moment(value: datetime) -> datetime | None:
    """podman writes the year 1 for "never"."""
    return value if value.year > 1 else None
