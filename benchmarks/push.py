"""What a push sends: everything at first, nothing again, after one line little more than that line's layer."""

import json
import shutil
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import BenchmarkError
from benchmarks.table import MEGABYTE, Goal, Quantity, Row, Table, megabytes, seconds
from benchmarks.towns import BACKEND_LINE, Deploy, Line, Towns
from tests.integration.registry import REGISTRY, Proxy, counting_proxy, serving_registry

PAGE_LINE = Line("frontend/index.html", "<title>")
FIRST_MEGABYTES = 10.0
PAGE_EXTRA_BYTES = 16 * 1024
BACKEND_FACTOR = 1.05

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def run(towns: Towns) -> tuple[Table, ...]:
    if REGISTRY is None:
        raise BenchmarkError("docker-registry is not installed: .ci/setup test")
    towns.restore()
    towns.deploy(towns.deployed)
    with _registry(towns) as proxy:
        return (_table(towns, _Pushes(towns, proxy)),)


def _table(towns: Towns, pushes: "_Pushes") -> Table:
    first = pushes.row("web + backend, empty registry", limit=FIRST_MEGABYTES * MEGABYTE)
    again = pushes.row("again", limit=0)
    elsewhere = pushes.row("again, from a machine without state", limit=0, forget=True)
    towns.change(PAGE_LINE)
    towns.deploy(towns.deployed)
    page = (towns.root / PAGE_LINE.path).stat().st_size
    limit = PAGE_EXTRA_BYTES + page
    changed_page = pushes.row(
        "one line of index.html changed", limit=limit, because=f"16 KiB + the file's {page} bytes"
    )
    towns.change(BACKEND_LINE)
    backend = towns.deploy(towns.deployed)
    pushes.push()
    layer = pushes.application_layer(backend)
    towns.restore()
    towns.change(BACKEND_LINE)
    towns.deploy(towns.deployed)
    because = f"{BACKEND_FACTOR} × the compressed binary's layer"
    changed_backend = pushes.row("one line of the backend changed", limit=BACKEND_FACTOR * layer, because=because)
    notes = (
        "`orchestrator push` to Debian's docker-registry on loopback, gzip, through a proxy that counts the bodies of "
        "blob uploads: layers, configs, SBOMs and provenance of web and backend. In registry: all of their blobs.",
        "Without state: with an empty cache, so that every layer is read from the storage and compressed anew.",
    )
    rows = (first, again, elsewhere, changed_page, changed_backend)
    return Table("push", "Bytes pushed", ("blob bytes sent", "in registry", "seconds"), rows, notes)


class _Pushes:
    """Pushes what is deployed, one after the other, into one repository."""

    def __init__(self, towns: Towns, proxy: Proxy) -> None:
        self._towns = towns
        self._proxy = proxy
        self._last: dict[str, Any] = {}

    def row(self, label: str, *, limit: float, because: str = "", forget: bool = False) -> Row:
        """Push and say what was sent, beside the most that should be, in bytes."""
        usage = self.push(forget=forget)
        sent = megabytes([self._proxy.uploaded])
        size = megabytes([sum(image["size"] for image in self._last["pushed"])])
        return Row(label, (sent, size, seconds([usage])), Goal(sent, Quantity(limit / MEGABYTE, "MB"), because))

    def push(self, *, forget: bool = False) -> float:
        """Push; the seconds it took. `forget` empties the caches it has."""
        self._proxy.reset()
        orchestrator = self._towns.deployed
        if forget:
            with _moved_away(orchestrator.cache / "packed"):
                measured = orchestrator.measure("push", "towns", self._repository, "--quiet", "--json")
        else:
            measured = orchestrator.measure("push", "towns", self._repository, "--quiet", "--json")
        self._last = json.loads(measured.stdout)
        return measured.usage.seconds

    def application_layer(self, deploy: Deploy) -> int:
        """Bytes of the compressed layer with the backend's binary in the registry."""
        layers = next(image["layers"] for image in deploy.result["images"] if image["service"] == "backend")
        position = next(index for index, layer in enumerate(layers) if layer["name"] == "application")
        digest = next(image["digest"] for image in self._last["pushed"] if image["service"] == "backend")
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._proxy.port}/v2/towns/manifests/{digest}", headers={"Accept": _MANIFEST}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(json.loads(answer.read())["layers"][position]["size"])

    @property
    def _repository(self) -> str:
        return f"127.0.0.1:{self._proxy.port}/towns"


@contextmanager
def _registry(towns: Towns) -> Iterator[Proxy]:
    with (
        tempfile.TemporaryDirectory(dir=towns.lab.base) as base,
        serving_registry(Path(base)) as port,
        counting_proxy(port) as proxy,
    ):
        yield proxy


@contextmanager
def _moved_away(directory: Path) -> Iterator[None]:
    """The directory is empty inside the block, and as it was afterwards."""
    kept = directory.with_name(f"{directory.name}.kept")
    directory.rename(kept)
    try:
        yield
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        kept.rename(directory)
