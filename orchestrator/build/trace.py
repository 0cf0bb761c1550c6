"""What happened when, as Chrome trace events (open the file in https://ui.perfetto.dev).

Format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU, "complete events".
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.files import write_atomically

_PROCESS = 1


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of work on the row of `service`; times are in seconds since the trace began."""

    service: str
    name: str
    start: float
    seconds: float


class Trace:
    """Collects spans from any thread. `clock` gives seconds and never goes back."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._spans: list[Span] = []
        self._lock = threading.Lock()

    @contextmanager
    def span(self, service: str, name: str) -> Iterator[None]:
        """Record the block, also when it fails. `service` "" is the run as a whole."""
        start = self._clock()
        try:
            yield
        finally:
            span = Span(service, name, start - self._began, self._clock() - start)
            with self._lock:
                self._spans.append(span)

    @property
    def spans(self) -> tuple[Span, ...]:
        with self._lock:
            return tuple(self._spans)

    def write(self, path: Path) -> None:
        """Write the JSON array whole or not at all. Raises `DiskError` when the disk is full."""
        write_atomically(path, json.dumps(trace_events(self.spans), indent=1) + "\n")


def trace_events(spans: tuple[Span, ...]) -> list[dict[str, Any]]:
    """The spans as trace events: one named row per service, times in microseconds."""
    rows = {service: row for row, service in enumerate(sorted({span.service for span in spans}), start=1)}
    names = [_name("process_name", 0, "orchestrator")]
    names += [_name("thread_name", row, service or "orchestrator") for service, row in rows.items()]
    return names + [
        {
            "name": span.name,
            "cat": span.service or "orchestrator",
            "ph": "X",
            "ts": round(span.start * 1e6),
            "dur": round(span.seconds * 1e6),
            "pid": _PROCESS,
            "tid": rows[span.service],
        }
        for span in sorted(spans, key=lambda span: (span.start, -span.seconds))
    ]


def _name(kind: str, row: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": _PROCESS, "tid": row, "args": {"name": name}}
