"""What an interpreter needs beside what its tools installed: itself, the monorepo's own code, shared libraries."""

from functools import partial
from pathlib import Path

from orchestrator.build.ecosystem import Ecosystem
from orchestrator.build.interpreter import slim_node
from orchestrator.build.native_libraries import link_libraries
from orchestrator.build.node import Node
from orchestrator.build.node_application import make_application
from orchestrator.build.own_code import project_directories
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
            sources, entry = (workspace.path / "src").resolve(), build.output.entry
            projects, node = project_directories(site.snapshot, sources), slim_node(interpreter, provide)
            _check_entry(build, sources, entry, "the build succeeded but did not give")
            try:
                make_application(sources / build.directory, sources, tree, node, projects)
            except ValueError as error:
                raise BuildError(f"{build.service}: {error}", hint=f"does {build.lock_file} have it?") from error
            _check_entry(build, tree / "src", entry, "tests and hidden files are left out of an image, and with them")
        case Python():
            pass
        case _:
            return
    link_libraries(tree, provide)


def _check_entry(build: BuildPlan, root: Path, entry: str, why: str) -> None:
    if not (root / build.directory / entry).is_file():
        raise BuildError(
            f"{build.service}: {why} {build.directory / entry}, which Node is to run",
            hint="say with --backend-bin which file it makes, relative to the package",
        )
