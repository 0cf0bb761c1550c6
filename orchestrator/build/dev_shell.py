"""What a build needs of the dev shell: the Rust or the Go its project asks for, and a linker."""

from pathlib import PurePosixPath

from orchestrator.build.cargo import Cargo
from orchestrator.build.ecosystem import Ecosystem
from orchestrator.build.environment import step_environment
from orchestrator.build.go_toolchain import asked_go, require_go
from orchestrator.build.rust_toolchain import asked_toolchain, require_rust
from orchestrator.build.rust_tools import NO_RUST, RustTools, inspect_rust
from orchestrator.build.site import Site
from orchestrator.build.steps import Bench, Command, run_command
from orchestrator.events import Note
from orchestrator.files import read_json, write_json
from orchestrator.plan import BuildPlan
from orchestrator.recipes import CargoOutput, GoOutput


def rust_tools(site: Site, build: BuildPlan, bench: Bench) -> RustTools:
    """What the dev shell has for Rust. Refuses one with another Rust than the monorepo asks for."""
    if not isinstance(build.output, CargoOutput):
        return NO_RUST
    tools = inspect_rust(bench, site.cache_dir)
    asked = asked_toolchain(site.snapshot, build.directory)
    if asked is not None and not site.any_rust:
        require_rust(asked, tools.rustc, source=site.toolchain.source)
    return tools


def say_linker(site: Site, build: BuildPlan, ecosystem: Ecosystem) -> None:
    """Tell which linker of the dev shell is used, or why none is."""
    if not isinstance(ecosystem, Cargo):
        return
    if ecosystem.linker is not None:
        site.emit(Note(f"{build.service}: linked with the dev shell's {ecosystem.linker.name}"))
    elif ecosystem.may_choose_linker and (
        unfit := [linker.name for linker in ecosystem.tools.linkers if not linker.fit]
    ):
        text = f"{build.service}: linked as usual: what the dev shell's {unfit[0]} links does not find its libraries"
        site.emit(Note(text))


def check_go(site: Site, build: BuildPlan, bench: Bench) -> None:
    """Refuse a dev shell with an older Go than the monorepo asks for."""
    asked = asked_go(site.snapshot, build.directory) if isinstance(build.output, GoOutput) else None
    if asked is not None:
        require_go(asked, said_by_go(site, bench), source=site.toolchain.source)


def said_by_go(site: Site, bench: Bench) -> str:
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
