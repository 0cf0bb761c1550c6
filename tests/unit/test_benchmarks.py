"""The arithmetic of the benchmarks: medians, verdicts, tables, traces, package lists."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.debian_image import dependency_closure, parse_owner, read_packages
from benchmarks.lab import mounts_below
from benchmarks.machine import parse_processor_times
from benchmarks.measure import Usage, parse_io
from benchmarks.table import (
    Goal,
    Quantity,
    Row,
    Table,
    count,
    megabytes,
    render_markdown,
    render_terminal,
    save_table,
    seconds,
)
from benchmarks.towns import Deploy, Span, longest_build, makespan, read_trace


def make_table(goal: Goal | None = None) -> Table:
    rows = (Row("first", (Quantity(1.5, "s"), None), goal), Row("second", (Quantity(2), Quantity(3, "MB"))))
    return Table("example", "An example", ("one", "two"), rows, ("a note",))


def test_an_odd_and_an_even_number_of_samples_have_a_median():
    assert seconds([3.0, 1.0, 2.0]) == Quantity(2.0, "s")
    assert seconds([4.0, 1.0]) == Quantity(2.5, "s")
    assert megabytes([3_000_000, 1_000_000, 2_500_000]) == Quantity(2.5, "MB")
    assert count([7]) == Quantity(7)


@pytest.mark.parametrize(
    ("quantity", "text"),
    [
        (Quantity(0.2468, "s"), "0.25 s"),
        (Quantity(12.34, "MB"), "12.3 MB"),
        (Quantity(132.51, "s"), "133 s"),
        (Quantity(75), "75"),
        (Quantity(6.25, "×"), "6.25×"),
    ],
)
def test_quantities_show_the_digits_that_mean_something(quantity: Quantity, text: str):
    assert str(quantity) == text


def test_a_goal_is_met_up_to_its_limit_and_missed_above():
    assert Goal(Quantity(2.0, "s"), Quantity(2.0, "s")).verdict == "met"
    assert Goal(Quantity(2.5, "s"), Quantity(2.0, "s")).verdict == "**missed by 25 %**"
    assert Goal(Quantity(1.0, "MB"), Quantity(0.0, "MB")).verdict == "**missed**"


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_the_verdict_says_met_exactly_when_the_measured_is_not_above(measured: float, limit: float):
    assert (Goal(Quantity(measured), Quantity(limit)).verdict == "met") == (measured <= limit)


def test_every_line_of_a_table_has_the_same_cells_and_goals_come_last():
    goal = Goal(Quantity(1.5, "s"), Quantity(2, "s"), "twice a second")
    lines = [line for line in render_terminal(make_table(goal)).splitlines() if line.startswith("|")]
    assert lines[0] == "|  | one | two | goal | verdict |"
    assert lines[1] == "| --- | ---: | ---: | --- | --- |"
    assert lines[2] == "| first | 1.50 s |  | ≤ 2.00 s (twice a second) | met |"
    assert lines[3] == "| second | 2 | 3.00 MB |  |  |"


def test_a_page_says_how_and_on_what_it_was_made():
    page = render_markdown(make_table(), {"cores": "2", "kernel": "6.1"}, "python -m benchmarks all")
    assert page.startswith("# An example\n\nMade by `python -m benchmarks all`.\n")
    assert "| cores | 2 |" in page and "- a note" in page


def test_saved_json_holds_numbers_and_whether_the_goal_was_met(tmp_path: Path):
    goal = Goal(Quantity(3, "s"), Quantity(2, "s"))
    save_table(make_table(goal), {"cores": "2"}, "the command", directory=tmp_path / "results")
    saved = json.loads((tmp_path / "results/example.json").read_text())
    assert saved["rows"][0]["cells"] == [{"value": 1.5, "unit": "s"}, None]
    assert saved["rows"][0]["goal"]["met"] is False
    assert saved["rows"][1]["goal"] is None
    assert (saved["command"], saved["machine"]) == ("the command", {"cores": "2"})
    assert (tmp_path / "results/example.md").exists()


def trace_event(service: str, start: float, seconds_: float) -> dict[str, object]:
    return {"ph": "X", "cat": service, "name": "build", "ts": start * 1e6, "dur": seconds_ * 1e6}


def test_only_the_work_of_services_counts_in_a_trace():
    events = [
        {"ph": "M", "name": "process_name"},
        trace_event("orchestrator", 0, 100),
        trace_event("web", 0, 90),
        trace_event("frontend", 2, 3),
        trace_event("backend", 1, 10),
    ]
    assert read_trace(events) == (Span("frontend", "build", 2, 5), Span("backend", "build", 1, 11))


def test_makespan_spans_all_services_and_the_longest_build_one_with_its_pauses():
    spans = (Span("frontend", "fetch", 1, 2), Span("frontend", "build", 6, 7), Span("backend", "build", 2, 6.5))
    assert makespan(spans) == 6
    assert longest_build(spans) == 6
    assert longest_build(spans[1:]) == 4.5


def make_deploy(*images: list[dict[str, object]]) -> Deploy:
    result = {
        "services": [{"compiled_units": 3}, {"compiled_units": 4}],
        "images": [{"layers": layers} for layers in images],
    }
    return Deploy(result, Usage(1, 1, 1, 1, 1), ())


def test_a_layer_shared_by_images_counts_once_and_is_written_if_any_image_wrote_it():
    shared = {"diff_id": "sha256:a", "size": 10}
    own = {"diff_id": "sha256:b", "size": 5, "written": False}
    deploy = make_deploy([{**shared, "written": True}], [{**shared, "written": False}, own])
    assert deploy.image_bytes == 15
    assert deploy.layer_bytes == 10
    assert deploy.compiled_units == 7


def test_the_counters_of_a_process_are_read():
    assert parse_io("rchar: 6976\nwrite_bytes: 4096\n") == {"rchar": 6976, "write_bytes": 4096}


def test_waiting_for_a_disk_is_not_being_busy():
    assert parse_processor_times("cpu  10 1 20 300 40 5 6 7 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n") == (389, 49)


def test_mounts_are_found_below_a_directory_only_escapes_undone():
    mounts = "a /lab/disk ext4 rw 0 0\nb /lab/disk/my\\040state overlay rw 0 0\nc /laboratory ext4 rw 0 0\n"
    assert mounts_below(mounts, Path("/lab")) == ["/lab/disk", "/lab/disk/my state"]


PACKAGES = "\n".join(
    (
        "installed\tgcc\t\t, cpp (= 12), gcc-12 (>= 12.2), libc6:amd64 | libc6.1",
        "installed\tgcc-12\tc-compiler\tlibc6 (>= 2.36), ",
        "installed\tcpp\t\t, ",
        "installed\tlibc6\t\t, ",
        "installed\tmawk\tawk\tlibc6, gone-for-good",
        "config-files\tlibc6.1\t\t, ",
    )
)


def test_the_closure_follows_installed_alternatives_and_provided_names():
    packages = read_packages(PACKAGES)
    assert dependency_closure(["gcc"], packages) == {"gcc", "gcc-12", "cpp", "libc6"}
    assert dependency_closure(["awk"], packages) == {"mawk", "libc6"}
    assert "libc6.1" not in packages


def test_a_diversion_is_not_the_owner():
    answer = "diversion by dash from: /bin/sh\ndiversion by dash to: /bin/sh.distrib\ndash: /bin/sh\n"
    assert parse_owner(answer) == "dash"
    assert parse_owner("libc6:amd64: /usr/lib/x\n") == "libc6"
