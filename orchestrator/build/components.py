"""The packages a build product is made of, as the tools that made it say."""

from typing import assert_never

from orchestrator.build.dev_shell import said_by_go
from orchestrator.build.ecosystem import Ecosystem, step_command
from orchestrator.build.go_toolchain import go_version
from orchestrator.build.golang import Go
from orchestrator.build.inventory import Component, cargo_tree_argv, go_library, parse_cargo_tree
from orchestrator.build.node_modules import installed_packages
from orchestrator.build.python import Python
from orchestrator.build.site import Site
from orchestrator.build.steps import Bench, run_command
from orchestrator.errors import BuildError, ToolchainError
from orchestrator.events import Note
from orchestrator.plan import BuildPlan
from orchestrator.recipes import CargoOutput, GoOutput, NodeOutput, PythonOutput, Step, TreeOutput
from orchestrator.tools.platforms import PLATFORMS


def find_components(site: Site, build: BuildPlan, bench: Bench, ecosystem: Ecosystem) -> tuple[Component, ...] | None:
    """The packages the product is made of; None, said with the reason, when they cannot be told."""
    try:
        match build.output:
            case CargoOutput(package):
                lines: list[str] = []
                target = PLATFORMS[build.platform].rust if build.platform else ""
                step = Step("build", cargo_tree_argv(package, target), build.directory, network=False)
                run_command(bench, step_command(site, bench, ecosystem, step), read=lines.append)
                return parse_cargo_tree(lines)
            case GoOutput():
                library = go_library(go_version(said_by_go(site, bench)))
                return ecosystem.linked(library) if isinstance(ecosystem, Go) else None
            case PythonOutput():
                return tuple(ecosystem.components) if isinstance(ecosystem, Python) else None
            case TreeOutput() | NodeOutput():
                sources = bench.workspace.path / "src"
                return installed_packages(sources / build.directory, sources)
            case _:
                assert_never(build.output)
    except (BuildError, ToolchainError, OSError, ValueError) as error:
        text = f"what {build.service} is made of is not known, its SBOM will say so: {error}"
        site.emit(Note(text, level="warning"))
        return None
