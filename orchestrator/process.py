"""The only subprocess door.

Every program runs in its own process group with its standard input closed and an environment given whole;
every call waits for its child; a `Cancel` stops children and grandchildren.
"""

import logging
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from orchestrator.errors import Interrupted, MachineError, OrchestratorError

log = logging.getLogger("orchestrator.process")

GRACE_SECONDS = 3.0
"""How long a cancelled process group may take to stop before it is killed."""

TAIL_LINES = 30
"""How many of a program's last lines are kept for an error message."""

_INHERITED = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TERM", "TMPDIR",
    "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME",
    "NIX_CONFIG", "NIX_REMOTE", "NIX_PATH", "NIX_SSL_CERT_FILE", "NIX_USER_CONF_FILES",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "SSH_AUTH_SOCK",
    "http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
    "DBUS_SESSION_BUS_ADDRESS",
)  # fmt: skip


class ProcessError(OrchestratorError):
    """A program ended with a code it should not have. `stdout` and `stderr` hold what it said."""

    def __init__(self, completed: "Completed") -> None:
        super().__init__(
            f"{Path(completed.argv[0]).name} failed with exit code {completed.returncode}",
            details=(completed.stderr or completed.stdout).strip().splitlines()[-TAIL_LINES:],
            hint=f"the command was: {shlex.join(completed.argv)}",
        )
        self.completed = completed


class ProgramMissing(MachineError):
    """A required program is not on this machine."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A finished program and what it said."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


class Cancel:
    """A request to stop, shared by every thread of one run.

    Setting it terminates the process groups registered here; whoever waits on them raises `Interrupted`.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._groups: set[int] = set()
        self._lock = threading.RLock()  # request() may interrupt a holder in the same thread, from a signal handler

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    def request(self) -> None:
        """Ask everything to stop; kill after the grace period. Safe to call twice and from a signal handler."""
        self._event.set()
        self._signal(signal.SIGTERM)
        killer = threading.Timer(GRACE_SECONDS, self._signal, (signal.SIGKILL,))
        killer.daemon = True
        killer.start()

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            groups = tuple(self._groups)
        for group in groups:
            _signal_group(group, number)

    def check(self) -> None:
        """Raises `Interrupted` when a stop was asked for."""
        if self.requested:
            raise Interrupted

    def wait(self, seconds: float) -> bool:
        """Sleep up to `seconds`; True when a stop was asked for meanwhile."""
        return self._event.wait(seconds)

    @contextmanager
    def watching(self, group: int) -> Iterator[None]:
        with self._lock:
            self._groups.add(group)
        if self.requested:
            _signal_group(group, signal.SIGTERM)
        try:
            yield
        finally:
            with self._lock:
                self._groups.discard(group)


def base_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables a tool may inherit from the user: paths, locale, Nix, certificates and proxies."""
    return {name: environ[name] for name in _INHERITED if name in environ}


def find(program: str, *, path: str | None = None) -> Path | None:
    """Where `program` is on `path` (default: PATH, then the sbin directories ordinary users lack)."""
    search = path if path is not None else os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    found = shutil.which(program, path=search)
    return Path(found) if found else None


def require(program: str, *, reason: str, hint: str) -> Path:
    """Where `program` is. Raises `ProgramMissing` naming what it is needed for and how to get it."""
    found = find(program)
    if found is None:
        raise ProgramMissing(f"{program} is not installed; it is needed to {reason}", hint=hint)
    return found


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    timeout: float | None = None,
    check: bool = True,
    cancel: Cancel | None = None,
    secrets: Sequence[str] = (),
) -> Completed:
    """Run a program to its end and return what it said.

    `env` is the whole environment (default: `base_environment`), `timeout` is in seconds, `secrets` are texts
    removed from the debug log. Raises `ProcessError` on a non-zero exit when `check`, `ProgramMissing` when the
    program is absent, `OrchestratorError` on a timeout and `Interrupted` when `cancel` was requested.
    """
    with _started(argv, env=env, cwd=cwd, stdin=stdin, secrets=secrets) as child:
        stdout, stderr = _communicate(child, program=argv[0], stdin=stdin, timeout=timeout, cancel=cancel)
    if cancel is not None:
        cancel.check()
    completed = Completed(
        argv=tuple(argv),
        returncode=child.returncode,
        stdout=stdout.decode(errors="replace"),
        stderr=stderr.decode(errors="replace"),
    )
    if check and completed.returncode != 0:
        raise ProcessError(completed)
    return completed


def stream(
    argv: Sequence[str],
    *,
    on_line: Callable[[str], None],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log_file: Path | None = None,
    pass_fds: Sequence[int] = (),
    cancel: Cancel | None = None,
    secrets: Sequence[str] = (),
) -> Completed:
    """Run a program and hand on each line of its output (both streams, in order) as it comes.

    The whole output is appended to `log_file`; the result's `stdout` holds the last lines. A non-zero exit is
    the caller's to judge. Raises `ProgramMissing`, and `Interrupted` when `cancel` was requested.
    """
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    with (
        _started(argv, env=env, cwd=cwd, merge=True, pass_fds=pass_fds, secrets=secrets) as child,
        (log_file or Path(os.devnull)).open("ab") as sink,
        (cancel or Cancel()).watching(child.pid),
    ):
        assert child.stdout is not None
        for raw in _lines(child.stdout):
            sink.write(raw)
            sink.flush()
            line = raw.decode(errors="replace").rstrip("\r\n").rpartition("\r")[2]
            tail.append(line)
            on_line(line)
        _wait(child, cancel)
    if cancel is not None:
        cancel.check()
    return Completed(argv=tuple(argv), returncode=child.returncode, stdout="\n".join(tail), stderr="")


def interact(argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> int:
    """Run a program that keeps the terminal (`logs -f`, `exec`) and return its exit code.

    Ctrl-C reaches it through the terminal; a SIGTERM or SIGHUP sent to us is handed on.
    """
    log.debug("run %s", shlex.join(argv))
    try:
        child = subprocess.Popen(list(argv), env=_environment(env))
    except FileNotFoundError as error:
        raise ProgramMissing(f"{argv[0]} is not installed", hint="run: orchestrator doctor") from error

    def hand_on(number: int, _frame: FrameType | None) -> None:
        child.send_signal(number)

    handlers = {number: signal.signal(number, hand_on) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                continue
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def _started(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None,
    cwd: Path | None,
    stdin: bytes | None = None,
    merge: bool = False,
    pass_fds: Sequence[int] = (),
    secrets: Sequence[str] = (),
) -> Iterator["subprocess.Popen[bytes]"]:
    """A running child in a group of its own. Whatever happens, it has ended when the block is left."""
    log.debug("run %s%s", f"(in {cwd}) " if cwd else "", redacted(shlex.join(argv), secrets))
    try:
        child = subprocess.Popen(
            list(argv),
            env=_environment(env),
            cwd=cwd,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge else subprocess.PIPE,
            pass_fds=pass_fds,
            process_group=0,
        )
    except FileNotFoundError as error:
        if cwd is not None and not cwd.is_dir():
            raise OrchestratorError(f"the directory {cwd} is gone") from error
        raise ProgramMissing(f"{argv[0]} is not installed", hint="run: orchestrator doctor") from error
    except PermissionError as error:
        raise MachineError(f"{argv[0]} cannot be executed: {error.strerror}") from error
    try:
        with child:
            yield child
    finally:
        if child.poll() is None:
            _stop_group(child)


def _communicate(
    child: "subprocess.Popen[bytes]", *, program: str, stdin: bytes | None, timeout: float | None, cancel: Cancel | None
) -> tuple[bytes, bytes]:
    try:
        with (cancel or Cancel()).watching(child.pid):
            return child.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise OrchestratorError(f"{program} did not finish within {timeout:g} s") from error
    finally:
        if child.poll() is None:
            _stop_group(child)


def _wait(child: "subprocess.Popen[bytes]", cancel: Cancel | None) -> None:
    """Wait for the child; once a stop was asked for, for no longer than the grace period."""
    while child.poll() is None:
        try:
            child.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            if cancel is not None and cancel.requested:
                _stop_group(child)


def _stop_group(child: "subprocess.Popen[bytes]") -> None:
    _signal_group(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    _signal_group(child.pid, signal.SIGKILL)
    child.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def _lines(source: IO[bytes]) -> Iterator[bytes]:
    yield from iter(source.readline, b"")


def _environment(env: Mapping[str, str] | None) -> dict[str, str]:
    return dict(env) if env is not None else base_environment(os.environ)


def redacted(text: str, secrets: Sequence[str]) -> str:
    """`text` with every secret replaced by dots."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "•••")
    return text
