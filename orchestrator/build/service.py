"""One service: from sources to a saved artifact."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol, assert_never

from orchestrator.build import artifacts
from orchestrator.build.cache.fetched import FetchedCache, open_fetched
from orchestrator.build.cache.key import cargo_key
from orchestrator.build.cache.target import Outcome, TargetCache, distrust_target, open_cache
from orchestrator.build.cargo import Cargo
from orchestrator.build.disk import remember_build
from orchestrator.build.environment import FetchAccess, secret_values, step_environment
from orchestrator.build.fetch import Fetch
from orchestrator.build.go_toolchain import asked_go, go_version, require_go
from orchestrator.build.golang import Go
from orchestrator.build.inventory import Component, cargo_tree_argv, go_library, parse_cargo_tree, parse_package_lock
from orchestrator.build.jobserver import Jobserver, Slot
from orchestrator.build.node import Node
from orchestrator.build.registries import UserConfig
from orchestrator.build.rust_toolchain import asked_toolchain, require_rust
from orchestrator.build.rust_tools import NO_RUST, RustTools, inspect_rust
from orchestrator.build.snapshot import Snapshot
from orchestrator.build.steps import Bench, Command, run_command
from orchestrator.build.toolchain import Toolchain
from orchestrator.build.trace import Trace
from orchestrator.build.workspace import Workspace, open_workspace, sync_sources
from orchestrator.errors import BuildError, OrchestratorError, ToolchainError
from orchestrator.events import Emit, Note, PhaseFinished, PhaseStarted
from orchestrator.files import read_json, tree_size, write_json
from orchestrator.plan import BuildPlan, CargoOutput, GoOutput, Kind, Step, TreeOutput
from orchestrator.process import Cancel
from orchestrator.tools.platforms import PLATFORMS

Cache = Literal["hit", "partial", "miss"]


@dataclass(frozen=True, slots=True)
class ServiceBuild:
    """A built service. `cache` is "hit" when nothing ran, "partial" when something earlier was of use.

    `platform` is what it was built for, "" where that is this machine or makes no difference.
    `artifact` is the binary or the directory of files, `log` the whole output of the build that made it,
    `components` the packages the artifact is made of, None when they are not known.
    """

    service: str
    kind: Kind
    framework: str
    seconds: float
    cache: Cache
    compiled_units: int
    artifact: Path
    log: Path
    components: tuple[Component, ...] | None = None
    platform: str = ""


class Ecosystem(Protocol):
    """What differs between languages. One value per build: it also counts what the build says it did.

    `settle` is called after an "inspect" step; it gives what is to be said and raises when nothing can be built.
    """

    @property
    def compiled(self) -> int: ...
    @property
    def reused(self) -> int: ...

    def decides_fetch(self, path: str) -> bool: ...
    def prepare(self, workspace: Workspace) -> None: ...
    def is_fetched(self, workspace: Workspace) -> bool: ...
    def fetch_variables(self, *, offline: bool) -> dict[str, str]: ...
    def variables(self, workspace: Workspace) -> dict[str, str]: ...
    def arguments(self, argv: tuple[str, ...]) -> tuple[str, ...]: ...
    def read(self, line: str) -> str | None: ...
    def settle(self) -> str | None: ...
    def explain(self, error: OrchestratorError) -> OrchestratorError: ...
    def product(self, workspace: Workspace) -> Path: ...


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


def build_service(site: Site, build: BuildPlan) -> ServiceBuild:
    """The artifact of `build`, made or found. Raises what its steps raise, and `Interrupted`."""
    started = site.clock()
    key, found = find_built(site, build)
    if found is not None:
        seconds = site.clock() - started
        site.emit(PhaseFinished(build.service, "build", seconds, outcome="cache hit"))
        return _result(site, build, seconds, "hit", 0, found)
    with site.jobserver.slot(site.cancel) as slot, _workspace(site, build.service) as workspace:
        bench = _bench(site, build, workspace, slot)
        _check_go(site, build, bench)
        tools = _rust_tools(site, build, bench)
        ecosystem = choose_ecosystem(site, build, tools)
        _say_linker(site, build, ecosystem)
        cache = _target_cache(site, build, workspace, ecosystem)
        fetched = _make(site, build, bench, ecosystem, cache)
        with phase(site, build.service, "save"):
            product = _product(bench, build, ecosystem)
            components = _components(site, build, bench, ecosystem)
            saved = artifacts.save_artifact(site.cache_dir, site.app, build, key, product, components=components)
            remember_build(site.cache_dir, site.app, build, tree_size(workspace.path))
        if cache is not None:
            with phase(site, build.service, "keep"):
                cache.keep(workspace)
    state = _cache_state(ecosystem, fetched)
    return _result(site, build, site.clock() - started, state, ecosystem.compiled, saved)


def _target_cache(site: Site, build: BuildPlan, workspace: Workspace, ecosystem: Ecosystem) -> TargetCache | None:
    """The cache of a cargo build; other ecosystems keep nothing but their workspace."""
    if not isinstance(ecosystem, Cargo) or site.clean:
        return None
    place, influences = workspace.seen("src"), _influences(site)
    linker = f"{ecosystem.linker.name} {ecosystem.linker.version}" if ecosystem.linker else ""
    key = cargo_key(build, site.snapshot, site.toolchain, place=place, influences=influences, linker=linker)
    nix = site.toolchain.nix
    return open_cache(site.cache_dir, nix, key, site.app, build, site.snapshot, emit=site.emit, cancel=site.cancel)


def _rust_tools(site: Site, build: BuildPlan, bench: Bench) -> RustTools:
    """What the dev shell has for Rust. Refuses one with another Rust than the monorepo asks for."""
    if not isinstance(build.output, CargoOutput):
        return NO_RUST
    tools = inspect_rust(bench, site.cache_dir)
    asked = asked_toolchain(site.snapshot, build.directory)
    if asked is not None and not site.any_rust:
        require_rust(asked, tools.rustc, source=site.toolchain.source)
    return tools


def _say_linker(site: Site, build: BuildPlan, ecosystem: Ecosystem) -> None:
    if not isinstance(ecosystem, Cargo):
        return
    if ecosystem.linker is not None:
        site.emit(Note(f"{build.service}: linked with the dev shell's {ecosystem.linker.name}"))
    elif ecosystem.may_choose_linker and (
        unfit := [linker.name for linker in ecosystem.tools.linkers if not linker.fit]
    ):
        text = f"{build.service}: linked as usual: what the dev shell's {unfit[0]} links does not find its libraries"
        site.emit(Note(text))


def _check_go(site: Site, build: BuildPlan, bench: Bench) -> None:
    """Refuse a dev shell with an older Go than the monorepo asks for."""
    asked = asked_go(site.snapshot, build.directory) if isinstance(build.output, GoOutput) else None
    if asked is not None:
        require_go(asked, _said_by_go(site, bench), source=site.toolchain.source)


def _said_by_go(site: Site, bench: Bench) -> str:
    """What `go version` says in the dev shell; asked once for each."""
    record = site.cache_dir / "go" / f"{site.toolchain.key[:32]}.json"
    said = read_json(record)
    if isinstance(said, str):
        return said
    lines: list[str] = []

    def read(line: str) -> str:
        lines.append(line)
        return line

    environment = step_environment(bench.workspace) | {"GOTOOLCHAIN": "local"}
    run_command(bench, Command(("go", "version"), PurePosixPath(), environment), read=read)
    said = next((line for line in lines if line.startswith("go version ")), "")
    write_json(record, said)
    return said


def _cache_state(ecosystem: Ecosystem, fetched: bool) -> Cache:
    if ecosystem.reused and not ecosystem.compiled:
        return "hit"
    return "partial" if ecosystem.reused or not fetched else "miss"


def find_built(site: Site, build: BuildPlan) -> tuple[str, artifacts.Artifact | None]:
    """The key of the build's artifact, and the artifact when there is one already."""
    key = artifacts.artifact_key(build, site.snapshot, site.toolchain.key, _influences(site))
    return key, artifacts.find_artifact(site.cache_dir, site.app, build, key)


def write_lock_file(site: Site, build: BuildPlan, command: tuple[str, ...]) -> bytes:
    """Run `command`, which writes the build's lock file, in its workspace with the network; the file's content."""
    with site.jobserver.slot(site.cancel) as slot, _workspace(site, build.service) as workspace:
        bench = _bench(site, build, workspace, slot)
        ecosystem = choose_ecosystem(site, build)
        distrust_target(workspace)
        sync_sources(workspace, site.snapshot)
        ecosystem.prepare(workspace)
        lock = workspace.path / "src" / build.lock_file
        lock.unlink(missing_ok=True)
        step = Step("fetch", command, build.lock_file.parent, network=True)
        with phase(site, build.service, "write lock file"):
            run_command(bench, _command(site, bench, ecosystem, step))
        return lock.read_bytes()


def choose_ecosystem(site: Site, build: BuildPlan, tools: RustTools = NO_RUST) -> Ecosystem:
    """The language a build's output tells; `tools` are what the dev shell has for Rust."""
    match build.output:
        case CargoOutput():
            return Cargo(build, site.snapshot, site.user_config, tools)
        case GoOutput():
            return Go(build, site.snapshot)
        case TreeOutput():
            return Node(build, site.snapshot)
        case _:
            assert_never(build.output)


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


@contextmanager
def _workspace(site: Site, service: str) -> Iterator[Workspace]:
    with open_workspace(site.cache_dir, site.app, service, inside=site.sandboxed) as workspace:
        yield workspace


def _bench(site: Site, build: BuildPlan, workspace: Workspace, slot: Slot) -> Bench:
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


def _make(site: Site, build: BuildPlan, bench: Bench, ecosystem: Ecosystem, cache: TargetCache | None) -> bool:
    """Bring the sources up to date and run the steps that are needed; whether dependencies had to be fetched."""
    with phase(site, build.service, "sources") as going_on:
        if cache is not None:
            going_on.outcome = cache.open(bench.workspace)
        else:
            sync_sources(bench.workspace, site.snapshot)
        ecosystem.prepare(bench.workspace)
    fetched = False
    for step in build.steps:
        if step.name == "fetch":
            fetched = _fetch(site, build, bench, ecosystem, step) or fetched
        elif step.name == "inspect":
            _inspect(site, bench, ecosystem, step)
        else:
            _build(site, bench, ecosystem, step, cache)
    return fetched


def _inspect(site: Site, bench: Bench, ecosystem: Ecosystem, step: Step) -> None:
    with phase(site, bench.service, step.name), _explained(ecosystem):
        run_command(bench, _command(site, bench, ecosystem, step), read=ecosystem.read)
        if (said := ecosystem.settle()) is not None:
            site.emit(Note(said))


def _build(site: Site, bench: Bench, ecosystem: Ecosystem, step: Step, cache: TargetCache | None) -> None:
    started = site.clock()
    with phase(site, bench.service, step.name) as going_on, _explained(ecosystem):
        run_command(bench, _command(site, bench, ecosystem, step), read=ecosystem.read)
        if cache is not None and isinstance(ecosystem, Cargo):
            units = ecosystem.reasons.units
            outcome = Outcome(ecosystem.compiled, ecosystem.reused, units, site.clock() - started)
            going_on.outcome = cache.report(outcome)


def _fetch(site: Site, build: BuildPlan, bench: Bench, ecosystem: Ecosystem, step: Step) -> bool:
    """Fetch unless it was done before; whether it had to be."""
    cargo = ecosystem if isinstance(ecosystem, Cargo) else None
    fetch = Fetch(
        bench=bench,
        command=_command(site, bench, ecosystem, step),
        key=_fetch_key(site, ecosystem, step),
        cargo=cargo,
        cache=_fetched_cache(site, build) if cargo is not None else None,
        keeps=not site.clean,
        offline=site.offline,
        clock=site.clock,
    )
    if ecosystem.is_fetched(bench.workspace) and fetch.is_current():
        return False
    with phase(site, bench.service, step.name) as going_on, _explained(ecosystem):
        going_on.outcome = fetch.run()
    return True


def _fetched_cache(site: Site, build: BuildPlan) -> FetchedCache:
    """The downloads of a cargo build in the store; clean builds use them too, as cargo checks what it unpacks."""
    return open_fetched(
        site.store_dir,
        site.toolchain.nix,
        site.app,
        build,
        site.snapshot,
        influences=_influences(site)[:1],
        secrets=_secrets(site),
        emit=site.emit,
        cancel=site.cancel,
    )


@contextmanager
def _explained(ecosystem: Ecosystem) -> Iterator[None]:
    """Say what to do where a tool only says that its lock file is out of date."""
    try:
        yield
    except BuildError as error:
        explained = ecosystem.explain(error)
        if explained is error:
            raise
        raise explained from error


def _fetch_key(site: Site, ecosystem: Ecosystem, step: Step) -> str:
    deciding = (entry for entry in site.snapshot.entries if ecosystem.decides_fetch(entry.path))
    parts = [
        [(entry.path, entry.content) for entry in deciding],
        [step.argv, str(step.directory), step.environment],
        [site.toolchain.key, _influences(site)],
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _influences(site: Site) -> list[str]:
    """What of the user's own configuration and of this machine reaches an artifact."""
    return [json.dumps([site.user_config.tables, dict(site.user_config.variables)], default=str), str(site.sandboxed)]


def _command(site: Site, bench: Bench, ecosystem: Ecosystem, step: Step) -> Command:
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
        secrets=_secrets(site) if online else (),
    )


def _secrets(site: Site) -> tuple[str, ...]:
    return secret_values({**site.access.environment, **site.user_config.secrets})


def _components(site: Site, build: BuildPlan, bench: Bench, ecosystem: Ecosystem) -> tuple[Component, ...] | None:
    """The packages the product is made of; None, said with the reason, when they cannot be told."""
    try:
        match build.output:
            case CargoOutput(package):
                lines: list[str] = []
                target = PLATFORMS[build.platform].rust if build.platform else ""
                step = Step("build", cargo_tree_argv(package, target), build.directory, network=False)
                run_command(bench, _command(site, bench, ecosystem, step), read=lines.append)
                return parse_cargo_tree(lines)
            case GoOutput():
                library = go_library(go_version(_said_by_go(site, bench)))
                return ecosystem.linked(library) if isinstance(ecosystem, Go) else None
            case TreeOutput():
                return parse_package_lock((bench.workspace.path / "src" / build.lock_file).read_text())
            case _:
                assert_never(build.output)
    except (BuildError, ToolchainError, OSError, ValueError) as error:
        text = f"what {build.service} is made of is not known, its SBOM will say so: {error}"
        site.emit(Note(text, level="warning"))
        return None


def _product(bench: Bench, build: BuildPlan, ecosystem: Ecosystem) -> Path:
    product = ecosystem.product(bench.workspace)
    wanted = Path.is_dir if isinstance(build.output, TreeOutput) else Path.is_file
    if not wanted(product):
        raise BuildError(
            f"{build.service}: the build succeeded but did not give {bench.workspace.named(product)}",
            hint=f"the whole log is {bench.log}",
        )
    return product


def _result(
    site: Site, build: BuildPlan, seconds: float, cache: Cache, units: int, artifact: artifacts.Artifact
) -> ServiceBuild:
    return ServiceBuild(
        service=build.service,
        kind=build.kind,
        framework=build.framework,
        seconds=seconds,
        cache=cache,
        compiled_units=units,
        artifact=artifact.path,
        components=artifact.components,
        platform=build.platform,
        log=log_path(site.cache_dir, site.app, build.service),
    )
