"""The step that fetches dependencies: skipped while nothing that decides about it changed, kept in the store after."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.build.cache.fetched import FetchedCache
from orchestrator.build.cargo_lock import is_lock_refused
from orchestrator.build.fetch_failure import Tool, explain_fetch
from orchestrator.build.steps import Bench, Command, run_command
from orchestrator.errors import BuildError
from orchestrator.files import read_json, write_json


@dataclass(frozen=True, slots=True)
class Fetch:
    """One fetch step. `key` changes with what decides about it; `cache` has what was fetched before.

    With `keeps` what was fetched goes into the store; `clock` gives seconds.
    """

    bench: Bench
    command: Command
    key: str
    tool: Tool
    cache: FetchedCache
    keeps: bool
    offline: bool
    clock: Callable[[], float] = time.monotonic

    def is_current(self) -> bool:
        """Whether the workspace has it all from an earlier fetch; what has left the store since is kept again."""
        known = read_json(self._stamp)
        if not isinstance(known, dict) or known.get("key") != self.key:
            return False
        if self.keeps and not self.cache.is_kept(known.get("entry", "")):
            self._write_stamp(0.0)
        return True

    def run(self) -> str:
        """Lay out what is in the store, fetch the rest, keep it; a few words about where it came from.

        The stamp goes before and comes back after. Raises `FetchError` and what running a command raises.
        """
        self._stamp.unlink(missing_ok=True)
        came_from = self.cache.lay_out(self.bench.workspace)
        started = self.clock()
        self._run_command()
        self._write_stamp(self.clock() - started)
        return came_from

    @property
    def _stamp(self) -> Path:
        return self.bench.workspace.path / "fetched.json"

    def _write_stamp(self, seconds: float) -> None:
        entry = self.cache.keep(self.bench.workspace, seconds) if self.keeps else ""
        write_json(self._stamp, {"key": self.key, "entry": entry})

    def _run_command(self) -> None:
        """What the tool says of a failure is put in a user's words."""
        said: list[str] = []

        def read(line: str) -> str:
            said.append(line)
            return line

        try:
            run_command(self.bench, self.command, read=read)
        except BuildError as error:
            if self.tool == "cargo" and is_lock_refused(error):
                raise
            service, source = self.bench.service, self.bench.toolchain.source
            clearer = explain_fetch(error, said, tool=self.tool, service=service, source=source, offline=self.offline)
            if clearer is error:
                raise
            raise clearer from error
