"""Facts that happen. Library code emits them; only `cli.view` shows them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """A piece of work began. `service` is the build or container it belongs to, "" for the whole run."""

    service: str
    phase: str


@dataclass(frozen=True, slots=True)
class PhaseFinished:
    """The piece of work ended after `seconds`; `outcome` is one short human phrase such as "cache hit"."""

    service: str
    phase: str
    seconds: float
    ok: bool = True
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One line a program printed while it worked for `service`."""

    service: str
    text: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something the user should know: a decision and its reason, or (`level="warning"`) a fallback taken."""

    text: str
    level: Literal["info", "warning"] = "info"


Event = PhaseStarted | PhaseFinished | Line | Note
Emit = Callable[[Event], None]
