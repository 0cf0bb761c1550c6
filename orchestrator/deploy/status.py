"""What an application is doing right now: containers as the engine sees them, and a request made while asking."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from orchestrator.deploy.diagnosis import SINGLE_LOG_LINES
from orchestrator.deploy.gate import find_gate
from orchestrator.deploy.health import Probe
from orchestrator.deploy.names import container_name, services
from orchestrator.deploy.pod import pod_containers
from orchestrator.deploy.probes import ask_once, silent_replicas
from orchestrator.deploy.single import find_end
from orchestrator.deploy.state import ReleaseRecord, current_release
from orchestrator.image.single import SINGLE
from orchestrator.tools.inspection import Container, Usage, last_exit_code, read_logs, read_usage
from orchestrator.tools.podman import Engine

State = Literal["running", "starting", "failing", "crash-looping", "stopped"]

YOUNG_SECONDS = 15.0
"""A container this young may not answer yet without failing."""

LAST_LINES = 5

CALM_SECONDS = 60.0
"""A container that crashed and has run this long since is no longer crash-looping."""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One container. `exit_code` is that of its last death; memory in bytes and cpu (share of one core) while it runs.

    `last_lines` are what it last wrote, where it fails; `cause` tells which part of it ended, where it holds several.
    """

    name: str
    state: State
    exit_code: int | None
    restarts: int
    image_id: str
    uptime_seconds: float | None
    memory: int | None
    cpu: float | None
    last_lines: tuple[str, ...]
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class AppStatus:
    """`probe` is a request through the published port made just now; None for a stopped application."""

    app: str
    state: State
    release: str
    url: str
    services: tuple[ServiceStatus, ...]
    probe: Probe | None


def app_status(state_dir: Path, app: str, *, engine: Engine) -> AppStatus:
    """Look at the application now. Raises `UnknownAppError`."""
    record = current_release(state_dir, app)
    containers = {container.name: container for container in pod_containers(engine, record)}
    gate = find_gate(engine, app)
    running = [container for container in (*containers.values(), *((gate,) if gate else ())) if container.running]
    probe, healthy = _ask(record) if running else (None, False)
    silent = silent_replicas(engine, record, timeout=record.health.timeout) if running else frozenset[str]()
    usage = read_usage(engine, [container.name for container in running])
    now = datetime.now(UTC)
    found = []
    for service in services(record):
        container = containers.get(container_name(record, service))
        answers = healthy and service not in silent
        state = judge_container(container, wanted=bool(running), healthy=answers, now=now)
        state = "failing" if state == "running" and service in silent else state
        found.append(_service_status(engine, service, container, state, usage, now=now))
    state = judge_app([service.state for service in found], wanted=bool(running), healthy=healthy and not silent)
    return AppStatus(app, state, record.id, record.url, tuple(found), probe)


def judge_container(container: Container | None, *, wanted: bool, healthy: bool, now: datetime) -> State:
    """One container's state. `wanted`: the application is meant to run; `healthy`: it answers as a whole."""
    if not wanted:
        return "stopped"
    if container is None:
        return "failing"
    if not container.running:
        return "crash-looping" if container.restarts else "failing"
    age = _age(container, now)
    if container.restarts and age < CALM_SECONDS:
        return "crash-looping"
    return "starting" if not healthy and age < YOUNG_SECONDS else "running"


def judge_app(states: Sequence[State], *, wanted: bool, healthy: bool) -> State:
    """The application's state: the worst of its services', and never "running" without good answers."""
    if not wanted:
        return "stopped"
    worst: tuple[State, ...] = ("crash-looping", "failing", "starting")
    return next((bad for bad in worst if bad in states), "running" if healthy else "failing")


def _service_status(
    engine: Engine,
    service: str,
    container: Container | None,
    state: State,
    usage: Mapping[str, Usage],
    *,
    now: datetime,
) -> ServiceStatus:
    if container is None:
        return ServiceStatus(service, state, None, 0, "", None, None, None, ())
    used = usage.get(container.name)
    died = not container.running or container.restarts > 0
    failing = state in ("failing", "crash-looping")
    return ServiceStatus(
        name=service,
        state=state,
        exit_code=last_exit_code(engine, container.id) if died else None,
        restarts=container.restarts,
        image_id=container.image_id,
        uptime_seconds=_age(container, now) if container.running else None,
        memory=used.memory if used else None,
        cpu=used.cpu if used else None,
        last_lines=read_logs(engine, container.name, tail=LAST_LINES) if failing else (),
        cause=_cause(engine, container) if service == SINGLE and failing and died else None,
    )


def _cause(engine: Engine, container: Container) -> str | None:
    end = find_end(read_logs(engine, container.name, tail=SINGLE_LOG_LINES))
    return str(end) if end else None


def _age(container: Container, now: datetime) -> float:
    """Seconds it has run; 0 when the clock was set back behind its start."""
    return max(0.0, (now - container.started).total_seconds()) if container.started else 0.0


def _ask(record: ReleaseRecord) -> tuple[Probe, bool]:
    """The first answer that was not good, else the last; and whether all were."""
    probes = ask_once(record, timeout=record.health.timeout)
    bad = [probe for probe, good in probes if not good]
    return (bad or [probe for probe, _ in probes])[0 if bad else -1], not bad
