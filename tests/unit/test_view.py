"""What a person sees of a run."""

import io
from datetime import datetime

from rich.console import Console

from orchestrator.cli.view import LiveView, PlainView, QuietView
from orchestrator.events import Event, Line, Note, PhaseFinished, PhaseStarted

EVENTS: tuple[Event, ...] = (
    Note("toolchain: the flake's own"),
    PhaseStarted("backend", "build"),
    Line("backend", "Compiling tokio"),
    PhaseFinished("backend", "build", 1.25, outcome="8 units compiled"),
    PhaseFinished("frontend", "fetch", 0.5, ok=False),
    Note("no bubblewrap here", level="warning"),
)


def shown(view: PlainView | QuietView, stream: io.StringIO) -> list[str]:
    for event in EVENTS:
        view(event)
    return stream.getvalue().splitlines()


def test_plain_lines_are_timestamped_and_leave_out_the_tools_chatter():
    stream = io.StringIO()
    lines = shown(PlainView(stream, verbose=False, now=lambda: datetime(2026, 1, 2, 3, 4, 5)), stream)
    assert lines == [
        "03:04:05 toolchain: the flake's own",
        "03:04:05 backend: build done in 1.2s (8 units compiled)",
        "03:04:05 frontend: fetch failed in 0.5s",
        "03:04:05 warning: no bubblewrap here",
    ]


def test_verbose_shows_every_line():
    stream = io.StringIO()
    assert any("Compiling tokio" in line for line in shown(PlainView(stream, verbose=True), stream))


def test_quiet_shows_warnings_only():
    stream = io.StringIO()
    assert shown(QuietView(stream), stream) == ["warning: no bubblewrap here"]


def test_the_live_table_fits_the_terminal_and_shows_the_last_line():
    now = [0.0]
    view = LiveView(clock=lambda: now[0])
    view(PhaseStarted("backend", "build"))
    view(Line("backend", "Compiling " + "x" * 200))
    now[0] = 12.3
    console = Console(file=io.StringIO(), width=60, force_terminal=False, no_color=True)
    with console.capture() as capture:
        console.print(view.render())
    row = capture.get().splitlines()[0]
    assert "backend" in row and "12.3s" in row and "Compiling" in row
    assert len(row.rstrip()) <= 60
    view(PhaseFinished("backend", "build", 12.3))
    with console.capture() as capture:
        console.print(view.render())
    assert "backend" not in capture.get()
