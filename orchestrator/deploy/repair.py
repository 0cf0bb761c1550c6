"""Puts right what a run that was killed has left behind. Only what carries our labels is touched."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.deploy.gate import DRAIN_SECONDS, point_at, pointed_at, settle_gate
from orchestrator.deploy.names import APP, pod_name, release_socket, sockets_dir
from orchestrator.deploy.pod import SINGLE_STOP_SECONDS, WEB_STOP_SECONDS, pod_containers, stop_services
from orchestrator.deploy.state import AppStore
from orchestrator.events import Emit, Note
from orchestrator.files import remove_tree
from orchestrator.image.single import SINGLE
from orchestrator.tools.containers import remove_pod, start_container, stop_container
from orchestrator.tools.inspection import Container, list_pods
from orchestrator.tools.podman import Engine


@contextmanager
def changing(engine: Engine, store: AppStore, *, emit: Emit) -> Iterator[None]:
    """Within the block the application is changed; what a run that did not come to its end left is put right before.

    A block left by an error has not come to its end: what it cleaned up is looked at again. The caller holds the lock.
    """
    current = store.current()
    astray = current is not None and pointed_at(engine, store.app) not in (None, current.id)
    if store.unfinished or astray:
        repair(engine, store, emit=emit)
    store.note_begin()
    yield
    store.note_end()


def repair(engine: Engine, store: AppStore, *, emit: Emit) -> None:
    """Have the recorded current release with the gate pointing at it, the one before it stopped, and nothing else.

    The caller holds the lock.
    """
    store.remove_partial()
    gate = settle_gate(engine, store.app)
    _point_back(engine, store, gate, emit=emit)
    remove_strange_pods(engine, store, emit=emit)
    _finish_retirement(engine, store)


def remove_strange_pods(engine: Engine, store: AppStore, *, emit: Emit) -> None:
    """Remove every pod of the application but those of its current and its previous release."""
    kept = {record.id for record in (store.current(), store.previous()) if record is not None}
    expected = {pod_name(store.app, release) for release in kept}
    for pod in list_pods(engine, {APP: store.app}):
        if pod not in expected:
            emit(Note(f"removing {pod}, left by a run that did not finish"))
            remove_pod(engine, pod)
    for directory in sockets_dir(engine, store.app).glob("[0-9]*"):
        if directory.name not in kept:
            remove_tree(directory)


def _finish_retirement(engine: Engine, store: AppStore) -> None:
    previous = store.previous()
    if previous is not None and any(container.running for container in pod_containers(engine, previous)):
        stop_services(engine, previous)


def _point_back(engine: Engine, store: AppStore, gate: Container | None, *, emit: Emit) -> None:
    """The record decides which release is live, where it still runs."""
    current = store.current()
    if current is None or not release_socket(engine, current).exists():
        return
    if (other := pointed_at(engine, store.app)) != current.id:
        emit(Note(f"switching back to release {current.id}: the last run did not finish"))
        point_at(engine, store.app, current.id)
        time.sleep(DRAIN_SECONDS)
        for service, grace in (("web", WEB_STOP_SECONDS), (SINGLE, SINGLE_STOP_SECONDS)):
            stop_container(engine, f"{pod_name(store.app, other or '')}-{service}", grace=grace)
    if (
        gate is not None
        and not gate.running
        and any(container.running for container in pod_containers(engine, current))
    ):
        start_container(engine, gate.name)
