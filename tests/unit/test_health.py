"""Waiting for a release, with a clock of our own; requests over a socket."""

import http.server
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.deploy.health import (
    ALIVE_SECONDS,
    FIRST_POLL_SECONDS,
    POLL_SECONDS,
    Expectation,
    Patience,
    Probe,
    Target,
    probe,
    wait_healthy,
)
from orchestrator.errors import DeployError, Interrupted
from orchestrator.process import Cancel

PATIENCE = Patience(interval=1.0, timeout=5.0, deadline=10.0)
HEALTHY = Expectation("/health", 200, 300)


class Clock(Cancel):
    """A stop request that never comes, and the time it was waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.pauses: list[float] = []

    def wait(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        self.now += seconds
        return self.requested


def wait(statuses: list[int], clock: Clock) -> Probe:
    def ask(timeout: float) -> Probe:
        assert 0 < timeout <= PATIENCE.timeout
        return Probe("u", statuses.pop(0) if len(statuses) > 1 else statuses[0], 0.01)

    return wait_healthy(ask, HEALTHY, PATIENCE, check_alive=lambda: None, cancel=clock, clock=lambda: clock.now)


def test_a_refused_connection_is_tried_again_soon_and_a_wrong_answer_at_the_interval() -> None:
    clock = Clock()
    assert wait([0, 503, 500, 200], clock).status == 200
    assert clock.pauses == [FIRST_POLL_SECONDS, 2 * FIRST_POLL_SECONDS, PATIENCE.interval]


def test_pauses_grow_to_the_usual_one() -> None:
    clock = Clock()
    assert wait([0] * 8 + [200], clock).status == 200
    assert clock.pauses[0] == FIRST_POLL_SECONDS and clock.pauses[-3:] == [POLL_SECONDS] * 3


def test_the_deadline_ends_it_with_the_last_answer() -> None:
    clock = Clock()
    assert wait([404], clock).status == 404
    assert clock.now == pytest.approx(100 + PATIENCE.deadline)


def test_a_death_is_noticed_soon() -> None:
    clock = Clock()

    def dead() -> None:
        raise DeployError("dead")

    with pytest.raises(DeployError, match="dead"):
        wait_healthy(
            lambda timeout: Probe("u", 0, 0),
            HEALTHY,
            PATIENCE,
            check_alive=dead,
            cancel=clock,
            clock=lambda: clock.now,
        )
    assert sum(clock.pauses) <= ALIVE_SECONDS + POLL_SECONDS


def test_a_stop_is_obeyed() -> None:
    clock = Clock()
    clock.request()
    with pytest.raises(Interrupted):
        wait([0], clock)


@pytest.mark.parametrize(("status", "met"), [(199, False), (200, True), (299, True), (300, False), (0, False)])
def test_expectations_have_an_open_end(status: int, met: bool) -> None:
    assert HEALTHY.met_by(Probe("u", status, 0)) is met


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/closed":
            self.close_connection = True
            return
        self.send_response(302 if self.path == "/moved" else 200)
        self.send_header("Location", "/login")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def address_string(self) -> str:
        return "socket"

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def deep_socket(tmp_path: Path) -> Iterator[Path]:
    """A server on a socket whose path is longer than the kernel takes."""
    directory = tmp_path / ("d" * 100)
    directory.mkdir()
    short = tmp_path / "s"
    short.symlink_to(directory)
    server = socketserver.ThreadingUnixStreamServer(f"{short}/x", Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield directory / "x"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_socket_with_a_long_path_is_asked(deep_socket: Path) -> None:
    assert len(str(deep_socket)) > 108
    answer = probe(Target("app.localhost", "/moved", socket=deep_socket), timeout=2)
    assert (answer.status, answer.location, answer.url) == (302, "/login", "http://app.localhost/moved")


def test_no_answer_is_told_and_not_raised(deep_socket: Path, tmp_path: Path) -> None:
    assert probe(Target("x", "/closed", socket=deep_socket), timeout=2).problem
    absent = probe(Target("x", "/", socket=tmp_path / "absent" / "x"), timeout=2)
    assert absent.status == 0 and "No such file" in absent.problem
