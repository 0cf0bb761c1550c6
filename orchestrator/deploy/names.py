"""How what belongs to an application is called and labelled in the engine, and where its sockets are."""

from collections.abc import Mapping
from pathlib import Path

from orchestrator.deploy.state import ReleaseRecord
from orchestrator.image.nginx import REPLICA_SOCKET, SOCKET_NAME, STATUS_SOCKET_NAME
from orchestrator.image.single import SINGLE
from orchestrator.replicas import Replica, make_replicas
from orchestrator.tools.podman import Engine

APP = "io.orchestrator.app"
RELEASE = "io.orchestrator.release"
SERVICE = "io.orchestrator.service"
CONFIGURATION = "io.orchestrator.configuration"
"""On the gate: a digest of all that would need another gate when it changed."""

GATE = "io.orchestrator.gate"
"""On the gate's pod, which belongs to no release: its application."""

CURRENT = "current"
"""The symlink in an application's sockets directory that names the live release."""


def pod_name(app: str, release: str) -> str:
    return f"orchestrator-{app}-{release}"


def container_name(record: ReleaseRecord, service: str) -> str:
    return f"{pod_name(record.app, record.id)}-{service}"


def gate_name(app: str) -> str:
    return f"orchestrator-{app}-gate"


def labels(record: ReleaseRecord, service: str) -> Mapping[str, str]:
    """What marks a container as ours."""
    return {APP: record.app, RELEASE: record.id, SERVICE: service}


def replicas(record: ReleaseRecord) -> tuple[Replica, ...]:
    """The backend's containers; none where there is no backend."""
    backend = record.backend
    return make_replicas("backend", backend.port, backend.replicas) if backend is not None else ()


def services(record: ReleaseRecord) -> tuple[str, ...]:
    """The containers in a release's pod, in the order they start; `labels` say which is which."""
    return (SINGLE,) if record.layout == "single" else parts(record)


def parts(record: ReleaseRecord) -> tuple[str, ...]:
    """What writes logs in a release, however many containers it runs in."""
    return (*(replica.name for replica in replicas(record)), "web")


def holder(record: ReleaseRecord, part: str) -> str:
    """The service whose container a part of the release runs in: its own, or the one that holds all."""
    return SINGLE if record.layout == "single" and part in parts(record) else part


def image_id(record: ReleaseRecord, service: str) -> str:
    """The image a container of the pod runs: all replicas have the backend's."""
    return record.images[service if service in ("web", SINGLE) else "backend"].image_id


def sockets_dir(engine: Engine, app: str) -> Path:
    """The directory the gate sees: one subdirectory per release, and the `CURRENT` link."""
    return engine.sockets / app


def release_socket(engine: Engine, record: ReleaseRecord) -> Path:
    """The socket a release's web server listens on."""
    return sockets_dir(engine, record.app) / record.id / SOCKET_NAME


def status_socket(engine: Engine, record: ReleaseRecord) -> Path:
    """The socket on which a release's web server says how many connections it has."""
    return release_socket(engine, record).with_name(STATUS_SOCKET_NAME)


def replica_socket(engine: Engine, record: ReleaseRecord, replica: Replica) -> Path:
    """The socket on which a release's web server hands everything to this replica; a single one needs none."""
    web = release_socket(engine, record)
    return web.with_name(REPLICA_SOCKET.format(replica.name)) if len(replicas(record)) > 1 else web
