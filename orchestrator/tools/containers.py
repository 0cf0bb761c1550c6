"""Pods and containers: what podman is asked to do."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from orchestrator.process import Completed
from orchestrator.tools.engine_config import SOCKET_ANNOTATION
from orchestrator.tools.podman import TIMEOUT, Engine

USER = "10001:10001"
"""Every container runs as this user and group."""

HARDENING = (
    "--read-only",
    "--read-only-tmpfs=false",
    *("--cap-drop", "all"),
    *("--security-opt", "no-new-privileges"),
    *("--user", USER),
)
_HOST_NAME = 63
"""How long a host name may be; podman would give the pod's whole name."""

_REMOVAL_TRIES = 10
_REMOVAL_PAUSE = 0.3
_TMP = "/tmp:rw,noexec,nosuid,nodev,size=64m,mode=1777"


@dataclass(frozen=True, slots=True)
class Mount:
    """A host directory or file a container sees at `target`."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container to run. `memory` includes swap; each of `publish` is podman's ADDRESS:PORT:PORT; `network` is
    the engine's own unless given, "host" the machine's; `capabilities` are the only ones it has; `init` reaps
    children; `command` follows the image's entry point; `socket` is a host path its program listens on, removed
    before every start; `secrets` are variables and the names of the secrets that hold their values.

    `restarts` bounds how often a crash is answered with a restart: podman has no backoff, and an unbounded loop
    was measured at eight restarts a second.
    """

    name: str
    image_id: str
    labels: Mapping[str, str]
    memory: str
    cpus: float
    pids: int
    pod: str | None = None
    network: str | None = None
    capabilities: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    secrets: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    publish: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    socket: Path | None = None
    init: bool = False
    restarts: int = 10
    stop_signal: str = "SIGTERM"


def create_pod(
    engine: Engine,
    name: str,
    labels: Mapping[str, str],
    *,
    publish: Sequence[str] = (),
    sysctls: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """An empty pod whose containers share one network, in the place of one of that name. Raises `EngineError`.

    Each of `publish` is podman's ADDRESS:PORT:PORT; `sysctls` are of its network.
    """
    engine.run(
        "pod",
        "create",
        "--replace",
        *("--name", name),
        *("--hostname", name[:_HOST_NAME].rstrip("-")),
        *("--network", engine.network),
        *("--share", "net"),
        *(part for published in publish for part in ("--publish", published)),
        *(part for key, value in sysctls.items() for part in ("--sysctl", f"{key}={value}")),
        *_labels(labels),
    )


def run_container(engine: Engine, spec: ContainerSpec) -> None:
    """Create and start a hardened container. Its variables' values never appear in an argument list.

    Raises `EngineError`; a container that was created and could not start is left for the caller to look at.
    """
    inline = {name: value for name, value in spec.environment if "\n" not in value}
    passed = {name: value for name, value in spec.environment if "\n" in value}
    engine.run(
        "run",
        "--detach",
        *("--pull", "never"),
        *("--name", spec.name),
        *(("--pod", spec.pod) if spec.pod else ("--network", spec.network or engine.network)),
        *_labels(spec.labels),
        *HARDENING,
        *(part for capability in spec.capabilities for part in ("--cap-add", capability)),
        *("--tmpfs", _TMP),
        *("--memory", spec.memory),
        *("--memory-swap", spec.memory),
        *("--cpus", f"{spec.cpus:g}"),
        *("--pids-limit", str(spec.pids)),
        *("--restart", f"on-failure:{spec.restarts}"),
        *("--stop-signal", spec.stop_signal),
        *(("--init",) if spec.init else ()),
        *(("--annotation", f"{SOCKET_ANNOTATION}={spec.socket}") if spec.socket else ()),
        *(part for published in spec.publish for part in ("--publish", published)),
        *(part for mount in spec.mounts for part in ("--volume", _volume(mount))),
        *(part for variable, name in spec.secrets for part in ("--secret", f"{name},type=env,target={variable}")),
        *("--env-file", "/dev/stdin"),
        *(part for name in passed for part in ("--env", name)),
        spec.image_id,
        *spec.command,
        environment=passed,
        stdin="".join(f"{name}={value}\n" for name, value in inline.items()).encode(),
    )


def try_container(engine: Engine, image_id: str, command: Sequence[str], mounts: Sequence[Mount]) -> Completed:
    """Run a hardened container without network to its end, and remove it. Its exit code is the caller's to judge.

    It may listen on any port.
    """
    return engine.ask(
        *("run", "--rm", "--pull", "never", "--network", "none", *HARDENING, "--tmpfs", _TMP),
        *("--sysctl", "net.ipv4.ip_unprivileged_port_start=0"),
        *(part for mount in mounts for part in ("--volume", _volume(mount))),
        image_id,
        *command,
    )


def start_container(engine: Engine, name: str) -> None:
    """Start a stopped container. Raises `EngineError`."""
    engine.run("start", name)


def start_containers(engine: Engine, names: tuple[str, ...]) -> bool:
    """Start stopped containers in this order, with one call. False when one did not start."""
    return engine.ask("start", *names).returncode == 0


def restart_container(engine: Engine, name: str, *, grace: float) -> None:
    """Stop a container, killing it after `grace` seconds, and start it again. Raises `EngineError`."""
    engine.run("restart", *("--time", f"{grace:.0f}"), name, timeout=grace + TIMEOUT)


def stop_container(engine: Engine, name: str, *, grace: float) -> None:
    """Send the stop signal, wait up to `grace` seconds, kill. A stopped or absent container is fine."""
    stop_containers(engine, (name,), grace=grace)


def stop_containers(engine: Engine, names: Sequence[str], *, grace: float) -> None:
    """`stop_container` for several at the same time; none is fine."""
    if names:
        engine.run("stop", "--ignore", *("--time", f"{grace:.0f}"), *names, timeout=grace + TIMEOUT)


def signal_container(engine: Engine, name: str, signal: str) -> None:
    """Send a signal such as "HUP" to a container's first process. Raises `EngineError` when it does not run."""
    engine.run("kill", "--signal", signal, name)


def rename_container(engine: Engine, old: str, new: str) -> None:
    """Give a container another name. Raises `EngineError` when the name is taken."""
    engine.run("rename", old, new)


def remove_container(engine: Engine, name: str) -> None:
    """Kill and remove a container; an absent one is fine."""
    engine.run("rm", "--force", "--ignore", *("--time", "0"), name)


def stop_pod(engine: Engine, name: str, *, grace: float) -> None:
    """Stop every container of a pod, its network and published ports too; an absent one is fine."""
    engine.run("pod", "stop", "--ignore", *("--time", f"{grace:.0f}"), name, timeout=grace + TIMEOUT)


def remove_pod(engine: Engine, name: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Kill and remove a pod with its containers; an absent one is fine.

    A container that podman is restarting at this moment makes it fail, so it is tried again. Raises `EngineError`.
    """
    removal = ("pod", "rm", "--force", "--ignore", *("--time", "0"), name)
    for _ in range(_REMOVAL_TRIES - 1):
        if engine.ask(*removal).returncode == 0:
            return
        sleep(_REMOVAL_PAUSE)
    engine.run(*removal)


def _labels(labels: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(part for key, value in labels.items() for part in ("--label", f"{key}={value}"))


def _volume(mount: Mount) -> str:
    return f"{mount.source}:{mount.target}:{'rw' if mount.writable else 'ro'}"
