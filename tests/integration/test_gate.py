"""A gate with another image takes over from the one that runs: kept and new connections, and one that cannot start."""

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from orchestrator.deploy.app import start_app, stop_app
from orchestrator.deploy.gate import find_gate
from orchestrator.errors import OrchestratorError
from orchestrator.process import Cancel
from tests.integration.release_bench import APP, Bench, import_image, web_images


def load(port: int, stop: threading.Event, counts: Counter[str], *, keep: bool, method: str) -> None:
    """Ask until stopped; nothing is tried again."""
    while not stop.is_set():
        kind, connection = "new", http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            while not stop.wait(0.002):
                connection.request(method, "/api/version", body=b"x" * 500 if method == "POST" else None)
                answer = connection.getresponse()
                answer.read()
                counts[kind if answer.status == 200 else f"failed with {answer.status} on a {kind} connection"] += 1
                if answer.will_close or not keep:
                    break
                kind = "kept"
        except (OSError, http.client.HTTPException) as error:
            counts[f"failed on a {kind} connection: {error!r}"] += 1
        finally:
            connection.close()


def under_load(port: int, work: Callable[[], object]) -> Counter[str]:
    stop, counts = threading.Event(), Counter[str]()
    clients = [(keep, method) for keep in (True, False) for method in ("GET", "GET", "POST")]
    threads = [
        threading.Thread(target=partial(load, port, stop, counts, keep=keep, method=method)) for keep, method in clients
    ]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.3)
        work()
        time.sleep(0.3)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return counts


def test_another_image_takes_over_without_a_lost_request(bench: Bench) -> None:
    bench.deploy({"VERSION": "v1"})
    usual = bench.images
    try:
        for page in (b"<!doctype html><title>two", b"<!doctype html><title>three"):
            bench.images = [*web_images(bench.engine, page=page), usual[2]]
            before = find_gate(bench.engine, APP)
            counts = under_load(bench.port, lambda: bench.deploy({"VERSION": "v1"}))
            after = find_gate(bench.engine, APP)
            assert before is not None and after is not None and before.id != after.id
            assert after.image_id == bench.images[1].image_id
            assert set(counts) == {"kept", "new"} and min(counts.values()) > 50, counts
        stop_app(bench.state_dir, APP, engine=bench.engine, emit=lambda event: None)
        with pytest.raises(ConnectionRefusedError):
            bench.get("/")
        start_app(bench.state_dir, APP, engine=bench.engine, emit=lambda event: None, cancel=Cancel())
        assert bench.get("/api/version") == (200, "v1")
    finally:
        bench.images = usual


def test_one_that_cannot_start_leaves_the_other_serving(bench: Bench) -> None:
    bench.deploy({"VERSION": "v1"})
    before, usual = find_gate(bench.engine, APP), bench.images
    broken = replace(import_image(bench.engine, "gate", {}, ["/nothing"]), service="gate")
    bench.images = [usual[0], broken, usual[2]]
    try:
        counts = under_load(bench.port, partial(pytest.raises, OrchestratorError, bench.deploy, {"VERSION": "v2"}))
    finally:
        bench.images = usual
    after = find_gate(bench.engine, APP)
    assert before is not None and after is not None and before.id == after.id
    assert set(counts) == {"kept", "new"}, counts
    assert bench.get("/api/version") == (200, "v1")
