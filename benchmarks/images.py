"""What images weigh, and what making them costs after the builds."""

import json
import shutil
from pathlib import Path

from benchmarks.lab import Orchestrator
from benchmarks.measure import BenchmarkError
from benchmarks.table import MEGABYTE, Goal, Quantity, Row, Table, megabytes, seconds
from benchmarks.towns import Deploy, Towns

SIZE_MEGABYTES = 30.0
WRITTEN_FACTOR = 1.2


def run(towns: Towns) -> tuple[Table, ...]:
    return (_sizes(towns), _writing(towns))


def _sizes(towns: Towns) -> Table:
    images = towns.cold[-1].result["images"]
    sizes = {image["service"]: image["size"] for image in images}
    compressed = {image["service"]: _compressed_size(towns.deployed, image["image_id"]) for image in images}
    both = Quantity((sizes["web"] + sizes["backend"]) / MEGABYTE, "MB")
    rows = (
        *(Row(name, (megabytes([sizes[name]]), megabytes([compressed[name]]))) for name in sizes),
        Row(
            "web + backend",
            (both, megabytes([compressed["web"] + compressed["backend"]])),
            Goal(both, Quantity(SIZE_MEGABYTES, "MB")),
        ),
        Row("all, shared layers once", (megabytes([towns.cold[-1].image_bytes]), None)),
    )
    notes = ("Size: the layers' archives. Compressed: what a push with gzip transfers to an empty registry.",)
    return Table("image-sizes", "Image sizes of examples/towns", ("uncompressed", "compressed"), rows, notes)


def _compressed_size(orchestrator: Orchestrator, image_id: str) -> int:
    """Bytes of the image's layers in an OCI layout the engine pushed it to."""
    layout = orchestrator.temporary / f"push-{image_id[:12]}"
    orchestrator.engine("push", "--quiet", image_id, f"oci:{layout}:pushed")
    try:
        index = json.loads((layout / "index.json").read_text())
        manifest = json.loads(_blob(layout, index["manifests"][0]["digest"]).read_text())
        return sum(layer["size"] for layer in manifest["layers"])
    finally:
        shutil.rmtree(layout)


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def _writing(towns: Towns) -> Table:
    towns.restore()
    towns.deploy(towns.deployed)
    first, again = zip(*(_assemble_twice(towns) for _ in range(towns.rounds.warm)), strict=True)
    rows = (_writing_row("all images, empty storage", first), _writing_row("nothing changed", again))
    columns = ("seconds", "image size", "layers written", "written to disk", "peak disk", "peak memory files")
    notes = (
        f"`orchestrator build` with every artifact in the cache, medians of {towns.rounds.warm}: empty engine storage "
        "(its own files made before), no layer known; then once more. Image size counts a shared layer once.",
        "Written to disk: the processes' `write_bytes` (proc(5)): pages dirtied on file systems with a disk below. "
        "Peak disk: growth of the file system holding engine storage, cache/layers and every temporary directory, "
        "sampled each 10 ms. Peak memory files: growth of /dev/shm, where layers lie until the storage has them.",
    )
    return Table("image-writing", "Bytes written after the builds", columns, rows, notes)


def _assemble_twice(towns: Towns) -> tuple[Deploy, Deploy]:
    """Images made from finished builds in an engine storage of their own, and made again."""
    base = towns.lab.orchestrator("images")
    base.cache.symlink_to(towns.deployed.cache)
    shutil.rmtree(base.cache / "layers")
    try:
        base.engine("info")
        deploys = (towns.command(base, "build"), towns.command(base, "build"))
    finally:
        base.discard()
    if any(service["cache"] != "hit" for deploy in deploys for service in deploy.result["services"]):
        raise BenchmarkError("the builds were not in the cache: their bytes would be counted as the images'")
    return deploys


def _writing_row(label: str, deploys: tuple[Deploy, ...]) -> Row:
    size = megabytes([deploy.image_bytes for deploy in deploys])
    written = megabytes([deploy.usage.written for deploy in deploys])
    cells = (
        seconds([deploy.usage.seconds for deploy in deploys]),
        size,
        megabytes([deploy.layer_bytes for deploy in deploys]),
        written,
        megabytes([deploy.usage.peak_disk for deploy in deploys]),
        megabytes([deploy.usage.peak_memory_files for deploy in deploys]),
    )
    limit = Quantity(WRITTEN_FACTOR * size.value, "MB")
    return Row(label, cells, Goal(written, limit, f"{WRITTEN_FACTOR} × image size"))
