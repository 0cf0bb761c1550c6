"""Why we believe what we believe: every claim names a file and, where there is one, a line."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Evidence:
    """`claim` is a short sentence; `path` is relative to the monorepo; `line` counts from 1."""

    claim: str
    path: str
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.claim} ({self.path}{f':{self.line}' if self.line else ''})"
