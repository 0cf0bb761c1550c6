"""What can be known to fail before anything is built."""

import errno
import socket

from orchestrator.deploy.edge_sites import EdgeStore
from orchestrator.deploy.gate import find_gate, gate_port
from orchestrator.deploy.listeners import port_owner
from orchestrator.deploy.names import APP, CONFIGURATION, SERVICE
from orchestrator.errors import MachineError, UsageError
from orchestrator.plan import Plan
from orchestrator.settings import Settings
from orchestrator.tools.inspection import list_containers
from orchestrator.tools.platforms import host_platform
from orchestrator.tools.podman import Engine


def check_platforms(plan: Plan) -> None:
    """Refuse to deploy what is made for other platforms only. Raises `UsageError`."""
    if "" not in plan.platforms:
        raise UsageError(
            f"this machine runs {host_platform()}, and the images are for {', '.join(plan.platforms)} only",
            hint=f"add --platform {host_platform()}, or make the images without running them: orchestrator build",
        )


def check_port(settings: Settings, engine: Engine) -> None:
    """Refuse a port that something else holds; the application's own gate may hold it.

    Raises `MachineError` naming what listens there, as far as that can be told.
    """
    problem = _try_port(settings.port)
    if problem is None:
        return
    gate = find_gate(engine, settings.name)
    if gate is not None and gate.running and gate_port(gate) == settings.port:
        return
    if problem != errno.EADDRINUSE:
        raise MachineError(
            f"port {settings.port} cannot be used by this user", hint="choose one above 1023 with --port"
        )
    owner = _ours_on(settings, engine) or port_owner(settings.port)
    raise MachineError(
        f"port {settings.port} is taken{f' by {owner}' if owner else ''}",
        hint="stop what listens there, or choose another port with --port",
    )


def _ours_on(settings: Settings, engine: Engine) -> str | None:
    edge = EdgeStore(settings.state_dir).record()
    if edge is not None and settings.port in (edge.http_port, edge.https_port):
        return "the edge"
    return _application_on(engine, settings.port)


def _application_on(engine: Engine, port: int) -> str | None:
    """Another application of ours that holds the port: /proc would only name the engine's monitor."""
    gates = (gate for gate in list_containers(engine, {SERVICE: "gate"}) if CONFIGURATION in gate.labels)
    holders = (gate.labels[APP] for gate in gates if gate.running and gate_port(gate) == port)
    return next((f"the application {app}" for app in holders), None)


def _try_port(port: int) -> int | None:
    """The errno of binding 127.0.0.1:`port`, None when it works."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        # As servers do: a connection of the past in TIME_WAIT does not make the port taken.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno
    return None
