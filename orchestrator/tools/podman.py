"""podman: the container engine, with storage, networks and configuration of its own."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.errors import DiskError, MachineError, OrchestratorError
from orchestrator.files import read_json, says_no_space
from orchestrator.process import Cancel, Completed, ProcessError, base_environment, require, run
from orchestrator.tools.engine_config import (
    PACKAGES,
    EngineDirs,
    engine_dirs,
    ensure_network,
    gather_facts,
    render_containers_conf,
    render_socket_hook,
    render_storage_conf,
    write_if_changed,
)

TIMEOUT = 120.0
"""Seconds one call of the engine may take; stopping a container waits longer where it says so."""


_IMAGE_ID = re.compile(r"[0-9a-f]{64}")


class EngineError(MachineError):
    """podman refused. The message holds its own last words."""


@dataclass(frozen=True, slots=True)
class Engine:
    """podman as the orchestrator calls it. `sockets` is a directory for unix sockets, gone after a reboot."""

    executable: Path
    root: Path
    runroot: Path
    driver: str
    network: str
    sockets: Path
    environment: Mapping[str, str]
    cancel: Cancel | None = None

    def argv(self, *args: str) -> tuple[str, ...]:
        """The whole command line of `podman ARGS`; run it with `environment`."""
        return (
            str(self.executable),
            *("--root", str(self.root)),
            *("--runroot", str(self.runroot)),
            *("--storage-driver", self.driver),
            *args,
        )

    @property
    def scratch(self) -> Path:
        """Where temporary files of images go: the file system of the storage, which takes them in."""
        return self.root.parent / "scratch"

    @property
    def undisturbed(self) -> "Engine":
        """The same engine for clean-up, which must happen although a stop was asked for."""
        return replace(self, cancel=None)

    @property
    def dirs(self) -> EngineDirs:
        """Where the engine keeps things."""
        return EngineDirs(base=self.root.parent, runtime=self.runroot.parent)

    def within(self, app: str) -> "Engine":
        """The same engine, whose new pods and containers join the application's own network."""
        return replace(self, network=ensure_network(self.dirs, app))

    def run(
        self,
        *args: str,
        timeout: float = TIMEOUT,
        environment: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
    ) -> Completed:
        """Call podman; `environment` is added to its own, `timeout` is in seconds.

        Raises `EngineError`, or `Interrupted` on a stop.
        """
        try:
            return run(
                self.argv(*args),
                env={**self.environment, **(environment or {})},
                stdin=stdin,
                timeout=timeout,
                cancel=self.cancel,
            )
        except ProcessError as error:
            raise _refusal(args, error) from error

    def ask(self, *args: str) -> Completed:
        """Call podman and leave the exit code to the caller. Raises `Interrupted` on a stop."""
        return run(self.argv(*args), env=self.environment, timeout=TIMEOUT, check=False, cancel=self.cancel)

    def image_exists(self, image_id: str) -> bool:
        """Whether the storage holds this image id (or name).

        Ids are looked up in the storage's own list (`images.json`, replaced atomically: containers/storage), which
        is a hundred times quicker than starting the engine; where it cannot be read the engine is asked.
        """
        listed = _stored_ids(self.root / f"{self.driver}-images")
        if listed is not None and _IMAGE_ID.fullmatch(image_id):
            return image_id in listed
        return self.ask("image", "exists", image_id).returncode == 0

    def missing_layers(self, diff_ids: Sequence[str]) -> tuple[bool, ...]:
        """Of an image's layers, bottom first, whether the storage would have to make each.

        It keeps a layer together with all those below it (`layers.json`, containers/storage). Every layer is missing
        where the list cannot be read.
        """
        ids = _stored_layers(self.root / f"{self.driver}-layers")
        below: str | None = ""
        missing = []
        for diff_id in diff_ids:
            below = None if below is None else ids.get((below, diff_id))
            missing.append(below is None)
        return tuple(missing)

    def tag_image(self, image_id: str, name: str) -> None:
        """Give an image another name. Raises `EngineError` when there is no such image."""
        self.run("tag", image_id, name)

    def remove_image(self, name: str) -> bool:
        """Take a name away from its image, and remove the image when that was its last.

        False when a container still needs the image, or there is none of that name.
        """
        return self.ask("image", "rm", name).returncode == 0

    def storage_reference(self, name: str) -> str:
        """How skopeo calls the image `name` in this storage."""
        return f"containers-storage:[{self.driver}@{self.root}+{self.runroot}]{name}"


def open_engine(state_dir: Path, *, cancel: Cancel | None = None) -> Engine:
    """The engine of `state_dir`, configured for this machine; milliseconds when nothing changed.

    Raises `MachineError` with the packages to install when podman or one of its helpers is missing.
    """
    podman = require(
        "podman",
        reason="run containers",
        hint=f"install it: apt-get install --no-install-recommends {PACKAGES}",
    )
    dirs = engine_dirs(state_dir, os.environ)
    _make_directories(dirs)
    facts = gather_facts(podman)
    network = ensure_network(dirs)
    write_if_changed(dirs.base / "containers.conf", render_containers_conf(dirs, facts, network))
    write_if_changed(dirs.hooks / "remove-socket.json", render_socket_hook())
    engine = Engine(
        executable=podman,
        root=dirs.storage,
        runroot=dirs.runtime / "run",
        driver=_known_driver(dirs.storage) or "overlay",
        network=network,
        sockets=dirs.runtime / "sockets",
        environment=_environment(dirs),
        cancel=cancel,
    )
    engine = engine if _known_driver(dirs.storage) else _with_working_driver(engine, dirs)
    write_if_changed(dirs.base / "storage.conf", render_storage_conf(dirs, engine.driver))
    return engine


def _make_directories(dirs: EngineDirs) -> None:
    try:
        for directory in (dirs.base, dirs.runtime):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            directory.chmod(0o700)
        for directory in (dirs.storage, dirs.networks, dirs.hooks, dirs.base / "tmp", dirs.runtime / "sockets"):
            directory.mkdir(exist_ok=True)
    except OSError as error:
        raise MachineError(
            f"the engine's directory {error.filename} cannot be used: {error.strerror}",
            hint="choose another one with ORCHESTRATOR_STATE_DIR",
        ) from error


def _environment(dirs: EngineDirs) -> dict[str, str]:
    inherited = base_environment(os.environ)
    return inherited | {
        # netavark looks for iptables on PATH, and an ordinary user's PATH lacks the sbin directories.
        "PATH": f"{inherited.get('PATH', os.defpath)}:/usr/sbin:/sbin",
        "CONTAINERS_CONF": str(dirs.base / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(dirs.base / "storage.conf"),
    }


def _known_driver(storage: Path) -> str | None:
    """The driver the storage was made with. It can never change: images of one cannot be read by the other."""
    return next((driver for driver in ("overlay", "vfs") if (storage / f"{driver}-images").is_dir()), None)


def _with_working_driver(engine: Engine, dirs: EngineDirs) -> Engine:
    """The engine with the first driver podman can use here. Raises `EngineError` when none works."""
    problems: list[str] = []
    for driver in ("overlay", "vfs"):
        candidate = replace(engine, driver=driver)
        write_if_changed(dirs.base / "storage.conf", render_storage_conf(dirs, driver))
        answer = candidate.ask("info", "--format", "{{.Store.GraphDriverName}}")
        if answer.returncode == 0:
            return candidate
        problems += answer.stderr.strip().splitlines()[-1:]
    raise EngineError("podman cannot store images here", details=problems, hint="run: orchestrator doctor")


def _stored_ids(images: Path) -> frozenset[str] | None:
    """The ids in a storage's list of images; None when there is none we understand.

    The list is first written with the first image, the lock beside it when the storage is made.
    """
    path = images / "images.json"
    if not path.exists() and (images / "images.lock").exists():
        return frozenset()
    try:
        return frozenset(image["id"] for image in read_json(path))
    except (TypeError, KeyError):
        return None


def _stored_layers(layers: Path) -> Mapping[tuple[str, str], str]:
    """The ids in a storage's list of layers, by the id of the layer below ("" for none) and the layer's digest.

    Layers of containers have no digest.
    """
    listed = read_json(layers / "layers.json")
    return {
        (layer.get("parent", ""), layer["diff-digest"]): layer["id"]
        for layer in (listed if isinstance(listed, list) else ())
        if isinstance(layer, dict) and "diff-digest" in layer and "id" in layer
    }


def _refusal(args: Sequence[str], error: ProcessError) -> OrchestratorError:
    said = [line for line in error.completed.stderr.strip().splitlines() if line.strip()]
    last = said[-1].removeprefix("Error: ") if said else f"exit code {error.completed.returncode}"
    verb = " ".join(args[:2]) if args[0] in ("pod", "container", "image") else args[0]
    if says_no_space(error.completed.stderr):
        return DiskError(f"no space left for podman {verb}", details=said, hint="free some space")
    return EngineError(f"podman {verb}: {last}", details=said, hint=error.hint)
