"""What all builds of a run share, and how each is told, logged and given its workspace."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.build.environment import FetchAccess, secret_values
from orchestrator.build.jobserver import Jobserver, Slot
from orchestrator.build.registries import UserConfig
from orchestrator.build.snapshot import Snapshot
from orchestrator.build.steps import Bench
from orchestrator.build.toolchain import Toolchain
from orchestrator.build.trace import Trace
from orchestrator.build.workspace import Workspace, open_workspace
from orchestrator.events import Emit, PhaseFinished, PhaseStarted
from orchestrator.plan import BuildPlan
from orchestrator.process import Cancel


@dataclass(frozen=True, slots=True)
class Site:
    """What all builds of a run share. `store_dir` has the records of what is in the store; `sandboxed` is False where
    bubblewrap cannot be used.

    `home` is the user's home directory, where cargo looks for known hosts and git for its configuration.
    A `clean` run takes nothing but downloads from the build cache and leaves nothing in it. With `any_rust` a
    rust-toolchain.toml that the dev shell does not meet is no reason to refuse.
    """

    app: str
    cache_dir: Path
    store_dir: Path
    offline: bool
    sandboxed: bool
    hidden: tuple[Path, ...]
    home: Path
    snapshot: Snapshot
    toolchain: Toolchain
    user_config: UserConfig
    access: FetchAccess
    jobserver: Jobserver
    trace: Trace
    emit: Emit
    cancel: Cancel
    clock: Callable[[], float] = time.monotonic
    clean: bool = False
    any_rust: bool = False

    @property
    def influences(self) -> list[str]:
        """What of the user's own configuration and of this machine reaches an artifact."""
        config = self.user_config
        return [json.dumps([config.tables, dict(config.variables)], default=str), str(self.sandboxed)]

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that must not be shown, logged or kept."""
        return secret_values({**self.access.environment, **self.user_config.secrets})


@dataclass(slots=True)
class Phase:
    """A phase that is going on; `outcome` is what will be said of it when it ends."""

    outcome: str = ""


@contextmanager
def phase(site: Site, service: str, name: str) -> Iterator[Phase]:
    """Tell when a phase begins and ends, and trace it."""
    started = site.clock()
    site.emit(PhaseStarted(service, name))
    going_on, done = Phase(), False
    try:
        with site.trace.span(service, name):
            yield going_on
        done = True
    finally:
        site.emit(PhaseFinished(service, name, site.clock() - started, ok=done, outcome=going_on.outcome))


def log_path(cache_dir: Path, app: str, service: str) -> Path:
    """The whole output of a service's last build; the one before is beside it, with ".1" at the end."""
    return cache_dir / "logs" / app / f"{service}.log"


def service_workspace(site: Site, service: str) -> AbstractContextManager[Workspace]:
    """The service's workspace, locked. Raises `BusyError`."""
    return open_workspace(site.cache_dir, site.app, service, inside=site.sandboxed)


def make_bench(site: Site, build: BuildPlan, workspace: Workspace, slot: Slot) -> Bench:
    """Where the service's commands run, with a new log."""
    log = log_path(site.cache_dir, site.app, build.service)
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_name(f"{log.name}.1"))
    log.touch()
    return Bench(
        service=build.service,
        workspace=workspace,
        toolchain=site.toolchain,
        hidden=site.hidden,
        slot=slot,
        log=log,
        emit=site.emit,
        cancel=site.cancel,
    )
