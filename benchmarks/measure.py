"""Run a program and account for it: time, processor, bytes written, peak disk and memory file system.

Accounts are the kernel's own. Processor time is `getrusage(RUSAGE_CHILDREN)`; bytes written are `write_bytes` of
/proc/self/io (proc(5)): every page dirtied on a file system with a disk below it, also of files deleted again. A
process hands both on to whoever waits for it. Some programs leave children behind for others to wait for (bubblewrap
its whole sandbox), so this process is made the one that inherits them (prctl(2), PR_SET_CHILD_SUBREAPER). What is
still running at the end, a container for instance, is in neither. Disk use is sampled.
"""

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.01
MEMORY_FILES = Path("/dev/shm")

_TAIL_LINES = 30
_PR_SET_CHILD_SUBREAPER = 36
_REAP_SECONDS = 0.3
_GRACE_SECONDS = 20.0
_ORPHAN_TRIES = 10


class BenchmarkError(Exception):
    """A measurement could not be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a program used. Seconds and bytes; the peaks are above what was there when it began."""

    seconds: float
    cpu_seconds: float
    written: int
    peak_disk: int
    peak_memory_files: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What a program said and what it used."""

    stdout: str
    usage: Usage


def run_measured(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, disk: Path) -> Measured:
    """Run a program to its end. `disk` is any path on the file system whose use is watched.

    Raises `BenchmarkError` with the program's last lines when it fails.
    """
    with _peak(disk) as disk_peak, _peak(MEMORY_FILES) as memory_peak:
        _inherit_orphans()
        cpu, written = _children_cpu_seconds(), _written_bytes()
        started = time.monotonic()
        stdout = run_checked(argv, env=env, cwd=cwd)
        elapsed = time.monotonic() - started
        _reap_orphans()
    return Measured(
        stdout,
        Usage(
            seconds=elapsed,
            cpu_seconds=_children_cpu_seconds() - cpu,
            written=_written_bytes() - written,
            peak_disk=disk_peak(),
            peak_memory_files=memory_peak(),
        ),
    )


def run_checked(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None, stdin: int | None = None
) -> str:
    """Run a program to its end, whatever interrupts us, and return its standard output.

    Raises `BenchmarkError` with the program's last lines when it fails.
    """
    with subprocess.Popen(
        list(argv),
        env=dict(env) if env is not None else None,
        cwd=cwd,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as child:
        try:
            stdout, stderr = child.communicate()
        except BaseException:
            _stop_group(child)
            raise
    if child.returncode != 0:
        tail = "\n".join((stderr or stdout).splitlines()[-_TAIL_LINES:])
        raise BenchmarkError(f"{' '.join(argv)} failed with exit code {child.returncode}:\n{tail}")
    return stdout


def _stop_group(child: "subprocess.Popen[str]") -> None:
    """End a program and what it started in its process group, by force after the grace period."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.communicate(timeout=_GRACE_SECONDS)
            return


def kill_orphans() -> None:
    """Kill what measured programs left running; they are our children by now. Containers must be removed before."""
    for _ in range(_ORPHAN_TRIES):
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        if not children:
            return
        _reap_orphans()


@contextmanager
def _peak(path: Path) -> Iterator[Callable[[], int]]:
    """Sample the bytes used on the file system of `path` during the block; what is yielded gives the growth."""
    start = highest = _used_bytes(path)
    done = threading.Event()

    def sample() -> None:
        nonlocal highest
        while not done.wait(SAMPLE_SECONDS):
            highest = max(highest, _used_bytes(path))

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield lambda: highest - start
    finally:
        done.set()
        sampler.join()


def _used_bytes(path: Path) -> int:
    status = os.statvfs(path)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def _inherit_orphans() -> None:
    """Become the parent of every descendant that loses its own."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise BenchmarkError(f"prctl: {os.strerror(ctypes.get_errno())}")
    _reap_orphans()


def _reap_orphans() -> None:
    """Wait for the children that have ended or do so within a moment; those that stay are left running."""
    deadline = time.monotonic() + _REAP_SECONDS
    while time.monotonic() < deadline:
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not ended:
            time.sleep(0.01)


def _children_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _written_bytes() -> int:
    return parse_io(Path("/proc/self/io").read_text())["write_bytes"]


def parse_io(text: str) -> dict[str, int]:
    """The counters of a /proc/PID/io file."""
    pairs = (line.split(":") for line in text.splitlines())
    return {name.strip(): int(value) for name, value in pairs}
