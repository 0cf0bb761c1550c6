"""What is remembered of many paths survives a kill at any moment, whole or as it was."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.build import records
from orchestrator.build.records import read_records

changes = st.dictionaries(st.sampled_from("abcdefgh"), st.none() | st.lists(st.integers(0, 3), max_size=2), min_size=1)
"""path → row, or None for a path that goes."""


def apply(rows: dict[str, list[int]], change: dict[str, list[int] | None]) -> dict[str, list[int]]:
    return {path: row for path, row in {**rows, **change}.items() if row is not None}


@pytest.fixture
def eager_folding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "JOURNAL_ROWS", 3)


@pytest.mark.usefixtures("eager_folding")
@settings(max_examples=60)
@given(st.lists(changes, max_size=8))
def test_what_was_put_is_read_again(tmp_path_factory: pytest.TempPathFactory, sequence: list[dict]):
    file = tmp_path_factory.mktemp("records") / "deep" / "sources.json"
    wanted: dict[str, list[int]] = {}
    for change in sequence:
        read_records(file).put(change)
        wanted = apply(wanted, change)
        assert read_records(file).rows == wanted


@settings(max_examples=60)
@given(changes, changes, st.integers(0, 200))
def test_a_line_cut_off_counts_as_never_written(
    tmp_path_factory: pytest.TempPathFactory, first: dict, second: dict, cut: int
):
    """Also when the next run writes after it, as it does once a full disk has room again."""
    file = tmp_path_factory.mktemp("records") / "sources.json"
    journal = file.with_name("sources.json.journal")
    read_records(file).put({"z": [1]})
    read_records(file).put(first)
    before = journal.read_bytes()
    read_records(file).put(second)
    whole = journal.read_bytes()
    journal.write_bytes(whole[: len(before) + cut])
    old = apply({"z": [1]}, first)
    assert read_records(file).rows in (old, apply(old, second))
    kept = read_records(file).rows
    read_records(file).put({"y": [2]})
    assert read_records(file).rows == {**kept, "y": [2]}


@pytest.mark.usefixtures("eager_folding")
@settings(max_examples=60)
@given(st.lists(changes, min_size=1, max_size=4), changes)
def test_a_journal_that_outlives_its_folding_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, sequence: list[dict], last: dict
):
    """Killed between the whole file and the journal's removal."""
    base = tmp_path_factory.mktemp("records")
    file, journal, saved = base / "sources.json", base / "sources.json.journal", base / "saved"
    rows: dict[str, list[int]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", lambda path, missing_ok=False: path.exists() and path.rename(saved))
        for change in (*sequence, last):
            read_records(file).put(change)
            rows = apply(rows, change)
            if saved.exists():
                saved.rename(journal)
                assert read_records(file).rows == rows
                journal.replace(base / "done")


def test_damaged_records_are_none_and_take_their_journal_along(tmp_path: Path):
    file = tmp_path / "sources.json"
    read_records(file).put({"a": [1]})
    read_records(file).put({"b": [2]})
    file.write_text(file.read_text()[:-1])
    assert read_records(file).rows == {}
    read_records(file).put({"c": [3]})
    assert read_records(file).rows == {"c": [3]}
    assert json.loads(file.read_text()) == {"c": [3]}


def test_a_long_journal_is_folded_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(records, "JOURNAL_ROWS", 10)
    file = tmp_path / "sources.json"
    journal = file.with_name("sources.json.journal")
    lines = []
    for number in range(30):
        read_records(file).put({"a": [number]})
        lines.append(journal.read_text().count("{") if journal.exists() else 0)
    assert max(lines) == 10
    assert read_records(file).rows == {"a": [29]}
