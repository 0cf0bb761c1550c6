"""Why a release does not become healthy: one cause, a hint, and the last log lines."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.deploy.health import Probe
from orchestrator.deploy.listeners import read_listeners
from orchestrator.deploy.names import SERVICE, container_name, holder, replicas
from orchestrator.deploy.pod import ServiceNotStarted, pod_containers
from orchestrator.deploy.single import find_end, lines_of
from orchestrator.deploy.state import ReleaseRecord
from orchestrator.errors import DeployError
from orchestrator.image.single import SINGLE
from orchestrator.replicas import Replica
from orchestrator.tools.inspection import Container, last_exit_code, read_logs
from orchestrator.tools.podman import Engine

LOG_LINES = 20
_KILLED = 128 + 9

SINGLE_LOG_LINES = 200
"""How many lines of a container with several services are looked at for those of one."""

_MISSING_VARIABLE = re.compile(
    r"\b(?P<before>[A-Z][A-Z0-9]*_[A-Z0-9_]+)\b[`'\"]?[^\n]{0,30}?"
    r"\b(?:not set|not found|unset|missing|required|undefined|must be (?:set|given|provided))\b"
    r"|\b(?:missing|required|undefined|unset)\b[^\n]{0,40}?\b(?P<after>[A-Z][A-Z0-9]*_[A-Z0-9_]+)\b"
    r"|\bKeyError: '(?P<key>[A-Z][A-Z0-9]*_[A-Z0-9_]+)'"
)
"""A variable's name has an underscore: other words in capitals are too often something else."""

_PORT_TAKEN = re.compile(
    r"\bEADDRINUSE\b|\baddress (?:is )?already in use\b|\bAddrInUse\b|\bConnection in use: \(", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Cause:
    """What is wrong with one service and what to try."""

    service: str
    message: str
    hint: str


def check_alive(engine: Engine, record: ReleaseRecord) -> None:
    """Raises `DeployError` with the exit code and last log lines as soon as a container of the release has died."""
    for container in pod_containers(engine, record):
        if container.state == "exited" or container.restarts:
            raise deploy_error(engine, record, crash_cause(engine, container))


def crash_cause(engine: Engine, container: Container) -> Cause:
    """Why a container that ran has ended."""
    service = container.labels[SERVICE]
    if service == SINGLE:
        return _crash_inside(engine, container)
    code = last_exit_code(engine, container.id)
    log = read_logs(engine, container.name, tail=LOG_LINES)
    return explain_exit(service, container.exit_code if code is None else code, log, oom_killed=container.oom_killed)


def _crash_inside(engine: Engine, container: Container) -> Cause:
    """Why a container that holds several services has ended: one of them did, and its log says which."""
    log = read_logs(engine, container.name, tail=SINGLE_LOG_LINES)
    end = find_end(log)
    if end is None:
        return explain_exit(SINGLE, container.exit_code, log[-LOG_LINES:], oom_killed=container.oom_killed)
    said = lines_of(log, end.service)[-LOG_LINES:]
    return explain_exit(end.service, end.code, said, oom_killed=container.oom_killed)


def explain_exit(service: str, code: int, log: Sequence[str], *, oom_killed: bool) -> Cause:
    """The cause of an exit code, as far as the code and the log tell."""
    for line in log:
        if "error while loading shared libraries" in line:
            return Cause(service, f"{service} misses a library: {line.strip()}", "it must be in the image's closure")
        if ("failed to exec pid1" in line or "cannot be executed:" in line) and (cause := explain_exec(service, line)):
            return cause
    if oom_killed:
        return Cause(service, f"{service} was killed: it used more memory than its limit", "raise the memory limit")
    if code == _KILLED:
        # The engine forgets that the kernel did it when it starts the container again.
        hint = "so the kernel ends what uses more memory than its limit: raise the memory limit, if nobody else did it"
        return Cause(service, f"{service} was ended by signal 9 (exit code {code})", hint)
    if code > 128:
        return Cause(service, f"{service} was ended by signal {code - 128} (exit code {code})", "see its log lines")
    if code == 0:
        return Cause(service, f"{service} ended at once with exit code 0", "a service must stay in the foreground")
    if any(_PORT_TAKEN.search(line) for line in log):
        hint = "it is given a PORT of its own and must listen there: replicas share a loopback"
        return Cause(service, f"{service} crashed with exit code {code}: the port it wants is taken", hint)
    if missing := missing_variable(log):
        said = f"{service} crashed with exit code {code}: it misses {missing}"
        return Cause(service, said, "give it with --var or --env-file, and declare it in orchestrator.toml")
    return Cause(service, f"{service} crashed with exit code {code}", "see its log lines")


def missing_variable(log: Sequence[str]) -> str | None:
    """What a program that ended says of a variable it misses, in the words servers have for it."""
    for line in reversed(log):
        if match := _MISSING_VARIABLE.search(line):
            return f"the variable {match['before'] or match['after'] or match['key']}"
        if "NotPresent" in line:  # std::env::VarError names no variable
            return "a variable its log lines do not name"
    return None


def explain_start(failure: ServiceNotStarted) -> Cause:
    """The cause of a container that did not start, from the runtime's words."""
    words = " ".join((failure.message, *failure.details))
    return explain_exec(failure.service, words) or Cause(
        failure.service,
        f"{failure.service} did not start: {failure.message}",
        failure.hint or "run: orchestrator doctor",
    )


def explain_exec(service: str, words: str) -> Cause | None:
    """Why the kernel refused a program, from the message of the runtime or of the container's init."""
    said = words.lower()
    if "exec format error" in said:
        return Cause(service, f"{service} is built for another processor", "build it for this machine's architecture")
    if "no such file or directory" in said:
        # The container's init says this of a foreign program too: execvp(3) then looks for a shell.
        message = f"{service}'s executable cannot run: it or its loader is not in the image, or it is a foreign one"
        return Cause(service, message, "check the executable's interpreter and architecture with: file, ldd")
    if "permission denied" in said:
        return Cause(service, f"{service}'s executable may not be executed", "check its mode in the image")
    return None


def find_cause(engine: Engine, record: ReleaseRecord, replica: Replica | None, probe: Probe) -> Cause:
    """Why the release, whose containers run, did not give the expected answer to `probe`, meant for `replica`."""
    containers = {container.name: container for container in pod_containers(engine, record)}
    web = containers.get(container_name(record, holder(record, "web")))
    backend = containers.get(container_name(record, holder(record, replica.name))) if replica is not None else None
    if probe.status == 0 and (web is None or not web.running or replica is None):
        return Cause("web", f"nginx did not answer at {probe.url}: {probe.problem}", "see its log lines")
    if replica is None or backend is None:
        return Cause("web", f"{probe.url} answered {probe.status}", "see its log lines")
    if probe.status in (0, 503):
        others = {other.port for other in replicas(record) if other != replica}
        listening = [port for port in listening_ports(backend.pid) if port not in others]
        host = "127.0.0.1" if record.layout == "single" else "0.0.0.0"
        return explain_silence(replica, listening, probe, host=host)
    return explain_answer(probe, replica.name)


def explain_silence(replica: Replica, listening: Sequence[int], probe: Probe, *, host: str = "0.0.0.0") -> Cause:
    """Why nothing answered behind nginx, from the ports listened on in the pod (loopback included: nginx is there).

    `host` is what the backend is told to listen on.
    """
    name, port = replica.name, replica.port
    hint = f"it is given PORT={port} and HOST={host}; pass --backend-port if it ignores them"
    if port in listening:
        answer = f"answered {probe.status}" if probe.status else f"did not answer ({probe.problem})"
        return Cause(name, f"{name} listens on port {port} but {answer} at {probe.url}", "see its log lines")
    if listening:
        listed = ", ".join(str(other) for other in listening)
        return Cause(name, f"{name} listens on port {listed} instead of {port}", hint)
    return Cause(name, f"{name} runs but listens on no port; port {port} was expected", hint)


def explain_answer(probe: Probe, service: str = "backend") -> Cause:
    """Why an answer does not count as healthy."""
    set_path = "set another path in [health] of orchestrator.toml"
    match probe.status:
        case 401 | 403:
            return Cause(service, f"{probe.url} asks for a login ({probe.status})", f"a probe has none; {set_path}")
        case 404:
            return Cause(service, f"{probe.url} is not there (404)", set_path)
        case status if 300 <= status < 400:
            return Cause(service, f"{probe.url} redirects to {probe.location} ({status})", set_path)
        case status if status >= 500:
            return Cause(service, f"{probe.url} answers {status}", "see its log lines")
        case status:
            return Cause(service, f"{probe.url} answers {status}", set_path)


def deploy_error(engine: Engine, record: ReleaseRecord, cause: Cause) -> DeployError:
    """The error for a cause, with the last log lines of the service it is about."""
    return DeployError(cause.message, hint=cause.hint, details=_last_lines(engine.undisturbed, record, cause.service))


def _last_lines(engine: Engine, record: ReleaseRecord, service: str) -> tuple[str, ...]:
    name = container_name(record, holder(record, service))
    if record.layout == "pod" or service == SINGLE:
        return read_logs(engine, name, tail=LOG_LINES)
    return lines_of(read_logs(engine, name, tail=SINGLE_LOG_LINES), service)[-LOG_LINES:]


def listening_ports(pid: int) -> tuple[int, ...]:
    """The TCP ports listened on in the network namespace of a process; none when it is gone."""
    tables = (Path(f"/proc/{pid}/net/{name}") for name in ("tcp", "tcp6"))
    return tuple(sorted({port for table in tables for port, _ in read_listeners(table)}))
