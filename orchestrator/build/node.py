"""npm, pnpm and the tools they run: their variables, what a fetch depends on, what they say while they build."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from orchestrator.build.cache.downloads import DownloadDirectories, Downloads, read_integrities
from orchestrator.build.interpreter import Interpreter, parse_interpreter, require_in_store
from orchestrator.build.snapshot import Snapshot
from orchestrator.build.workspace import Workspace
from orchestrator.errors import OrchestratorError
from orchestrator.files import remove_tree
from orchestrator.plan import BuildPlan
from orchestrator.recipes import NodeOutput, TreeOutput

_MANIFESTS = frozenset({"package.json", ".npmrc"})
_MODULES = re.compile(r"\b(\d+) modules transformed")


@dataclass(frozen=True, slots=True)
class PackageManager:
    """What differs between package managers of Node.

    `write_lock` writes the lock file and nothing else; `deciding` are files that decide what is installed, beside
    those that all managers read; `last` is what an install writes last, below node_modules. Settings are read from
    variables that begin with one of `prefixes`; those of `downloads` say where downloads stay, below the workspace's
    home; `kept` are the directories there that have nothing else.
    """

    write_lock: tuple[str, ...]
    deciding: frozenset[str]
    last: str
    prefixes: tuple[str, ...]
    downloads: Mapping[str, str]
    kept: tuple[str, ...]
    settings: Mapping[str, str]

    def variables(self, settings: Mapping[str, str]) -> dict[str, str]:
        """Settings as variables."""
        return {f"{prefix}{name}": value for prefix in self.prefixes for name, value in settings.items()}


_NPM = PackageManager(
    write_lock=("npm", "install", "--package-lock-only", "--ignore-scripts"),
    deciding=frozenset({"package-lock.json", "npm-shrinkwrap.json"}),
    last=".package-lock.json",
    prefixes=("npm_config_",),
    downloads={"cache": ".npm"},
    kept=(".npm/_cacache",),
    settings={"audit": "false", "fund": "false", "progress": "false"},
)
_PNPM = PackageManager(
    write_lock=("pnpm", "install", "--lockfile-only", "--ignore-scripts"),
    deciding=frozenset({"pnpm-lock.yaml", "pnpm-workspace.yaml", ".pnpmfile.cjs", ".pnpmfile.mjs"}),
    last=".modules.yaml",
    prefixes=("npm_config_", "pnpm_config_"),  # the second since pnpm 11
    downloads={"store_dir": ".pnpm-store", "cache_dir": ".pnpm-cache"},
    kept=(".pnpm-store", ".pnpm-cache"),
    # The dev shell's pnpm is used: it would fetch the one that "packageManager" names.
    settings={"manage_package_manager_versions": "false"},
)
_MANAGERS = {"pnpm-lock.yaml": _PNPM}
"""By the name of the lock file; npm has the others."""

_NOT_KEPT = re.compile(r"/_cacache/tmp/|/\.pnpm-store/[^/]+/projects/|\.lock$")
"""Files that are being written, and where the store is in use."""


_MADE = (".tmp", ".cache")
"""Where tools keep notes of what they built, below node_modules: a compiler that finds its own builds nothing."""


def write_lock(lock_file: PurePosixPath) -> tuple[str, ...]:
    """The command that writes this lock file."""
    return _MANAGERS.get(lock_file.name, _NPM).write_lock


@dataclass(slots=True)
class Node:
    """One Node build: its variables, and what it reported so far (modules the bundler says it compiled)."""

    build: BuildPlan
    snapshot: Snapshot
    compiled: int = 0
    reused: int = 0
    interpreter: Interpreter | None = None

    @property
    def manager(self) -> PackageManager:
        return _MANAGERS.get(self.build.lock_file.name, _NPM)

    def decides_fetch(self, path: str) -> bool:
        """Whether the file decides what is installed."""
        name = path.rpartition("/")[2]
        return name in _MANIFESTS | self.manager.deciding or name.endswith(".patch")

    def prepare(self, workspace: Workspace) -> None:
        """Remove what an earlier build delivered: not every bundler empties its output directory."""
        if isinstance(self.build.output, NodeOutput):
            self._remove_unknown(workspace.path / "src")
            remove_tree(self.product(workspace))
            return
        assert isinstance(self.build.output, TreeOutput)
        output = str(self.build.output.directory)
        sources = any(entry.path.startswith(f"{output}/") for entry in self.snapshot.entries)
        if not sources and output != ".":
            remove_tree(workspace.path / "src" / output)

    def is_fetched(self, workspace: Workspace) -> bool:
        """Whether an install finished here."""
        root = workspace.path / "src" / self.build.lock_file.parent
        return (root / "node_modules" / self.manager.last).is_file()

    def begin_fetch(self, workspace: Workspace) -> None:
        """Nothing: npm begins anew, and pnpm sees what is not whole."""

    def downloads(self, lock: Path) -> Downloads:
        """The package manager's own cache."""
        parts = tuple(f"home/{place}" for place in self.manager.kept)
        return DownloadDirectories("node-fetched", parts, read_integrities(lock), _NOT_KEPT)

    def fetch_variables(self, *, offline: bool) -> dict[str, str]:
        """What keeps it from trying the network when there is none."""
        return self.manager.variables({"offline": "true"}) if offline else {}

    def variables(self, workspace: Workspace) -> dict[str, str]:
        """Downloads in the workspace; nothing that asks the network on the side."""
        manager = self.manager
        places = {setting: str(workspace.seen("home") / place) for setting, place in manager.downloads.items()}
        return manager.variables({**places, "update_notifier": "false", **manager.settings})

    def arguments(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """The command as planned."""
        return argv

    def read(self, line: str) -> str | None:
        """Take in one line of output; the text to show, None for what is said to us."""
        if interpreter := parse_interpreter(line):
            self.interpreter = interpreter
            return None
        if found := _MODULES.search(line):
            self.compiled += int(found.group(1))
        return line

    def settle(self) -> str | None:
        """Nothing to be said. Raises `ToolchainError` for a Node that is not from the Nix store."""
        require_in_store(self.interpreter, service=self.build.service, package="nodejs")
        return None

    def explain(self, error: OrchestratorError) -> OrchestratorError:
        """The same error: the tools say themselves what to do."""
        return error

    def product(self, workspace: Workspace) -> Path:
        """The directory of files the build was planned to give, of a backend what is made of all."""
        if isinstance(self.build.output, NodeOutput):
            return workspace.path / "target" / "app"
        assert isinstance(self.build.output, TreeOutput)
        return workspace.path / "src" / self.build.output.directory

    def _remove_unknown(self, sources: Path) -> None:
        """Of a backend all files count that are there after its build, so none of an earlier one may be left."""
        for made in _MADE:
            remove_tree(sources / self.build.directory / "node_modules" / made)
        known = {entry.path for entry in self.snapshot.entries}
        for directory, subdirectories, names in os.walk(sources / self.build.directory):
            subdirectories[:] = [name for name in subdirectories if name != "node_modules"]
            for path in (Path(directory, name) for name in names):
                if path.relative_to(sources).as_posix() not in known:
                    path.unlink()
