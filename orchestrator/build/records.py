"""What is remembered of many paths, kept so that a change costs no more than what changed.

The records of all paths are one file; a journal beside it says what changed since. Each line of the journal is one
JSON object and counts whole or not at all.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.files import no_space_is_an_error, read_json, write_atomically

JOURNAL_SHARE = 0.25
"""A journal that has more lines than this share of the records, and more than `JOURNAL_ROWS`, is folded in."""

JOURNAL_ROWS = 1000

Row = list[Any]


@dataclass(slots=True)
class Records:
    """`rows` by path, as `file` and its journal have them; `journalled` counts the changes that are in the journal."""

    file: Path
    rows: dict[str, Row]
    journalled: int = 0

    def put(self, changes: Mapping[str, Row | None]) -> None:
        """Remember a row for each path, or that it has none any more; on disk before this returns.

        Killed at any moment, all of the changes are there or none. Raises `DiskError` when the disk is full.
        """
        if not changes:
            return
        for path, row in changes.items():
            if row is None:
                self.rows.pop(path, None)
            else:
                self.rows[path] = row
        self.journalled += len(changes)
        if self.journalled > max(JOURNAL_ROWS, JOURNAL_SHARE * len(self.rows)) or not self.file.exists():
            self._write_whole(changes)
        else:
            self._append(changes)

    def _append(self, changes: Mapping[str, Row | None]) -> None:
        """A line begins with a newline too: an earlier one may have been cut off by a full disk."""
        line = b"\n" + json.dumps(changes, separators=(",", ":")).encode() + b"\n"
        path = _journal(self.file)
        with no_space_is_an_error(path), path.open("ab", buffering=0) as journal:
            view = memoryview(line)
            while view:
                view = view[journal.write(view) :]
            os.fsync(journal)

    def _write_whole(self, changes: Mapping[str, Row | None]) -> None:
        """All rows in one file. A journal that is still there must end in them: it may outlive the next line."""
        journal = _journal(self.file)
        if journal.exists():
            self._append(changes)
        write_atomically(self.file, json.dumps(self.rows, separators=(",", ":")))
        journal.unlink(missing_ok=True)
        self.journalled = 0


def read_records(file: Path) -> Records:
    """The records in `file`; none when it is absent or damaged (a damaged cache is no cache)."""
    rows = read_json(file)
    if not isinstance(rows, dict):
        forget_records(file)
        return Records(file, {})
    records = Records(file, rows)
    for changes in _journalled(file):
        records.journalled += len(changes)
        for path, row in changes.items():
            if row is None:
                rows.pop(path, None)
            else:
                rows[path] = row
    return records


def forget_records(file: Path) -> None:
    """Remove the records, the journal first: it means nothing without them."""
    _journal(file).unlink(missing_ok=True)
    file.unlink(missing_ok=True)


def _journalled(file: Path) -> list[dict[str, Row | None]]:
    try:
        lines = _journal(file).read_bytes().splitlines()
    except OSError:
        return []
    return [changes for line in lines if isinstance(changes := _parsed(line), dict)]


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _journal(file: Path) -> Path:
    return file.with_name(f"{file.name}.journal")
