"""How long a deploy takes: from nothing, with nothing changed, after one line; and builds side by side or in turn."""

import os
from collections.abc import Sequence

from benchmarks.table import Goal, Quantity, Row, Table, count, megabytes, seconds
from benchmarks.towns import Deploy, Towns, longest_build, makespan

UNCHANGED_SECONDS = 2.0
MAKESPAN_FACTOR = 1.05


def run(towns: Towns) -> tuple[Table, ...]:
    return (_deploys(towns), _parallel(towns))


def _deploys(towns: Towns) -> Table:
    unchanged = _row("nothing changed", towns.unchanged, limit=UNCHANGED_SECONDS)
    rows = (
        _row("cold, empty caches", towns.cold),
        unchanged,
        _row("one line of the frontend changed", towns.frontend_line),
        _row("one line of the backend changed", towns.backend_line),
    )
    columns = ("seconds", "builds", "processor", "units compiled", "layers written", "written to disk", "peak disk")
    notes = (
        "Command start to command end: detection, builds, images, start, probes through nginx, switch.",
        f"Medians of {towns.rounds.cold} cold and {towns.rounds.warm} warm runs. Dependencies come from the registries "
        "in the cold run; the Nix store already holds the toolchain.",
        "Builds: from the first step of the first to the end of the last. Written to disk: every page dirtied by the "
        "command's processes on a file system with a disk below it. Peak disk: growth of the file system that holds "
        f"state, cache and temporary files, sampled ({'private to the run' if towns.lab.private else 'shared'}).",
    )
    return Table("deploy", "Deploying examples/towns", columns, rows, notes)


def _row(label: str, deploys: Sequence[Deploy], *, limit: float | None = None) -> Row:
    wall = seconds([deploy.usage.seconds for deploy in deploys])
    cells = (
        wall,
        seconds([makespan(deploy.spans) for deploy in deploys]) if all(deploy.spans for deploy in deploys) else None,
        seconds([deploy.usage.cpu_seconds for deploy in deploys]),
        count([deploy.compiled_units for deploy in deploys]),
        megabytes([deploy.layer_bytes for deploy in deploys]),
        megabytes([deploy.usage.written for deploy in deploys]),
        megabytes([deploy.usage.peak_disk for deploy in deploys]),
    )
    return Row(label, cells, Goal(wall, Quantity(limit, "s")) if limit else None)


def _parallel(towns: Towns) -> Table:
    serial = tuple(_build_serial(towns) for _ in range(towns.rounds.cold))
    cores = os.cpu_count() or 1
    runs = (towns.cold, serial)
    spans = tuple(seconds([makespan(deploy.spans) for deploy in deploys]) for deploys in runs)
    longest = tuple(seconds([longest_build(deploy.spans) for deploy in deploys]) for deploys in runs)
    work = tuple(seconds([deploy.usage.cpu_seconds for deploy in deploys]) for deploys in runs)
    shares = tuple(Quantity(quantity.value / cores, "s") for quantity in work)
    bound = max(longest[1].value, shares[0].value)
    goal = Goal(spans[0], Quantity(MAKESPAN_FACTOR * bound, "s"), f"{MAKESPAN_FACTOR} × {bound:.1f} s")
    rows = (
        Row("makespan of the builds", spans, goal),
        Row("longest single build", longest),
        Row("processor seconds", work),
        Row(f"processor seconds / {cores} cores", shares),
    )
    notes = (
        "Frontend and backend from empty caches, dependencies fetched; makespan from the traces (`--trace`).",
        "The limit is the larger of the longest build when it has the machine to itself (serial) and the processor "
        "seconds of the parallel run per core; those are the whole command's, images included.",
    )
    return Table("parallel", "Builds side by side and one after the other", ("parallel", "--serial"), rows, notes)


def _build_serial(towns: Towns) -> Deploy:
    orchestrator = towns.lab.orchestrator("serial")
    towns.restore()
    try:
        return towns.command(orchestrator, "build", "--serial")
    finally:
        orchestrator.discard()
