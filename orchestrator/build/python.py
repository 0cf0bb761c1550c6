"""Python backends: what uv is told, which packages are the monorepo's own, what the steps say while they run."""

import re
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path

from orchestrator.build.cache.downloads import DownloadDirectories, Downloads, read_integrities
from orchestrator.build.interpreter import Interpreter, parse_interpreter, require_in_store
from orchestrator.build.inventory import Component
from orchestrator.build.own_code import copy_own_code, project_directories
from orchestrator.build.snapshot import Snapshot
from orchestrator.build.workspace import Workspace
from orchestrator.errors import BuildError, OrchestratorError, ToolchainError
from orchestrator.files import remove_tree, resource
from orchestrator.plan import BuildPlan
from orchestrator.recipes import ARRANGE_PYTHON, PythonOutput

WRITE_LOCK = ("uv", "lock")

_NOT_KEPT = re.compile(
    r"/builds-v\d+/|/sdists-v\d+/(?:path|editable)/"
    r"|/sdists-v\d+/.*(?:\.whl(?:/|$)|-(?:py\d|cp\d)[^/]*-[^/]*-[^/]*(?:/|$))|\.lock$"
)
"""Of uv's cache: environments for building, and wheels it built, packed and unpacked, beside their sources."""

_DECIDING = frozenset({"pyproject.toml", "uv.lock", "uv.toml", "setup.py", "setup.cfg"})
_REQUIREMENTS = re.compile(r"(^|/)(requirements|constraints)[^/]*\.(txt|in)$")
_OUT_OF_DATE = re.compile(r"lockfile (at `[^`]*` )?needs to be updated")
_WRONG_PYTHON = re.compile(
    r"interpreter resolved to Python (?P<has>\S+), which is incompatible with .*: `(?P<asked>[^`]+)`"
)
_INCOMPLETE = re.compile(
    r"^The package `(?P<package>[^`]+)` requires `(?P<needs>[^`]+)`, but (?P<why>.*)", re.MULTILINE
)


@dataclass(slots=True)
class Python:
    """One Python build: its variables, and what it reported so far (packages installed, what the tree is made of)."""

    build: BuildPlan
    snapshot: Snapshot
    compiled: int = 0
    reused: int = 0
    interpreter: Interpreter | None = None
    components: list[Component] = field(default_factory=list)

    def decides_fetch(self, path: str) -> bool:
        """Whether the file decides what is installed."""
        return path.rpartition("/")[2] in _DECIDING or _REQUIREMENTS.search(path) is not None

    def prepare(self, workspace: Workspace) -> None:
        """Begin the tree anew, with the project's files unless it is installed itself."""
        assert isinstance(self.build.output, PythonOutput)
        remove_tree(self.product(workspace))
        if not self.build.output.package:
            sources = workspace.path / "src"
            projects = project_directories(self.snapshot, sources)
            copy_own_code(sources / self.build.directory, self.product(workspace) / "src", projects)

    def is_fetched(self, workspace: Workspace) -> bool:
        """Whether an environment was made here."""
        return (workspace.path / "target" / "venv" / "pyvenv.cfg").is_file()

    def begin_fetch(self, workspace: Workspace) -> None:
        """Remove the environment: uv takes a package for installed that was cut off. What it downloaded stays."""
        remove_tree(workspace.path / "target" / "venv")

    def downloads(self, lock: Path) -> Downloads:
        """uv's cache without what it built: that is made anew by whoever has nothing else."""
        return DownloadDirectories("python-fetched", ("home/.cache/uv",), read_integrities(lock), _NOT_KEPT)

    def fetch_variables(self, *, offline: bool) -> dict[str, str]:
        """What keeps uv from trying the network when there is none."""
        return {"UV_OFFLINE": "1"} if offline else {}

    def variables(self, workspace: Workspace) -> dict[str, str]:
        """Everything in the workspace, the dev shell's Python and no other; extensions in C without debug sections."""
        environment = str(workspace.seen("target") / "venv")
        return {
            "UV_CACHE_DIR": str(workspace.seen("home") / ".cache" / "uv"),
            "UV_PROJECT_ENVIRONMENT": environment,
            "VIRTUAL_ENV": environment,
            "UV_PYTHON": "python3",
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_LINK_MODE": "copy",
            "UV_NO_PROGRESS": "1",
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONNOUSERSITE": "1",
            "CC": "cc",
            "CXX": "c++",
            "CFLAGS": "-g0",
            "CXXFLAGS": "-g0",
        }

    def arguments(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """`uv sync` without the network told to build the monorepo's own packages anew; the script told its places."""
        if argv[:2] == ("uv", "sync") and "--offline" in argv:
            return (*argv, *(f"--reinstall-package={name}" for name in self._own_packages()))
        if argv == ("python3", ARRANGE_PYTHON):
            up = "../" * (len(self.build.directory.parts) + 1)
            script = resource("nix").parent / ARRANGE_PYTHON
            return ("python3", str(script), f"{up}target/venv", f"{up}target/app")
        return argv

    def read(self, line: str) -> str | None:
        """Take in one line of output; the text to show, None for what is said to us."""
        if interpreter := parse_interpreter(line):
            self.interpreter = interpreter
            return None
        word, *told = line.split("\t")
        if word == "component" and len(told) == len(fields(Component)) - 1:
            self.components.append(Component("pypi", *told))
            return None
        self.compiled += line.lstrip().startswith("Built ")
        return line

    def settle(self) -> str | None:
        """Nothing to be said. Raises `ToolchainError` for a Python that is not from the Nix store."""
        require_in_store(self.interpreter, service=self.build.service, package="python3")
        return None

    def explain(self, error: OrchestratorError) -> OrchestratorError:
        """The same error; for a lock file or a Python that does not fit one that says what to do."""
        text, lock = "\n".join(error.details), self.build.lock_file
        if not isinstance(error, BuildError):
            return error
        if _OUT_OF_DATE.search(text):
            hint = f"run: uv lock in {self.snapshot.root / lock.parent}, and commit what it changes"
            return BuildError(f"{lock} is out of date", details=error.details, hint=hint)
        if found := _WRONG_PYTHON.search(text):
            return ToolchainError(
                f"{self.build.directory} asks for Python {found['asked']}, the dev shell has {found['has']}",
                details=error.details,
                hint="provide another one in the dev shell, or change requires-python in pyproject.toml",
            )
        if found := _INCOMPLETE.search(text):
            return BuildError(
                f"{lock} is not complete: {found['package']} requires {found['needs']}, but {found['why']}",
                details=error.details,
                hint="let it name everything that is to be installed: uv pip compile requirements.in"
                f" --universal --generate-hashes -o {lock.name}",
            )
        return error

    def product(self, workspace: Workspace) -> Path:
        """The directory the script was told to make."""
        return workspace.path / "target" / "app"

    def _own_packages(self) -> tuple[str, ...]:
        """The packages of the lock file that are made of directories of the monorepo."""
        locked = tomllib.loads((self.snapshot.root / self.build.lock_file).read_text())
        found = (
            package for package in locked.get("package", []) if {"editable", "directory"} & package["source"].keys()
        )
        return tuple(str(package["name"]) for package in found)
