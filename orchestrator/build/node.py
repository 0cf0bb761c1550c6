"""npm and the tools it runs: their variables, what a fetch depends on, what they say while they build."""

import re
from dataclasses import dataclass
from pathlib import Path

from orchestrator.build.snapshot import Snapshot
from orchestrator.build.workspace import Workspace
from orchestrator.errors import OrchestratorError
from orchestrator.files import remove_tree
from orchestrator.plan import BuildPlan, TreeOutput

WRITE_LOCK = ("npm", "install", "--package-lock-only", "--ignore-scripts")
_MANIFESTS = frozenset({"package.json", "package-lock.json", "npm-shrinkwrap.json", ".npmrc"})
_MODULES = re.compile(r"\b(\d+) modules transformed")


@dataclass(slots=True)
class Node:
    """One npm build: its variables, and what it reported so far (modules the bundler says it compiled)."""

    build: BuildPlan
    snapshot: Snapshot
    compiled: int = 0
    reused: int = 0

    def decides_fetch(self, path: str) -> bool:
        """Whether the file decides what is installed."""
        return path.rpartition("/")[2] in _MANIFESTS

    def prepare(self, workspace: Workspace) -> None:
        """Remove what an earlier build delivered: not every bundler empties its output directory."""
        assert isinstance(self.build.output, TreeOutput)
        output = str(self.build.output.directory)
        sources = any(entry.path.startswith(f"{output}/") for entry in self.snapshot.entries)
        if not sources and output != ".":
            remove_tree(workspace.path / "src" / output)

    def is_fetched(self, workspace: Workspace) -> bool:
        """Whether an install finished here: npm writes this file last."""
        root = workspace.path / "src" / self.build.lock_file.parent
        return (root / "node_modules" / ".package-lock.json").is_file()

    def fetch_variables(self, *, offline: bool) -> dict[str, str]:
        """What keeps npm from trying the network when there is none."""
        return {"npm_config_offline": "true"} if offline else {}

    def variables(self, workspace: Workspace) -> dict[str, str]:
        """npm's cache in the workspace; nothing that asks the network on the side."""
        return {
            "npm_config_cache": str(workspace.seen("home") / ".npm"),
            "npm_config_audit": "false",
            "npm_config_fund": "false",
            "npm_config_update_notifier": "false",
            "npm_config_progress": "false",
        }

    def arguments(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """The command as planned."""
        return argv

    def read(self, line: str) -> str | None:
        """Take in one line of output; all of it is shown."""
        if found := _MODULES.search(line):
            self.compiled += int(found.group(1))
        return line

    def settle(self) -> str | None:
        """Nothing: there is nothing to inspect before npm builds."""
        return None

    def explain(self, error: OrchestratorError) -> OrchestratorError:
        """The same error: npm says itself what to do."""
        return error

    def product(self, workspace: Workspace) -> Path:
        """The directory of files the build was planned to give."""
        assert isinstance(self.build.output, TreeOutput)
        return workspace.path / "src" / self.build.output.directory
