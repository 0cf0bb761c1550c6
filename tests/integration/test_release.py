"""Releases in real containers: switched under load, failing, killed, removed."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cli.inside import NOT_RUNNABLE
from orchestrator.deploy.app import app_exec, app_logs, remove_app, start_app, stop_app
from orchestrator.deploy.lock import locked_app
from orchestrator.deploy.preflight import check_port
from orchestrator.deploy.release import deploy_release
from orchestrator.deploy.state import AppStore
from orchestrator.deploy.status import app_status
from orchestrator.errors import DeployError, Interrupted, MachineError, UsageError
from orchestrator.events import Event, PhaseStarted
from orchestrator.plan import BackendPlan
from orchestrator.process import Cancel
from orchestrator.settings import Health
from orchestrator.tools.inspection import inspect_containers, list_containers, list_pods
from tests.integration.release_bench import APP, Bench, Load, free_port, import_image, make_plan


def test_a_first_deploy_answers_and_the_second_changes_nothing(bench: Bench) -> None:
    first = bench.deploy({"VERSION": "v1", "SECRET": "line one\nline two"})
    assert first.changed
    assert bench.get("/api/version") == (200, "v1")
    assert "<title>one" in bench.get("/some/page")[1]
    assert [probe.status for probe in first.probes] == [200, 200]
    before = {c.name: c.started for c in list_containers(bench.engine, {"io.orchestrator.app": APP})}
    started = time.monotonic()
    second = bench.deploy({"VERSION": "v1", "SECRET": "line one\nline two"})
    assert time.monotonic() - started < 2
    assert (second.id, second.changed) == (first.id, False)
    assert before == {c.name: c.started for c in list_containers(bench.engine, {"io.orchestrator.app": APP})}


def test_containers_are_hardened_and_limited(bench: Bench) -> None:
    release = bench.deploy({"VERSION": "v1", "SECRET": "hidden-value"})
    names = [
        f"orchestrator-{APP}-{release.id}-web",
        f"orchestrator-{APP}-{release.id}-backend",
        f"orchestrator-{APP}-gate",
    ]
    for item in json.loads(bench.engine.run("container", "inspect", *names).stdout):
        host = item["HostConfig"]
        assert host["ReadonlyRootfs"]
        assert host["Memory"] == host["MemorySwap"] > 0
        assert host["PidsLimit"] > 0 and host["NanoCpus"] > 0
        assert "no-new-privileges" in host["SecurityOpt"]
        assert item["Config"]["User"] == "10001:10001"
        assert not item["EffectiveCaps"]
        assert "hidden-value" not in " ".join(item["Config"]["CreateCommand"])
        status = Path(f"/proc/{item['State']['Pid']}/status").read_text()
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status


def test_no_request_is_dropped_over_switches(bench: Bench) -> None:
    bench.deploy({"VERSION": "v0"})
    with Load(bench.port) as load:
        for number in range(1, 4):
            bench.deploy({"VERSION": f"v{number}"})
        time.sleep(0.3)
    assert set(load.answers) == {"200", *(f"v{number}" for number in range(4))}, load.answers
    assert load.answers["v3"] > 0


@pytest.mark.parametrize("keep", [5, 1])
def test_a_slow_request_survives_the_switch(bench: Bench, keep: int) -> None:
    bench.deploy({"VERSION": "v1"})
    answers: list[tuple[int, str]] = []
    settings_started = threading.Event()

    def on_event(event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.phase == "switch":
            thread.start()
            time.sleep(0.2)
            settings_started.set()

    thread = threading.Thread(target=lambda: answers.append(bench.get("/api/slow")))
    bench.deploy({"VERSION": "v2"}, emit=on_event, keep_releases=keep)
    thread.join()
    assert settings_started.is_set()
    assert answers == [(200, "v1")]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"MODE": "crash"}, "crashed with exit code 3"),
        ({"MODE": "elsewhere"}, "listens on port 4000 instead of 3000"),
        ({"MODE": "silent"}, "listens on no port"),
        ({"HEALTH": "500"}, "answers 500"),
        ({"HEALTH": "404"}, "is not there (404)"),
        ({"HEALTH": "302"}, "redirects to /login"),
        ({"HEALTH": "401"}, "asks for a login"),
    ],
)
def test_a_failing_release_leaves_the_old_one_serving(bench: Bench, environment: dict[str, str], said: str) -> None:
    old = bench.deploy({"VERSION": "v1"})
    health = Health(deadline=1.5, interval=0.2)
    started = time.monotonic()
    with Load(bench.port, clients=3) as load, pytest.raises(DeployError) as failure:
        bench.deploy({"VERSION": "v2", **environment}, health=health)
    assert said in failure.value.message
    assert any("server starting" in line for line in failure.value.details)
    assert time.monotonic() - started < 30
    assert set(load.answers) == {"200", "v1"}
    assert list_pods(bench.engine, {"io.orchestrator.app": APP}) == (f"orchestrator-{APP}-{old.id}",)
    current = AppStore(bench.state_dir, APP).current()
    assert current is not None and current.id == old.id


def test_a_first_deploy_that_fails_leaves_nothing(bench: Bench) -> None:
    with pytest.raises(DeployError):
        bench.deploy({"MODE": "crash"})
    assert list_containers(bench.engine, {"io.orchestrator.app": APP}) == ()
    assert AppStore(bench.state_dir, APP).releases() == ()
    check_port(bench.settings(), bench.engine)


def test_an_executable_that_is_missing_or_foreign_is_named(bench: Bench, tmp_path: Path) -> None:
    foreign = import_image(
        bench.engine, "backend", {"/app/bin/server": b"\x7fELF\x02\x01\x01" + bytes(200)}, ["/app/bin/server"]
    )
    missing = import_image(bench.engine, "backend", {}, ["/app/bin/server"])
    good = bench.images
    try:
        for image, said in ((foreign, "foreign"), (missing, "not in the image")):
            bench.images = [*good[:2], image]
            with pytest.raises(DeployError, match=said):
                bench.deploy()
    finally:
        bench.images = good


def test_cancelling_leaves_the_old_release(bench: Bench) -> None:
    old = bench.deploy({"VERSION": "v1"})
    cancel = Cancel()
    threading.Timer(0.7, cancel.request).start()
    with pytest.raises(Interrupted):
        bench.deploy({"MODE": "silent"}, cancel=cancel, health=Health(deadline=20))
    assert bench.get("/api/version") == (200, "v1")
    assert list_pods(bench.engine, {"io.orchestrator.app": APP}) == (f"orchestrator-{APP}-{old.id}",)


DEPLOY = """
import sys
from pathlib import Path
from orchestrator.deploy.lock import locked_app
from orchestrator.deploy.release import deploy_release
from orchestrator.image.storage import Image
from orchestrator.process import Cancel
from orchestrator.settings import Health, Settings
from orchestrator.tools.podman import open_engine
from tests.integration.release_bench import make_plan

state_dir, port, version = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
images = [Image(service, image_id, "sha256:0", 1, name, ()) for service, image_id, name in map(str.split, sys.stdin)]
settings = Settings(name="bench", port=port, state_dir=state_dir, cache_dir=state_dir, health=Health(deadline=10))
plan = make_plan("bench", environment={"VERSION": version})
with locked_app(state_dir, "bench"):
    engine = open_engine(state_dir)
    deploy_release(settings, plan, images, engine=engine, emit=lambda event: None, cancel=Cancel())
"""


def deploy_elsewhere(bench: Bench, version: str) -> "subprocess.Popen[bytes]":
    """The same deploy in a process of its own, which can be killed."""
    child = subprocess.Popen(
        [sys.executable, "-c", DEPLOY, str(bench.state_dir), str(bench.port), version],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        process_group=0,
    )
    assert child.stdin is not None
    child.stdin.write("".join(f"{i.service} {i.image_id} {i.reference}\n" for i in bench.images).encode())
    child.stdin.close()
    return child


@pytest.mark.parametrize("seconds", [0.6, 1.2, 1.8, 2.4, 3.0])
def test_a_killed_deploy_is_repaired_by_the_next(bench: Bench, seconds: float) -> None:
    bench.deploy({"VERSION": "v1"})
    with Load(bench.port, clients=3) as load:
        child = deploy_elsewhere(bench, "v2")
        time.sleep(seconds)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        final = bench.deploy({"VERSION": "v3"})
    assert set(load.answers) <= {"200", "v1", "v2", "v3"}, load.answers
    assert bench.get("/api/version") == (200, "v3")
    before = AppStore(bench.state_dir, APP).previous()
    assert before is not None
    kept = {f"orchestrator-{APP}-{release}" for release in (before.id, final.id)}
    assert set(list_pods(bench.engine, {"io.orchestrator.app": APP})) == kept
    sockets = bench.engine.sockets / APP
    assert sorted(path.name for path in sockets.iterdir()) == [before.id, final.id, "current"]


def test_another_port_moves_a_running_application(bench: Bench) -> None:
    bench.deploy({"VERSION": "v1"})
    old_port, bench.port = bench.port, free_port()
    moved = bench.deploy({"VERSION": "v1"})
    assert moved.changed
    assert bench.get("/api/version") == (200, "v1")
    with pytest.raises(ConnectionRefusedError):
        bench.get("/", port=old_port)
    assert len(inspect_containers(bench.engine, [f"orchestrator-{APP}-gate", f"orchestrator-{APP}-gate-next"])) == 1


def test_a_port_that_is_taken_is_refused_and_its_holder_named(bench: Bench) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with pytest.raises(MachineError, match=rf"taken by .*\({os.getpid()}\)"):
            check_port(bench.settings(port=listener.getsockname()[1]), bench.engine)
    bench.deploy()
    check_port(bench.settings(), bench.engine)
    with pytest.raises(MachineError, match=f"taken by the application {APP}"):
        check_port(bench.settings(name="other"), bench.engine)


def test_status_stop_start_and_logs(bench: Bench) -> None:
    release = bench.deploy({"VERSION": "v1"})
    running = app_status(bench.state_dir, APP, engine=bench.engine)
    assert (running.state, running.release) == ("running", release.id)
    assert running.probe is not None and running.probe.status == 200
    assert all(service.cpu is not None and not service.last_lines for service in running.services)
    assert all(service.memory and service.uptime_seconds is not None for service in running.services)
    assert stop_app(bench.state_dir, APP, engine=bench.engine, emit=lambda event: None)
    stopped = app_status(bench.state_dir, APP, engine=bench.engine)
    assert stopped.state == "stopped" and stopped.probe is None
    assert not stop_app(bench.state_dir, APP, engine=bench.engine, emit=lambda event: None)
    started = start_app(bench.state_dir, APP, engine=bench.engine, emit=lambda event: None, cancel=Cancel())
    assert started.changed and bench.get("/api/version") == (200, "v1")
    again = start_app(bench.state_dir, APP, engine=bench.engine, emit=lambda event: None, cancel=Cancel())
    assert not again.changed
    argv = app_logs(bench.state_dir, APP, engine=bench.engine, only=["backend"], tail=5).argv
    shown = subprocess.run(argv, env=bench.engine.environment, capture_output=True, text=True, check=True)
    assert "server starting" in shown.stdout + shown.stderr
    argv = app_logs(bench.state_dir, APP, engine=bench.engine, since="2000-01-01T00:00:00").argv
    shown = subprocess.run(argv, env=bench.engine.environment, capture_output=True, text=True, check=True)
    assert "server starting" in shown.stdout + shown.stderr
    argv = app_logs(bench.state_dir, APP, engine=bench.engine, since="2100-01-01T00:00:00").argv
    shown = subprocess.run(argv, env=bench.engine.environment, capture_output=True, text=True, check=True)
    assert shown.stdout + shown.stderr == ""


def test_a_program_of_the_image_runs_in_its_container(bench: Bench) -> None:
    bench.deploy({"VERSION": "v1"})
    inside = app_exec(
        bench.state_dir, APP, ["/usr/sbin/nginx", "-v"], service="web", terminal=False, engine=bench.engine
    )
    shown = subprocess.run(inside.argv, env=bench.engine.environment, capture_output=True, text=True, check=True)
    assert "nginx version" in shown.stderr and inside.program == "/usr/sbin/nginx"
    missing = app_exec(bench.state_dir, APP, ["sh"], service=None, terminal=False, engine=bench.engine)
    ended = subprocess.run(missing.argv, env=bench.engine.environment, capture_output=True, check=False)
    assert ended.returncode in NOT_RUNNABLE
    with pytest.raises(UsageError, match="has no service database"):
        app_exec(bench.state_dir, APP, ["x"], service="database", terminal=False, engine=bench.engine)
    stop_app(bench.state_dir, APP, engine=bench.engine, emit=lambda event: None)
    with pytest.raises(UsageError, match="does not run"):
        app_exec(bench.state_dir, APP, ["x"], service=None, terminal=False, engine=bench.engine)


@pytest.mark.parametrize("service", ["web", "backend"])
def test_a_killed_service_comes_back(bench: Bench, service: str) -> None:
    release = bench.deploy({"VERSION": "v1"})
    name = f"orchestrator-{APP}-{release.id}-{service}"
    os.kill(inspect_containers(bench.engine, [name])[0].pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    status = 0
    while status != 200 and time.monotonic() < deadline:
        time.sleep(0.1)
        with suppress(http.client.HTTPException):
            status = bench.get("/api/version" if service == "backend" else "/")[0]
    assert status == 200
    assert inspect_containers(bench.engine, [name])[0].restarts == 1


def test_a_dead_backend_is_told_truthfully(bench: Bench) -> None:
    release = bench.deploy({"VERSION": "v1"})
    bench.engine.run("stop", "--time", "1", f"orchestrator-{APP}-{release.id}-backend")
    status, body = bench.get("/api/version")
    assert status == 503 and json.loads(body)["error"] == "unavailable"
    assert bench.get("/")[0] == 200
    status_now = app_status(bench.state_dir, APP, engine=bench.engine)
    assert status_now.state == "failing"
    backend = next(service for service in status_now.services if service.name == "backend")
    assert any("server starting" in line for line in backend.last_lines)


def test_old_releases_are_forgotten_beyond_the_limit(bench: Bench) -> None:
    ids = [bench.deploy({"VERSION": f"v{number}"}, keep_releases=2).id for number in range(3)]
    assert [record.id for record in AppStore(bench.state_dir, APP).releases()] == ids[1:]


def test_images_of_dropped_releases_are_removed_and_those_never_deployed_stay(bench: Bench) -> None:
    dropped, used, built = (f"localhost/orchestrator/bench-{name}:1" for name in ("dropped", "used", "built"))
    for name in (dropped, used, built):
        bench.engine.tag_image(bench.images[0].image_id, name)
    original = bench.images
    try:
        for version, name in enumerate((dropped, used)):
            bench.images = [replace(original[0], reference=name), *original[1:]]
            bench.deploy({"VERSION": f"v{version}"}, keep_releases=1)
    finally:
        bench.images = original
    assert bench.engine.image_exists(used)
    assert bench.engine.image_exists(built)
    assert not bench.engine.image_exists(dropped)
    assert bench.engine.image_exists("localhost/kept/web")


def test_remove_leaves_nothing_of_the_application_and_all_of_others(bench: Bench) -> None:
    other = bench.images[0]
    bench.engine.run("create", "--name", "bystander", other.image_id)
    try:
        bench.deploy()
        remove_app(bench.state_dir, APP, engine=bench.engine)
        assert [found.name for found in list_containers(bench.engine, {"io.orchestrator.app": APP})] == ["bystander"]
        assert list_pods(bench.engine, {"io.orchestrator.app": APP}) == ()
        assert not (bench.state_dir / "apps" / APP).exists()
        assert not (bench.engine.sockets / APP).exists()
    finally:
        bench.engine.run("rm", "--force", "bystander")


def test_backend_only_and_page_only(bench: Bench) -> None:
    plan = make_plan(APP)
    page_only = replace(plan, backend=None)
    settings = bench.settings()
    with locked_app(bench.state_dir, APP):
        release = deploy_release(
            settings, page_only, bench.images, engine=bench.engine, emit=lambda event: None, cancel=Cancel()
        )
    assert [probe.status for probe in release.probes] == [200]
    assert isinstance(plan.backend, BackendPlan)
