"""The gate: one small nginx per application that holds its port and follows the `current` link.

A swap is a rename(2) of that link: nothing is reloaded, so no connection is cut. What is in flight stays with the
release that got it, which is why the old one is drained before it is stopped.
"""

import hashlib
from pathlib import Path

from orchestrator.deploy.names import APP, CONFIGURATION, CURRENT, SERVICE, gate_name, sockets_dir
from orchestrator.deploy.state import ReleaseRecord
from orchestrator.files import replace_symlink, resource, write_atomically
from orchestrator.image.nginx import CONFIG_PATH, SOCKET_NAME, nginx_templates
from orchestrator.settings import Limits
from orchestrator.tools.containers import (
    ContainerSpec,
    Mount,
    remove_container,
    rename_container,
    run_container,
    start_container,
    stop_container,
)
from orchestrator.tools.inspection import Container, inspect_containers
from orchestrator.tools.podman import Engine

KEEP_MILLISECONDS = 200
"""How long the gate keeps, and how long it goes on using, a connection to a release."""

DRAIN_SECONDS = 1.0
"""After a swap: by then the gate has no connection to the old release but those with a request in flight.

A connection is reused until `KEEP_MILLISECONDS` after it was opened, kept idle as long again, and nginx's clock
is coarse: twice the sum.
"""

LIMITS = Limits(memory="64m", cpus=1.0, pids=32)
"""What a gate may use; it holds no data."""

STOP_SECONDS = 3.0
_MOUNT = "/run/gate"
_PORT = 8080
_TEMPLATE = "gate.conf.j2"


def render_gate_config() -> str:
    """The gate's nginx.conf(5): the same for every application, port and release."""
    return (
        nginx_templates()
        .get_template(_TEMPLATE)
        .render(socket=f"{_MOUNT}/{CURRENT}/{SOCKET_NAME}", port=_PORT, keep_milliseconds=KEEP_MILLISECONDS)
    )


def find_gate(engine: Engine, app: str) -> Container | None:
    """The application's gate, running or not."""
    return next(iter(inspect_containers(engine, [gate_name(app)])), None)


def ensure_gate(engine: Engine, record: ReleaseRecord, config_file: Path, present: Container | None) -> None:
    """Have a running gate on the record's port; one that is right already is left alone.

    `present` is what `find_gate` found. A gate on another port keeps serving until the new one runs. Raises
    `EngineError` when the new one cannot start; the old one is then as it was.
    """
    if present is not None and present.labels.get(CONFIGURATION) == _configuration(record):
        if not present.running:
            start_container(engine, present.name)
        return
    write_atomically(config_file, render_gate_config())
    if present is None:
        run_container(engine.within(record.app), _spec(engine, record, config_file, gate_name(record.app)))
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


def remove_gate(engine: Engine, app: str) -> None:
    """Remove the application's gate; the port is free then. An absent one is fine."""
    for name in (_successor(app), gate_name(app)):
        remove_container(engine, name)


def settle_gate(engine: Engine, app: str) -> Container | None:
    """Finish a replacement of the gate that was cut short: exactly one is left, under its own name, and returned."""
    found = {container.name: container for container in inspect_containers(engine, [gate_name(app), _successor(app)])}
    if _successor(app) not in found:
        return found.get(gate_name(app))
    if gate_name(app) in found:
        remove_container(engine, _successor(app))
    else:
        rename_container(engine, _successor(app), gate_name(app))
    return find_gate(engine, app)


def _successor(app: str) -> str:
    return f"{gate_name(app)}-next"


def _replace(engine: Engine, record: ReleaseRecord, config_file: Path, present: Container) -> None:
    """Put a new gate in the place of `present`, which is stopped first only where both need the same port."""
    successor = _successor(record.app)
    remove_container(engine, successor)
    same_port = gate_port(present) == record.port
    try:
        if same_port:
            stop_container(engine, present.name, grace=STOP_SECONDS)
        run_container(engine.within(record.app), _spec(engine, record, config_file, successor))
    except BaseException:
        remove_container(engine.undisturbed, successor)
        if same_port and present.running:
            start_container(engine.undisturbed, present.name)
        raise
    stop_container(engine.undisturbed, present.name, grace=STOP_SECONDS)
    remove_container(engine.undisturbed, present.name)
    rename_container(engine.undisturbed, successor, present.name)


def _spec(engine: Engine, record: ReleaseRecord, config_file: Path, name: str) -> ContainerSpec:
    return ContainerSpec(
        name=name,
        image_id=record.images["gate"].image_id,
        labels={APP: record.app, SERVICE: "gate", CONFIGURATION: _configuration(record)},
        memory=LIMITS.memory,
        cpus=LIMITS.cpus,
        pids=LIMITS.pids,
        mounts=(Mount(sockets_dir(engine, record.app), _MOUNT), Mount(config_file, CONFIG_PATH)),
        publish=(f"127.0.0.1:{record.port}:{_PORT}",),
        stop_signal="SIGQUIT",
    )


def _configuration(record: ReleaseRecord) -> str:
    # The template stands for what is rendered of it: most runs need no new gate, and no template engine.
    template = (resource("templates") / "nginx" / _TEMPLATE).read_text()
    text = f"{record.images['gate'].image_id}\n{LIMITS!r}\n{KEEP_MILLISECONDS}\n{template}"
    return f"{record.port}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"
