"""Deploys and rollbacks killed between any two steps, and other misfortunes, while clients keep asking."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.deploy.app import remove_app
from orchestrator.deploy.lock import locked_app
from orchestrator.deploy.release import deploy_release
from orchestrator.deploy.repair import repair
from orchestrator.deploy.state import AppStore
from orchestrator.errors import BusyError, DeployError
from orchestrator.process import Cancel
from orchestrator.settings import Health
from orchestrator.tools.inspection import list_containers, list_pods
from tests.integration.release_bench import APP, Bench, Load, free_port, make_plan

KILLED = -9
LEAST_POINTS = 25

WORKER = """
import os, signal, sys
from pathlib import Path
import orchestrator.deploy.gate as gate
import orchestrator.deploy.state as state
import orchestrator.tools.podman as podman
from orchestrator.deploy.lock import locked_app
from orchestrator.deploy.release import deploy_release
from orchestrator.deploy.rollback import roll_back
from orchestrator.image.storage import Image
from orchestrator.process import Cancel
from orchestrator.settings import Health, Settings
from tests.integration.release_bench import make_plan

state_dir, port, app = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
images = [Image(*word.split(",")[:2], "sha256:0", 1, word.split(",")[2], ()) for word in sys.argv[4:]]
ASKING = {"inspect", "ps", "images", "logs", "events", "ls", "exists", "stats", "info"}


def work(verb, version, point):
    passed = 0

    def boundary(*_):
        nonlocal passed
        passed += 1
        if passed == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(function, matters=lambda *args: True):
        def wrapped(*args, **options):
            if matters(*args):
                boundary()
            return function(*args, **options)
        return wrapped

    podman.run = before(podman.run, lambda argv, *_: ASKING.isdisjoint(argv[7:10]))
    for module in (gate, state):
        module.replace_symlink = before(module.replace_symlink)
        module.write_atomically = before(module.write_atomically)
    cancel = Cancel()
    with locked_app(state_dir, app):
        engine = podman.open_engine(state_dir, cancel=cancel)
        if verb == "rollback":
            roll_back(state_dir, app, to=None, engine=engine, emit=boundary, cancel=cancel)
            return
        plan = make_plan(app, environment={"VERSION": version})
        settings = Settings(
            name=app, port=port, state_dir=state_dir, cache_dir=state_dir, keep_releases=3, health=Health(deadline=10)
        )
        deploy_release(settings, plan, images, engine=engine, emit=boundary, cancel=cancel)


for line in sys.stdin:
    verb, version, point = line.split()
    child = os.fork()
    if child == 0:
        sys.stdin.close()
        work(verb, version, int(point))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Worker:
    """Deploys in a process of its own that kills itself at a given boundary, counted from 1; 0 is never."""

    def __init__(self, child: "subprocess.Popen[str]") -> None:
        self._child = child

    def work(self, verb: str, version: str, *, point: int = 0) -> int:
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.write(f"{verb} {version} {point}\n")
        self._child.stdin.flush()
        return int(self._child.stdout.readline())


@contextmanager
def worker(bench: Bench) -> Iterator[Worker]:
    images = [f"{image.service},{image.image_id},{image.reference}" for image in bench.images]
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, bench.state_dir, str(bench.port), APP, *images],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        yield Worker(child)
        assert child.stdin is not None
        child.stdin.close()


def check_repaired(bench: Bench) -> None:
    """The next run puts everything right: the lock is free, one release serves, nothing half-made is left."""
    store = AppStore(bench.state_dir, APP)
    with locked_app(bench.state_dir, APP):
        repair(bench.engine, store, emit=lambda event: None)
    current, previous = store.current(), store.previous()
    assert current is not None and current.backend is not None
    assert bench.get("/api/version") == (200, current.backend.environment["VERSION"])
    kept = {record.id for record in (current, previous) if record is not None}
    pods = set(list_pods(bench.engine, {"io.orchestrator.app": APP}))
    assert pods <= {f"orchestrator-{APP}-{release}" for release in kept}
    running = [c.name for c in list_containers(bench.engine, {"io.orchestrator.app": APP}) if c.running]
    assert len(running) == 3 and all(current.id in name or name.endswith("-gate") for name in running)
    assert {path.name for path in (bench.engine.sockets / APP).iterdir()} <= {*kept, "current"}
    assert not list(store.directory.glob(".*"))


def test_killed_at_every_boundary_of_a_deploy_and_of_a_rollback_something_always_serves(bench: Bench) -> None:
    points = 0
    with worker(bench) as hands:
        assert hands.work("deploy", "v0") == 0
        assert hands.work("deploy", "v1") == 0
        with Load(bench.port, clients=3) as load:
            for verb in ("deploy", "rollback"):
                point, code = 0, KILLED
                while code == KILLED:
                    point += 1
                    code = hands.work(verb, f"{verb[0]}{point}", point=point)
                    check_repaired(bench)
                assert code == 0
                points += point - 1
    assert points >= LEAST_POINTS
    failed = {answer for answer in load.answers if answer != "200" and not answer[1:].isdecimal()}
    assert not failed, load.answers


def test_killed_again_while_it_repairs(bench: Bench) -> None:
    """Each run is killed a little later than the one before, and has its remains to deal with."""
    with worker(bench) as hands:
        assert hands.work("deploy", "v1") == 0
        with Load(bench.port, clients=2) as load:
            for point in (6, 10, 2, 14, 3, 18, 4):
                assert hands.work("deploy", "v2", point=point) in (0, KILLED)
            assert hands.work("deploy", "v3") == 0
        check_repaired(bench)
    assert bench.get("/api/version") == (200, "v3")
    assert set(load.answers) <= {"200", "v1", "v2", "v3"}, load.answers


def test_a_release_that_dies_just_after_it_was_ready_is_taken_back(bench: Bench) -> None:
    old = bench.deploy({"VERSION": "v1"})
    with pytest.raises(DeployError):
        bench.deploy({"VERSION": "v2", "MODE": "brief"}, health=Health(deadline=5, interval=0.1))
    current = AppStore(bench.state_dir, APP).current()
    assert current is not None and current.id == old.id
    assert bench.get("/api/version") == (200, "v1")
    check_repaired(bench)


def test_a_release_that_leaks_to_its_limit_never_takes_traffic(bench: Bench) -> None:
    bench.deploy({"VERSION": "v1"})
    with Load(bench.port, clients=2) as load, pytest.raises(DeployError) as refused:
        bench.deploy({"VERSION": "v2", "MODE": "leak"}, backend_limits={"memory": "32m"})
    assert "memory limit" in (refused.value.hint or ""), refused.value.message
    assert set(load.answers) == {"200", "v1"}, load.answers
    check_repaired(bench)


def test_two_deploys_of_one_application_at_once(bench: Bench) -> None:
    bench.deploy({"VERSION": "v1"})
    outcomes: list[str] = []

    def deploy(version: str) -> None:
        try:
            outcomes.append(bench.deploy({"VERSION": version}).id)
        except BusyError as error:
            outcomes.append(error.message)

    threads = [threading.Thread(target=deploy, args=(version,)) for version in ("v2", "v3")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = [outcome for outcome in outcomes if "another orchestrator" in outcome]
    assert len(told) == 1 and len(outcomes) == 2
    check_repaired(bench)


def test_ten_applications_at_once(bench: Bench) -> None:
    names = [f"bench{number}" for number in range(10)]
    ports = dict(zip(names, [free_port() for _ in names], strict=True))
    failures: list[BaseException] = []

    def deploy(name: str) -> None:
        try:
            settings = bench.settings(name=name, port=ports[name], health=Health(deadline=60))
            with locked_app(bench.state_dir, name):
                deploy_release(
                    settings,
                    replace(make_plan(name), backend=None),
                    bench.images,
                    engine=bench.engine,
                    emit=lambda event: None,
                    cancel=Cancel(),
                )
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=deploy, args=(name,)) for name in names]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert {bench.get("/", port=port)[0] for port in ports.values()} == {200}
    finally:
        for name in names:
            remove_app(bench.state_dir, name, engine=bench.engine)


def test_a_clock_set_back_changes_nothing(bench: Bench) -> None:
    first = bench.deploy({"VERSION": "v1"})
    store = AppStore(bench.state_dir, APP)
    record = store.release(first.id)
    ahead = record.model_copy(update={"id": "29990101-000000"})
    (store.directory / "releases" / ahead.id).mkdir()
    (store.directory / "releases" / ahead.id / "release.json").write_text(ahead.model_dump_json())
    second = bench.deploy({"VERSION": "v2"})
    assert second.id > ahead.id
    assert [found.id for found in store.releases()] == [first.id, ahead.id, second.id]
    previous = store.previous()
    assert previous is not None and previous.id == first.id
    check_repaired(bench)
