"""Probes from outside, over a release's own socket or its published port."""

import http.client
import os
import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.process import Cancel

FIRST_POLL_SECONDS = 0.01
POLL_SECONDS = 0.1
"""How soon a refused connection is tried again: a server that has just started answers within milliseconds.

The pause doubles from the first to the last.
"""

ALIVE_SECONDS = 0.25
"""How often it is looked whether there is still something to wait for: that takes as long as many tries."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to ask: a unix socket, or `port` on 127.0.0.1; `host` is sent as the Host header."""

    host: str
    path: str
    socket: Path | None = None
    port: int = 80

    @property
    def url(self) -> str:
        return f"http://{self.host}{self.path}"


@dataclass(frozen=True, slots=True)
class Expectation:
    """A request and the answers that count as healthy: statuses in `low` (inclusive) to `high` (exclusive)."""

    path: str
    low: int
    high: int

    def met_by(self, probe: "Probe") -> bool:
        return self.low <= probe.status < self.high


@dataclass(frozen=True, slots=True)
class Probe:
    """One request and its answer. `status` is 0 without an answer, `problem` then says why.

    `location` is where a redirect leads; `seconds` is how long the answer took.
    """

    url: str
    status: int
    seconds: float
    problem: str = ""
    location: str = ""


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a unix socket, whose path may be longer than the 108 bytes the kernel takes."""

    def __init__(self, path: Path, *, host: str, timeout: float) -> None:
        super().__init__(host, timeout=timeout)
        self._path = path

    def connect(self) -> None:
        directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(f"/proc/self/fd/{directory}/{self._path.name}")
        finally:
            os.close(directory)


def read_connections(socket: Path, *, timeout: float) -> int | None:
    """How many connections an nginx has, by its stub_status on a socket, this one left out; None unless it answers."""
    connection = _SocketConnection(socket, host="localhost", timeout=timeout)
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        said = connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    active = re.match(rb"Active connections: (\d+)", said)
    return int(active[1]) - 1 if active else None


def probe(target: Target, *, timeout: float) -> Probe:
    """Make one GET request, following nothing. Never raises: no answer is a `Probe` with status 0."""
    started = time.monotonic()
    connection = (
        _SocketConnection(target.socket, host=target.host, timeout=timeout)
        if target.socket is not None
        else http.client.HTTPConnection("127.0.0.1", target.port, timeout=timeout)
    )
    try:
        connection.request("GET", target.path, headers={"Host": target.host, "Accept": "*/*", "Connection": "close"})
        answer = connection.getresponse()
        # The body may be an endless stream; its first byte proves that one comes.
        answer.read(1)
        return Probe(
            target.url, answer.status, time.monotonic() - started, location=answer.headers.get("Location") or ""
        )
    except (OSError, http.client.HTTPException) as error:
        return Probe(target.url, 0, time.monotonic() - started, problem=str(error) or type(error).__name__)
    finally:
        with suppress(OSError):
            connection.close()


@dataclass(frozen=True, slots=True)
class Patience:
    """How long and how often to ask. All in seconds."""

    interval: float
    timeout: float
    deadline: float


def wait_healthy(
    ask: Callable[[float], Probe],
    expected: Expectation,
    patience: Patience,
    *,
    check_alive: Callable[[], None],
    cancel: Cancel,
    clock: Callable[[], float] = time.monotonic,
) -> Probe:
    """Ask until the answer is as expected, or the deadline has passed: the last probe tells which.

    `ask` takes the seconds one try may last. `check_alive` runs now and then and raises when nothing is left to
    wait for. Raises what it raises, and `Interrupted`.
    """
    looked = clock()
    deadline, poll = looked + patience.deadline, FIRST_POLL_SECONDS
    while True:
        latest = ask(min(patience.timeout, max(0.1, deadline - clock())))
        if expected.met_by(latest):
            return latest
        if (now := clock()) >= min(looked + ALIVE_SECONDS, deadline):
            check_alive()
            looked = now
        if (left := deadline - clock()) <= 0:
            return latest
        # What does not answer yet costs nothing to ask; what answers wrongly is given its interval.
        cancel.wait(min(poll if latest.status in (0, 503) else patience.interval, left))
        cancel.check()
        poll = min(2 * poll, POLL_SECONDS)
