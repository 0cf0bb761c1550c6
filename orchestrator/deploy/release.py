"""A deploy: start the new release beside the old one, ask it, switch over, ask again, stop the old one."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from orchestrator.deploy.diagnosis import check_alive, deploy_error, explain_start
from orchestrator.deploy.drain import wait_drained
from orchestrator.deploy.edge_sites import Site
from orchestrator.deploy.environment import Environment
from orchestrator.deploy.gate import DRAIN_SECONDS, ensure_gate, find_gate, point_at, remove_gate
from orchestrator.deploy.health import Probe
from orchestrator.deploy.images import retain_images
from orchestrator.deploy.names import container_name, gate_name, image_id, services
from orchestrator.deploy.pod import ServiceNotStarted, discard_pod, start_pod, stop_services
from orchestrator.deploy.probes import ask_once, silent_replicas, start_deadline, verify_live, wait_release
from orchestrator.deploy.repair import changing, remove_strange_pods
from orchestrator.deploy.secretvalues import store_values, sweep_values
from orchestrator.deploy.state import AppStore, BackendRecord, ForeignImageRecord, ImageRecord, ReleaseRecord
from orchestrator.events import Emit, Event, PhaseFinished, PhaseStarted
from orchestrator.process import Cancel
from orchestrator.settings import Settings, parse_bytes
from orchestrator.tools.inspection import Container, inspect_containers
from orchestrator.tools.podman import Engine

if TYPE_CHECKING:
    from orchestrator.image.storage import Image
    from orchestrator.plan import BackendPlan, Plan

STEADY_SECONDS = 0.7
"""A release that was ready must run on for so long before it counts as live: some die at once."""

NO_ENVIRONMENT = Environment()

SERVICE = "release"
"""Whose phases the view shows."""


@dataclass(frozen=True, slots=True)
class Release:
    """What is live now. `probes` are the requests it answered through its published port.

    `changed` is false when it ran already and nothing was restarted.
    """

    id: str
    url: str
    changed: bool
    probes: tuple[Probe, ...]


def deploy_release(
    settings: Settings,
    plan: "Plan",
    images: "Sequence[Image]",
    *,
    environment: Environment = NO_ENVIRONMENT,
    site: Site | None = None,
    engine: Engine,
    emit: Emit,
    cancel: Cancel,
) -> Release:
    """Make the images live. `site` is what the edge is to serve for them, by the caller, who holds `locked_app`.

    Raises `DeployError`, `EngineError` or `Interrupted`; what ran before then still runs.
    """
    store = AppStore(settings.state_dir, settings.name)
    keep_bytes = parse_bytes(settings.keep_bytes)
    with changing(engine, store, emit=emit), _swept_on_failure(engine, store):
        previous = store.current()
        record = make_record(settings, plan, images, release_id=store.new_id(datetime.now(UTC)))
        record = with_variables(record, environment, store_values(engine, store, environment))
        record = record.model_copy(update={"site": site})
        if previous is not None and previous.fingerprint == record.fingerprint and (found := serving(engine, previous)):
            changed = {"site": site, "foreign_images": record.foreign_images or previous.foreign_images}
            store.write(previous.model_copy(update=changed))
            return Release(previous.id, previous.url, changed=False, probes=found)
        probes = go_live(engine, store, record, previous, emit=emit, cancel=cancel)
        clean_up(engine.undisturbed, store, previous, keep=settings.keep_releases, keep_bytes=keep_bytes, emit=emit)
    return Release(record.id, record.url, changed=True, probes=probes)


def make_record(settings: Settings, plan: "Plan", images: "Sequence[Image]", *, release_id: str) -> ReleaseRecord:
    """All it takes to run these images as this plan says."""
    return ReleaseRecord(
        id=release_id,
        app=settings.name,
        created=datetime.now(UTC),
        layout=plan.layout,
        port=settings.port,
        domains=settings.domains,
        page=plan.web.static is not None,
        api_prefix=plan.web.proxy.prefix if plan.web.proxy else None,
        images={image.service: ImageRecord(**_stored(image)) for image in images if not image.platform},
        foreign_images=tuple(
            ForeignImageRecord(service=image.service, platform=image.platform, **_stored(image))
            for image in images
            if image.platform
        ),
        web_limits=settings.web_limits,
        backend=_backend_record(settings, plan.backend) if plan.backend else None,
        health=settings.health,
    )


def _stored(image: "Image") -> dict[str, Any]:
    """What an image's record takes from it."""
    return {
        "image_id": image.image_id,
        "manifest_digest": image.manifest_digest,
        "reference": image.reference,
        "size": image.size,
    }


def with_variables(record: ReleaseRecord, environment: Environment, secrets: dict[str, str]) -> ReleaseRecord:
    """The record with the backend's variables: plain ones, and the names under which the others are stored."""
    if record.backend is None:
        return record
    plain = {
        name: value
        for name, value in {**record.backend.environment, **environment.plain}.items()
        if name not in secrets
    }
    backend = record.backend.model_copy(update={"environment": plain, "secrets": secrets})
    return record.model_copy(update={"backend": backend})


def serving(engine: Engine, record: ReleaseRecord) -> tuple[Probe, ...]:
    """The answers of a release that runs and is healthy by real requests made now; none when it is not."""
    expected = {container_name(record, service): image_id(record, service) for service in services(record)}
    expected[gate_name(record.app)] = record.images["gate"].image_id
    found = inspect_containers(engine, expected)
    if {container.name: container.image_id for container in found if container.running} != expected:
        return ()
    answers = ask_once(record, timeout=record.health.timeout)
    healthy = all(good for _, good in answers) and not silent_replicas(engine, record, timeout=record.health.timeout)
    return tuple(answer for answer, _ in answers) if healthy else ()


def go_live(
    engine: Engine,
    store: AppStore,
    record: ReleaseRecord,
    previous: ReleaseRecord | None,
    *,
    emit: Emit,
    cancel: Cancel,
) -> tuple[Probe, ...]:
    """Start the release, wait until it is healthy, switch to it and record it.

    On any failure its pod is gone again and `previous` serves as before.
    """
    with _discarded_on_failure(engine, record):
        started = time.monotonic()
        with _phase(emit, "start"):
            gate = _start(engine, record)
        with _phase(emit, "wait until healthy"):
            wait_release(engine, record, deadline=start_deadline(store, record), cancel=cancel)
        ready = time.monotonic()
        store.note_start(ready - started)
        with _phase(emit, "switch"), _switched_back_on_failure(engine, store, record, previous):
            ensure_gate(engine, record, store.gate_config, gate)
            point_at(engine, record.app, record.id)
            if previous is not None:
                wait_drained(engine, previous)
            probes = verify_live(record, cancel=cancel)
            cancel.wait(max(0.0, ready + STEADY_SECONDS - time.monotonic()))
            check_alive(engine, record)
            store.activate(record)
    return probes


def clean_up(
    engine: Engine,
    store: AppStore,
    replaced: ReleaseRecord | None,
    *,
    keep: int,
    keep_bytes: int | None = None,
    emit: Emit,
) -> None:
    """Stop the release nobody is sent to any more, and take away what nothing needs.

    Each waits mostly, so at once; but a release that is to be forgotten answers its requests first.
    """
    if replaced is not None and replaced.id in {record.id for record in store.superfluous(keep)}:
        retire(engine, replaced, emit=emit)
        replaced = None
    with ThreadPoolExecutor(max_workers=1) as pool:
        pruned = pool.submit(prune, engine, store, keep=keep, keep_bytes=keep_bytes)
        if replaced is not None:
            retire(engine, replaced, emit=emit)
        pruned.result()


def retire(engine: Engine, record: ReleaseRecord, *, emit: Emit) -> None:
    """Stop a release nobody is sent to any more: its requests in flight are answered first.

    Its pod stays, stopped, so that a rollback to it starts two processes instead of making containers.
    """
    with _phase(emit, "stop the old release"):
        stop_services(engine, record)


def prune(engine: Engine, store: AppStore, *, keep: int, keep_bytes: int | None = None) -> None:
    """Forget the oldest releases beyond `keep`, other pods than the live and the warm one, images and values unused."""
    dropped = store.superfluous(keep)
    for record in dropped:
        store.forget(record)
    remove_strange_pods(engine, store, emit=_say_nothing)
    retain_images(engine, store.app, kept=store.releases(), dropped=dropped, keep_bytes=keep_bytes)
    sweep_values(engine, store)


def _say_nothing(_event: Event) -> None:
    """Pods a release replaced are meant to go."""


def _backend_record(settings: Settings, backend: "BackendPlan") -> BackendRecord:
    return BackendRecord(
        port=backend.port,
        health_path=backend.health_path,
        api_path=backend.api_path,
        ready_path=backend.ready_path,
        environment=dict(backend.environment),
        limits=settings.backend_limits,
        replicas=backend.replicas,
    )


def _start(engine: Engine, record: ReleaseRecord) -> Container | None:
    """Start the pod. The application's gate as it was before, found by the same question to the engine."""
    names = [container_name(record, service) for service in services(record)]
    found = {container.name: container for container in inspect_containers(engine, [gate_name(record.app), *names])}
    gate = found.pop(gate_name(record.app), None)
    try:
        start_pod(engine, record, tuple(found.values()))
        return gate
    except ServiceNotStarted as failure:
        raise deploy_error(engine, record, explain_start(failure)) from failure


@contextmanager
def _discarded_on_failure(engine: Engine, record: ReleaseRecord) -> Iterator[None]:
    try:
        yield
    except BaseException:
        discard_pod(engine.undisturbed, record)
        raise


@contextmanager
def _swept_on_failure(engine: Engine, store: AppStore) -> Iterator[None]:
    try:
        yield
    except BaseException:
        sweep_values(engine.undisturbed, store)
        raise


@contextmanager
def _switched_back_on_failure(
    engine: Engine, store: AppStore, record: ReleaseRecord, previous: ReleaseRecord | None
) -> Iterator[None]:
    """Where the switch fails, the gate is as it was: on the previous release and its port, or not there at all."""
    try:
        yield
    except BaseException:
        if previous is None:
            remove_gate(engine.undisturbed, record.app)
        else:
            point_at(engine, previous.app, previous.id)
            ensure_gate(engine.undisturbed, previous, store.gate_config, find_gate(engine.undisturbed, previous.app))
            time.sleep(DRAIN_SECONDS)
        raise


@contextmanager
def _phase(emit: Emit, name: str) -> Iterator[None]:
    started = time.monotonic()
    emit(PhaseStarted(SERVICE, name))
    try:
        yield
    except BaseException:
        emit(PhaseFinished(SERVICE, name, time.monotonic() - started, ok=False))
        raise
    emit(PhaseFinished(SERVICE, name, time.monotonic() - started))
