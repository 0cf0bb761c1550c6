"""cargo: the variables of a reproducible build, what a fetch depends on, what it says while it builds."""

import json
import platform
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.build.cache.cargo_home import CargoHome, read_wanted
from orchestrator.build.cache.downloads import Downloads
from orchestrator.build.cache.explain import Reasons, read_packages
from orchestrator.build.cargo_lock import explain_refusal, is_lock_refused
from orchestrator.build.cargo_target import Target
from orchestrator.build.registries import UserConfig, read_toml, table, write_config
from orchestrator.build.rust_tools import NO_RUST, Linker, RustTools
from orchestrator.build.snapshot import Snapshot
from orchestrator.build.workspace import Workspace
from orchestrator.errors import OrchestratorError
from orchestrator.plan import BuildPlan
from orchestrator.recipes import CargoOutput
from orchestrator.tools.platforms import PLATFORMS

WRITE_LOCK = ("cargo", "generate-lockfile")
_REPORTING = ("--message-format=json-render-diagnostics", "--verbose")
_PLAIN = (("cargo", "build"), ("cargo", "fetch"))
_LINKING = ("linker", "link-arg", "fuse-ld", "ld-path")
"""In a flag, these say that a project chose how to link."""

_MANIFESTS = ("Cargo.toml", "Cargo.lock", ".cargo/config.toml", ".cargo/config")


@dataclass(slots=True)
class Cargo:
    """One cargo build: its variables, and what it reported so far (units compiled and found fresh, the binary).

    `tools` are what the dev shell has for Rust.
    """

    build: BuildPlan
    snapshot: Snapshot
    config: UserConfig
    tools: RustTools = NO_RUST
    compiled: int = 0
    reused: int = 0
    reasons: Reasons = field(default_factory=Reasons)
    executable: PurePosixPath | None = None
    target: Target | None = None

    def __post_init__(self) -> None:
        if self.build.platform:
            self.target = Target(PLATFORMS[self.build.platform])

    def decides_fetch(self, path: str) -> bool:
        """Whether the file decides what is fetched."""
        return any(path == name or path.endswith(f"/{name}") for name in _MANIFESTS)

    def prepare(self, workspace: Workspace) -> None:
        """Give the workspace the user's registries: crates are named by them, in the offline build too."""
        write_config(workspace, self.config)

    def is_fetched(self, workspace: Workspace) -> bool:
        """Whether an earlier fetch left anything to build from."""
        return (workspace.path / "cargo").is_dir()

    def begin_fetch(self, workspace: Workspace) -> None:
        """Nothing: cargo sees what is not whole."""

    def downloads(self, lock: Path) -> Downloads:
        """Of CARGO_HOME what the lock file asks for."""
        return CargoHome(read_wanted(lock), read_packages(lock))

    def fetch_variables(self, *, offline: bool) -> dict[str, str]:
        """The user's tokens, or what keeps cargo from trying the network when there is none.

        A registry that wants a token for downloads gets one only from a provider that was named:
        https://doc.rust-lang.org/cargo/reference/registry-authentication.html
        """
        provider = {"CARGO_REGISTRY_GLOBAL_CREDENTIAL_PROVIDERS": "cargo:token"}
        return {**provider, **({"CARGO_NET_OFFLINE": "true"} if offline else self.config.secrets)}

    def variables(self, workspace: Workspace) -> dict[str, str]:
        """The variables of every step; whatever the project itself configures is left alone."""
        variables = {
            **self.config.variables,
            "CARGO_HOME": str(workspace.seen("cargo")),
            "CARGO_TARGET_DIR": str(workspace.seen("target")),
            "CARGO_INCREMENTAL": "0",
            "CARGO_TERM_COLOR": "never",
            "CARGO_TERM_PROGRESS_WHEN": "never",
        }
        configs = self._configs()
        profiles = [*self._at_each_level("", "Cargo"), *configs]
        if not any("strip" in table(found, "profile", "release") for found in profiles):
            variables["CARGO_PROFILE_RELEASE_STRIP"] = "symbols"
        if not self._has_target_flags("rustflags"):
            target = self.target.flags() if self.target else ()
            variables["CARGO_BUILD_RUSTFLAGS"] = " ".join([*_remapped(workspace), *self._link_flags(), *target])
        if self.tools.variables.isdisjoint({"CFLAGS", "CXXFLAGS"}) and " " not in str(workspace.seen("src")):
            variables |= _c_flags(workspace)
        return variables | (self.target.variables() if self.target else {})

    @property
    def linker(self) -> Linker | None:
        """The dev shell's quicker linker, where there is one that fits and it is ours to choose."""
        return self.tools.linker if self.may_choose_linker else None

    @property
    def may_choose_linker(self) -> bool:
        """Whether neither the project says itself how to link, nor links for other machines.

        Flags of ours would reach the linker of every target, that of WebAssembly too.
        """
        plain = all(step.argv[:2] in _PLAIN and "--target" not in " ".join(step.argv) for step in self.build.steps)
        own = {name: value for found in self._configs() for name, value in table(found, "build").items()}
        chosen = "target" in own or _says_linking(own.get("rustflags")) or self._has_target_flags("rustflags", "linker")
        return plain and not chosen

    def _has_target_flags(self, *names: str) -> bool:
        """Whether the project's configuration has one of these for some target."""
        targets = [target for found in self._configs() for target in table(found, "target").values()]
        return any(name in target for target in targets for name in names)

    def _link_flags(self) -> list[str]:
        return [f"-Clink-arg=-fuse-ld={self.linker.name}"] if self.linker else []

    def _configs(self) -> list[dict[str, Any]]:
        return self._at_each_level(".cargo", "config")

    def arguments(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """`cargo build …` made to name its executables and its reasons; other commands unchanged."""
        if argv[:2] != ("cargo", "build"):
            return argv
        missing = [flag for flag in _REPORTING if not any(_is_flag(part, flag) for part in argv)]
        return (*argv[:2], *missing, *argv[2:])

    def read(self, line: str) -> str | None:
        """Take in one line of output; the text to show, None for a message meant for programs."""
        if self.target is not None and self.target.read(line):
            return None
        if not line.startswith('{"reason":'):
            return None if self.reasons.read(line) else line
        try:
            message = json.loads(line)
        except ValueError:
            return line
        if message["reason"] == "compiler-artifact":
            self._count(message)
        return None

    def settle(self) -> None:
        """Raises `ToolchainError` when the dev shell cannot build for the platform asked for."""
        if self.target is not None:
            self.target.require(self.build.service)

    def explain(self, error: OrchestratorError) -> OrchestratorError:
        """The same error; for a lock file that is out of date one that names the crates and the command to run."""
        return explain_refusal(error, self.build, self.snapshot) if is_lock_refused(error) else error

    def product(self, workspace: Workspace) -> Path:
        """The binary: what cargo named, else (after a build command of the user's own) the usual place."""
        assert isinstance(self.build.output, CargoOutput)
        place = workspace.seen("target") / (self.target.name if self.target else "")
        usual = place / "release" / self.build.output.binary
        return workspace.outside(self.executable or usual)

    def _count(self, message: dict[str, Any]) -> None:
        self.compiled += not message["fresh"]
        self.reused += bool(message["fresh"])
        target, output = message["target"], self.build.output
        wanted = isinstance(output, CargoOutput) and target["name"] == output.binary and "bin" in target["kind"]
        if wanted and message.get("executable"):
            self.executable = PurePosixPath(message["executable"])

    def _at_each_level(self, below: str, name: str) -> list[dict[str, Any]]:
        """The files of that name that count for the build: in its directory and its parents', in the monorepo."""
        directory = self.build.directory
        return [read_toml(self.snapshot.root / level / below, name) for level in (directory, *directory.parents)]


def _remapped(workspace: Workspace) -> list[str]:
    """rustc's flags that give the fixed paths names.

    Cargo joins them to `build.rustflags` of the project's configuration; a RUSTFLAGS of the dev shell wins.
    """
    return [f"--remap-path-prefix={path}={name}" for path, name in _names(workspace)]


def _c_flags(workspace: Workspace) -> dict[str, str]:
    """The same for C code that build scripts compile. Of all programs the `cc` crate and its like read these names.

    https://docs.rs/cc, "External configuration via environment variables"
    """
    flags = " ".join(f"-ffile-prefix-map={path}={name}" for path, name in _names(workspace))
    target = f"{platform.machine()}_unknown_linux_gnu"
    return {f"CFLAGS_{target}": flags, f"CXXFLAGS_{target}": flags}


def _names(workspace: Workspace) -> list[tuple[PurePosixPath, str]]:
    """Names for the fixed paths, the most special last: compilers take the last that fits.

    A mirror's name is part of the registry's directory: each becomes /registry.
    """
    registry = workspace.path / "cargo" / "registry" / "src"
    names = sorted(path.name for path in registry.iterdir()) if registry.is_dir() else []
    base = workspace.seen("cargo") / "registry" / "src"
    parts = [(workspace.seen(part), f"/{part}") for part in ("src", "target", "cargo")]
    return [*parts, *((base / name, "/registry") for name in names)]


def _says_linking(value: Any) -> bool:
    flags = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return any(word in flags for word in _LINKING)


def _is_flag(part: str, flag: str) -> bool:
    """Whether an argument sets what the flag sets, in whichever way it is written."""
    return part.startswith(flag.partition("=")[0]) or (flag == "--verbose" and part in ("-v", "-vv"))
