"""Whether a swap drops a request, and how long going back takes: full load over many deploys and rollbacks."""

import http.client
import multiprocessing
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event

from benchmarks.lab import Orchestrator
from benchmarks.measure import BenchmarkError
from benchmarks.table import Goal, Quantity, Row, Table, seconds
from benchmarks.towns import Towns
from orchestrator.deploy.lock import locked_app
from orchestrator.deploy.names import CURRENT, sockets_dir
from orchestrator.deploy.pod import discard_pod
from orchestrator.deploy.release import deploy_release
from orchestrator.deploy.state import AppStore
from orchestrator.image.storage import Image
from orchestrator.process import Cancel
from orchestrator.settings import Settings
from orchestrator.tools.podman import Engine, open_engine
from tests.integration.release_bench import APP, backend_image, free_port, make_plan, web_images

ROUNDS = int(os.environ.get("SWAP_ROUNDS", "50"))
"""How many deploys, and as many rollbacks."""

ALONE_ROUNDS = 5
WARM_SECONDS = 1.0
COLD_SECONDS = 10.0
LIVE_SECONDS = 3.0

PROCESSES = 2
CLIENTS = 6
"""Clients with a connection they keep, in each process; one more holds a WebSocket."""

PAUSE_SECONDS = 0.004
"""Between two requests of a client: without it the machine would measure the clients."""

WEBSOCKET_SECONDS = 2.0
POST_EVERY = 10


def run(towns: Towns) -> tuple[Table, ...]:
    orchestrator = towns.lab.orchestrator("swap")
    try:
        return (_measure(Site(orchestrator)),)
    finally:
        orchestrator.discard()


class Site:
    """A page and a backend whose images are made once; every deploy gives the backend another variable."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        self.orchestrator = orchestrator
        self.port = free_port()
        self.engine: Engine = open_engine(orchestrator.state)
        self._images: list[Image] = [*web_images(self.engine), backend_image(self.engine, orchestrator.temporary)]

    def deploy(self, version: str) -> float:
        """Start to end of a deploy in which nothing is built, in seconds."""
        state = self.orchestrator.state
        settings = Settings(name=APP, port=self.port, state_dir=state, cache_dir=self.orchestrator.cache)
        started = time.monotonic()
        with locked_app(state, APP):
            deploy_release(
                settings,
                make_plan(APP, environment={"VERSION": version}),
                self._images,
                engine=self.engine,
                emit=lambda _event: None,
                cancel=Cancel(),
            )
        return time.monotonic() - started

    def roll_back(self) -> tuple[float, float]:
        """Start of the command to the moment requests go to the other release, and to its end, in seconds."""
        link = sockets_dir(self.engine, APP) / CURRENT
        before, moved = link.readlink(), threading.Event()
        moments: list[float] = []

        def wait_for_swap() -> None:
            while not moved.wait(0.005):
                with suppress(OSError):
                    if link.readlink() != before:
                        moments.append(time.monotonic())
                        return

        watcher = threading.Thread(target=wait_for_swap)
        started = time.monotonic()
        watcher.start()
        self.orchestrator.run("rollback", APP)
        ended = time.monotonic()
        moved.set()
        watcher.join()
        if not moments:
            raise BenchmarkError("a rollback did not move the current release")
        return moments[0] - started, ended - started

    def cool(self) -> None:
        """Remove the stopped pod of the release before the live one."""
        previous = AppStore(self.orchestrator.state, APP).previous()
        assert previous is not None
        discard_pod(self.engine, previous)


@dataclass(frozen=True, slots=True)
class Samples:
    """Seconds each deploy took, and each rollback until requests went elsewhere and until its command ended."""

    deploys: list[float] = field(default_factory=list)
    moved: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)

    def swap(self, site: Site, version: str) -> None:
        """A deploy and the way back."""
        self.deploys.append(site.deploy(version))
        self.go_back(site)

    def go_back(self, site: Site) -> None:
        moved, ended = site.roll_back()
        self.moved.append(moved)
        self.ended.append(ended)


def _measure(site: Site) -> Table:
    site.deploy("first")
    alone, cold, loaded = Samples(), Samples(), Samples()
    for number in range(ALONE_ROUNDS):
        alone.swap(site, f"alone{number}")
    for _ in range(ALONE_ROUNDS):
        site.cool()
        cold.go_back(site)
    with _load(site.port) as counts:
        for number in range(ROUNDS):
            loaded.swap(site, f"loaded{number}")
    return _table(alone, cold, loaded, counts)


def _table(alone: Samples, cold: Samples, loaded: Samples, counts: Counter[str]) -> Table:
    failures = {name: count for name, count in sorted(counts.items()) if name.startswith("failed")}
    failed, asked = Quantity(sum(failures.values())), Quantity(counts["requests"])
    rows = (
        _row("deploy with nothing built, start to end", alone.deploys, LIVE_SECONDS),
        _row("rollback to a warm release: requests go there", alone.moved, WARM_SECONDS),
        _row("rollback to a warm release: command ends", alone.ended),
        _row("rollback to a cold release: requests go there", cold.moved, COLD_SECONDS),
        Row(f"under load: requests over {ROUNDS} deploys and {ROUNDS} rollbacks", (asked, None, None)),
        Row("under load: of them POST", (Quantity(counts["posts"]), None, None)),
        Row("under load: WebSocket sessions", (Quantity(counts["sessions"]), None, None)),
        Row("under load: failed requests and sessions", (failed, None, None), Goal(failed, Quantity(0))),
        _row("under load: deploy", loaded.deploys),
        _row("under load: rollback, requests go there", loaded.moved),
    )
    told = "; ".join(f"{name}: {count}" for name, count in failures.items()) or "None was."
    notes = (
        f"{PROCESSES * CLIENTS} clients that keep their connections ask again {PAUSE_SECONDS * 1000:g} ms after each "
        f"answer, every {POST_EVERY}th time with a POST and its body; {PROCESSES} more hold WebSockets of "
        f"{WEBSOCKET_SECONDS:g} s with an echo every 0.1 s. Load and what is measured share the machine.",
        f"Any answer but 200, any connection cut and any missing echo counts as failed. {told}",
        "Rollbacks are the installed command, Python's start included. A command ends after the old release is drained "
        "and its WebSockets are closed.",
    )
    return Table("swap", "Swapping releases", ("median or count", "least", "most"), rows, notes)


def _row(label: str, samples: list[float], limit: float | None = None) -> Row:
    middle = seconds(samples)
    cells = (middle, Quantity(min(samples), "s"), Quantity(max(samples), "s"))
    return Row(label, cells, Goal(middle, Quantity(limit, "s")) if limit else None)


@contextmanager
def _load(port: int) -> Iterator[Counter[str]]:
    """Clients in processes of their own; the counter is filled when the block is left."""
    context = multiprocessing.get_context("spawn")
    stop, results = context.Event(), context.Queue()
    children = [context.Process(target=_ask_until, args=(port, stop, results)) for _ in range(PROCESSES)]
    for child in children:
        child.start()
    total: Counter[str] = Counter()
    try:
        yield total
    finally:
        stop.set()
        for _ in children:
            total.update(results.get(timeout=60))
        for child in children:
            child.join()


def _ask_until(port: int, stop: Event, results: "Queue[Counter[str]]") -> None:
    counts: list[Counter[str]] = [Counter() for _ in range(CLIENTS + 1)]
    threads = [threading.Thread(target=_ask, args=(port, stop, count)) for count in counts[:-1]]
    threads.append(threading.Thread(target=_hold_websockets, args=(port, stop, counts[-1])))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put(sum(counts, Counter()))


def _ask(port: int, stop: Event, counts: Counter[str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=40)
    while not stop.is_set():
        counts["requests"] += 1
        method = "POST" if counts["requests"] % POST_EVERY == 0 else "GET"
        counts["posts"] += method == "POST"
        try:
            connection.request(method, "/api/version", body=b"x" * 200 if method == "POST" else None)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                source = "a release" if answer.headers.get("X-Request-Id") else "the gate"
                counts[f"failed with {answer.status} of {source} ({method})"] += 1
        except (OSError, http.client.HTTPException) as error:
            counts[f"failed: {type(error).__name__} ({method})"] += 1
            connection.close()
        stop.wait(PAUSE_SECONDS)
    connection.close()


def _hold_websockets(port: int, stop: Event, counts: Counter[str]) -> None:
    while not stop.is_set():
        counts["sessions"] += 1
        try:
            _hold_websocket(port)
        except OSError as error:
            counts[f"failed WebSocket: {error}"] += 1


def _hold_websocket(port: int) -> None:
    """One session: the handshake, then echoes. Raises `OSError` when it does not go as it should."""
    with socket.create_connection(("127.0.0.1", port), timeout=40) as connection:
        connection.sendall(
            b"GET /api/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(4096) or _cut()
        if b" 101 " not in answer.partition(b"\r\n")[0]:
            raise OSError(f"answered {answer[:40]!r}")
        ends = time.monotonic() + WEBSOCKET_SECONDS
        while time.monotonic() < ends:
            connection.sendall(b"\x81\x84abcd1234")
            if not connection.recv(64):
                _cut()
            time.sleep(0.1)


def _cut() -> bytes:
    raise OSError("cut off")
