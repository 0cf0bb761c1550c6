"""Which requests a release must answer, and asking them."""

from orchestrator.deploy.diagnosis import check_alive, deploy_error, find_cause
from orchestrator.deploy.health import Expectation, Patience, Probe, Target, probe, wait_healthy
from orchestrator.deploy.names import release_socket, replica_socket, replicas
from orchestrator.deploy.state import AppStore, ReleaseRecord
from orchestrator.errors import DeployError
from orchestrator.process import Cancel
from orchestrator.replicas import Replica
from orchestrator.tools.podman import Engine

GATE_PATIENCE = Patience(interval=0.2, timeout=5.0, deadline=10.0)
"""The gate was just started or has been running; the release behind it is healthy already."""


LEAST_DEADLINE = 60.0
DEADLINE_FACTOR = 3.0


def start_expectations(record: ReleaseRecord) -> tuple[Expectation, ...]:
    """What a new release must answer on its own socket: the backend's readiness, then the page."""
    return (*_readiness(record), *_page(record))


def live_expectations(record: ReleaseRecord) -> tuple[Expectation, ...]:
    """What is asked through the published port before success is printed: the page, then the API."""
    backend = record.backend
    if backend is None:
        return _page(record)
    if backend.api_path is not None:
        return (*_page(record), Expectation(backend.api_path, 200, 500))
    return (*_page(record), *(item for item in start_expectations(record) if item.path != "/" or not record.page))


def alive_expectations(record: ReleaseRecord) -> tuple[Expectation, ...]:
    """What a release answers as long as it is alive, also while something it needs is away."""
    backend = record.backend
    if backend is not None and backend.health_path is not None:
        return (Expectation(backend.health_path, 200, 300),)
    return (Expectation(_prefix_path(record), 200, 500),) if backend is not None else _page(record)


def start_deadline(store: AppStore, record: ReleaseRecord) -> float:
    """Seconds the release has to become ready: what the settings say, else learnt from how long starts took."""
    return record.health.deadline or max(LEAST_DEADLINE, DEADLINE_FACTOR * store.slowest_start())


def wait_release(engine: Engine, record: ReleaseRecord, *, deadline: float, cancel: Cancel) -> None:
    """Wait until the release answers everything on its own socket, at most `deadline` seconds for each.

    Raises `DeployError` with one cause: at once when a container dies, else at the deadline. `Interrupted` on a stop.
    """
    for replica in replicas(record):
        for expected in _readiness(record):
            _wait_for(engine, record, replica, expected, deadline=deadline, cancel=cancel)
    for expected in _page(record):
        _wait_for(engine, record, None, expected, deadline=deadline, cancel=cancel)


def _wait_for(
    engine: Engine,
    record: ReleaseRecord,
    replica: Replica | None,
    expected: Expectation,
    *,
    deadline: float,
    cancel: Cancel,
) -> None:
    target, health = _target(engine, record, replica, expected), record.health
    answer = wait_healthy(
        lambda timeout: probe(target, timeout=timeout),
        expected,
        Patience(interval=health.interval, timeout=health.timeout, deadline=deadline),
        check_alive=lambda: check_alive(engine, record),
        cancel=cancel,
    )
    if not expected.met_by(answer):
        raise deploy_error(engine, record, find_cause(engine, record, replica, answer))


def verify_live(record: ReleaseRecord, *, cancel: Cancel, patience: Patience = GATE_PATIENCE) -> tuple[Probe, ...]:
    """Ask for the page and the API as a user would, through the published port.

    Raises `DeployError` naming the request that got no good answer.
    """
    probes = []
    for expected in live_expectations(record):
        target = Target(_host(record), expected.path, port=record.port)
        answer = wait_healthy(
            lambda timeout, target=target: probe(target, timeout=timeout),  # type: ignore[misc]  # a bound default
            expected,
            patience,
            check_alive=lambda: None,
            cancel=cancel,
        )
        if not expected.met_by(answer):
            said = f"answered {answer.status}" if answer.status else f"did not answer: {answer.problem}"
            raise DeployError(f"{answer.url} {said}", hint="see: orchestrator logs " + record.app)
        probes.append(answer)
    return tuple(probes)


def ask_once(record: ReleaseRecord, *, timeout: float) -> tuple[tuple[Probe, bool], ...]:
    """One request each for page and API through the published port, and whether its answer was good."""
    return tuple(
        (answer, expected.met_by(answer))
        for expected in live_expectations(record)
        for answer in [probe(Target(_host(record), expected.path, port=record.port), timeout=timeout)]
    )


def silent_replicas(engine: Engine, record: ReleaseRecord, *, timeout: float) -> frozenset[str]:
    """Those of several replicas that do not tell they are alive now: requests through the port never show them.

    A single backend is not asked: those requests show it.
    """
    several = replicas(record) if len(replicas(record)) > 1 else ()
    return frozenset(
        replica.name
        for replica in several
        for expected in alive_expectations(record)
        if not expected.met_by(probe(_target(engine, record, replica, expected), timeout=timeout))
    )


def _target(engine: Engine, record: ReleaseRecord, replica: Replica | None, expected: Expectation) -> Target:
    """Where a release is asked beside its gate; without a replica, nginx decides who answers."""
    socket = replica_socket(engine, record, replica) if replica is not None else release_socket(engine, record)
    return Target(_host(record), expected.path, socket=socket)


def _readiness(record: ReleaseRecord) -> tuple[Expectation, ...]:
    backend = record.backend
    if backend is None:
        return ()
    path = backend.ready_path or backend.health_path
    return (Expectation(path, 200, 300) if path is not None else Expectation(_prefix_path(record), 200, 500),)


def _page(record: ReleaseRecord) -> tuple[Expectation, ...]:
    return (Expectation("/", 200, 300),) if record.page else ()


def _prefix_path(record: ReleaseRecord) -> str:
    return f"{(record.api_prefix or '').rstrip('/')}/"


def _host(record: ReleaseRecord) -> str:
    return record.url.removeprefix("http://").rstrip("/")
