"""What a backend is built from: candidates for it in a monorepo, and the program that was chosen."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from orchestrator.detect.evidence import Evidence
from orchestrator.detect.packages import PackageManager

Language = Literal["rust", "go", "python", "node"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A directory (relative to the monorepo) whose code makes programs; `serves`: it depends on a web framework."""

    language: Language
    directory: PurePosixPath
    serves: bool


@dataclass(frozen=True, slots=True)
class Program:
    """The program a backend runs.

    `directory`, where it is built, and `lock_file` are relative to the monorepo. `package` is what the build tool
    calls its source: a crate's name, a Go package's path in its module ("./cmd/api"), a Node package's name, or the
    name under which a Python project is installed, "" where its files are run as they are. `binary` is the program, of
    Python what is served ("main:app"), of Node the file ("dist/server.js"); `start` are then the interpreter's
    arguments. `reads_port`: it listens on PORT, whatever ports its source names. Only Node has a `package_manager`, and
    a `build_script` where package.json says how to build it.
    """

    language: Language
    directory: PurePosixPath
    lock_file: PurePosixPath
    package: str
    binary: str
    evidence: tuple[Evidence, ...]
    start: tuple[str, ...] = ()
    reads_port: bool = False
    package_manager: PackageManager | None = None
    build_script: bool = False
