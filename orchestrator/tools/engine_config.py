"""The engine's private configuration, generated for this machine.

Distributions ship defaults that fail on many machines: a runtime that refuses hybrid cgroups, limits above the
hard ones, network plugins that are not installed. What works here is found by looking, never by trusting them.
"""

import hashlib
import ipaddress
import json
import os
import re
import resource
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestrator.errors import MachineError
from orchestrator.files import read_json, write_atomically, write_json
from orchestrator.process import find

PACKAGES = "podman conmon runc netavark catatonit iptables"
"""Debian packages the engine is made of."""

HELPER_DIRS = ("/usr/lib/podman", "/usr/libexec/podman", "/usr/local/lib/podman", "/usr/local/libexec/podman")
LOG_BYTES = 10 * 1024 * 1024
"""How much of one container's log is kept."""

SOCKET_ANNOTATION = "io.orchestrator.socket"
"""A container's unix socket, the only one in its directory or one of several that are all the container's.

A server that was killed leaves them behind and could not listen again.
"""

_OPEN_FILES = 65_536
_REMOVE_SOCKET = (
    rf"""socket=$(sed -n 's/.*"{SOCKET_ANNOTATION}":"\([^"]*\)".*/\1/p')"""
    """; [ -z "$socket" ] || rm -f -- "${socket%/*}"/*.sock """
).rstrip()


@dataclass(frozen=True, slots=True)
class EngineDirs:
    """Where the engine keeps things: `base` survives a reboot, `runtime` does not and its path is short."""

    base: Path
    runtime: Path

    @property
    def storage(self) -> Path:
        return self.base / "storage"

    @property
    def networks(self) -> Path:
        return self.base / "networks"

    @property
    def hooks(self) -> Path:
        return self.base / "hooks"

    @property
    def key(self) -> str:
        """Tells this engine's network and interface from another state directory's."""
        return self.runtime.name


@dataclass(frozen=True, slots=True)
class Facts:
    """What this machine can do, as far as the engine's configuration depends on it."""

    runtime: Path
    conmon: Path
    init: Path
    helper_dirs: tuple[str, ...]
    cgroup_manager: Literal["systemd", "cgroupfs"]
    open_files: int
    processes: int


def engine_dirs(state_dir: Path, environ: Mapping[str, str]) -> EngineDirs:
    """The directories belonging to `state_dir`; several state directories never share an engine."""
    key = hashlib.sha256(os.fsencode(state_dir.absolute())).hexdigest()[:8]
    if os.geteuid() == 0:
        parent = Path("/run/orchestrator")
    elif environ.get("XDG_RUNTIME_DIR"):
        parent = Path(environ["XDG_RUNTIME_DIR"]) / "orchestrator"
    else:
        parent = Path(f"/tmp/orchestrator-{os.geteuid()}")
    return EngineDirs(base=state_dir.absolute() / "containers", runtime=parent / key)


def gather_facts(podman: Path) -> Facts:
    """Look at the machine; no program is run. Raises `MachineError` naming every helper that is missing."""
    directories = _helper_directories(podman)
    found = {
        "conmon": find("conmon") or _find_in("conmon", directories),
        "an OCI runtime (runc or crun)": _find_runtime(),
        "netavark": _find_in("netavark", directories),
        "catatonit": _find_in("catatonit", directories),
    }
    if os.geteuid() == 0:
        found["iptables"] = find("iptables")
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise MachineError(
            f"the container engine lacks {', '.join(missing)}",
            hint=f"install them: apt-get install --no-install-recommends {PACKAGES}",
        )
    conmon, runtime, _, init = (path for path in list(found.values())[:4] if path is not None)
    return Facts(
        runtime=runtime,
        conmon=conmon,
        init=init,
        helper_dirs=directories,
        cgroup_manager=_cgroup_manager(),
        open_files=_hard_limit(resource.RLIMIT_NOFILE, _OPEN_FILES),
        # podman lowers its own limit to pid_max, and what it starts cannot raise it again.
        processes=_hard_limit(resource.RLIMIT_NPROC, int(Path("/proc/sys/kernel/pid_max").read_text())),
    )


def render_containers_conf(dirs: EngineDirs, facts: Facts, network: str) -> str:
    """The text of containers.conf(5)."""
    sections: dict[str, dict[str, Any]] = {
        "containers": {
            "default_ulimits": [
                f"nofile={facts.open_files}:{facts.open_files}",
                f"nproc={facts.processes}:{facts.processes}",
            ],
            "init_path": str(facts.init),
            "log_driver": "k8s-file",
            "log_size_max": LOG_BYTES,
        },
        "network": {
            "network_backend": "netavark",
            "network_config_dir": str(dirs.networks),
            "default_network": network,
        },
        "engine": {
            "cgroup_manager": facts.cgroup_manager,
            "conmon_path": [str(facts.conmon)],
            "events_logger": "file",
            "helper_binaries_dir": list(facts.helper_dirs),
            "hooks_dir": [str(dirs.hooks)],
            "image_copy_tmp_dir": str(dirs.base / "tmp"),
            # The default, shared memory, is one segment for all engines of a user: ours would free the others' locks.
            "lock_type": "file",
            "runtime": facts.runtime.name,
            "tmp_dir": str(dirs.runtime / "libpod"),
        },
        "engine.runtimes": {facts.runtime.name: [str(facts.runtime)]},
    }
    return "\n".join(
        f"[{section}]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
        for section, values in sections.items()
    )


def render_storage_conf(dirs: EngineDirs, driver: str) -> str:
    """The text of storage.conf(5): without it the user's own options would leak in."""
    return (
        f"[storage]\ndriver = {json.dumps(driver)}\n"
        f"graphroot = {json.dumps(str(dirs.storage))}\nrunroot = {json.dumps(str(dirs.runtime / 'run'))}\n"
    )


def render_socket_hook() -> str:
    """The text of an oci-hooks(5) file: before every start, restarts included, annotated sockets are removed."""
    hook = {
        "version": "1.0.0",
        "hook": {
            "path": "/bin/sh",
            "args": ["sh", "-c", _REMOVE_SOCKET],
            "env": ["PATH=/usr/bin:/bin:/run/current-system/sw/bin"],
        },
        "when": {"annotations": {f"^{re.escape(SOCKET_ANNOTATION)}$": "."}},
        "stages": ["prestart"],
    }
    return json.dumps(hook, indent=2) + "\n"


def write_if_changed(path: Path, text: str) -> None:
    """Replace `path` atomically, and only when `text` differs from what it holds."""
    try:
        if path.read_text() == text:
            return
    except (OSError, UnicodeDecodeError):
        pass
    write_atomically(path, text)


def ensure_network(dirs: EngineDirs, app: str = "") -> str:
    """Describe a bridge of the engine's own, once, and return its name: one for each application, "" for the rest.

    Containers on different bridges cannot reach each other, by name or by address. Its subnet is one this machine
    has no route to. Raises `MachineError` when every candidate is taken.
    """
    path = network_file(dirs, app)
    if path.exists():
        return path.stem
    key = hashlib.sha256(f"{dirs.key}/{app}".encode()).hexdigest()[:8] if app else dirs.key
    subnet = _choose_subnet(key, Path("/proc/net/route").read_text(), known_subnets(dirs))
    write_json(
        path,
        {
            "name": path.stem,
            "id": hashlib.sha256(path.stem.encode()).hexdigest(),
            "driver": "bridge",
            "network_interface": f"orch{key}",
            "created": "2000-01-01T00:00:00Z",
            "subnets": [{"subnet": str(subnet), "gateway": str(subnet[1])}],
            "ipv6_enabled": False,
            "internal": False,
            "dns_enabled": False,
            "options": {"isolate": "true"},
            "ipam_options": {"driver": "host-local"},
        },
    )
    return path.stem


def network_file(dirs: EngineDirs, app: str = "") -> Path:
    """Where the bridge of an application is described."""
    return dirs.networks / f"orchestrator-{dirs.key}{f'-{app}' if app else ''}.json"


def known_subnets(dirs: EngineDirs, network: str = "*") -> tuple[ipaddress.IPv4Network, ...]:
    """The subnets of one bridge described here, or of all, in use or not."""
    described = (read_json(path) or {} for path in sorted(dirs.networks.glob(f"{network}.json")))
    return tuple(ipaddress.IPv4Network(item["subnet"]) for one in described for item in one.get("subnets", ()))


def _choose_subnet(key: str, route_table: str, known: Sequence[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """A free one, or that of the bridge itself: a killed run can leave it behind, and it keeps its address."""
    routes = tuple(_routes(route_table))
    left = next((network for interface, network in routes if interface == f"orch{key}"), None)
    return left or _free_subnet(key, (*(network for _, network in routes), *known))


def _free_subnet(key: str, taken: Sequence[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    start = int(key, 16)
    for step in range(4096):
        number = (start + step) % 4096
        candidate = ipaddress.IPv4Network(f"10.{208 + number // 256}.{number % 256}.0/24")
        if not any(candidate.overlaps(network) for network in taken):
            return candidate
    raise MachineError("no free private subnet is left for the engine's network", hint="see: ip route")


def _routes(route_table: str) -> Iterator[tuple[str, ipaddress.IPv4Network]]:
    """(interface, destination) of each line of /proc/net/route (little-endian hex), the default route left out."""
    for line in route_table.splitlines()[1:]:
        fields = line.split()
        address, mask = (int.from_bytes(bytes.fromhex(fields[column]), "little") for column in (1, 7))
        if mask:
            yield fields[0], ipaddress.IPv4Network((address, mask.bit_count()), strict=False)


def _helper_directories(podman: Path) -> tuple[str, ...]:
    beside = podman.resolve().parent.parent / "libexec" / "podman"
    on_path = (find(program) for program in ("netavark", "catatonit"))
    candidates = [*HELPER_DIRS, str(beside), *(str(path.parent) for path in on_path if path)]
    return tuple(dict.fromkeys(directory for directory in candidates if Path(directory).is_dir()))


def _find_in(program: str, directories: Sequence[str]) -> Path | None:
    return find(program, path=os.pathsep.join(directories)) if directories else None


def _find_runtime() -> Path | None:
    """crun where the machine has cgroup v2 only; it refuses the hybrid layout, in which runc works."""
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    names = ("crun", "runc") if unified else ("runc", "crun")
    return next((path for path in map(find, names) if path), None)


def _cgroup_manager() -> Literal["systemd", "cgroupfs"]:
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    return "systemd" if unified and Path("/run/systemd/system").is_dir() else "cgroupfs"


def _hard_limit(which: int, wanted: int) -> int:
    """`wanted`, or less where this process may not raise its own limit that far."""
    hard = resource.getrlimit(which)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
