"""When a supervisor acts: what it sees and remembers of an application, and what follows from both. No I/O."""

from dataclasses import dataclass, replace
from typing import Literal

Action = Literal["nothing", "start", "restart"]

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Seconds between two attempts: the first pause doubles up to the longest."""

CALM_SECONDS = 60.0
"""After so long without a failure an application starts with short pauses again."""


@dataclass(frozen=True, slots=True)
class Sight:
    """`alive`: it answers; else `down` tells whether a container of it does not run, `age` how long the youngest runs.

    `age` is in seconds.
    """

    alive: bool
    down: bool = False
    age: float = 0.0


@dataclass(frozen=True, slots=True)
class Tally:
    """What a supervisor remembers of one application. Moments are monotonic seconds."""

    failures: int = 0
    attempts: int = 0
    not_before: float = 0.0
    last_failure: float = 0.0


def decide(tally: Tally, sight: Sight, *, retries: int, start_period: float, now: float) -> tuple[Tally, Action]:
    """What to do about what was seen, and what to remember.

    What is down is started; what runs and has not answered `retries` times in a row is restarted, failures in the
    `start_period` after a start not counted. Pauses between attempts double.
    """
    if sight.alive:
        calm = now - tally.last_failure >= CALM_SECONDS
        return replace(tally, failures=0, attempts=0 if calm else tally.attempts), "nothing"
    if sight.down:
        return _attempt(tally, "start", now)
    if sight.age < start_period:
        return tally, "nothing"
    tally = replace(tally, failures=tally.failures + 1, last_failure=now)
    return _attempt(tally, "restart", now) if tally.failures >= retries else (tally, "nothing")


def _attempt(tally: Tally, action: Action, now: float) -> tuple[Tally, Action]:
    if now < tally.not_before:
        return replace(tally, last_failure=now), "nothing"
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**tally.attempts)
    return Tally(attempts=tally.attempts + 1, not_before=now + pause, last_failure=now), action
