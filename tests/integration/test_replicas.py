"""A backend in several containers: shared requests, one dead or frozen, one that does not become ready."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.deploy.app import app_exec, app_logs, remove_app
from orchestrator.deploy.lock import locked_app
from orchestrator.deploy.pod import discard_pod
from orchestrator.deploy.probes import silent_replicas
from orchestrator.deploy.rollback import roll_back
from orchestrator.deploy.state import AppStore
from orchestrator.deploy.status import app_status
from orchestrator.errors import DeployError
from orchestrator.process import Cancel
from orchestrator.settings import Health
from orchestrator.tools.inspection import Container, inspect_containers, list_containers
from tests.integration.release_bench import APP, Bench, Load, descendants, web_images
from tests.integration.test_watch import supervised, wait_until

QUICK = Health(deadline=10, interval=0.2, timeout=0.5, retries=2, start_period=0)
VERSIONS = {"VERSION": "v1"}


@pytest.fixture(scope="module")
def three(prepared: Bench) -> Iterator[Bench]:
    """An application whose web image asks three backends, deployed."""
    backend = next(image for image in prepared.images if image.service == "backend")
    made = Bench(prepared.state_dir, prepared.engine, [*web_images(prepared.engine, replicas=3), backend])
    made.deploy(VERSIONS, replicas=3, health=QUICK)
    yield made
    remove_app(made.state_dir, APP, engine=made.engine)


def named(bench: Bench, service: str) -> Container:
    current = AppStore(bench.state_dir, APP).current()
    assert current is not None
    (found,) = inspect_containers(bench.engine, [f"orchestrator-{APP}-{current.id}-{service}"])
    return found


def states(bench: Bench) -> dict[str, str]:
    return {one.name: one.state for one in app_status(bench.state_dir, APP, engine=bench.engine).services}


def all_answer(bench: Bench) -> bool:
    current = AppStore(bench.state_dir, APP).current()
    return current is not None and not silent_replicas(bench.engine, current, timeout=1)


def test_a_dead_replica_gives_no_get_an_error_and_comes_back(three: Bench) -> None:
    assert states(three) == dict.fromkeys(("backend", "backend-2", "backend-3", "web"), "running")
    ports = [_listening_port(named(three, service)) for service in ("backend", "backend-2", "backend-3")]
    assert ports == ["3000", "3001", "3002"]
    with Load(three.port, methods=("GET",)) as load:
        three.engine.run("stop", "--time", "0", named(three, "backend-2").name)
        time.sleep(1)
        assert states(three)["backend-2"] == "failing" and states(three)["backend"] == "running"
        os.kill(named(three, "backend-3").pid, signal.SIGKILL)
        with supervised(three) as said:
            wait_until(lambda: any("starting backend-2" in line for line in said))
            wait_until(lambda: all_answer(three))
    assert set(load.answers) == {"200", "v1"}, load.answers
    assert load.answers["v1"] > 100


def test_a_frozen_replica_is_restarted_and_the_others_are_not(three: Bench) -> None:
    frozen, other = named(three, "backend-2"), named(three, "backend")
    for pid in (frozen.pid, *descendants(frozen.pid)):
        os.kill(pid, signal.SIGSTOP)
    assert states(three)["backend-2"] in ("failing", "starting")
    with supervised(three) as said:
        wait_until(lambda: any(line.endswith("restarting backend-2, which no longer answers") for line in said))
        wait_until(lambda: all_answer(three))
    assert named(three, "backend").started == other.started
    assert named(three, "backend-2").started != frozen.started


def test_all_replicas_must_be_ready_and_the_one_that_is_not_is_named(three: Bench) -> None:
    with Load(three.port, clients=3) as load, pytest.raises(DeployError) as refused:
        three.deploy({"VERSION": "v2", "BROKEN_PORT": "3002"}, replicas=3)
    assert "backend-3 crashed with exit code 3" in refused.value.message
    assert any("server starting" in line for line in refused.value.details)
    assert set(load.answers) == {"200", "v1"}, load.answers


def test_the_way_back_restores_their_number(three: Bench) -> None:
    store = AppStore(three.state_dir, APP)
    first = store.current()
    assert first is not None
    backend = next(image for image in three.images if image.service == "backend")
    single = Bench(three.state_dir, three.engine, [*web_images(three.engine), backend])
    single.port = three.port
    single.deploy({"VERSION": "v2"})
    assert len(_running(three)) == 3
    discard_pod(three.engine, first)
    with locked_app(three.state_dir, APP):
        roll_back(three.state_dir, APP, to=None, engine=three.engine, emit=lambda event: None, cancel=Cancel())
    assert len(_running(three)) == 5
    assert three.get("/api/version") == (200, "v1")
    logs = app_logs(three.state_dir, APP, engine=three.engine, only=["backend-3"])
    assert logs.argv[-1].endswith(f"{first.id}-backend-3")
    inside = app_exec(three.state_dir, APP, ["true"], service="backend-2", terminal=False, engine=three.engine)
    assert inside.pid == named(three, "backend-2").pid


def _running(bench: Bench) -> list[str]:
    return [c.name for c in list_containers(bench.engine, {"io.orchestrator.app": APP}) if c.running]


def _listening_port(container: Container) -> str:
    """What its program was told, read from the kernel."""
    for pid in descendants(container.pid):
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return next(item.partition(b"=")[2].decode() for item in variables if item.startswith(b"PORT="))
    raise AssertionError(f"{container.name} has no program")
