"""What differs between languages: one value for each build, chosen by what the build is to give."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, assert_never

from orchestrator.build.cache.downloads import Downloads
from orchestrator.build.cargo import Cargo
from orchestrator.build.environment import step_environment
from orchestrator.build.golang import Go
from orchestrator.build.node import Node
from orchestrator.build.python import Python
from orchestrator.build.rust_tools import NO_RUST, RustTools
from orchestrator.build.site import Site
from orchestrator.build.steps import Bench, Command
from orchestrator.build.workspace import Workspace
from orchestrator.errors import BuildError, OrchestratorError
from orchestrator.plan import BuildPlan
from orchestrator.recipes import CargoOutput, GoOutput, NodeOutput, PythonOutput, Step, TreeOutput


class Ecosystem(Protocol):
    """What differs between languages. One value per build: it also counts what the build says it did.

    `begin_fetch` is called before a fetch: an earlier one may have been killed. `downloads` are what is kept after one.
    `settle` is called after an "inspect" step; it gives what is to be said and raises when nothing can be built.
    """

    @property
    def compiled(self) -> int: ...
    @property
    def reused(self) -> int: ...

    def decides_fetch(self, path: str) -> bool: ...
    def prepare(self, workspace: Workspace) -> None: ...
    def is_fetched(self, workspace: Workspace) -> bool: ...
    def begin_fetch(self, workspace: Workspace) -> None: ...
    def downloads(self, lock: Path) -> Downloads: ...
    def fetch_variables(self, *, offline: bool) -> dict[str, str]: ...
    def variables(self, workspace: Workspace) -> dict[str, str]: ...
    def arguments(self, argv: tuple[str, ...]) -> tuple[str, ...]: ...
    def read(self, line: str) -> str | None: ...
    def settle(self) -> str | None: ...
    def explain(self, error: OrchestratorError) -> OrchestratorError: ...
    def product(self, workspace: Workspace) -> Path: ...


def choose_ecosystem(site: Site, build: BuildPlan, tools: RustTools = NO_RUST) -> Ecosystem:
    """The language a build's output tells; `tools` are what the dev shell has for Rust."""
    match build.output:
        case CargoOutput():
            return Cargo(build, site.snapshot, site.user_config, tools)
        case GoOutput():
            return Go(build, site.snapshot)
        case PythonOutput():
            return Python(build, site.snapshot)
        case TreeOutput() | NodeOutput():
            return Node(build, site.snapshot)
        case _:
            assert_never(build.output)


def step_command(site: Site, bench: Bench, ecosystem: Ecosystem, step: Step) -> Command:
    """The step with its whole environment; only one with the network gets the user's access to registries."""
    online = step.network and not site.offline
    environment = {
        **step_environment(bench.workspace),
        **(site.access.environment if online else {}),
        **ecosystem.variables(bench.workspace),
        **(ecosystem.fetch_variables(offline=site.offline) if step.network else {}),
        **dict(step.environment),
    }
    return Command(
        argv=ecosystem.arguments(step.argv),
        directory=step.directory,
        environment=environment,
        network=online,
        visible=(*site.user_config.visible, *(site.access.visible if online else ())),
        home=site.home if online and isinstance(ecosystem, Cargo) else None,
        secrets=site.secrets if online else (),
    )


@contextmanager
def explained(ecosystem: Ecosystem) -> Iterator[None]:
    """Say what to do where a tool only says that its lock file is out of date."""
    try:
        yield
    except BuildError as error:
        clearer = ecosystem.explain(error)
        if clearer is error:
            raise
        raise clearer from error
