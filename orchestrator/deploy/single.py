"""The log of a container that holds several services: which wrote a line, and which ended it all.

Its first process, nix/init/init.c, passes on what they write as "backend | text"; lines of its own stand under "init".
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_LINE = re.compile(r"(?P<service>[a-z]+) [|+] (?P<text>.*)", re.DOTALL)
_END = re.compile(
    r"init \| (?P<service>[a-z]+) (?:ended with exit code (?P<code>\d+)|was ended by signal (?P<signal>\d+)), unasked"
)


@dataclass(frozen=True, slots=True)
class End:
    """A service that ended by itself, and the others with it. For a signal `code` is 128 and its number."""

    service: str
    code: int

    def __str__(self) -> str:
        how = f"was ended by signal {self.code - 128}" if self.code > 128 else f"ended with exit code {self.code}"
        return f"{self.service} {how}"


def find_end(log: Sequence[str]) -> End | None:
    """The latest end in a container's log that nobody asked for."""
    for line in reversed(log):
        if found := _END.fullmatch(line.strip()):
            return End(found["service"], 128 + int(found["signal"]) if found["signal"] else int(found["code"]))
    return None


def lines_of(log: Iterable[str], service: str) -> tuple[str, ...]:
    """What one service wrote, without its name."""
    return tuple(text for line in log if (text := line_of(line, service)) is not None)


def line_of(line: str, service: str) -> str | None:
    """The text of a line when the service wrote it."""
    found = _LINE.fullmatch(line)
    return found["text"] if found and found["service"] == service else None
