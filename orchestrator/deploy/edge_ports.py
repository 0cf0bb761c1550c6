"""Which ports the edge holds: those asked for, those it has, the usual ones, or the usual ones for ordinary users."""

import socket
from collections.abc import Callable

from orchestrator.deploy.edge_sites import EdgeRecord
from orchestrator.deploy.listeners import port_owner
from orchestrator.errors import MachineError, UsageError

HTTP_PORTS = (80, 8080, 8081)
HTTPS_PORTS = (443, 8443)


def choose_ports(
    asked: tuple[int | None, int | None],
    present: EdgeRecord | None,
    *,
    running: bool,
    is_free: Callable[[int], bool] | None = None,
    reserved: int | None = None,
) -> tuple[int, int]:
    """The edge's (HTTP, HTTPS) ports; `asked` are the user's, `present` how it runs or ran, `reserved` a gate's.

    Raises `MachineError` when a port is not free, and `UsageError` when a running edge would have to move: that
    takes every application's domains away for a moment, so it is done by `edge up` alone.
    """

    def free(port: int) -> bool:
        return port != reserved and (is_free or port_is_free)(port)

    held = (present.http_port, present.https_port) if present is not None else (None, None)
    if running and held[0] is not None and held[1] is not None:
        for wanted, holds, flag in zip(asked, held, ("--http-port", "--https-port"), strict=True):
            if wanted not in (None, holds):
                raise UsageError(
                    f"the edge already serves every application on the ports {held[0]} and {held[1]}",
                    hint=f"to move it: orchestrator edge up {flag} {wanted}",
                )
        return held[0], held[1]
    http = _choose(asked[0], held[0], HTTP_PORTS, "--http-port", free)
    return http, _choose(asked[1], held[1], tuple(port for port in HTTPS_PORTS if port != http), "--https-port", free)


def port_is_free(port: int) -> bool:
    """Whether this user may listen on the port, on every address, and nobody does."""
    return _can_bind(socket.AF_INET, "0.0.0.0", port) and (not has_ipv6() or _can_bind(socket.AF_INET6, "::", port))


def has_ipv6() -> bool:
    """Whether this machine has IPv6, at least its loopback address."""
    return _can_bind(socket.AF_INET6, "::1", 0)


def _can_bind(family: socket.AddressFamily, address: str, port: int) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            # As servers do: a connection of the past in TIME_WAIT does not make the port taken.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((address, port))
    except OSError:
        return False
    return True


def _choose(
    asked: int | None, held: int | None, usual: tuple[int, ...], flag: str, is_free: Callable[[int], bool]
) -> int:
    candidates = (asked,) if asked is not None else ((held,) if held is not None else ()) + usual
    for port in candidates:
        if is_free(port):
            return port
    owner = port_owner(candidates[-1])
    tried = " and ".join(str(port) for port in dict.fromkeys(candidates))
    raise MachineError(
        f"the edge cannot listen on port {tried}{f': {owner} does' if owner else ''}",
        hint=f"choose another one with {flag}",
    )
