"""One GNU make jobserver for all builds of a run, so that together they never use more jobs than allowed.

Protocol: https://www.gnu.org/software/make/manual/html_node/Job-Slots.html. The pipe style is used because make 4.3
(Debian 12) knows no other; the descriptors survive `nix develop` and bubblewrap.
"""

import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from orchestrator.process import Cancel

_TOKEN = b"+"
_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Slot:
    """A running build's part of the jobserver: descriptors to pass on, variables that announce them."""

    descriptors: tuple[int, int]
    environment: dict[str, str]


class Jobserver:
    """A pool of `jobs` tokens. Each running build holds one; its tools borrow more through the pipe."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._read, self._write = os.pipe()
        self._poll = os.open(f"/proc/self/fd/{self._read}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._running = 0
        os.write(self._write, _TOKEN * jobs)

    @contextmanager
    def slot(self, cancel: Cancel) -> Iterator[Slot]:
        """Wait for a token and hold it while the block runs. Raises `Interrupted` when `cancel` was requested."""
        self._acquire(cancel)
        try:
            yield Slot((self._read, self._write), self._environment())
        finally:
            self._release()

    def close(self) -> None:
        """Close the pipe; every build has ended."""
        for descriptor in (self._poll, self._read, self._write):
            os.close(descriptor)

    def _environment(self) -> dict[str, str]:
        flags = f"-j{self.jobs} --jobserver-auth={self._read},{self._write}"
        return {"MAKEFLAGS": f" {flags}", "CARGO_MAKEFLAGS": flags}

    def _acquire(self, cancel: Cancel) -> None:
        """Take a token through a second, non-blocking description of the pipe: the builds' own stays blocking."""
        while not self._take():
            cancel.check()
            select.select([self._poll], [], [], _POLL_SECONDS)

    def _take(self) -> bool:
        """One token, counted as a running build in the same breath."""
        with self._lock:
            try:
                os.read(self._poll, 1)
            except BlockingIOError:
                return False
            self._running += 1
            return True

    def _release(self) -> None:
        """Give the token back. A killed build takes borrowed ones along: the last to end makes the pool whole."""
        with self._lock:
            self._running -= 1
            if self._running:
                os.write(self._write, _TOKEN)
                return
            self._drain()
            os.write(self._write, _TOKEN * self.jobs)

    def _drain(self) -> None:
        try:
            while os.read(self._poll, 4096):
                pass
        except BlockingIOError:
            return
