"""The go command: the variables of a reproducible build, what it links, what it says while it builds."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.build.cache.downloads import DownloadDirectories, Downloads, read_integrities
from orchestrator.build.inventory import Component, go_module
from orchestrator.build.snapshot import Snapshot
from orchestrator.build.workspace import Workspace
from orchestrator.errors import BuildError, OrchestratorError, ToolchainError
from orchestrator.files import remove_tree
from orchestrator.plan import BuildPlan
from orchestrator.recipes import GoOutput
from orchestrator.tools.platforms import architecture_name

WRITE_LOCK = ("go", "mod", "tidy")

_DOWNLOADS = "home/go/pkg/mod/cache/download"
_LOCKS = re.compile(r"\.lock$")
_DECIDING = ("go.mod", "go.sum", "go.work", "go.work.sum", "vendor/modules.txt")
_LISTED = re.compile(
    r"package (?P<path>\S+) (?P<standard>true|false) (?P<cgo>\d+)"
    r"(?: (?P<main>true|false) (?P<module>\S+) (?P<version>\S*)(?: => (?P<by>\S+) (?P<by_version>\S*))?)?"
)
_UNLOCKED = re.compile(
    r"missing go\.sum entry|updates to go\.(mod|sum|work) needed|go\.mod file not found in current directory"
    r"|cannot find module providing package|no required module provides package|inconsistent vendoring"
)
_MISSING = re.compile(r"(?:module providing package|provides package) (?P<package>[^\s;:]+)")


@dataclass(slots=True)
class Go:
    """One Go build: its variables, and what it reported so far (packages linked, compiled, in need of C).

    `packages` maps what is linked to whether it is the standard library's; `foreign` are packages with C code,
    `modules` those the packages come from, the monorepo's own left out.
    """

    build: BuildPlan
    snapshot: Snapshot
    compiled: int = 0
    packages: dict[str, bool] = field(default_factory=dict)
    fresh: set[str] = field(default_factory=set)
    foreign: list[str] = field(default_factory=list)
    modules: set[Component] = field(default_factory=set)

    @property
    def reused(self) -> int:
        """Packages of modules that did not have to be compiled."""
        return sum(not standard for standard in self.packages.values()) - len(self.fresh)

    def decides_fetch(self, path: str) -> bool:
        """Whether the file decides what is fetched."""
        return any(path == name or path.endswith(f"/{name}") for name in _DECIDING)

    def prepare(self, workspace: Workspace) -> None:
        """Remove what an earlier build delivered."""
        remove_tree(workspace.path / "target" / "bin")
        for left in self._usual_places(workspace):
            left.unlink(missing_ok=True)

    def is_fetched(self, workspace: Workspace) -> bool:
        """Whether an earlier fetch left anything to build from; a module without requirements needs nothing."""
        return self.build.lock_file.name == "go.mod" or (workspace.path / "home" / "go" / "pkg" / "mod").is_dir()

    def begin_fetch(self, workspace: Workspace) -> None:
        """Nothing: go sees what is not whole."""

    def downloads(self, lock: Path) -> Downloads:
        """Modules as they were downloaded; go unpacks them."""
        return DownloadDirectories("go-fetched", (_DOWNLOADS,), read_integrities(lock), _LOCKS)

    def fetch_variables(self, *, offline: bool) -> dict[str, str]:
        """What keeps go from trying the network when there is none."""
        return {"GOPROXY": "off"} if offline else {}

    def variables(self, workspace: Workspace) -> dict[str, str]:
        """Caches in the workspace, no toolchain but the dev shell's, C only where a linked package has some.

        As long as that is not known `go list` must see the files with C code.
        """
        variables = {
            "GOPATH": str(workspace.seen("home") / "go"),
            "GOMODCACHE": str(workspace.seen("home") / "go" / "pkg" / "mod"),
            "GOCACHE": str(workspace.seen("target") / "go-build"),
            "GOTOOLCHAIN": "local",
            "GOTELEMETRY": "off",
            "CGO_ENABLED": "1" if self.foreign or not self.packages else "0",
        }
        if self.build.platform:
            variables |= {"GOOS": "linux", "GOARCH": architecture_name(self.build.platform)}
        return variables

    def arguments(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """`go build …` told where to put the program: in target/, beside src/; other commands unchanged."""
        if argv[:2] != ("go", "build"):
            return argv
        up = "../" * (len(self.build.directory.parts) + 1)
        return (*argv[:2], "-o", f"{up}target/bin/{self._binary}", *argv[2:])

    def read(self, line: str) -> str | None:
        """Take in one line of output; the text to show, None for one of `go list`."""
        if listed := _LISTED.fullmatch(line):
            self._list(listed)
            return None
        if line in self.packages:
            self.compiled += 1
            self.fresh |= set() if self.packages[line] else {line}
        return line

    def settle(self) -> str | None:
        """What is to be said once it is known what is linked.

        Raises `ToolchainError` when C code would have to be compiled for another platform.
        """
        if not self.foreign:
            return None
        named = ", ".join(sorted(self.foreign))
        if self.build.platform:
            raise ToolchainError(
                f"{self.build.service} cannot be built for {self.build.platform} here: {named} has C code (cgo),"
                " which is compiled for this machine's own platform only",
                hint=f"build on a machine of that platform, or without: --platform {self.build.platform}",
            )
        return f"{self.build.service} is built with cgo: {named} has C code"

    def linked(self, library: Component) -> tuple[Component, ...]:
        """What the program is made of, the standard library included, by name and version."""
        return tuple(sorted({library, *self.modules}, key=lambda module: (module.name, module.version)))

    def explain(self, error: OrchestratorError) -> OrchestratorError:
        """The same error; for requirements that are out of date one that names the packages and the command to run."""
        text = "\n".join(error.details)
        if not isinstance(error, BuildError) or not _UNLOCKED.search(text):
            return error
        missing = dict.fromkeys(found["package"] for found in _MISSING.finditer(text))
        vendored = self.build.lock_file.name == "modules.txt"
        named = f": {', '.join(missing)}" if missing else ""
        return BuildError(
            f"{self.build.lock_file} is out of date{named}",
            details=error.details,
            hint=f"run: go mod tidy{' && go mod vendor' if vendored else ''}"
            f" in {self.snapshot.root / self.build.directory}, and commit what it changes",
        )

    def product(self, workspace: Workspace) -> Path:
        """The program: where `go build` was told to put it, else (after a command of the user's own) a usual place."""
        planned = workspace.path / "target" / "bin" / self._binary
        return next((path for path in (planned, *self._usual_places(workspace)) if path.is_file()), planned)

    @property
    def _binary(self) -> str:
        assert isinstance(self.build.output, GoOutput)
        return self.build.output.binary

    def _usual_places(self, workspace: Workspace) -> tuple[Path, ...]:
        """Where a build command puts a program as a rule, unless the monorepo has a file of its own there."""
        sources = {entry.path for entry in self.snapshot.entries}
        places = (self.build.directory / self._binary, self.build.directory / "bin" / self._binary)
        found = (workspace.path / "src" / place for place in places if str(place) not in sources)
        return tuple(path for path in found if not path.is_dir())

    def _list(self, listed: re.Match[str]) -> None:
        standard = listed["standard"] == "true"
        self.packages[listed["path"]] = standard
        if not standard and listed["cgo"] != "0":
            self.foreign.append(listed["path"])
        if listed["main"] == "false":
            replacement = (listed["by"], listed["by_version"]) if listed["by"] else None
            self.modules.add(go_module(listed["module"], listed["version"], replacement))
