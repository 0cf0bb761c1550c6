"""The Nix program, 2.8 to 2.34: dev environments, builds, closures, GC roots.

Every call names the experimental features it needs and writes no lock file. Nothing is fetched on behalf of a
flake's own `nixConfig`: `--accept-flake-config` is never passed.
"""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator import files, process
from orchestrator.errors import DiskError, OrchestratorError, ToolchainError
from orchestrator.process import Cancel, Completed, ProcessError
from orchestrator.tools import nixlog
from orchestrator.tools.nixlog import Message, NixLog

INSTALL_HINT = "apt-get install nix-bin bash-static (Debian), or see https://nixos.org/download"
OLDEST = (2, 8)

_STORE = Path("/nix/store")
_USUAL_PLACES = ("/nix/var/nix/profiles/default/bin", "/run/current-system/sw/bin")
_FEATURES = ("--extra-experimental-features", "nix-command flakes")
_JSON_LOG = ("--log-format", "internal-json")
_NO_BUILD_USERS = "build-users-group ="
_HOST_PATHS = ("/bin", "/usr", "/lib", "/lib64", "/etc/alternatives")


@dataclass(frozen=True, slots=True)
class StorePath:
    """A member of a closure: its size in bytes as Nix counts it, and the paths it refers to (itself left out)."""

    path: Path
    nar_size: int
    references: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class FlakeInputs:
    """What a flake asks for: name → url. `sources` are inputs that are trees and not flakes (`flake = false`)."""

    flakes: Mapping[str, str]
    sources: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Nix:
    """A Nix program, its version and the whole environment it is called with."""

    executable: Path
    version: tuple[int, int]
    environment: Mapping[str, str]

    def offline(self) -> "Nix":
        """The same, asking no binary cache. Without this an uncached build costs seconds of failing look-ups."""
        return self._configured("substituters =")

    def with_host_tools(self, visible: Sequence[Path] = ()) -> "Nix":
        """The same, with build sandboxes that show this machine's programs and the `visible` directories.

        A daemon takes this from trusted users only; for others linked compilers work in dev shells, not in builds.
        """
        shown = [path for path in (*_HOST_PATHS, *map(str, visible)) if Path(path).exists()]
        return self._configured(f"sandbox-paths = {' '.join(shown)}")

    def _configured(self, line: str) -> "Nix":
        config = f"{self.environment.get('NIX_CONFIG', '')}\n{line}".strip()
        return replace(self, environment={**self.environment, "NIX_CONFIG": config})

    def call(self, *arguments: str, cancel: Cancel | None = None, timeout: float | None = None) -> Completed:
        """Run `nix ARGUMENTS` and return what it said. Raises `ToolchainError` with Nix's message."""
        argv = [str(self.executable), *_FEATURES, *arguments]
        try:
            return process.run(argv, env=self.environment, cancel=cancel, timeout=timeout)
        except ProcessError as error:
            raise _failure(error.completed.stderr, flake=None) from error

    def store(self, *arguments: str, cancel: Cancel | None = None) -> list[str]:
        """Run `nix-store ARGUMENTS` and return its lines. Raises `ToolchainError` with Nix's message."""
        argv = [str(self.executable.with_name("nix-store")), *arguments]
        try:
            return process.run(argv, env=self.environment, cancel=cancel).stdout.splitlines()
        except ProcessError as error:
            raise _failure(error.completed.stderr, flake=None) from error


def open_nix(environ: Mapping[str, str] = os.environ, *, cancel: Cancel | None = None) -> Nix:
    """The Nix on PATH or in the usual places.

    Raises `ProgramMissing` when there is none and `ToolchainError` when it is older than 2.8.
    """
    path = ":".join([environ.get("PATH", os.defpath), *_USUAL_PLACES])
    found = process.find("nix", path=path) or process.require(
        "nix", reason="open the dev shell and keep build caches", hint=INSTALL_HINT
    )
    environment = _environment(environ)
    said = process.run([str(found), "--version"], env=environment, cancel=cancel).stdout
    version = parse_version(said)
    if version < OLDEST:
        raise ToolchainError(f"{found} is too old ({said.strip()})", hint="Nix 2.8 or newer is needed")
    return Nix(found, version, environment)


def parse_version(said: str) -> tuple[int, int]:
    """`nix (Nix) 2.34.8` → (2, 34). Other distributions of Nix end the line in the same way."""
    found = re.findall(r"(\d+)\.(\d+)(?:\.\d+)?\S*", said)
    if not found:
        raise ToolchainError(f"cannot tell the version of Nix from {said.strip()!r}", hint=INSTALL_HINT)
    major, minor = found[-1]
    return int(major), int(minor)


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What Nix may see of the user's environment, and the settings every call needs."""
    environment = process.base_environment(environ)
    lines = [environment.get("NIX_CONFIG", ""), "warn-dirty = false", f"flake-registry = {_empty_registry()}"]
    if os.getuid() == 0 and "NIX_REMOTE" not in environment and not _has_group("nixbld"):
        # Debian's nix-bin alone creates no build users; root then builds as itself, as in a container.
        lines.append(_NO_BUILD_USERS)
    return {**environment, "NIX_CONFIG": "\n".join(line for line in lines if line)}


def _empty_registry() -> Path:
    """A registry of no flakes: looking up `nixpkgs` there fails at once, where the global one takes seconds."""
    return files.resource("nix") / "empty-registry.json"


def _has_group(name: str) -> bool:
    try:
        lines = Path("/etc/group").read_text().splitlines()
    except OSError:
        return False
    return any(line.startswith(f"{name}:") for line in lines)


def flake_inputs(nix: Nix, flake_dir: Path, *, cancel: Cancel | None = None) -> FlakeInputs:
    """The inputs flake.nix declares, and those its `outputs` takes without declaring. Fetches nothing.

    Raises `ToolchainError` with Nix's message and place when flake.nix cannot be evaluated.
    """
    expression = _INPUTS.replace("@flake@", _nix_string(str(flake_dir / "flake.nix")))
    argv = [str(nix.executable), *_FEATURES, "eval", "--impure", "--json", "--expr", expression]
    done = process.run(argv, env=nix.environment, check=False, cancel=cancel)
    if done.returncode != 0:
        raise _failure(done.stderr.replace(f"{flake_dir.resolve()}/", "/nix/store/flake/"), flake=flake_dir)
    rows = json.loads(done.stdout)
    return FlakeInputs(
        flakes={name: row["url"] for name, row in rows.items() if row["flake"] and not row["follows"]},
        sources={name: row["url"] for name, row in rows.items() if not row["flake"] and not row["follows"]},
    )


_INPUTS = """
let
  flake = import (/. + @flake@);
  declared = flake.inputs or { };
  taken = removeAttrs (builtins.functionArgs flake.outputs) ([ "self" ] ++ builtins.attrNames declared);
  parts = input: builtins.concatStringsSep "/" (builtins.filter (part: part != "")
    [ (input.owner or "") (input.repo or input.id or input.path or "") ]);
  describe = input: {
    url = input.url or (if input ? type then "${input.type}:${parts input}" else "");
    flake = input.flake or true;
    follows = input ? follows;
  };
in
builtins.mapAttrs (_: describe) declared
// builtins.mapAttrs (name: _: { url = "flake:${name}"; flake = true; follows = false; }) taken
"""


def _nix_string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("${", "\\${")
    return f'"{escaped}"'


def prime_shell(
    nix: Nix,
    flake_ref: str,
    profile: Path,
    *,
    overrides: Sequence[str] = (),
    flake_dir: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    cancel: Cancel | None = None,
) -> Path:
    """Evaluate and realise the dev environment once; `profile` then names it and is a GC root.

    The shell hook is not run here; it runs at each step. `flake_dir` is where the user's files are, for messages.
    Returns the environment's store path. Raises `ToolchainError` with Nix's message, its file and line.
    """
    profile.parent.mkdir(parents=True, exist_ok=True)
    log = NixLog(on_line=on_line)
    arguments = ["print-dev-env", flake_ref, "--profile", str(profile), "--no-write-lock-file", *overrides]
    done = process.stream(
        [str(nix.executable), *_FEATURES, *_JSON_LOG, *arguments],
        env=nix.environment,
        on_line=log.feed,
        cancel=cancel,
    )
    if done.returncode != 0:
        raise _explained(log, flake_dir)
    _drop_old_generations(profile)
    return profile.resolve()


def _drop_old_generations(profile: Path) -> None:
    """Nix keeps each earlier environment of a profile as a GC root; only the current one is used."""
    current = profile.readlink().name
    for link in profile.parent.glob(f"{profile.name}-*-link"):
        if link.name != current:
            link.unlink(missing_ok=True)


def develop_argv(nix: Nix, profile: Path, command: Sequence[str] = ()) -> list[str]:
    """The argv that runs `command` in a primed environment: no network, no evaluation.

    Nix looks for a shell on PATH; PATH is therefore set to the environment's own bash and nothing else, so that no
    program of the machine comes into the dev shell. Append the command, if it is not given. Nix prints one line
    about a registry that `nixlog.is_noise` knows.
    """
    setting = f"PATH={shell_directory(profile)}"
    options = ["--option", "flake-registry", str(_empty_registry())]
    if _NO_BUILD_USERS in nix.environment["NIX_CONFIG"].splitlines():
        options += ["--option", "build-users-group", ""]
    develop = [str(nix.executable.resolve()), *_FEATURES, *options, "develop", str(profile), "--command"]
    return ["/usr/bin/env", setting, *develop, *command]


def write_shell(nix: Nix, profile: Path, script: Path, *, cancel: Cancel | None = None) -> None:
    """Write what `nix develop` does in a primed environment as a script, for `shell_argv`.

    Nix itself is then not needed for a step: no evaluation, no store opened, 35 to 80 ms less. Nix names
    the outputs of the shell's derivation after the directory it is called in, and takes 022 for its umask
    (initNix in libmain/shared.cc), so the script does too.
    Raises `ToolchainError` with Nix's message, `DiskError` when the disk is full.
    """
    argv = [str(nix.executable), *_FEATURES, "print-dev-env", str(profile)]
    here = script.parent.resolve()
    try:
        said = process.run(argv, env=nix.environment, cwd=here, cancel=cancel).stdout
    except ProcessError as error:
        raise _failure(error.completed.stderr, flake=None) from error
    lines = [
        'umask 022; __command=("$@"); set --',
        said.replace(f"{here}/outputs", "'\"$PWD\"'/outputs"),
        f"export NIX_GCROOT={profile.resolve()}",
        'exec "${__command[@]}"',
    ]
    files.write_atomically(script, "\n".join(lines) + "\n")


def shell_argv(profile: Path, script: Path) -> list[str]:
    """The argv that runs what follows it in a primed environment, as `develop_argv` does, without Nix."""
    directory = shell_directory(profile)
    return ["/usr/bin/env", f"PATH={directory}", str(directory / "bash"), str(script)]


def has_structured_attributes(profile: Path) -> bool:
    """Whether the environment comes with files of attributes, which Nix writes anew at each start."""
    content = files.read_json(profile)
    return isinstance(content, dict) and "structuredAttrs" in content


def shell_directory(profile: Path) -> Path:
    """The directory of the bash that a primed environment was made with."""
    variables = read_environment(profile)
    for name in ("shell", "SHELL", "builder"):
        if variables.get(name, "").startswith("/nix/store/"):
            return Path(variables[name]).parent
    raise ToolchainError(f"the dev environment {profile} names no shell", hint="remove it and run again")


def read_environment(profile: Path) -> dict[str, str]:
    """The exported variables of a primed environment, before its shell hook. Raises `ToolchainError` if damaged."""
    content = files.read_json(profile)
    if not isinstance(content, dict) or "variables" not in content:
        raise ToolchainError(f"the dev environment {profile} cannot be read", hint="remove it and run again")
    rows: Mapping[str, Mapping[str, Any]] = content["variables"]
    return {name: str(row["value"]) for name, row in rows.items() if row["type"] == "exported"}


def call_package(nixpkgs: str, directory: Path) -> str:
    """The expression of the package whose default.nix is in `directory`, made with what the flake `nixpkgs` has."""
    flake, path = _nix_string(nixpkgs), _nix_string(str(directory))
    return f"(builtins.getFlake {flake}).legacyPackages.${{builtins.currentSystem}}.callPackage (/. + {path}) {{ }}"


def build(
    nix: Nix,
    installable: str,
    *,
    is_expression: bool = False,
    out_link: Path | None = None,
    overrides: Sequence[str] = (),
    flake_dir: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    cancel: Cancel | None = None,
) -> Path:
    """Build and return the store path of its first output; `out_link` becomes a GC root for it.

    `installable` is a flake's package, or an expression that may read files and take flakes without a lock.

    Raises `ToolchainError` with Nix's message, or with the last lines of the derivation that failed.
    """
    log = NixLog(on_line=on_line)
    link = ["--out-link", str(out_link)] if out_link else ["--no-link"]
    what = ["--impure", "--expr", installable] if is_expression else [installable]
    arguments = ["build", *what, "--json", *link, "--no-write-lock-file", *overrides]
    done = process.stream(
        [str(nix.executable), *_FEATURES, *_JSON_LOG, *arguments],
        env=nix.environment,
        on_line=log.feed,
        cancel=cancel,
    )
    if done.returncode != 0:
        raise _explained(log, flake_dir)
    outputs = json.loads(log.other_lines[-1])[0]["outputs"]
    return Path(outputs.get("out") or next(iter(outputs.values())))


def closure(nix: Nix, paths: Sequence[Path], *, cancel: Cancel | None = None) -> tuple[StorePath, ...]:
    """The store paths given and all they refer to, sorted. Raises `ToolchainError` when one is not in the store."""
    if not paths:
        return ()
    form = ["--json-format", "1"] if nix.version >= (2, 34) else []
    done = nix.call("path-info", "--json", *form, "--recursive", *map(str, paths), cancel=cancel)
    return parse_path_info(done.stdout)


def parse_path_info(output: str) -> tuple[StorePath, ...]:
    """The JSON of `nix path-info`: a list up to Nix 2.18, an object by path since."""
    content = json.loads(output)
    rows = content if isinstance(content, list) else [{"path": path, **row} for path, row in content.items()]
    found = (
        StorePath(
            path=Path(row["path"]),
            nar_size=int(row["narSize"]),
            references=tuple(Path(reference) for reference in row["references"] if reference != row["path"]),
        )
        for row in rows
    )
    return tuple(sorted(found, key=lambda member: member.path))


def add_tree(nix: Nix, path: Path, name: str, *, cancel: Cancel | None = None) -> Path:
    """Put a copy of the tree at `path` into the store under `name` and return its store path.

    The tree is streamed, whatever its size. (`nix store add-path` of Nix 2.8 reads it into memory whole, and
    `nix-store --add` takes the name from the directory, which is renamed for the moment when it has another.)
    """
    if path.name == name:
        return Path(nix.store("--add", str(path), cancel=cancel)[-1])
    renamed = path.with_name(name)
    path.rename(renamed)
    try:
        return Path(nix.store("--add", str(renamed), cancel=cancel)[-1])
    finally:
        renamed.rename(path)


def add_root(nix: Nix, link: Path, target: Path, *, cancel: Cancel | None = None) -> None:
    """Make `link` a symlink to the store path `target` that keeps it from being collected."""
    link.parent.mkdir(parents=True, exist_ok=True)
    nix.store("--realise", str(target), "--add-root", str(link), "--indirect", cancel=cancel)


def _explained(log: NixLog, flake_dir: Path | None) -> OrchestratorError:
    said = "\n".join((*log.build_lines, *log.other_lines))
    message = log.cause() or nixlog.parse_plain("\n".join(log.other_lines)) or Message("failed without a message")
    if files.says_no_space(f"{message.text}\n{said}"):
        return _no_space(message)
    return nixlog.explain(message, flake=flake_dir, log=tuple(log.build_lines))


def _no_space(message: Message) -> DiskError:
    free = files.free_bytes(_STORE) // 1_000_000
    return DiskError(
        f"no space left for Nix ({free} MB free on the file system of {_STORE})",
        details=message.text.splitlines(),
        hint="free some space, for instance with: nix-collect-garbage",
    )


def _failure(stderr: str, *, flake: Path | None) -> OrchestratorError:
    message = nixlog.parse_plain(stderr) or Message(stderr.strip() or "failed without a message")
    if files.says_no_space(stderr):
        return _no_space(message)
    return nixlog.explain(message, flake=flake)
