"""What every command that works has in common: a view, a stop request on Ctrl-C, results on standard output."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.view import Verbosity, View, open_view
from orchestrator.process import Cancel

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import BaseModel

    from orchestrator.settings import Settings
    from orchestrator.tools.podman import Engine


@dataclass(frozen=True, slots=True)
class Run:
    """One command's means: `emit` facts with it, hand `cancel` to whatever takes long."""

    emit: View
    cancel: Cancel


@contextmanager
def running(verbosity: Verbosity = "normal", *, live: bool = True) -> Iterator[Run]:
    """Within the block SIGINT, SIGTERM and SIGHUP ask everything to stop instead of tearing it down."""
    cancel = Cancel()

    def stop(_number: int, _frame: FrameType | None) -> None:
        cancel.request()

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, stop) for number in signals}
    try:
        with open_view(verbosity, live=live) as view:
            yield Run(emit=view, cancel=cancel)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def changing_app(app: str, verbosity: str | None, *, stoppable: bool = False) -> "Iterator[tuple[Run, Path, Engine]]":
    """The means to change a deployed application, its lock held: (run, state directory, engine).

    Where it is `stoppable`, a stop request interrupts the engine too. Raises `UsageError` and `BusyError`.
    """
    from orchestrator.cli.options import verbosity_of
    from orchestrator.deploy.lock import locked_app
    from orchestrator.settings import check_name
    from orchestrator.tools.podman import open_engine

    state = state_dir()
    with running(verbosity_of(verbosity)) as run, locked_app(state, check_name(app)):
        yield run, state, open_engine(state, cancel=run.cancel if stoppable else None)


def settings_from(flags: dict[str, Any]) -> "Settings":
    """The settings of this command line, the environment and orchestrator.toml. Raises `UsageError`."""
    import os

    from orchestrator.settings import load_settings

    return load_settings({name: value for name, value in flags.items() if value not in (None, ())}, os.environ)


def state_dir() -> "Path":
    """Where applications are recorded, for commands that need no other setting."""
    import os

    from orchestrator.settings import default_state_dir

    return default_state_dir(os.environ)


def cache_dir() -> "Path":
    """Where caches are, for commands that need no other setting."""
    import os

    from orchestrator.settings import default_cache_dir

    return default_cache_dir(os.environ)


def print_json(model: "BaseModel") -> None:
    """One JSON object on standard output."""
    click.echo(model.model_dump_json())


def print_result(text: str) -> None:
    """A result, on standard output."""
    click.echo(text, file=sys.stdout)
