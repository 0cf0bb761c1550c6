"""One program in a workspace: its sandbox, its environment, its log, and what its failure means."""

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath

from orchestrator.build.jobserver import Slot
from orchestrator.build.toolchain import Toolchain
from orchestrator.build.workspace import MOUNT, PARTS, Workspace
from orchestrator.errors import BuildError, DiskError, OrchestratorError, ToolchainError
from orchestrator.events import Emit, Line
from orchestrator.files import free_bytes, no_space_is_an_error, says_no_space
from orchestrator.process import Cancel, redacted, stream
from orchestrator.tools import nixlog, sandbox
from orchestrator.tools.sandbox import Sandbox

SHOWN_LINES = 20
"""How many of a failing tool's lines are shown; the log has them all."""

_KEPT_LINES = 200
_FULL_BYTES = 100_000
"""With less free than this a program that failed had no space, whatever it says: linkers die of a bus error."""

_FIRST_ERROR = re.compile(r"^(error(\[E\d+\])?:|\s*\S+\.tsx?[(:]\d+.*error TS\d+|✗ |× |Error: |`npm ci` can only )")
_NPM = re.compile(r"^npm (ERR!|error) ?")
_USAGE = re.compile(r"^(Clean install a project|Usage:)$")
_NOISE = re.compile(r"^npm notice|^(code|errno|path|command) |^A complete log of this run|_logs/.*\.log$|^\s*$")
_NO_NETWORK = "warning: you don't have Internet access"
"""Nix says so at each step without the network, which is every build step."""

_NOT_FOUND = re.compile(
    r"(?:bwrap: execvp (?P<a>\S+): No such file|unable to execute '(?P<b>[^']+)'|(?P<c>\S+): (?:command )?not found$"
    r"|env: [‘'](?P<d>[^’']+)[’']: No such file)"
)


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run in `directory`, relative to the monorepo, with variables on top of the step's own.

    `home` is the HOME of the program itself, not of the dev shell around it; `secrets` are never shown or logged.
    """

    argv: tuple[str, ...]
    directory: PurePosixPath
    environment: Mapping[str, str]
    network: bool = False
    visible: tuple[Path, ...] = ()
    home: Path | None = None
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bench:
    """Where one service's commands run: workspace, dev shell, log, and who listens.

    `hidden` directories are empty inside the sandbox; `slot` is the build's part of the jobserver.
    """

    service: str
    workspace: Workspace
    toolchain: Toolchain
    hidden: tuple[Path, ...]
    slot: Slot
    log: Path
    emit: Emit
    cancel: Cancel


def run_command(bench: Bench, command: Command, *, read: Callable[[str], str | None] = lambda line: line) -> None:
    """Run `command` in the dev shell; `read` sees each line and gives what of it is shown and logged.

    Raises `BuildError` with the tool's telling lines, `ToolchainError` when the dev shell lacks the program, and
    `Interrupted`.
    """
    kept: deque[str] = deque(maxlen=_KEPT_LINES)
    with no_space_is_an_error(bench.log), bench.log.open("a", errors="replace") as log:

        def on_line(said: str) -> None:
            line = redacted(said, command.secrets)
            shown = None if nixlog.is_noise(line) or line.startswith(_NO_NETWORK) else read(line)
            if shown is not None:
                kept.append(shown)
                log.write(f"{shown}\n")
                log.flush()
                bench.emit(Line(bench.service, shown))

        completed = stream(
            _argv(bench, command),
            on_line=on_line,
            env={**command.environment, **bench.slot.environment},
            cwd=None if bench.workspace.inside else bench.workspace.path / "src" / command.directory,
            pass_fds=bench.slot.descriptors,
            cancel=bench.cancel,
        )
    if completed.returncode != 0:
        raise _failure(bench, command, completed.returncode, list(kept))


def _argv(bench: Bench, command: Command) -> list[str]:
    """In the sandbox: outer sandbox, dev shell, inner sandbox, command. Without one: dev shell, command."""
    home = [] if command.home is None else ["/usr/bin/env", f"HOME={command.home}"]
    if not bench.workspace.inside:
        return [*bench.toolchain.develop, *home, *command.argv]
    view = Sandbox(
        binds=tuple((bench.workspace.path / part, MOUNT / part) for part in PARTS),
        hidden=bench.hidden,
        visible=(*bench.toolchain.visible, *command.visible),
        network=command.network,
        nix_writable=bench.toolchain.nix_writable,
    )
    inner = sandbox.inner_argv([*home, *command.argv])
    directory = MOUNT / "src" / command.directory
    return sandbox.outer_argv(view, [*bench.toolchain.develop, *inner], directory=directory)


def _failure(bench: Bench, command: Command, code: int, lines: Sequence[str]) -> OrchestratorError:
    free = free_bytes(bench.workspace.path)
    if free < _FULL_BYTES or says_no_space("\n".join(lines)):
        return DiskError(
            f"{bench.service}: no space left for {' '.join(command.argv)}"
            f" ({free // 1_000_000} MB free on the file system of {bench.workspace.path})",
            details=telling_lines(lines),
            hint="free some space (see: orchestrator gc --dry-run) and run the command again",
        )
    missing = _missing_program(command, code, lines)
    if missing is not None:
        return ToolchainError(
            f"the dev shell has no {missing}, which {bench.service} needs",
            hint=f"add it to the packages of the dev shell ({bench.toolchain.source})",
        )
    return BuildError(
        f"{bench.service}: {' '.join(command.argv)} failed with exit code {code}",
        details=telling_lines(lines),
        hint=f"the whole log is {bench.log}",
    )


def _missing_program(command: Command, code: int, lines: Sequence[str]) -> str | None:
    """The program that was not found, when it is the one we asked for."""
    for line in reversed(lines[-3:]):
        if found := _NOT_FOUND.search(line):
            name = (found["a"] or found["b"] or found["c"] or found["d"]).removesuffix(":")
            if name == command.argv[0] or (code == 127 and found["c"]):
                return name
    return None


def telling_lines(lines: Sequence[str]) -> list[str]:
    """The lines that say why: from the tool's first error on, else the last ones; without npm's ornaments."""
    plain = [_NPM.sub("", line) for line in lines]
    meant = [line for line in takewhile(lambda line: not _USAGE.search(line), plain) if not _NOISE.search(line)]
    first = next((index for index, line in enumerate(meant) if _FIRST_ERROR.search(line)), None)
    if first is not None:
        return meant[first : first + SHOWN_LINES]
    return (meant or plain)[-SHOWN_LINES:]
