"""Which dev shell builds run in: the flake's own, or the same flake with this machine's tools as its nixpkgs."""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from orchestrator.build.flake import flake_snapshot, lay_out_flake, locked_nixpkgs, require_visible_flake
from orchestrator.build.snapshot import Snapshot, take_snapshot
from orchestrator.errors import ToolchainError
from orchestrator.events import Emit, Line, Note
from orchestrator.files import locked, read_json, remove_tree, resource, write_json
from orchestrator.plan import build_name
from orchestrator.process import Cancel
from orchestrator.settings import Settings
from orchestrator.tools import hostset, nix, nixreach
from orchestrator.tools.hostforeign import foreign_set
from orchestrator.tools.hostset import HostSet
from orchestrator.tools.nix import Nix
from orchestrator.tools.platforms import PLATFORMS

Kind = Literal["flake", "host"]

KEPT_TOOLCHAINS = 5
"""How many dev shells (and their GC roots) are kept."""

DECISION_SECONDS = 3600.0
"""How long a machine without a binary cache is not asked again whether it has one now."""

_DEFAULT_NIXPKGS = "github:NixOS/nixpkgs/nixos-26.05"
_LOCK_SECONDS = 900.0
_MISSING_FILE = ("does not exist", "No such file", "not found in")


@dataclass(frozen=True, slots=True)
class Toolchain:
    """An opened dev shell.

    `develop` is the argv that runs what follows it in the shell; `key` changes whenever the shell does; `source`
    names its flake for people; `visible` are paths the shell needs below directories a sandbox hides. `home` holds
    its GC roots; `nixpkgs` is where other packages of the same set come from.
    """

    kind: Kind
    reason: str
    source: str
    key: str
    home: Path
    nix: Nix
    nixpkgs: str
    develop: tuple[str, ...]
    visible: tuple[Path, ...]
    nix_writable: bool


@dataclass(frozen=True, slots=True)
class _Flake:
    """A flake to open: its files, the directory they were read from, and where they are laid out for Nix."""

    snapshot: Snapshot
    files: Snapshot
    directory: Path
    source: str


@dataclass(frozen=True, slots=True)
class _Choice:
    """A decision, its reason, and the Nix and the package set that go with it."""

    kind: Kind
    reason: str
    nix: Nix
    host_set: HostSet | None


def open_toolchain(settings: Settings, snapshot: Snapshot, *, emit: Emit, cancel: Cancel) -> Toolchain:
    """The dev shell for this monorepo, evaluated only when its flake, its package set or Nix changed.

    Raises `ProjectError` for a flake git does not track, `ToolchainError` with Nix's message and its place,
    `ProgramMissing` without Nix.
    """
    flake = _find_flake(settings, snapshot, emit)
    program = nix.open_nix(cancel=cancel)
    choice = _choose(settings, flake, program, cancel)
    emit(Note(f"toolchain: {choice.kind}, {choice.reason}"))
    home = settings.cache_dir / "toolchains" / _key(flake, choice)[:32]
    profile = _open_profile(settings, flake, choice, home, emit=emit, cancel=cancel)
    develop, script = _shell(choice.nix, home, profile, cancel)
    _forget_old(home.parent)
    return Toolchain(
        kind=choice.kind,
        reason=choice.reason,
        source=flake.source,
        key=_key(flake, choice),
        home=home,
        nix=choice.nix,
        nixpkgs=_nixpkgs(flake, choice),
        develop=develop,
        visible=(resource("nix"), *script, *(choice.host_set.visible if choice.host_set else ())),
        nix_writable=not script and os.access("/nix/var/nix/db", os.W_OK),
    )


def web_server(
    toolchain: Toolchain, platform: str = "", *, offline: bool = False, cancel: Cancel | None = None
) -> Path:
    """The store path of nginx from the toolchain's own package set, for this machine unless a platform is given.

    Raises `ToolchainError` when it has none, and `ProgramMissing` when this machine could not even look for one.
    """
    link = toolchain.home / build_name("nginx", platform)
    if link.exists():
        return link.resolve()
    if not platform:
        return nix.build(toolchain.nix, f"{toolchain.nixpkgs}#nginx", out_link=link, cancel=cancel)
    architecture, packages = PLATFORMS[platform], toolchain.nixpkgs
    if toolchain.kind == "host":
        host_set = Path(packages.removeprefix("path:"))
        packages = f"path:{foreign_set(host_set, architecture, offline=offline, cancel=cancel)}"
    package = f"{packages}#legacyPackages.{architecture.nix}.nginx"
    return nix.build(toolchain.nix, package, out_link=link, cancel=cancel)


def init_program(toolchain: Toolchain, *, cancel: Cancel | None = None) -> Path:
    """The store path of the first process of an image for one container, compiled by the toolchain's own package set.

    Raises `ToolchainError` when the set has no C compiler.
    """
    source = resource("nix") / "init"
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(source.iterdir()))).hexdigest()
    link = toolchain.home / f"init-{digest[:16]}"
    if link.exists():
        return link.resolve()
    expression = nix.call_package(toolchain.nixpkgs, source)
    return nix.build(toolchain.nix, expression, is_expression=True, out_link=link, cancel=cancel)


def runtime_package(toolchain: Toolchain, package: str, *, cancel: Cancel | None = None) -> Path:
    """The store path of what an image needs ("zlib", "stdenv.cc.cc.lib"), from the toolchain's own package set.

    Raises `ToolchainError` when it has none.
    """
    link = toolchain.home / f"runtime-{package}"
    for made in (link, link.with_name(f"{link.name}-lib")):  # Nix adds the name of an output that is not "out"
        if made.exists():
            return made.resolve()
    return nix.build(toolchain.nix, f"{toolchain.nixpkgs}#{package}", out_link=link, cancel=cancel)


def nix_argv(arguments: tuple[str, ...], *, cache_dir: Path) -> tuple[list[str], dict[str, str]]:
    """The argv and environment of `nix ARGUMENTS` as the orchestrator calls it.

    Where no binary cache answers, the inputs of the local flake the arguments name (or of the one in the current
    directory) are replaced by this machine's package set.
    """
    program = nix.open_nix()
    words = 2 if arguments[:1] == ("flake",) else 1
    flake_dir = _local_flake(arguments[words:])
    overrides: tuple[str, ...] = ()
    if flake_dir is not None and not nixreach.binary_cache_reachable(program):
        program, host_set = _with_host_set(program, cache_dir, None)
        overrides = hostset.overrides(nix.flake_inputs(program, flake_dir).flakes, host_set)
        overrides += ("--no-write-lock-file",)
    argv = [str(program.executable), "--extra-experimental-features", "nix-command flakes"]
    return [*argv, *arguments[:words], *overrides, *arguments[words:]], dict(program.environment)


def _local_flake(arguments: tuple[str, ...]) -> Path | None:
    """The local flake directory that the first argument naming one names, the current one by default."""
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    named = [Path(argument.partition("#")[0].removeprefix("path:") or ".") for argument in own]
    found = [path for path in (*named, Path()) if (path / "flake.nix").is_file()]
    return found[0].resolve() if found else None


def _find_flake(settings: Settings, snapshot: Snapshot, emit: Emit) -> _Flake:
    """The monorepo's own flake, or ours for a monorepo without one."""
    if require_visible_flake(snapshot):
        part = flake_snapshot(snapshot)
        source = str(snapshot.root / "flake.nix")
    else:
        shell = resource("nix") / "default-shell"
        snapshot = part = take_snapshot(shell, cache_dir=settings.cache_dir, emit=lambda _: None)
        source = "the default dev shell"
        emit(Note("the monorepo has no flake.nix: a default dev shell with cargo, node, go and uv is used"))
    return _Flake(snapshot, part, lay_out_flake(settings, part), source)


def _choose(settings: Settings, flake: _Flake, program: Nix, cancel: Cancel) -> _Choice:
    kind, reason = _decide(settings, flake, program, cancel)
    if kind == "flake":
        return _Choice(kind, reason, program.offline() if settings.offline else program, None)
    program, host_set = _with_host_set(program, settings.cache_dir, cancel)
    return _Choice(kind, reason, program, host_set)


def _with_host_set(program: Nix, cache_dir: Path, cancel: Cancel | None) -> tuple[Nix, HostSet]:
    host_set = hostset.prepare(cache_dir, cancel=cancel)
    return program.offline().with_host_tools(host_set.visible), host_set


def _decide(settings: Settings, flake: _Flake, program: Nix, cancel: Cancel) -> tuple[Kind, str]:
    """Flake or host, and why. What was found out over the network is remembered for a while."""
    if settings.toolchain != "auto":
        return settings.toolchain, f"asked for with --toolchain {settings.toolchain}"
    own = _Choice("flake", "", program, None)
    if (settings.cache_dir / "toolchains" / _key(flake, own)[:32] / "profile").exists():
        return "flake", "the flake's own nixpkgs, as before"
    if settings.offline:
        return "host", "this machine's tools: --offline, and the flake's own nixpkgs was never fetched"
    return _remembered(settings.cache_dir / "reach.json", flake, partial(_ask, flake, program, cancel))


def _remembered(path: Path, flake: _Flake, ask: Callable[[], tuple[Kind, str]]) -> tuple[Kind, str]:
    """The answer given for this flake less than `DECISION_SECONDS` ago, else a new one."""
    saved = read_json(path)
    known = saved if isinstance(saved, dict) else {}
    if known.get("flake") == flake.files.digest and 0 <= time.time() - known["when"] < DECISION_SECONDS:
        return known["kind"], known["reason"]
    kind, reason = ask()
    write_json(path, {"flake": flake.files.digest, "when": time.time(), "kind": kind, "reason": reason})
    return kind, reason


def _ask(flake: _Flake, program: Nix, cancel: Cancel) -> tuple[Kind, str]:
    inputs = nix.flake_inputs(program, flake.snapshot.root, cancel=cancel)
    if not nixreach.inputs_reachable(flake.directory, inputs):
        return "host", "this machine's tools: the flake's inputs cannot be reached from here"
    if not nixreach.binary_cache_reachable(program, cancel=cancel):
        return "host", "this machine's tools: no binary cache can be reached from here"
    return "flake", "the flake's own nixpkgs: its inputs and a binary cache can be reached"


def _key(flake: _Flake, choice: _Choice) -> str:
    """Hex digest of all a dev shell depends on."""
    fingerprint = choice.host_set.fingerprint if choice.host_set else ""
    parts = [choice.kind, flake.files.digest, fingerprint, *choice.nix.version, platform.machine()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _nixpkgs(flake: _Flake, choice: _Choice) -> str:
    if choice.host_set is not None:
        return f"path:{choice.host_set.path}"
    return locked_nixpkgs(flake.directory) or _DEFAULT_NIXPKGS


def _open_profile(
    settings: Settings, flake: _Flake, choice: _Choice, home: Path, *, emit: Emit, cancel: Cancel
) -> Path:
    """The dev environment's store path: as primed before, or primed now."""
    profile = home / "profile"
    if not profile.exists():
        with locked(home / "lock", holder="the dev shell", wait_seconds=_LOCK_SECONDS):
            if not profile.exists():
                _prime(settings, flake, choice, profile, emit=emit, cancel=cancel)
    os.utime(home)
    return profile.resolve()


def _shell(opened: Nix, home: Path, profile: Path, cancel: Cancel) -> tuple[tuple[str, ...], tuple[Path, ...]]:
    """The argv that starts the dev shell, and the script it needs; none where Nix itself must start it."""
    script = home / "shell.sh"
    if nix.has_structured_attributes(profile):
        return tuple(nix.develop_argv(opened, profile)), ()
    if not script.exists():
        nix.write_shell(opened, home / "profile", script, cancel=cancel)
    return tuple(nix.shell_argv(profile, script)), (script,)


def _prime(settings: Settings, flake: _Flake, choice: _Choice, profile: Path, *, emit: Emit, cancel: Cancel) -> None:
    """Evaluate the flake's own files; with the whole monorepo when they turn out to read more of it."""
    overrides: tuple[str, ...] = ()
    if choice.host_set is not None:
        inputs = nix.flake_inputs(choice.nix, flake.snapshot.root, cancel=cancel)
        overrides = hostset.overrides(inputs.flakes, choice.host_set)
    prime = partial(
        nix.prime_shell,
        choice.nix,
        profile=profile,
        overrides=overrides,
        flake_dir=flake.snapshot.root,
        on_line=lambda line: emit(Line("", line)),
        cancel=cancel,
    )
    try:
        prime(f"path:{flake.directory}")
    except ToolchainError as error:
        said = " ".join((error.message, *error.details))
        if flake.files == flake.snapshot or not any(text in said for text in _MISSING_FILE):
            raise
        prime(f"path:{lay_out_flake(settings, flake.snapshot)}")


def _forget_old(home: Path) -> None:
    by_age = sorted(home.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in by_age[KEPT_TOOLCHAINS:]:
        remove_tree(path)
