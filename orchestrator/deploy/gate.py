"""The gate: one small nginx per application that holds its port and follows the `current` link.

A swap is a rename(2) of that link: nothing is reloaded, so no connection is cut. What is in flight stays with the
release that got it, which is why the old one is drained before it is stopped.

The port belongs to the gate's pod, so that a gate with another image or configuration takes over from one that runs:
both listen for a while (SO_REUSEPORT), the old one ends its connections with their next answers, and what it has not
accepted when it goes is handed to the new one by the kernel (net.ipv4.tcp_migrate_req, Linux 5.14).
"""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.deploy.listeners import read_listeners
from orchestrator.deploy.names import APP, CONFIGURATION, CURRENT, GATE, SERVICE, gate_name, sockets_dir
from orchestrator.deploy.state import ReleaseRecord
from orchestrator.errors import DeployError
from orchestrator.files import replace_symlink, resource, write_atomically
from orchestrator.image.nginx import CONFIG_PATH, SOCKET_NAME, nginx_templates
from orchestrator.settings import Limits
from orchestrator.tools.containers import (
    ContainerSpec,
    Mount,
    create_pod,
    remove_container,
    remove_pod,
    rename_container,
    run_container,
    start_container,
    stop_container,
    stop_pod,
)
from orchestrator.tools.inspection import Container, inspect_containers, list_pods
from orchestrator.tools.podman import Engine

KEEP_MILLISECONDS = 200
"""How long the gate keeps, and how long it goes on using, a connection to a release."""

DRAIN_SECONDS = 1.0
"""After a swap: by then the gate has no connection to the old release but those with a request in flight.

A connection is reused until `KEEP_MILLISECONDS` after it was opened, kept idle as long again, and nginx's clock
is coarse: twice the sum.
"""

LET_GO_SECONDS = 0.5
"""How long clients have to end the connections they keep to a gate before the next one takes over."""

LISTEN_SECONDS = 5.0
"""By then a gate that was started listens."""

LIMITS = Limits(memory="64m", cpus=1.0, pids=32)
"""What a gate may use; it holds no data."""

STOP_SECONDS = 3.0
FINISH_SECONDS = 35.0
"""A gate that is replaced finishes what is in flight; nginx cuts it off itself after 30 s."""

_MOUNT = "/run/gate"
_PORT = 8080
_TEMPLATE = "gate.conf.j2"
_MIGRATE = "net.ipv4.tcp_migrate_req"


def render_gate_config(key: str = "") -> str:
    """The gate's nginx.conf(5): the same for every application, port and release; `key` is in it."""
    return (
        nginx_templates()
        .get_template(_TEMPLATE)
        .render(
            socket=f"{_MOUNT}/{CURRENT}/{SOCKET_NAME}",
            port=_PORT,
            keep_milliseconds=KEEP_MILLISECONDS,
            drain_file=f"{_MOUNT}/{_drain_name(key)}",
        )
    )


def find_gate(engine: Engine, app: str) -> Container | None:
    """The application's gate, running or not."""
    return next(iter(inspect_containers(engine, [gate_name(app)])), None)


def ensure_gate(engine: Engine, record: ReleaseRecord, config_file: Path, present: Container | None) -> None:
    """Have a running gate on the record's port; one that is right already is left alone.

    `present` is what `find_gate` found; it serves until the new one does. Raises `EngineError` or `DeployError` when
    the new one cannot start; the old one is then as it was.
    """
    configuration = _configuration(record)
    if present is not None and present.labels.get(CONFIGURATION) == configuration:
        if not present.running:
            start_container(engine, present.name)
        return
    write_atomically(config_file, render_gate_config(_key(configuration)))
    if present is None or not present.running:
        remove_gate(engine, record.app)
        _make_pod(engine, record)
        run_container(engine, _spec(engine, record, config_file, gate_name(record.app)))
    else:
        _replace(engine, record, config_file, present)


def gate_port(gate: Container) -> int:
    """The port the gate holds on 127.0.0.1."""
    return int(gate.labels[CONFIGURATION].partition(".")[0])


def point_at(engine: Engine, app: str, release: str) -> None:
    """Send every new request to this release, from one moment to the next."""
    replace_symlink(sockets_dir(engine, app) / CURRENT, release)


def pointed_at(engine: Engine, app: str) -> str | None:
    """The release new requests are sent to."""
    link = sockets_dir(engine, app) / CURRENT
    return link.readlink().name if link.is_symlink() else None


def stop_gate(engine: Engine, app: str) -> None:
    """Stop the application's gate; the port is free then. An absent one is fine."""
    stop_container(engine, gate_name(app), grace=STOP_SECONDS)
    for pod in _pods(engine, app):
        stop_pod(engine, pod, grace=STOP_SECONDS)


def remove_gate(engine: Engine, app: str) -> None:
    """Remove the application's gate; the port is free then. An absent one is fine."""
    for name in (_successor(app), gate_name(app)):
        remove_container(engine, name)
    for pod in _pods(engine, app):
        remove_pod(engine, pod)


def settle_gate(engine: Engine, app: str) -> Container | None:
    """Finish a replacement of the gate that was cut short: exactly one is left, under its own name, and returned."""
    found = {container.name: container for container in inspect_containers(engine, [gate_name(app), _successor(app)])}
    if _successor(app) in found and gate_name(app) in found:
        remove_container(engine, _successor(app))
    elif _successor(app) in found:
        rename_container(engine, _successor(app), gate_name(app))
    left = find_gate(engine, app)
    for pod in _pods(engine, app):
        if left is None or pod != _pod_name(app, gate_port(left)):
            remove_pod(engine, pod)
    if left is not None:
        _drain_file(engine, app, left).unlink(missing_ok=True)
    return left


def _replace(engine: Engine, record: ReleaseRecord, config_file: Path, present: Container) -> None:
    """Put a new gate in the place of `present`, which serves until the new one does."""
    app, successor, held = record.app, _successor(record.app), _pod_name(record.app, gate_port(present))
    pods = _pods(engine, app)
    remove_container(engine, successor)
    moves = gate_port(present) != record.port
    # A gate from before they had pods holds the port itself.
    in_the_way = held not in pods and not moves
    if in_the_way:
        stop_container(engine, present.name, grace=STOP_SECONDS)
    try:
        if _pod_name(app, record.port) not in pods:
            _make_pod(engine, record)
        run_container(engine, _spec(engine, record, config_file, successor))
        _wait_listening(engine, successor, gates=1 if moves or in_the_way else 2)
    except BaseException:
        remove_container(engine.undisturbed, successor)
        if moves or in_the_way:
            remove_pod(engine.undisturbed, _pod_name(app, record.port))
        if in_the_way:
            start_container(engine.undisturbed, present.name)
        raise
    drain = _drain_file(engine, app, present)
    drain.touch()
    try:
        time.sleep(LET_GO_SECONDS)
        stop_container(engine.undisturbed, present.name, grace=FINISH_SECONDS)
    finally:
        drain.unlink(missing_ok=True)
    remove_container(engine.undisturbed, present.name)
    rename_container(engine.undisturbed, successor, present.name)
    if moves:
        remove_pod(engine.undisturbed, held)


def _wait_listening(
    engine: Engine,
    name: str,
    *,
    gates: int,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until so many gates listen in the pod of the one just started. Raises `DeployError` when they do not."""
    deadline = clock() + LISTEN_SECONDS
    while clock() < deadline:
        for gate in inspect_containers(engine, [name]):
            ports = [port for port, _ in read_listeners(Path(f"/proc/{gate.pid}/net/tcp"))]
            if gate.running and ports.count(_PORT) >= gates:
                return
        sleep(0.05)
    raise DeployError("the application's new gate does not listen", hint="the one before it still serves")


def _make_pod(engine: Engine, record: ReleaseRecord) -> None:
    migrates = Path("/proc/sys", *_MIGRATE.split(".")).exists()
    create_pod(
        engine.within(record.app),
        _pod_name(record.app, record.port),
        {GATE: record.app},
        publish=(f"127.0.0.1:{record.port}:{_PORT}",),
        sysctls={_MIGRATE: "1"} if migrates else {},
    )


def _spec(engine: Engine, record: ReleaseRecord, config_file: Path, name: str) -> ContainerSpec:
    return ContainerSpec(
        name=name,
        image_id=record.images["gate"].image_id,
        labels={APP: record.app, SERVICE: "gate", CONFIGURATION: _configuration(record)},
        memory=LIMITS.memory,
        cpus=LIMITS.cpus,
        pids=LIMITS.pids,
        pod=_pod_name(record.app, record.port),
        mounts=(Mount(sockets_dir(engine, record.app), _MOUNT), Mount(config_file, CONFIG_PATH)),
        stop_signal="SIGQUIT",
    )


def _configuration(record: ReleaseRecord) -> str:
    # The template stands for what is rendered of it: most runs need no new gate, and no template engine.
    template = (resource("templates") / "nginx" / _TEMPLATE).read_text()
    text = f"{record.images['gate'].image_id}\n{LIMITS!r}\n{KEEP_MILLISECONDS}\n{template}"
    return f"{record.port}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _key(configuration: str) -> str:
    return configuration.partition(".")[2]


def _successor(app: str) -> str:
    return f"{gate_name(app)}-next"


def _pod_name(app: str, port: int) -> str:
    return f"{gate_name(app)}-on-{port}"


def _pods(engine: Engine, app: str) -> tuple[str, ...]:
    return list_pods(engine, {GATE: app})


def _drain_name(key: str) -> str:
    return f"drain.{key}"


def _drain_file(engine: Engine, app: str, gate: Container) -> Path:
    """While this file is there, every answer of the gate ends its connection."""
    return sockets_dir(engine, app) / _drain_name(_key(gate.labels[CONFIGURATION]))
