"""The trace of a run."""

import json
from pathlib import Path

import pytest

from orchestrator.build.trace import Span, Trace, trace_events


def test_spans_become_complete_events_on_named_rows(tmp_path: Path):
    times = iter([10.0, 10.5, 11.0, 12.0, 13.5])
    trace = Trace(clock=lambda: next(times))
    with trace.span("web", "fetch"):
        pass
    with trace.span("", "toolchain"):
        pass
    trace.write(tmp_path / "out" / "trace.json")
    events = json.loads((tmp_path / "out" / "trace.json").read_text())
    names = {event["args"]["name"]: event["tid"] for event in events if event["name"] == "thread_name"}
    assert events[0] == {"name": "process_name", "ph": "M", "pid": 1, "tid": 0, "args": {"name": "orchestrator"}}
    assert [event for event in events if event["ph"] == "X"] == [
        {"name": "fetch", "cat": "web", "ph": "X", "ts": 500_000, "dur": 500_000, "pid": 1, "tid": names["web"]},
        {
            "name": "toolchain",
            "cat": "orchestrator",
            "ph": "X",
            "ts": 2_000_000,
            "dur": 1_500_000,
            "pid": 1,
            "tid": names["orchestrator"],
        },
    ]


def test_a_failed_span_is_recorded():
    trace = Trace()
    with pytest.raises(ValueError, match="x"), trace.span("web", "build"):
        raise ValueError("x")
    assert [span.name for span in trace.spans] == ["build"]


def test_an_outer_span_comes_before_the_one_inside_it():
    inner, outer = Span("web", "inner", 1.0, 0.5), Span("web", "outer", 1.0, 2.0)
    events = trace_events((inner, outer))
    assert [event["name"] for event in events if event["ph"] == "X"] == ["outer", "inner"]
