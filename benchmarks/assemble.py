"""Making images from finished files: our layout against buildah with its layer cache, side by side."""

import json
import os
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.lab import REPOSITORY, Lab, Orchestrator
from benchmarks.measure import run_measured
from benchmarks.table import MEGABYTE, Goal, Quantity, Row, Table, megabytes, seconds
from benchmarks.towns import Towns

_COLD_FACTOR, _WARM_FACTOR = 4, 8
_UNCHANGED_BYTES = 1_000_000
_PAGE_BYTES = 16_000
_BINARY_FACTOR = 1.05
_SERVER_BYTES = 5_000_000


@dataclass(frozen=True, slots=True)
class Sample:
    """One image made: seconds, bytes written to disk, bytes of new layers."""

    seconds: float
    written: int
    layers: int


def run(towns: Towns) -> tuple[Table, ...]:
    rounds = towns.rounds
    small = [_round(towns.lab, base=12_000_000) for _ in range(rounds.close)]
    large = [_round(towns.lab, base=200_000_000) for _ in range(rounds.warm)]
    page = large[0]["page file"].layers
    rows = (
        _against("20 MB image, nothing there", small, "cold", _COLD_FACTOR),
        _against("20 MB image, nothing changed", small, "same", _WARM_FACTOR),
        _row("200 MB more base, nothing changed", large, "same", written=_UNCHANGED_BYTES),
        _row("one line of index.html", large, "page", layers=_PAGE_BYTES + page),
        _row("the backend", large, "server", layers=round(_BINARY_FACTOR * _SERVER_BYTES)),
    )
    columns = ("seconds", "written to disk", "new layers", "buildah: seconds", "buildah: written to disk")
    notes = (
        f"Medians of {rounds.close} (of {rounds.warm} with the large base); one line a change, in the order of the "
        "table, each route in a storage of its own. "
        "buildah: `buildah build --layers` on a context that was written before the clock ran.",
        "Seconds are of the assembly alone, in a process that had its modules loaded.",
        f"The binary has {_SERVER_BYTES / MEGABYTE:.0f} MB of random bytes: its layer cannot be compressed.",
    )
    return (Table("assemble", "Assembling images", columns, rows, notes),)


def _round(lab: Lab, *, base: int) -> dict[str, Sample]:
    """Every step by both routes: "cold", "same", "page", "server", buildah's with "buildah " before it."""
    ours, theirs = lab.orchestrator("assemble"), lab.orchestrator("assemble-buildah")
    sources = make_sources(ours.base / "sources", base=base)
    samples: dict[str, Sample] = {}
    try:
        for step in ("cold", "same", "page", "server"):
            _change(sources, step)
            samples[step] = _once(ours, "oci", sources)
            _once(theirs, "context", sources)
            samples[f"buildah {step}"] = _once(theirs, "buildah", sources)
        samples["page file"] = Sample(0, 0, (sources / "index.html").stat().st_size)
    finally:
        ours.discard()
        theirs.discard()
    return samples


def make_sources(root: Path, *, base: int) -> Path:
    """`base` bytes of libraries, a 5 MB server, 3 MB of assets and a page; the same bytes at every call."""
    source = random.Random(0)
    files = {f"base/lib{number}.so": base // 40 for number in range(40)}
    files |= {f"assets/part-{number:08x}.js": 100_000 for number in range(30)}
    for name, size in {**files, "server": _SERVER_BYTES}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(source.randbytes(size))
    (root / "index.html").write_text("<!doctype html><title>bench</title>\n" + "<p>line</p>\n" * 40)
    return root


def _change(sources: Path, step: str) -> None:
    if step == "page":
        page = sources / "index.html"
        page.write_text(page.read_text() + "<p>one line more</p>\n")
    elif step == "server":
        (sources / "server").write_bytes(random.Random(1).randbytes(_SERVER_BYTES))


def _once(place: Orchestrator, route: str, sources: Path) -> Sample:
    argv = (sys.executable, "-m", "benchmarks.assemble_once", route, str(sources))
    environment = {**os.environ, **place.environment}
    os.sync()  # else the first fsync on this file system waits for what other steps wrote
    measured = run_measured(argv, env=environment, cwd=REPOSITORY, disk=place.base)
    said = json.loads(measured.stdout)
    return Sample(said["seconds"], measured.usage.written, said["layers"])


def _cells(samples: list[dict[str, Sample]], step: str) -> tuple[Quantity, ...]:
    ours, theirs = [sample[step] for sample in samples], [sample[f"buildah {step}"] for sample in samples]
    return (
        seconds([sample.seconds for sample in ours]),
        megabytes([sample.written for sample in ours]),
        megabytes([sample.layers for sample in ours]),
        seconds([sample.seconds for sample in theirs]),
        megabytes([sample.written for sample in theirs]),
    )


def _against(label: str, samples: list[dict[str, Sample]], step: str, factor: int) -> Row:
    cells = _cells(samples, step)
    limit = Quantity(median(sample[f"buildah {step}"].seconds for sample in samples) / factor, "s")
    return Row(label, cells, Goal(cells[0], limit, f"a {factor}th of buildah"))


def _row(
    label: str, samples: list[dict[str, Sample]], step: str, *, written: int | None = None, layers: int | None = None
) -> Row:
    cells = _cells(samples, step)
    if written is not None:
        return Row(label, cells, Goal(cells[1], Quantity(written / MEGABYTE, "MB"), "written to disk"))
    assert layers is not None
    return Row(label, cells, Goal(cells[2], Quantity(layers / MEGABYTE, "MB"), "new layers"))
