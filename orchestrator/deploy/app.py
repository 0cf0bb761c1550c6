"""The life of a deployed application: start, stop, remove, logs. What changes it needs its lock (`locked_app`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.deploy.assets import forget_assets
from orchestrator.deploy.gate import find_gate, remove_gate, stop_gate
from orchestrator.deploy.images import remove_images
from orchestrator.deploy.names import APP, container_name, gate_name, holder, parts, services, sockets_dir
from orchestrator.deploy.pod import discard_pod, pod_containers, stop_services
from orchestrator.deploy.release import Release, go_live, serving
from orchestrator.deploy.repair import changing
from orchestrator.deploy.secretvalues import remove_values
from orchestrator.deploy.single import line_of
from orchestrator.deploy.state import AppStore, ReleaseRecord, current_release
from orchestrator.errors import UsageError
from orchestrator.events import Emit
from orchestrator.files import remove_tree
from orchestrator.image.single import SINGLE
from orchestrator.process import Cancel
from orchestrator.tools.containers import remove_pod
from orchestrator.tools.engine_config import network_file
from orchestrator.tools.inspection import entry_point, inspect_containers, list_pods, logs_argv
from orchestrator.tools.podman import Engine


def start_app(state_dir: Path, app: str, *, engine: Engine, emit: Emit, cancel: Cancel) -> Release:
    """Have the current release running and answering; nothing is restarted when it does already.

    Raises `UnknownAppError`, and `DeployError` when it does not become healthy or its images are gone.
    """
    record = current_release(state_dir, app)
    store = AppStore(state_dir, app)
    with changing(engine, store, emit=emit):
        if probes := serving(engine, record):
            return Release(record.id, record.url, changed=False, probes=probes)
        probes = go_live(engine, store, record, None, emit=emit, cancel=cancel)
    return Release(record.id, record.url, changed=True, probes=probes)


def stop_app(state_dir: Path, app: str, *, engine: Engine, emit: Emit) -> bool:
    """Stop the application in order; its release, images and logs stay. False when nothing ran.

    Raises `UnknownAppError`.
    """
    record = current_release(state_dir, app)
    store = AppStore(state_dir, app)
    with changing(engine, store, emit=emit):
        store.note_stop()
        gate = find_gate(engine, app)
        running = any(container.running for container in (*pod_containers(engine, record), *((gate,) if gate else ())))
        stop_gate(engine, app)
        stop_services(engine, record)
    return running


def remove_app(state_dir: Path, app: str, *, engine: Engine) -> None:
    """Remove everything of the application: pods, gate, sockets, images, records. Nothing else is touched.

    A container someone started from one of its images by hand stays, with that image.
    Raises `UnknownAppError` when there is neither a record nor a container of it.
    """
    store = AppStore(state_dir, app)
    pods = list_pods(engine, {APP: app})
    if not pods and find_gate(engine, app) is None:
        current_release(state_dir, app)
    for record in store.releases():
        if record == store.current():
            stop_gate(engine, app)
            stop_services(engine, record)
        discard_pod(engine, record)
    for pod in pods:
        remove_pod(engine, pod)
    remove_gate(engine, app)
    remove_images(engine, app, kept=())
    remove_tree(sockets_dir(engine, app))
    remove_values(engine, store)
    forget_assets(engine, app)
    network_file(engine.dirs, app).unlink(missing_ok=True)
    store.remove()


@dataclass(frozen=True, slots=True)
class Inside:
    """A command in a running container: run `argv` with `process.interact` and the engine's environment.

    `program` is what the container itself runs, `pid` its process on this machine.
    """

    argv: tuple[str, ...]
    program: str
    pid: int


def app_exec(
    state_dir: Path, app: str, command: Sequence[str], *, service: str | None, terminal: bool, engine: Engine
) -> Inside:
    """A command to be run in a service's container; in the backend's where there is one and `service` is None.

    Raises `UnknownAppError`, and `UsageError` for an unknown service or one that does not run.
    """
    record = current_release(state_dir, app)
    chosen = service or services(record)[0]
    _check_services(record, [chosen])
    name = gate_name(app) if chosen == "gate" else container_name(record, holder(record, chosen))
    container = next(iter(inspect_containers(engine, [name])), None)
    if container is None or not container.running:
        raise UsageError(f"the {chosen} of {app} does not run", hint=f"see: orchestrator status {app}")
    keep = ("--interactive", *(("--tty",) if terminal else ()))
    return Inside(engine.argv("exec", *keep, name, *command), entry_point(engine, name), container.pid)


@dataclass(frozen=True, slots=True)
class Logs:
    """Logs are what `argv` prints with the engine's environment.

    Of the lines that begin with `prefix` only those of `parts` are meant, when parts are named, and of all that are
    meant only the last `tail`.
    """

    argv: tuple[str, ...]
    prefix: str = ""
    parts: frozenset[str] = frozenset()
    tail: int | None = None

    def means(self, line: str) -> bool:
        """Whether a printed line is one that was asked for."""
        if not line.startswith(self.prefix):
            return True
        return any(line_of(line.removeprefix(self.prefix), part) is not None for part in self.parts)


def app_logs(
    state_dir: Path,
    app: str,
    *,
    engine: Engine,
    only: Sequence[str] = (),
    tail: int | None = None,
    since: str | None = None,
    follow: bool = False,
) -> Logs:
    """How the current release's logs are shown.

    `only` names services; all by default. `since` is a duration ("10m") or a time. Raises `UnknownAppError`, and
    `UsageError` for an unknown service or when no container is left to have logs.
    """
    record = current_release(state_dir, app)
    _check_services(record, only)
    held = {service: holder(record, service) for service in only or services(record)}
    candidates = [gate_name(app) if name == "gate" else container_name(record, name) for name in held.values()]
    names = [container.name for container in inspect_containers(engine, dict.fromkeys(candidates))]
    if not names:
        raise UsageError(f"{app} has no containers", hint=f"start it: orchestrator start {app}")
    inside = frozenset(service for service, name in held.items() if name != service)
    if not inside or SINGLE in held:
        return Logs(logs_argv(engine, names, tail=tail, since=since, follow=follow))
    kept = None if follow else tail
    argv = logs_argv(engine, names, tail=tail if follow else None, since=since, follow=follow)
    # The engine names containers only where there are several.
    prefix = f"{container_name(record, SINGLE)} " if len(names) > 1 else ""
    return Logs(argv, prefix, inside, kept)


def _check_services(record: ReleaseRecord, wanted: Sequence[str]) -> None:
    known = tuple(dict.fromkeys((*services(record), *parts(record), "gate")))
    if unknown := sorted(set(wanted) - set(known)):
        raise UsageError(f"{record.app} has no service {', '.join(unknown)}", hint=f"its services: {', '.join(known)}")
