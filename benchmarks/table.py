"""A table of measurements: GitHub Markdown for people, JSON for programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Literal

Unit = Literal["s", "ms", "MB", "", "×"]

MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number and its unit; bytes are given in MB (10⁶ bytes)."""

    value: float
    unit: Unit = ""

    def __str__(self) -> str:
        if self.unit == "":
            return f"{self.value:g}"
        return f"{_rounded(self.value)}{'' if self.unit == '×' else ' '}{self.unit}"


@dataclass(frozen=True, slots=True)
class Goal:
    """`measured` should not be above `limit`; `because` says in words what the limit is made of."""

    measured: Quantity
    limit: Quantity
    because: str = ""

    @property
    def met(self) -> bool:
        return self.measured.value <= self.limit.value

    @property
    def verdict(self) -> str:
        """ "met", or by how much it was missed."""
        if self.met:
            return "met"
        if not self.limit.value:
            return "**missed**"
        return f"**missed by {100 * (self.measured.value / self.limit.value - 1):.0f} %**"

    def __str__(self) -> str:
        return f"≤ {self.limit}" + (f" ({self.because})" if self.because else "")


@dataclass(frozen=True, slots=True)
class Row:
    """One line: what was measured, a cell per column (None stays empty), and the goal where there is one."""

    label: str
    cells: tuple[Quantity | None, ...]
    goal: Goal | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """`name` names the saved files; `columns` are the headings of the cells; `notes` say how it was measured."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def seconds(samples: Sequence[float]) -> Quantity:
    """The median of durations in seconds."""
    return Quantity(median(samples), "s")


def megabytes(samples: Sequence[float]) -> Quantity:
    """The median of sizes in bytes."""
    return Quantity(median(samples) / MEGABYTE, "MB")


def count(samples: Sequence[float]) -> Quantity:
    """The median of counts."""
    return Quantity(median(samples))


def render_markdown(table: Table, facts: Mapping[str, str], command: str) -> str:
    """The table as a page of its own: how it was made, on what, the rows, the notes."""
    lines = [f"# {table.title}", "", f"Made by `{command}`.", "", *_table_lines(table), ""]
    lines += [f"- {note}" for note in table.notes]
    lines += ["", "| machine | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items())]
    return "\n".join(lines) + "\n"


def render_terminal(table: Table) -> str:
    """The table under its title, for the run that made it."""
    return "\n".join([f"## {table.title}", "", *_table_lines(table), "", *(f"- {note}" for note in table.notes)]) + "\n"


def save_table(table: Table, facts: Mapping[str, str], command: str, *, directory: Path) -> None:
    """Write `directory`/NAME.md and NAME.json."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{table.name}.md").write_text(render_markdown(table, facts, command))
    content = {"command": command, "machine": dict(facts), **asdict(table), "rows": [_json_row(r) for r in table.rows]}
    (directory / f"{table.name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _table_lines(table: Table) -> list[str]:
    """The header, the rule and the rows; goal and verdict come last."""
    header = ["", *table.columns, "goal", "verdict"]
    rows = [[row.label, *(_text(cell) for cell in row.cells), *_goal_texts(row.goal)] for row in table.rows]
    rule = ["---", *("---:" for _ in table.columns), "---", "---"]
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]


def _text(cell: Quantity | None) -> str:
    return "" if cell is None else str(cell)


def _goal_texts(goal: Goal | None) -> tuple[str, str]:
    return ("", "") if goal is None else (str(goal), goal.verdict)


def _json_row(row: Row) -> dict[str, object]:
    goal = asdict(row.goal) | {"met": row.goal.met} if row.goal else None
    return {"label": row.label, "cells": [asdict(cell) if cell else None for cell in row.cells], "goal": goal}


def _rounded(value: float) -> str:
    """Three digits that mean something, and never more than two decimals."""
    decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{decimals}f}"
