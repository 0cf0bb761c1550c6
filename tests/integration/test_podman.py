"""The real podman, with storage and configuration of its own."""

import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import Interrupted
from orchestrator.image.storage import Image
from orchestrator.process import Cancel
from orchestrator.tools.containers import (
    ContainerSpec,
    create_pod,
    remove_container,
    remove_pod,
    rename_container,
    run_container,
    start_container,
    stop_container,
)
from orchestrator.tools.inspection import (
    Container,
    inspect_containers,
    last_exit_code,
    list_containers,
    list_pods,
    read_logs,
    read_usage,
)
from orchestrator.tools.podman import Engine, EngineError, open_engine
from tests.integration.release_bench import backend_image, private_engine


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Engine, Image]]:
    with private_engine() as (state_dir, engine):
        yield state_dir, engine, backend_image(engine, tmp_path_factory.mktemp("server"))


@pytest.fixture
def engine(prepared: tuple[Path, Engine, Image]) -> Iterator[Engine]:
    engine = prepared[1]
    yield engine
    engine.run("pod", "rm", "--all", "--force", "--time", "0")
    engine.run("rm", "--all", "--force", "--time", "0")


@pytest.fixture
def image(prepared: tuple[Path, Engine, Image]) -> str:
    return prepared[2].image_id


def spec(image: str, name: str = "one", **changes: object) -> ContainerSpec:
    given = ContainerSpec(name, image, {"io.test": "yes"}, "64m", 1.0, 50, environment=(("VERSION", "v"),))
    return replace(given, **changes)  # type: ignore[arg-type]


def wait_given_up(engine: Engine, name: str, restarts: int) -> Container:
    """The container once it was restarted so often and lies still."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        (found,) = inspect_containers(engine, [name])
        if (found.state, found.restarts) == ("exited", restarts):
            return found
        time.sleep(0.05)
    raise AssertionError(f"still {found}")


def network(pid: int) -> Path:
    return Path(f"/proc/{pid}/ns/net").readlink()


def test_opening_again_is_quick_and_changes_nothing(prepared: tuple[Path, Engine, Image]) -> None:
    state_dir, engine, _ = prepared
    files = sorted((state_dir / "containers").glob("*.conf"))
    before = [path.stat().st_mtime_ns for path in files]
    started = time.monotonic()
    assert open_engine(state_dir) == engine
    assert time.monotonic() - started < 0.05
    assert [path.stat().st_mtime_ns for path in files] == before


def test_the_storage_is_private(engine: Engine, image: str) -> None:
    run_container(engine, spec(image))
    listed = subprocess.run(["podman", "ps", "--all", "--quiet"], capture_output=True, text=True, check=False)
    assert inspect_containers(engine, ["one"])[0].id[:12] not in listed.stdout
    assert engine.root.parent.stat().st_mode & 0o77 == 0


def test_a_container_lives_and_dies(engine: Engine, image: str) -> None:
    run_container(engine, spec(image))
    (found,) = list_containers(engine, {"io.test": "yes"})
    assert (found.name, found.state, found.image_id, found.restarts) == ("one", "running", image, 0)
    assert found.started is not None and Path(f"/proc/{found.pid}").exists()
    used = read_usage(engine, ["one"])["one"]
    assert used.memory > 0 and used.cpu >= 0
    assert any("server starting as serve" in line for line in read_logs(engine, "one", tail=5))
    rename_container(engine, "one", "two")
    stop_container(engine, "two", grace=5)
    assert inspect_containers(engine, ["two"])[0].state == "exited"
    start_container(engine, "two")
    assert inspect_containers(engine, ["two"])[0].running
    remove_container(engine, "two")
    remove_container(engine, "two")
    assert inspect_containers(engine, ["one", "two"]) == ()


def test_a_stop_does_not_wait_for_a_program_that_obeys(engine: Engine, image: str) -> None:
    run_container(engine, spec(image, init=True))
    started = time.monotonic()
    stop_container(engine, "one", grace=20)
    assert time.monotonic() - started < 5


def test_a_crash_is_answered_a_bounded_number_of_times(engine: Engine, image: str) -> None:
    run_container(engine, spec(image, environment=(("MODE", "crash"),), restarts=2))
    found = wait_given_up(engine, "one", 2)
    time.sleep(0.5)
    assert inspect_containers(engine, ["one"]) == (found,)
    assert last_exit_code(engine, found.id) == 3
    assert any("DATABASE_URL is not set" in line for line in read_logs(engine, "one", tail=5))


def test_the_exit_code_of_a_container_that_never_died(engine: Engine, image: str) -> None:
    run_container(engine, spec(image))
    assert last_exit_code(engine, inspect_containers(engine, ["one"])[0].id) is None


def test_limits_reach_the_kernel(engine: Engine, image: str) -> None:
    run_container(engine, spec(image))
    pid = inspect_containers(engine, ["one"])[0].pid
    status = Path(f"/proc/{pid}/status").read_text()
    assert "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status
    assert "Uid:\t10001\t10001\t10001\t10001" in status
    groups = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    memory = next((line.split(":")[2] for line in groups if ":memory:" in line), None)
    if memory is not None:
        limit = Path("/sys/fs/cgroup/memory") / memory.lstrip("/") / "memory.limit_in_bytes"
        assert int(limit.read_text()) == 64 * 2**20
    mounts = Path(f"/proc/{pid}/mounts").read_text()
    root = next(line for line in mounts.splitlines() if line.split()[1] == "/")
    assert "ro" in root.split()[3].split(",")
    scratch = next(line for line in mounts.splitlines() if line.split()[1] == "/tmp").split()[3].split(",")
    assert {"noexec", "nosuid", "nodev"} <= set(scratch)


def test_variables_arrive_whole(engine: Engine, image: str) -> None:
    values = (("VERSION", 'a "b" $c #d = e '), ("PEM", "one\ntwo"), ("EMPTY", ""))
    run_container(engine, spec(image, environment=values))
    pid = inspect_containers(engine, ["one"])[0].pid
    environ = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    for name, value in values:
        assert f"{name}={value}" in environ


def test_a_pod_with_the_longest_name_shares_its_loopback(engine: Engine, image: str) -> None:
    pod = f"orchestrator-{'a' * 63}-20260101-000000"
    create_pod(engine, pod, {"io.test": "pod"})
    run_container(engine, spec(image, f"{pod}-backend", pod=pod))
    run_container(engine, spec(image, f"{pod}-web", pod=pod, environment=(("MODE", "silent"),)))
    assert list_pods(engine, {"io.test": "pod"}) == (pod,)
    first, second = inspect_containers(engine, [f"{pod}-backend", f"{pod}-web"])
    assert network(first.pid) == network(second.pid) != network(os.getpid())
    remove_pod(engine, pod)
    remove_pod(engine, pod)
    assert list_pods(engine, {"io.test": "pod"}) == ()


def test_a_pod_in_a_crash_loop_is_removed(engine: Engine, image: str) -> None:
    create_pod(engine, "loop", {})
    run_container(engine, spec(image, "loop-backend", pod="loop", environment=(("MODE", "crash"),), restarts=50))
    remove_pod(engine, "loop")
    assert inspect_containers(engine, ["loop-backend"]) == ()


def test_calls_at_once_do_not_lock_each_other_out(engine: Engine, image: str) -> None:
    def live(number: int) -> str:
        name = f"c{number}"
        run_container(engine, spec(image, name))
        state = inspect_containers(engine, [name])[0].state
        list_containers(engine, {"io.test": "yes"})
        remove_container(engine, name)
        return state

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(live, range(12))) == ["running"] * 12


def test_a_refusal_says_what_podman_said(engine: Engine) -> None:
    with pytest.raises(EngineError, match=r"podman run: .*image not known"):
        run_container(engine, spec("0" * 64))
    with pytest.raises(EngineError, match=r"podman start: .*no such container"):
        start_container(engine, "nobody")


def test_a_stop_request_interrupts_and_clean_up_still_works(engine: Engine, image: str) -> None:
    cancel = Cancel()
    cancel.request()
    stopped = replace(engine, cancel=cancel)
    with pytest.raises(Interrupted):
        run_container(stopped, spec(image))
    remove_container(stopped.undisturbed, "one")
    assert inspect_containers(engine, ["one"]) == ()


def test_images_are_named_and_removed(engine: Engine, image: str) -> None:
    engine.tag_image(image, "localhost/test/extra:1")
    assert engine.image_exists("localhost/test/extra:1")
    assert engine.remove_image("localhost/test/extra:1")
    assert not engine.image_exists("localhost/test/extra:1")
    assert engine.image_exists(image)
    assert not engine.remove_image("localhost/test/absent")
