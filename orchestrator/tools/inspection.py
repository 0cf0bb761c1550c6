"""What podman knows about pods and containers, its JSON parsed into types."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.errors import OrchestratorError
from orchestrator.tools.podman import Engine

State = Literal["created", "running", "exited", "other"]


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


@dataclass(frozen=True, slots=True)
class Usage:
    """`memory` in bytes; `cpu` is the share of one core, on average since the container started."""

    memory: int
    cpu: float


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


_USAGE = "{{.Name}}\t{{.MemUsageBytes}}\t{{.CPUPerc}}"
_STATES: Mapping[str, State] = {
    "created": "created",
    "configured": "created",
    "initialized": "created",
    "running": "running",
    "exited": "exited",
    "stopped": "exited",
}


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


def stored_images(engine: Engine, image_ids: Iterable[str]) -> frozenset[str]:
    """Those of the image ids the storage holds."""
    listed = engine.run("images", "--all", "--no-trunc", "--format", "{{.Id}}").stdout.split()
    return frozenset(image_ids) & {image_id.removeprefix("sha256:") for image_id in listed}


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


def entry_point(engine: Engine, name: str) -> str:
    """The program a container runs; empty when that cannot be told."""
    return engine.ask("container", "inspect", "--format", "{{.Path}}", name).stdout.strip()


def logs_argv(
    engine: Engine, names: Iterable[str], *, tail: int | None, since: str | None = None, follow: bool
) -> tuple[str, ...]:
    """The command that shows the logs of several containers on the terminal, each line under its name."""
    return engine.argv(
        "logs",
        "--names",
        *(("--tail", str(tail)) if tail is not None else ()),
        *(("--since", since) if since is not None else ()),
        *(("--follow",) if follow else ()),
        *names,
    )


def read_usage(engine: Engine, names: Iterable[str]) -> Mapping[str, Usage]:
    """What each of the running containers uses, by name."""
    wanted = tuple(names)
    if not wanted:
        return {}
    answer = engine.ask("stats", "--no-stream", "--no-reset", *("--format", _USAGE), *wanted)
    rows = (line.split("\t") for line in answer.stdout.splitlines())
    return {row[0]: Usage(_bytes(row[1].split(" ")[0]), _share(row[2])) for row in rows if len(row) == 3}


def _share(text: str) -> float:
    """podman's "1.50%" as 0.015; 0 when it says nothing usable."""
    try:
        return float(text.removesuffix("%")) / 100
    except ValueError:
        return 0.0


def _bytes(text: str) -> int:
    """podman's "1.91MiB" in bytes; 0 when it says nothing usable."""
    units = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9}
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]+)", text)
    return int(float(match[1]) * units.get(match[2], 0)) if match else 0


def _ids(engine: Engine, *command: str, labels: Mapping[str, str]) -> tuple[str, ...]:
    filters = (part for key, value in labels.items() for part in ("--filter", f"label={key}={value}"))
    quiet = () if "--format" in command else ("--quiet",)
    return tuple(engine.run(*command, *quiet, *filters).stdout.split())


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
