"""What an interpreter needs beside what its tools installed: itself, the monorepo's own code, shared libraries."""

from functools import partial
from pathlib import Path

from orchestrator.build.ecosystem import Ecosystem
from orchestrator.build.interpreter import slim_node
from orchestrator.build.native_libraries import link_libraries
from orchestrator.build.node import Node
from orchestrator.build.node_application import make_application
from orchestrator.build.python import Python
from orchestrator.build.site import Site
from orchestrator.build.toolchain import runtime_package
from orchestrator.build.workspace import Workspace
from orchestrator.errors import BuildError
from orchestrator.plan import BuildPlan
from orchestrator.recipes import NodeOutput


def complete_application(site: Site, build: BuildPlan, workspace: Workspace, ecosystem: Ecosystem) -> None:
    """Add to the product of a Python or Node build what the steps could not; nothing to other builds'.

    Raises `BuildError` when a package is missing, `ToolchainError` when the package set lacks what is needed.
    """
    provide = partial(runtime_package, site.toolchain, cancel=site.cancel)
    tree = ecosystem.product(workspace)
    match ecosystem:
        case Node(interpreter=interpreter) if isinstance(build.output, NodeOutput) and interpreter is not None:
            sources = workspace.path / "src"
            _check_entry(build, sources / build.directory, build.output.entry)
            try:
                make_application(sources / build.directory, sources, tree, slim_node(interpreter, provide))
            except ValueError as error:
                raise BuildError(f"{build.service}: {error}", hint=f"does {build.lock_file} have it?") from error
        case Python():
            pass
        case _:
            return
    link_libraries(tree, provide)


def _check_entry(build: BuildPlan, project: Path, entry: str) -> None:
    if not (project / entry).is_file():
        raise BuildError(
            f"{build.service}: the build succeeded but did not give {build.directory / entry}, which Node is to run",
            hint="say with --backend-bin which file it makes, relative to the package",
        )
