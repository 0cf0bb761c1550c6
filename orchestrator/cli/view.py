"""What a person sees while work goes on: a live table on a terminal, timestamped lines anywhere else."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol, TextIO, assert_never

import click

from orchestrator.events import Event, Line, Note, PhaseFinished, PhaseStarted

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

Verbosity = Literal["quiet", "normal", "verbose"]


class View(Protocol):
    """Shows events; called from any thread."""

    def __call__(self, event: Event) -> None: ...


@contextmanager
def open_view(verbosity: Verbosity, *, live: bool) -> Iterator[View]:
    """The view for this run: nothing but warnings, a live table, or plain lines."""
    if verbosity == "quiet":
        yield QuietView(sys.stderr)
    elif live and verbosity == "normal" and sys.stderr.isatty():
        with LiveView().running() as view:
            yield view
    else:
        yield PlainView(sys.stderr, verbose=verbosity == "verbose")


class QuietView:
    """Warnings only."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        if isinstance(event, Note) and event.level == "warning":
            click.echo(f"warning: {event.text}", file=self._stream)


class PlainView:
    """One timestamped line for each fact; the programs' own lines only when verbose."""

    def __init__(self, stream: TextIO, *, verbose: bool, now: Callable[[], datetime] = datetime.now) -> None:
        self._stream = stream
        self._verbose = verbose
        self._now = now
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        text = self._describe(event)
        if text is not None:
            with self._lock:
                click.echo(f"{self._now():%H:%M:%S} {text}", file=self._stream)

    def _describe(self, event: Event) -> str | None:
        match event:
            case PhaseStarted():
                return f"{_prefix(event.service)}{event.phase} …" if self._verbose else None
            case PhaseFinished():
                return f"{_prefix(event.service)}{_finished(event)}"
            case Line():
                return f"{_prefix(event.service)}  {event.text}" if self._verbose else None
            case Note():
                return f"warning: {event.text}" if event.level == "warning" else event.text
            case _:
                assert_never(event)


@dataclass(slots=True)
class _Row:
    phase: str
    since: float
    line: str = ""


class LiveView:
    """One line for each piece of work that is going on: phase, elapsed time, the last line it printed."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rows: dict[str, _Row] = {}
        self._lock = threading.Lock()
        self._live: Live | None = None

    @contextmanager
    def running(self) -> Iterator["LiveView"]:
        from rich.console import Console
        from rich.live import Live

        with Live(
            console=Console(stderr=True), get_renderable=self.render, refresh_per_second=8, transient=True
        ) as self._live:
            yield self

    def __call__(self, event: Event) -> None:
        with self._lock:
            match event:
                case PhaseStarted():
                    self._rows[event.service] = _Row(event.phase, self._clock())
                case PhaseFinished():
                    self._rows.pop(event.service, None)
                    self._print("green" if event.ok else "red", f"{_prefix(event.service)}{_finished(event)}")
                case Line():
                    if event.service in self._rows:
                        self._rows[event.service].line = event.text
                case Note():
                    self._print("yellow" if event.level == "warning" else "default", event.text)
                case _:
                    assert_never(event)

    def render(self) -> "RenderableType":
        """The table of what is going on right now, one row a service, never wider than the terminal."""
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True, style="bold")
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, justify="right")
        table.add_column(no_wrap=True, style="dim", overflow="ellipsis", ratio=1)
        table.expand = True
        for service, row in list(self._rows.items()):
            elapsed = f"{self._clock() - row.since:.1f}s"
            table.add_row(service or "·", row.phase, elapsed, Text.from_ansi(row.line))
        return table

    def _print(self, style: str, text: str) -> None:
        from rich.text import Text

        if self._live is not None:
            self._live.console.print(Text(text, style=style), soft_wrap=True)


def _prefix(service: str) -> str:
    return f"{service}: " if service else ""


def _finished(event: PhaseFinished) -> str:
    verdict = "done" if event.ok else "failed"
    outcome = f" ({event.outcome})" if event.outcome else ""
    return f"{event.phase} {verdict} in {event.seconds:.1f}s{outcome}"
