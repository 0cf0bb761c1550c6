"""Releases in one container: beside those of pods under load, failing, looked at, supervised, run alone."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.deploy.app import app_exec, app_logs, start_app, stop_app
from orchestrator.deploy.lock import locked_app
from orchestrator.deploy.rollback import roll_back
from orchestrator.deploy.state import AppStore
from orchestrator.deploy.status import app_status
from orchestrator.errors import DeployError
from orchestrator.image.nginx import (
    CONFIG_PATH,
    DOCUMENT_ROOT,
    SOCKET_CONFIG_PATH,
    render_web_config,
)
from orchestrator.image.storage import Image
from orchestrator.plan import PUBLIC_PORT
from orchestrator.process import Cancel
from orchestrator.tools.inspection import inspect_containers
from tests.integration.release_bench import APP, Bench, Load, free_port, import_image, make_web_plan, nginx_files
from tests.integration.test_init import compile_init
from tests.integration.test_watch import QUICK, supervised

PAGE = b"<!doctype html><title>one</title>"


@pytest.fixture(scope="session")
def single_image(prepared: Bench, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """What `plan_single_image` describes, of this machine's nginx and the server of the other tests."""
    place = tmp_path_factory.mktemp("single")
    server = next(tmp_path_factory.getbasetemp().glob("server*/server"))
    files: dict[str, bytes | Path] = {
        "/init": compile_init(place / "init"),
        "/app/bin/server": server,
        f"{DOCUMENT_ROOT}/index.html": PAGE,
        CONFIG_PATH: render_web_config(make_web_plan(), html={"index.html": PAGE}, port=PUBLIC_PORT).encode(),
        SOCKET_CONFIG_PATH: render_web_config(make_web_plan(), html={"index.html": PAGE}).encode(),
    }
    backend = ["backend", "TERM", "10", "inherit", "PORT=3000", "HOST=127.0.0.1", "/app/bin/server"]
    web = ["web", "QUIT", "35", "empty", "/usr/sbin/nginx", "-e", "stderr", "-g", "daemon off;", "-c"]
    image = import_image(prepared.engine, "single", nginx_files() | files, ["/init", *backend, "--", *web])
    prepared.engine.tag_image(image.image_id, "localhost/kept/single")
    return image


@pytest.fixture
def single(bench: Bench, single_image: Image) -> Iterator[Bench]:
    """The bench, whose deploys with `layout="single"` run the one image."""
    pod = bench.images
    bench.images = [*pod, single_image]
    yield bench
    bench.images = pod


@contextmanager
def locked(bench: Bench) -> Iterator[None]:
    with locked_app(bench.state_dir, APP):
        yield


def container_of(bench: Bench, release: str) -> str:
    return f"orchestrator-{APP}-{release}-single"


def test_swaps_and_rollbacks_between_pods_and_single_containers_lose_no_request(single: Bench) -> None:
    pod = single.deploy({"VERSION": "v1"})
    with Load(single.port) as load:
        first = single.deploy({"VERSION": "v2"}, layout="single")
        second = single.deploy({"VERSION": "v3"}, layout="single")
        with locked(single):
            back = roll_back(
                single.state_dir, APP, to=first.id, engine=single.engine, emit=lambda _: None, cancel=Cancel()
            )
            roll_back(single.state_dir, APP, to=pod.id, engine=single.engine, emit=lambda _: None, cancel=Cancel())
    assert set(load.answers) == {"200", "v1", "v2", "v3"}, load.answers
    assert (back.id, AppStore(single.state_dir, APP).current().id) == (first.id, pod.id)  # type: ignore[union-attr]
    left = inspect_containers(single.engine, [container_of(single, item.id) for item in (first, second)])
    assert [container.running for container in left] == [False], "the one before is warm, the other one gone"


def test_it_is_confined_asked_stopped_and_started(single: Bench) -> None:
    release = single.deploy({"VERSION": "v1", "TOKEN": "t"}, layout="single")
    name = container_of(single, release.id)
    shown = single.engine.run("container", "inspect", name).stdout
    assert '"ReadonlyRootfs": true' in shown and f'"Memory": {(128 + 256) * 1024**2}' in shown
    pid = inspect_containers(single.engine, [name])[0].pid
    backend, nginx = (Path(f"/proc/{child}/environ").read_bytes() for child in children(pid))
    assert b"TOKEN=t" in backend and b"HOST=127.0.0.1" in backend and nginx == b""
    inside = app_exec(single.state_dir, APP, ["x"], service="backend", terminal=False, engine=single.engine)
    assert name in inside.argv and inside.program == "/init"
    with locked(single):
        assert stop_app(single.state_dir, APP, engine=single.engine, emit=lambda _: None)
        stopped = inspect_containers(single.engine, [name])[0]
        assert (stopped.state, stopped.exit_code) == ("exited", 0)
        start_app(single.state_dir, APP, engine=single.engine, emit=lambda _: None, cancel=Cancel())
    assert single.get("/api/version") == (200, "v1")


def children(pid: int) -> list[int]:
    """The backend's process and nginx's, in the order they were started."""
    return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def test_logs_are_those_of_the_part_that_was_asked_for(single: Bench) -> None:
    single.deploy({"VERSION": "v1"}, layout="single")
    for wanted, said in (("backend", "server starting as serve"), ("web", '"uri":"/api/version"')):
        for only in ((wanted,), (wanted, "gate")):
            logs = app_logs(single.state_dir, APP, engine=single.engine, only=only)
            done = single.engine.ask(*logs.argv[logs.argv.index("logs") :])
            meant = [line for line in (done.stdout + done.stderr).splitlines() if logs.means(line)]
            assert any(said in line for line in meant)
            assert all(f"{wanted} | " in line for line in meant), meant


@pytest.mark.parametrize(
    ("environment", "said", "detail"),
    [
        ({"MODE": "crash"}, "backend crashed with exit code 3: it misses the variable DATABASE_URL", "server starting"),
        ({"MODE": "elsewhere"}, "backend listens on port 4000 instead of 3000", "server starting"),
    ],
)
def test_what_is_wrong_inside_is_told_as_of_a_container_of_its_own(
    single: Bench, environment: dict[str, str], said: str, detail: str
) -> None:
    before = single.deploy({"VERSION": "v1"})
    with pytest.raises(DeployError) as caught:
        single.deploy(environment, layout="single", health={"deadline": 1.5, "interval": 0.2})
    assert said in caught.value.message
    assert caught.value.details and all(" | " not in line for line in caught.value.details)
    assert detail in caught.value.details[0]
    assert single.get("/api/version") == (200, "v1")
    assert AppStore(single.state_dir, APP).current().id == before.id  # type: ignore[union-attr]


def test_status_says_which_part_died_and_the_container_comes_back(single: Bench) -> None:
    release = single.deploy({"VERSION": "v1"}, layout="single")
    name = container_of(single, release.id)
    os.kill(children(inspect_containers(single.engine, [name])[0].pid)[0], signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not inspect_containers(single.engine, [name])[0].restarts:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    service = app_status(single.state_dir, APP, engine=single.engine).services[0]
    assert (service.name, service.state, service.exit_code) == ("single", "crash-looping", 137)
    assert service.cause == "backend was ended by signal 9"


def test_a_frozen_backend_is_restarted_with_its_container(single: Bench) -> None:
    release = single.deploy({"VERSION": "v1"}, layout="single", health=QUICK)
    name = container_of(single, release.id)
    frozen = children(inspect_containers(single.engine, [name])[0].pid)[0]
    with supervised(single) as said:
        for pid in (frozen, *children(frozen)):
            os.kill(pid, signal.SIGSTOP)
        deadline = time.monotonic() + 30
        while not said or Path(f"/proc/{frozen}").exists():
            assert time.monotonic() < deadline, said
            time.sleep(0.1)
    assert said[0].endswith("restarting single, which no longer answers")


@pytest.mark.parametrize("flags", [(), ("--read-only", "--cap-drop", "all")])
def test_it_runs_alone(single: Bench, single_image: Image, flags: tuple[str, ...]) -> None:
    port = free_port()
    run = ("run", "--detach", "--name", "alone", "--user", "12345", *flags, "--publish", f"127.0.0.1:{port}:8080")
    single.engine.run(*run, "--env", "PORT=8080", "--env", "VERSION=v1", single_image.image_id, CONFIG_PATH)
    try:
        deadline = time.monotonic() + 10
        while (answer := ask(single, port)) != (200, "v1"):
            assert time.monotonic() < deadline, answer
            time.sleep(0.05)
        assert "<title>one" in single.get("/some/page", port=port)[1]
        started = time.monotonic()
        single.engine.run("stop", "--time", "10", "alone")
        assert time.monotonic() - started < 8
        assert single.engine.run("inspect", "--format", "{{.State.ExitCode}}", "alone").stdout.strip() == "0"
    finally:
        single.engine.run("rm", "--force", "--time", "0", "alone")


def ask(bench: Bench, port: int) -> tuple[int, str]:
    try:
        return bench.get("/api/version", port=port)
    except OSError as error:
        return 0, str(error)
