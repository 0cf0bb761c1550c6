"""The supervisor over real containers."""

import http.client
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from orchestrator.deploy.app import start_app, stop_app
from orchestrator.deploy.edge import EDGE_NAME, publish_site, stop_edge
from orchestrator.deploy.edge_sites import EdgeRecord, EdgeStore, Site
from orchestrator.deploy.lock import locked_app
from orchestrator.deploy.watch import lock_watch, watch
from orchestrator.errors import BusyError
from orchestrator.events import Event, Note
from orchestrator.process import Cancel
from orchestrator.settings import Health
from orchestrator.tools.inspection import inspect_containers
from tests.integration.release_bench import APP, Bench, descendants, free_port

QUICK = Health(deadline=5, interval=0.2, timeout=0.5, retries=2, start_period=0)


@contextmanager
def supervised(bench: Bench) -> Iterator[list[str]]:
    """A supervisor in a thread; what it says, as it says it."""
    cancel, said = Cancel(), []

    def emit(event: Event) -> None:
        if isinstance(event, Note):
            said.append(event.text)

    engine = replace(bench.engine, cancel=cancel)
    thread = threading.Thread(
        target=watch, args=(bench.state_dir, ()), kwargs={"engine": engine, "emit": emit, "cancel": cancel}
    )
    thread.start()
    try:
        yield said
    finally:
        cancel.request()
        thread.join(timeout=30)
        assert not thread.is_alive()


def answers(bench: Bench) -> bool:
    with suppress(OSError, http.client.HTTPException):
        return bench.get("/api/version") == (200, "v1")
    return False


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


def name_of(bench: Bench, release: str, service: str) -> str:
    return f"orchestrator-{APP}-gate" if service == "gate" else f"orchestrator-{APP}-{release}-{service}"


def test_what_is_frozen_or_dead_comes_back(bench: Bench) -> None:
    release = bench.deploy({"VERSION": "v1"}, health=QUICK).id
    with supervised(bench) as said:
        backend = inspect_containers(bench.engine, [name_of(bench, release, "backend")])[0]
        for pid in (backend.pid, *descendants(backend.pid)):
            os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: any("restarting backend" in line for line in said))
        wait_until(lambda: answers(bench))
        for service in ("backend", "gate"):
            bench.engine.run("stop", "--time", "0", name_of(bench, release, service))
            wait_until(lambda service=service: any(f"starting {service}" in line for line in said))  # type: ignore[misc]
            wait_until(lambda: answers(bench))


def test_after_a_reboot_everything_runs_again_but_what_was_stopped(bench: Bench) -> None:
    release = bench.deploy({"VERSION": "v1"}, health=QUICK).id

    def shut_down() -> None:
        for service in ("gate", "web", "backend"):
            bench.engine.run("stop", "--time", "0", name_of(bench, release, service))
        bench.engine.run("pod", "stop", "--time", "0", f"orchestrator-{APP}-{release}")
        shutil.rmtree(bench.engine.sockets / APP)

    shut_down()
    with supervised(bench) as said:
        wait_until(lambda: answers(bench))
        assert any(f"starting release {release}" in line for line in said)
    stop_app(bench.state_dir, APP, engine=bench.engine, emit=lambda event: None)
    with supervised(bench) as said:
        time.sleep(1.5)
    assert not answers(bench) and not said
    start_app(bench.state_dir, APP, engine=bench.engine, emit=lambda event: None, cancel=Cancel())
    assert answers(bench)


def test_the_edge_comes_back_unless_it_was_taken_down(bench: Bench) -> None:
    bench.deploy({"VERSION": "v1"})
    gate = next(image for image in bench.images if image.service == "gate")
    store = EdgeStore(bench.state_dir)
    record = EdgeRecord(image_id=gate.image_id, http_port=free_port(), https_port=free_port())

    def say_nothing(event: Event) -> None:
        pass

    def listens() -> bool:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", record.http_port), timeout=1).close()
            return True
        return False

    try:
        publish_site(bench.engine, store, record, Site(app=APP, domains=("bench.localhost",)), emit=say_nothing)
        wait_until(listens)
        bench.engine.run("stop", "--time", "0", EDGE_NAME)
        with supervised(bench) as said:
            wait_until(listens)
            assert said == ["starting the edge, which does not run"]
            stop_edge(bench.engine, store)
            time.sleep(3)
        assert not listens() and len(said) == 1
    finally:
        stop_edge(bench.engine, store)
        shutil.rmtree(store.directory)


def test_it_keeps_out_of_a_deploy_and_there_is_only_one(bench: Bench) -> None:
    release = bench.deploy({"VERSION": "v1"}, health=QUICK).id
    with supervised(bench) as said:
        with locked_app(bench.state_dir, APP):
            bench.engine.run("stop", "--time", "0", name_of(bench, release, "backend"))
            time.sleep(1)
            assert not said and not answers(bench)
        wait_until(lambda: answers(bench))
    with lock_watch(bench.state_dir), pytest.raises(BusyError, match="supervision"), lock_watch(bench.state_dir):
        pass
