"""How long `orchestrator --help` takes."""

import time

from benchmarks.lab import PROGRAM, user_environment
from benchmarks.measure import run_checked
from benchmarks.table import Goal, Quantity, Row, Table, seconds
from benchmarks.towns import Towns

GOAL_SECONDS = 0.25
_TIMES = 20


def run(_towns: Towns) -> tuple[Table, ...]:
    _time_help()
    samples = [_time_help() for _ in range(_TIMES)]
    middle = seconds(samples)
    row = Row(
        "`orchestrator --help`",
        (middle, Quantity(min(samples), "s"), Quantity(max(samples), "s")),
        Goal(middle, Quantity(GOAL_SECONDS, "s")),
    )
    notes = (f"{_TIMES} runs after one that warmed the page cache.",)
    return (Table("startup", "Start-up", ("median", "least", "most"), (row,), notes),)


def _time_help() -> float:
    started = time.monotonic()
    run_checked((str(PROGRAM), "--help"), env=user_environment())
    return time.monotonic() - started
