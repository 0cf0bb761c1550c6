"""A supervisor: keeps asking every application whether it is alive, and starts what is dead or frozen.

What an application answers costs one request; the engine is asked only about one that does not. Everything is done
under the application's lock: where a deploy is at work, the supervisor waits for its next turn.
"""

import math
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.deploy.app import start_app
from orchestrator.deploy.edge import find_edge, start_edge
from orchestrator.deploy.edge_certificates import has_new_certificates
from orchestrator.deploy.edge_sites import EdgeStore
from orchestrator.deploy.gate import find_gate, pointed_at
from orchestrator.deploy.health import Expectation, Target, probe
from orchestrator.deploy.lock import locked_app
from orchestrator.deploy.names import SERVICE, container_name, gate_name, holder, release_socket, replicas, services
from orchestrator.deploy.pod import pod_containers
from orchestrator.deploy.probes import alive_expectations, silent_replicas, start_deadline
from orchestrator.deploy.state import AppStore, ReleaseRecord, list_apps
from orchestrator.deploy.supervision import Sight, Tally, decide
from orchestrator.errors import BusyError, Interrupted, OrchestratorError
from orchestrator.events import Emit, Note
from orchestrator.files import locked
from orchestrator.process import Cancel
from orchestrator.tools.containers import restart_container, start_containers
from orchestrator.tools.inspection import Container
from orchestrator.tools.podman import Engine

ROUND_SECONDS = 0.5
"""How often it is looked whose turn it is."""

EDGE_SECONDS = 2.0
"""How often it is looked whether the edge listens."""

FROZEN_GRACE = 5.0
"""Seconds a service that no longer answers is given to end before it is killed."""

_WORKERS = 8


def lock_watch(state_dir: Path) -> AbstractContextManager[None]:
    """Only one supervisor works on a state directory. Raises `BusyError`."""
    return locked(state_dir / "watch.lock", holder="the supervision of this machine's applications")


def watch(
    state_dir: Path,
    only: Sequence[str],
    *,
    engine: Engine,
    emit: Emit,
    cancel: Cancel,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Supervise until a stop is asked for. `only` names applications; all there are, also future ones, by default."""
    watched: dict[str, _Watched] = {}
    edge = _Watched()
    with ThreadPoolExecutor(_WORKERS) as pool:
        while not cancel.requested:
            now = clock()
            due = [app for app in only or list_apps(state_dir) if watched.setdefault(app, _Watched()).next_turn <= now]

            def look(app: str, now: float = now) -> _Watched:
                return _look_after(AppStore(state_dir, app), watched[app], engine=engine, emit=emit, now=now)

            watched.update(zip(due, pool.map(look, due), strict=True))
            if not only and edge.next_turn <= now:
                edge = _look_after_edge(EdgeStore(state_dir), edge, engine=engine, emit=emit, now=now)
            cancel.wait(ROUND_SECONDS)


@dataclass(frozen=True, slots=True)
class _Watched:
    next_turn: float = 0.0
    tally: Tally = field(default_factory=Tally)


def _look_after(store: AppStore, watched: _Watched, *, engine: Engine, emit: Emit, now: float) -> _Watched:
    """One application's turn. What goes wrong is told and tried again at a later turn."""
    record = store.current()
    if record is None or store.stopped:
        return replace(watched, next_turn=now + 1.0)
    next_turn = now + record.health.interval
    try:
        if _alive(engine, record):
            tally, _ = decide(watched.tally, Sight(alive=True), retries=1, start_period=0, now=now)
            return _Watched(next_turn, tally)
        with locked_app(store.state_dir, store.app):
            return _Watched(next_turn, _mend(store, watched.tally, engine=engine, emit=emit, now=now))
    except BusyError:
        return replace(watched, next_turn=next_turn)
    except Interrupted:
        return watched
    except OrchestratorError as error:
        emit(Note(f"{store.app}: {error.message}", level="warning"))
        tally, _ = decide(watched.tally, Sight(alive=False, down=True), retries=1, start_period=0, now=now)
        return _Watched(max(next_turn, tally.not_before), tally)


def _look_after_edge(store: EdgeStore, watched: _Watched, *, engine: Engine, emit: Emit, now: float) -> _Watched:
    """Start the edge where it has stopped, have it read renewed certificates.

    One that was taken down on purpose has no container and stays down.
    """
    record, next_turn = store.record(), now + EDGE_SECONDS
    if record is None or _listens(record.http_port):
        _renew_certificates(store, engine=engine, emit=emit)
        return _Watched(next_turn)
    tally, action = decide(watched.tally, Sight(alive=False, down=True), retries=1, start_period=0, now=now)
    try:
        present = find_edge(engine)
        if action == "start" and present is not None and not present.running:
            emit(Note("starting the edge, which does not run", level="warning"))
            start_edge(engine, store, record, emit=_only_warnings(emit))
    except (BusyError, Interrupted):
        return replace(watched, next_turn=next_turn)
    except OrchestratorError as error:
        emit(Note(f"the edge: {error.message}", level="warning"))
    return _Watched(max(next_turn, tally.not_before), tally)


def _renew_certificates(store: EdgeStore, *, engine: Engine, emit: Emit) -> None:
    record = store.record()
    if record is None or not has_new_certificates(engine, store):
        return
    try:
        emit(Note("the edge shows the renewed certificates"))
        start_edge(engine, store, record, emit=_only_warnings(emit))
    except Interrupted:
        return
    except OrchestratorError as error:
        emit(Note(f"the edge: {error.message}", level="warning"))


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _mend(store: AppStore, tally: Tally, *, engine: Engine, emit: Emit, now: float) -> Tally:
    """Look closer, with the lock held: a deploy may have changed everything since the question was asked."""
    record = store.current()
    if record is None or store.stopped or _alive(engine, record):
        return tally
    containers = pod_containers(engine, record)
    gate = find_gate(engine, store.app)
    silent = silent_replicas(engine, record, timeout=record.health.timeout)
    sight = _sight(record, (*containers, *((gate,) if gate else ())), silent)
    health = record.health
    grace = health.start_period if health.start_period is not None else start_deadline(store, record)
    tally, action = decide(tally, sight, retries=health.retries, start_period=grace, now=now)
    if action == "start":
        _start_dead(store, record, containers, gate, engine=engine, emit=emit)
    elif action == "restart":
        _restart_frozen(record, silent, engine=engine, emit=emit)
    return tally


def _sight(record: ReleaseRecord, found: Sequence[Container], silent: frozenset[str]) -> Sight:
    """`silent` are the replicas that alone do not answer, where it is known: the others' age does not matter then."""
    expected = len(services(record)) + 1
    now = datetime.now(UTC)
    suspects = [container for container in found if not silent or container.labels[SERVICE] in silent]
    ages = [(now - container.started).total_seconds() for container in suspects if container.started]
    # A start in the future tells of a clock set back: such a container is given no more time to start.
    ages = [age if age >= 0 else math.inf for age in ages]
    down = len(found) < expected or not all(container.running for container in found)
    return Sight(alive=False, down=down, age=min(ages, default=0.0))


def _start_dead(
    store: AppStore,
    record: ReleaseRecord,
    containers: Sequence[Container],
    gate: Container | None,
    *,
    engine: Engine,
    emit: Emit,
) -> None:
    """Start the containers that died; the whole application where nothing of it runs, as after a reboot."""
    found = (*containers, *((gate,) if gate else ()))
    whole = len(found) == len(services(record)) + 1 and pointed_at(engine, store.app) == record.id
    dead = tuple(container.name for container in found if not container.running)
    if whole and any(container.running for container in containers):
        ended = ", ".join(container.labels[SERVICE] for container in found if not container.running)
        emit(Note(f"{store.app}: starting {ended}, which had ended", level="warning"))
        if start_containers(engine, dead):
            return
    emit(Note(f"{store.app}: starting release {record.id}, which does not run", level="warning"))
    assert engine.cancel is not None
    start_app(store.state_dir, store.app, engine=engine, emit=_only_warnings(emit), cancel=engine.cancel)


def _restart_frozen(record: ReleaseRecord, silent: frozenset[str], *, engine: Engine, emit: Emit) -> None:
    """Restart the backend (of several replicas the silent ones) where nginx answers by itself, else everything."""
    page = Target("localhost", "/", socket=release_socket(engine, record))
    answers = record.page and Expectation("/", 200, 300).met_by(probe(page, timeout=record.health.timeout))
    backends = tuple(replica.name for replica in replicas(record) if not silent or replica.name in silent)
    some = answers or 0 < len(silent) < len(replicas(record))
    frozen = tuple(holder(record, name) for name in backends) if some and backends else services(record)
    emit(Note(f"{record.app}: restarting {', '.join(frozen)}, which no longer answers", level="warning"))
    for service in frozen:
        restart_container(engine, container_name(record, service), grace=FROZEN_GRACE)
    if not some:
        restart_container(engine, gate_name(record.app), grace=FROZEN_GRACE)


def _alive(engine: Engine, record: ReleaseRecord) -> bool:
    host = f"127.0.0.1:{record.port}"
    return all(
        expected.met_by(probe(Target(host, expected.path, port=record.port), timeout=record.health.timeout))
        for expected in alive_expectations(record)
    ) and not silent_replicas(engine, record, timeout=record.health.timeout)


def _only_warnings(emit: Emit) -> Emit:
    return lambda event: emit(event) if isinstance(event, Note) and event.level == "warning" else None
