"""One service: from sources to a saved artifact."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.build import artifacts
from orchestrator.build.application import complete_application
from orchestrator.build.cache.fetched import FetchedCache, open_fetched
from orchestrator.build.cache.key import cargo_key
from orchestrator.build.cache.target import Outcome, TargetCache, distrust_target, open_cache
from orchestrator.build.cargo import Cargo
from orchestrator.build.components import find_components
from orchestrator.build.dev_shell import check_go, rust_tools, say_linker
from orchestrator.build.disk import remember_build
from orchestrator.build.ecosystem import Ecosystem, choose_ecosystem, explained, step_command
from orchestrator.build.fetch import Fetch
from orchestrator.build.fetch_failure import Tool
from orchestrator.build.golang import Go
from orchestrator.build.inventory import Component
from orchestrator.build.python import Python
from orchestrator.build.site import Site, log_path, make_bench, phase, service_workspace
from orchestrator.build.steps import Bench, run_command
from orchestrator.build.workspace import Workspace, sync_sources
from orchestrator.errors import BuildError
from orchestrator.events import Note, PhaseFinished
from orchestrator.files import tree_size
from orchestrator.plan import BuildPlan, Kind
from orchestrator.recipes import CargoOutput, GoOutput, Step

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


def build_service(site: Site, build: BuildPlan) -> ServiceBuild:
    """The artifact of `build`, made or found. Raises what its steps raise, and `Interrupted`."""
    started = site.clock()
    key, found = find_built(site, build)
    if found is not None:
        seconds = site.clock() - started
        site.emit(PhaseFinished(build.service, "build", seconds, outcome="cache hit"))
        return _result(site, build, seconds, "hit", 0, found)
    with site.jobserver.slot(site.cancel) as slot, service_workspace(site, build.service) as workspace:
        bench = make_bench(site, build, workspace, slot)
        check_go(site, build, bench)
        tools = rust_tools(site, build, bench)
        ecosystem = choose_ecosystem(site, build, tools)
        say_linker(site, build, ecosystem)
        cache = _target_cache(site, build, workspace, ecosystem)
        fetched = _make(site, build, bench, ecosystem, cache)
        with phase(site, build.service, "save"):
            complete_application(site, build, workspace, ecosystem)
            product = _product(bench, build, ecosystem)
            components = find_components(site, build, bench, ecosystem)
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
    place, influences = workspace.seen("src"), site.influences
    linker = f"{ecosystem.linker.name} {ecosystem.linker.version}" if ecosystem.linker else ""
    key = cargo_key(build, site.snapshot, site.toolchain, place=place, influences=influences, linker=linker)
    nix = site.toolchain.nix
    return open_cache(site.cache_dir, nix, key, site.app, build, site.snapshot, emit=site.emit, cancel=site.cancel)


def _cache_state(ecosystem: Ecosystem, fetched: bool) -> Cache:
    if ecosystem.reused and not ecosystem.compiled:
        return "hit"
    return "partial" if ecosystem.reused or not fetched else "miss"


def find_built(site: Site, build: BuildPlan) -> tuple[str, artifacts.Artifact | None]:
    """The key of the build's artifact, and the artifact when there is one already."""
    key = artifacts.artifact_key(build, site.snapshot, site.toolchain.key, site.influences)
    return key, artifacts.find_artifact(site.cache_dir, site.app, build, key)


def write_lock_file(site: Site, build: BuildPlan, command: tuple[str, ...]) -> bytes:
    """Run `command`, which writes the build's lock file, in its workspace with the network; the file's content."""
    with site.jobserver.slot(site.cancel) as slot, service_workspace(site, build.service) as workspace:
        bench = make_bench(site, build, workspace, slot)
        ecosystem = choose_ecosystem(site, build)
        distrust_target(workspace)
        sync_sources(workspace, site.snapshot)
        ecosystem.prepare(workspace)
        lock = workspace.path / "src" / build.lock_file
        lock.unlink(missing_ok=True)
        step = Step("fetch", command, build.lock_file.parent, network=True)
        with phase(site, build.service, "write lock file"):
            run_command(bench, step_command(site, bench, ecosystem, step))
        return lock.read_bytes()


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
    with phase(site, bench.service, step.name), explained(ecosystem):
        run_command(bench, step_command(site, bench, ecosystem, step), read=ecosystem.read)
        if (said := ecosystem.settle()) is not None:
            site.emit(Note(said))


def _build(site: Site, bench: Bench, ecosystem: Ecosystem, step: Step, cache: TargetCache | None) -> None:
    started = site.clock()
    with phase(site, bench.service, step.name) as going_on, explained(ecosystem):
        run_command(bench, step_command(site, bench, ecosystem, step), read=ecosystem.read)
        if cache is not None and isinstance(ecosystem, Cargo):
            units = ecosystem.reasons.units
            outcome = Outcome(ecosystem.compiled, ecosystem.reused, units, site.clock() - started)
            going_on.outcome = cache.report(outcome)


def _fetch(site: Site, build: BuildPlan, bench: Bench, ecosystem: Ecosystem, step: Step) -> bool:
    """Fetch unless it was done before; whether it had to be."""
    fetch = Fetch(
        bench=bench,
        command=step_command(site, bench, ecosystem, step),
        key=_fetch_key(site, ecosystem, step),
        tool=_tool(ecosystem),
        cache=_fetched_cache(site, build, ecosystem),
        keeps=not site.clean,
        offline=site.offline,
        clock=site.clock,
    )
    if ecosystem.is_fetched(bench.workspace) and fetch.is_current():
        return False
    with phase(site, bench.service, step.name) as going_on, explained(ecosystem):
        ecosystem.begin_fetch(bench.workspace)
        going_on.outcome = fetch.run()
    return True


def _tool(ecosystem: Ecosystem) -> Tool:
    match ecosystem:
        case Cargo():
            return "cargo"
        case Go():
            return "go"
        case Python():
            return "uv"
        case _:
            return "node"


def _fetched_cache(site: Site, build: BuildPlan, ecosystem: Ecosystem) -> FetchedCache:
    """A build's downloads in the store; clean builds use them too, since tools check what they unpack."""
    return open_fetched(
        site.store_dir,
        site.toolchain.nix,
        site.app,
        build,
        site.snapshot,
        downloads=ecosystem.downloads(site.snapshot.root / build.lock_file),
        influences=site.influences[:1],
        secrets=site.secrets,
        emit=site.emit,
        cancel=site.cancel,
    )


def _fetch_key(site: Site, ecosystem: Ecosystem, step: Step) -> str:
    deciding = (entry for entry in site.snapshot.entries if ecosystem.decides_fetch(entry.path))
    parts = [
        [(entry.path, entry.content) for entry in deciding],
        [step.argv, str(step.directory), step.environment],
        [site.toolchain.key, site.influences],
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _product(bench: Bench, build: BuildPlan, ecosystem: Ecosystem) -> Path:
    product = ecosystem.product(bench.workspace)
    wanted = Path.is_file if isinstance(build.output, CargoOutput | GoOutput) else Path.is_dir
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
