"""Judgements: causes of a failure, states of an application, what is asked."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.deploy.diagnosis import explain_answer, explain_exit, explain_silence, explain_start
from orchestrator.deploy.health import Expectation, Probe
from orchestrator.deploy.listeners import parse_listeners
from orchestrator.deploy.names import replicas, services
from orchestrator.deploy.pod import ServiceNotStarted, backend_spec
from orchestrator.deploy.probes import alive_expectations, live_expectations, start_deadline, start_expectations
from orchestrator.deploy.state import AppStore, BackendRecord, ImageRecord, ReleaseRecord
from orchestrator.deploy.status import judge_app, judge_container
from orchestrator.errors import OrchestratorError
from orchestrator.replicas import Replica
from orchestrator.settings import Health, Limits
from orchestrator.tools.inspection import Container, State

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)


def record(
    *, page: bool = True, prefix: str = "/api", health: str | None = "/health", api: str | None = None
) -> ReleaseRecord:
    image = ImageRecord(image_id="1", manifest_digest="d", reference="r", size=1)
    backend = BackendRecord(
        port=3000, health_path=health, api_path=api, environment={"PORT": "1", "A": "b"}, limits=Limits()
    )
    return ReleaseRecord(
        id="20260506-070809",
        app="app",
        created=NOW,
        port=8080,
        domains=(),
        page=page,
        api_prefix=prefix,
        images={"web": image, "backend": image, "gate": image},
        web_limits=Limits(),
        backend=backend,
        health=Health(),
    )


def container(state: State = "running", *, restarts: int = 0, age: float = 100) -> Container:
    started = NOW - timedelta(seconds=age)
    return Container("c", "id", state, 0, started, restarts, "i", 1, False, {})


@pytest.mark.parametrize(
    ("code", "log", "oom", "said"),
    [
        (3, ["boom"], False, "crashed with exit code 3"),
        (0, [], False, "ended at once"),
        (139, [], False, "signal 11"),
        (137, [], True, "more memory than its limit"),
        (127, ["x: error while loading shared libraries: libpq.so.5: cannot"], False, "libpq.so.5"),
        (1, ["ERROR: failed to exec pid1: Permission denied"], False, "may not be executed"),
        (1, ["ERROR: failed to exec pid1: No such file or directory"], False, "not in the image"),
        (3, ["DATABASE_URL is not set"], False, "it misses the variable DATABASE_URL"),
        (1, ["Error: missing required environment variable `JWT_SECRET`"], False, "the variable JWT_SECRET"),
        (3, ["KeyError: 'DATABASE_URL'", "[7] [INFO] Worker exiting (pid: 7)"], False, "the variable DATABASE_URL"),
        (1, ["[6] [ERROR] Connection in use: ('0.0.0.0', 3000)"], False, "port"),
        (101, ["called `Result::unwrap()` on an `Err` value: NotPresent"], False, "do not name"),
        (1, ["GET /x: no such file or directory"], False, "crashed with exit code 1"),
        (101, ['Os { code: 98, kind: AddrInUse, message: "Address already in use" }'], False, "port it wants is taken"),
    ],
)
def test_an_exit_is_explained(code: int, log: list[str], oom: bool, said: str) -> None:
    assert said in explain_exit("backend", code, log, oom_killed=oom).message


def test_a_refused_start_is_explained() -> None:
    failure = ServiceNotStarted("backend", OrchestratorError("podman run: x", details=["exec /a: Exec format error"]))
    assert "another processor" in explain_start(failure).message
    unknown = ServiceNotStarted("web", OrchestratorError("podman run: strange"))
    assert "strange" in explain_start(unknown).message


@pytest.mark.parametrize(
    ("ports", "said"),
    [((), "listens on no port"), ((4000,), "port 4000 instead of 3000"), ((3000, 4000), "but answered 503")],
)
def test_silence_is_explained_by_what_listens(ports: tuple[int, ...], said: str) -> None:
    assert said in explain_silence(Replica("backend", 3000), ports, Probe("u", 503, 0)).message


@pytest.mark.parametrize(
    ("status", "said"),
    [(404, "not there"), (401, "login"), (500, "answers 500"), (302, "redirects to /x"), (418, "answers 418")],
)
def test_a_wrong_answer_is_explained(status: int, said: str) -> None:
    assert said in explain_answer(Probe("u", status, 0, location="/x")).message


def test_listening_sockets_are_read_from_the_kernels_table() -> None:
    text = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0\n"
        "   1: 0100007F:1F91 0100007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 78 1 0\n"
    )
    assert list(parse_listeners(text)) == [(8080, "77")]


def test_what_is_asked_before_and_after_the_switch() -> None:
    page = Expectation("/", 200, 300)
    health = Expectation("/health", 200, 300)
    assert start_expectations(record()) == (health, page)
    assert live_expectations(record()) == (page, health)
    assert live_expectations(record(api="/api/v1")) == (page, Expectation("/api/v1", 200, 500))
    assert start_expectations(record(health=None)) == (Expectation("/api/", 200, 500), page)
    only_backend = record(page=False, prefix="/", health=None)
    assert start_expectations(only_backend) == live_expectations(only_backend) == (Expectation("/", 200, 500),)


def test_readiness_is_asked_before_the_switch_and_liveness_after() -> None:
    both = record()
    assert both.backend is not None
    both = both.model_copy(update={"backend": both.backend.model_copy(update={"ready_path": "/ready"})})
    assert start_expectations(both)[0] == Expectation("/ready", 200, 300)
    assert alive_expectations(both) == (Expectation("/health", 200, 300),)
    assert alive_expectations(record(health=None)) == (Expectation("/api/", 200, 500),)


def test_the_deadline_is_learnt_from_the_slowest_start(tmp_path: Path) -> None:
    store = AppStore(tmp_path, "app")
    assert start_deadline(store, record()) == 60
    store.note_start(45.5)
    store.note_start(3)
    assert start_deadline(store, record()) == pytest.approx(3 * 45.5)
    said = record().model_copy(update={"health": Health(deadline=7)})
    assert start_deadline(store, said) == 7


def test_a_backend_is_told_where_to_listen_whatever_the_plan_says() -> None:
    assert dict(backend_spec(record(), Replica("backend", 3000)).environment) == {
        "PORT": "3000",
        "HOST": "0.0.0.0",
        "A": "b",
    }


def test_each_replica_has_a_name_and_a_port_of_its_own_and_the_image_is_one() -> None:
    one = record()
    assert one.backend is not None
    three = one.model_copy(update={"backend": one.backend.model_copy(update={"replicas": 3})})
    assert services(one) == ("backend", "web")
    assert services(three) == ("backend", "backend-2", "backend-3", "web")
    specs = [backend_spec(three, replica) for replica in replicas(three)]
    assert [dict(spec.environment)["PORT"] for spec in specs] == ["3000", "3001", "3002"]
    assert [spec.labels["io.orchestrator.service"] for spec in specs] == ["backend", "backend-2", "backend-3"]
    assert {spec.image_id for spec in specs} == {"1"}
    assert one.fingerprint != three.fingerprint


@pytest.mark.parametrize(
    ("found", "wanted", "healthy", "state"),
    [
        (container(), True, True, "running"),
        (container(), False, True, "stopped"),
        (None, True, True, "failing"),
        (container("exited"), True, True, "failing"),
        (container("exited", restarts=3), True, False, "crash-looping"),
        (container(restarts=3, age=5), True, True, "crash-looping"),
        (container(restarts=3, age=500), True, True, "running"),
        (container(age=5), True, False, "starting"),
        (container(age=5), True, True, "running"),
    ],
)
def test_a_container_is_judged(found: Container | None, wanted: bool, healthy: bool, state: str) -> None:
    assert judge_container(found, wanted=wanted, healthy=healthy, now=NOW) == state


def test_an_application_is_never_running_without_a_good_answer() -> None:
    assert judge_app(["running", "running"], wanted=True, healthy=True) == "running"
    assert judge_app(["running", "running"], wanted=True, healthy=False) == "failing"
    assert judge_app(["running", "crash-looping", "failing"], wanted=True, healthy=False) == "crash-looping"
    assert judge_app(["stopped"], wanted=False, healthy=False) == "stopped"
