"""A release's pod: nginx and the backend, sharing one loopback."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from orchestrator.deploy.assets import assets_dir
from orchestrator.deploy.names import (
    container_name,
    image_id,
    labels,
    pod_name,
    release_socket,
    replicas,
    services,
    sockets_dir,
)
from orchestrator.deploy.state import ReleaseRecord
from orchestrator.errors import DeployError, OrchestratorError
from orchestrator.files import remove_tree
from orchestrator.image.nginx import EARLIER_ROOT, SOCKET_CONFIG_PATH, SOCKET_DIR
from orchestrator.image.single import SINGLE, STOP_SECONDS
from orchestrator.replicas import Replica
from orchestrator.settings import Limits
from orchestrator.tools.containers import (
    ContainerSpec,
    Mount,
    create_pod,
    remove_pod,
    run_container,
    start_containers,
    stop_containers,
)
from orchestrator.tools.inspection import Container, inspect_containers, stored_images
from orchestrator.tools.podman import Engine

WEB_STOP_SECONDS = 35.0
"""nginx finishes the requests in flight and cuts them off itself after 30 s."""

BACKEND_STOP_SECONDS = 10.0
_STARTS_AT_ONCE = 4


SINGLE_STOP_SECONDS = float(sum(STOP_SECONDS.values()) + 3)
"""The init of a container that holds both stops one after the other and kills what does not end in its time."""


class ServiceNotStarted(OrchestratorError):
    """The engine could not start a service's container; `service` says which, `reason` in whose words."""

    def __init__(self, service: str, reason: OrchestratorError) -> None:
        super().__init__(reason.message, hint=reason.hint, details=reason.details)
        self.service = service
        self.reason = reason


def start_pod(engine: Engine, record: ReleaseRecord, found: Sequence[Container]) -> None:
    """Start the release's pod: the stopped one where it is still whole, else a new one in the place of its remains.

    `found` are those of its containers that exist. The first replica makes the pod's network, the rest start at once.
    Raises `EngineError`, `DeployError` when an image is gone, or `ServiceNotStarted` when one container does not start.
    """
    if _wake_pod(engine, record, found):
        return
    check_images(engine, record)
    if found:
        discard_pod(engine, record)
    remove_tree(release_socket(engine, record).parent)
    _make_directories(engine, record)
    create_pod(engine.within(record.app), pod_name(record.app, record.id), labels(record, "pod"))
    first, *others = _specs(engine, record).items()
    _run(engine, *first)
    with ThreadPoolExecutor(_STARTS_AT_ONCE) as pool:
        for started in [pool.submit(_run, engine, *other) for other in others]:
            started.result()


def _specs(engine: Engine, record: ReleaseRecord) -> dict[str, ContainerSpec]:
    """By service, in the order they start."""
    if record.layout == "single":
        return {SINGLE: single_spec(engine, record)}
    backends = {replica.name: backend_spec(record, replica) for replica in replicas(record)}
    return {**backends, "web": web_spec(engine, record)}


def _run(engine: Engine, service: str, spec: ContainerSpec) -> None:
    try:
        run_container(engine, spec)
    except OrchestratorError as error:
        if engine.cancel is not None:
            engine.cancel.check()
        raise ServiceNotStarted(service, error) from error


def _wake_pod(engine: Engine, record: ReleaseRecord, containers: Sequence[Container]) -> bool:
    """Start the containers of a pod that was stopped in order. False when it is not there whole, or does not start."""
    expected = {container_name(record, service): image_id(record, service) for service in services(record)}
    stopped = all(container.state == "exited" and not container.restarts for container in containers)
    if not stopped or {container.name: container.image_id for container in containers} != expected:
        return False
    _make_directories(engine, record)
    return start_containers(engine, tuple(expected))


def _make_directories(engine: Engine, record: ReleaseRecord) -> None:
    directory = release_socket(engine, record).parent
    directory.mkdir(parents=True, exist_ok=True)
    directory.parent.chmod(0o755)
    assets_dir(engine, record.app).mkdir(parents=True, exist_ok=True)
    # nginx creates its socket as user 10001. Nobody else gets here: the engine's directory is its owner's alone.
    directory.chmod(0o777)


def check_images(engine: Engine, record: ReleaseRecord) -> None:
    """Raises `DeployError` when an image of the release is gone."""
    stored = stored_images(engine, (image.image_id for image in record.images.values()))
    missing = [service for service, image in record.images.items() if image.image_id not in stored]
    if missing:
        hint = f"run: orchestrator deploy --name {record.app}"
        raise DeployError(f"the image of {', '.join(missing)} of release {record.id} is gone", hint=hint)


def pod_containers(engine: Engine, record: ReleaseRecord) -> tuple[Container, ...]:
    """Those of the release's containers that exist."""
    return inspect_containers(engine, [container_name(record, service) for service in services(record)])


def stop_services(engine: Engine, record: ReleaseRecord) -> None:
    """Stop in order: nginx once its requests are answered, then the backend. The stopped pod keeps its logs."""
    if record.layout == "single":
        stop_containers(engine, [container_name(record, SINGLE)], grace=SINGLE_STOP_SECONDS)
        return
    stop_containers(engine, [container_name(record, "web")], grace=WEB_STOP_SECONDS)
    backends = [container_name(record, replica.name) for replica in replicas(record)]
    stop_containers(engine, backends, grace=BACKEND_STOP_SECONDS)


def discard_pod(engine: Engine, record: ReleaseRecord) -> None:
    """Kill and remove the release's pod and its socket; nothing there is fine."""
    remove_release_pod(engine, record.app, record.id)


def remove_release_pod(engine: Engine, app: str, release: str) -> None:
    """`discard_pod` for a release that may have no record."""
    remove_pod(engine, pod_name(app, release))
    remove_tree(sockets_dir(engine, app) / release)


def web_spec(engine: Engine, record: ReleaseRecord) -> ContainerSpec:
    """The web container. Its image does not know the release: the mounted directory makes the difference."""
    socket = release_socket(engine, record)
    return _spec(
        record,
        "web",
        record.web_limits,
        mounts=_web_mounts(engine, record),
        socket=socket,
        stop_signal="SIGQUIT",
    )


def _web_mounts(engine: Engine, record: ReleaseRecord) -> tuple[Mount, ...]:
    return (
        Mount(release_socket(engine, record).parent, SOCKET_DIR, writable=True),
        Mount(assets_dir(engine, record.app), EARLIER_ROOT),
    )


def backend_spec(record: ReleaseRecord, replica: Replica) -> ContainerSpec:
    """A backend container, told where to listen by PORT and HOST."""
    assert record.backend is not None
    environment = {**record.backend.environment, "PORT": str(replica.port), "HOST": "0.0.0.0"}
    return _spec(
        record,
        replica.name,
        record.backend.limits,
        environment=tuple(environment.items()),
        secrets=tuple(record.backend.secrets.items()),
        init=True,
    )


def single_spec(engine: Engine, record: ReleaseRecord) -> ContainerSpec:
    """The container of nginx and the backend both; its image says where the backend listens."""
    backend = record.backend
    return _spec(
        record,
        SINGLE,
        record.web_limits.plus(backend.limits) if backend else record.web_limits,
        environment=tuple(backend.environment.items()) if backend else (),
        secrets=tuple(backend.secrets.items()) if backend else (),
        mounts=_web_mounts(engine, record),
        socket=release_socket(engine, record),
        command=(SOCKET_CONFIG_PATH,),
    )


def _spec(
    record: ReleaseRecord,
    service: str,
    limits: Limits,
    *,
    environment: tuple[tuple[str, str], ...] = (),
    secrets: tuple[tuple[str, str], ...] = (),
    mounts: tuple[Mount, ...] = (),
    socket: Path | None = None,
    command: tuple[str, ...] = (),
    init: bool = False,
    stop_signal: str = "SIGTERM",
) -> ContainerSpec:
    return ContainerSpec(
        name=container_name(record, service),
        image_id=image_id(record, service),
        labels=labels(record, service),
        memory=limits.memory,
        cpus=limits.cpus,
        pids=limits.pids,
        pod=pod_name(record.app, record.id),
        environment=environment,
        secrets=secrets,
        mounts=mounts,
        socket=socket,
        command=command,
        init=init,
        stop_signal=stop_signal,
    )
