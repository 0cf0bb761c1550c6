"""One writer per application."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.files import locked


@contextmanager
def locked_app(state_dir: Path, app: str) -> Iterator[None]:
    """Hold the application's lock: everything that changes it happens within. Readers never wait.

    Raises `BusyError` at once when another orchestrator holds it.
    """
    with locked(state_dir / "locks" / f"{app}.lock", holder=app):
        yield
