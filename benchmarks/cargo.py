"""What the cargo cache is worth: a workspace of more than 130 units, built by us and in the usual ways, side by side.

Ours are the backend's phases in the trace: sources, fetch and build. Plain cargo builds where it built before.
cargo-chef's warm dependency layer is a copy of the directory it cooked in. The cache mounts are podman's.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cargo_workspace import write_workspace
from benchmarks.container import BUILDER, make_base_images
from benchmarks.lab import REPOSITORY, Orchestrator
from benchmarks.measure import BenchmarkError, run_checked, run_measured
from benchmarks.table import MEGABYTE, Goal, Quantity, Row, Table, count, megabytes, seconds
from benchmarks.towns import Towns, read_trace

SNAPSHOTS = 20
SPEEDUP = 40.0
CARGO_CHEF = "0.1.78"
_IDENTITY = ("-c", "user.name=Benchmark", "-c", "user.email=benchmark@localhost")
_APP_LINE = ("crates/app/src/main.rs", '"app-v1')
_DEEP_LINE = ("crates/deep/src/m0.rs", "1000")
_LEAF = ("anyhow", "1.0.100")
_MEMORY = """\
import resource, sys
from orchestrator.cli.errors import run_command
from orchestrator.cli import orchestrator_command
code = run_command(orchestrator_command, sys.argv[2:])
open(sys.argv[1], "w").write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
sys.exit(code)
"""
_CONTAINERFILE = f"""\
FROM {BUILDER}
ENV HOME=/root SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt CARGO_HOME=/cargo
WORKDIR /app
COPY backend .
RUN --mount=type=cache,target=/cargo --mount=type=cache,target=/app/target \\
    cargo build --release --locked && cp target/release/app /app/app
"""


@dataclass(frozen=True, slots=True)
class Built:
    """One of our builds; seconds of its phases, the cache's report, and bytes of memory at most."""

    seconds: float
    save_seconds: float
    report: dict[str, Any]
    memory: int


@dataclass
class Bench:
    """The workspace and the ways to build it."""

    towns: Towns
    _clones: int = field(default=0, init=False)

    @cached_property
    def base(self) -> Path:
        base = self.towns.lab.base / "cargo"
        base.mkdir()
        return base

    @cached_property
    def mono(self) -> Path:
        """A monorepo with the backend, a lock file and the example's flake, committed."""
        root = self.base / "mono"
        write_workspace(root / "backend")
        for name in ("flake.nix", "flake.lock"):
            shutil.copy(REPOSITORY / "examples/towns" / name, root)
        run_checked(("cargo", "generate-lockfile", "--quiet"), cwd=root / "backend")
        (root / ".gitignore").write_text("target\n")
        for argv in (("init", "--quiet"), ("add", "--all"), (*_IDENTITY, "commit", "--quiet", "--message", "x")):
            run_checked(("git", *argv), cwd=root)
        return root

    @cached_property
    def ours(self) -> Orchestrator:
        return self.towns.lab.orchestrator("cargo")

    def clone(self) -> Path:
        """A fresh clone at a path of its own."""
        self._clones += 1
        root = self.base / f"clone {self._clones}"
        run_checked(("git", "clone", "--quiet", str(self.mono), str(root)))
        return root

    def change(self, root: Path, line: tuple[str, str]) -> None:
        """Make a line of a clone one it never was."""
        self._clones += 1
        path = root / "backend" / line[0]
        original = run_checked(("git", "show", f"HEAD:backend/{line[0]}"), cwd=root)
        _require(line[1] in original, f"{path} has no {line[1]}")
        path.write_text(original.replace(line[1], f"{line[1]}{self._clones}", 1))

    def bump(self, root: Path) -> None:
        """Another version of a leaf dependency."""
        run_checked(("cargo", "update", "--quiet", _LEAF[0], "--precise", _LEAF[1]), cwd=root / "backend")

    def build(self, root: Path, *, restore: bool = False) -> Built:
        """Build a clone with the orchestrator: in its workspace, or with what was fetched and the store alone."""
        shutil.rmtree(self.ours.cache / "artifacts", ignore_errors=True)
        workspace = self.ours.cache / "workspaces" / "bench" / "backend"
        for path in workspace.glob("*") if restore else ():
            if path.name not in ("cargo", "fetched.json", "lock"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        trace, peak = self.ours.temporary / "trace.json", self.ours.temporary / "memory"
        arguments = ("build", "--name", "bench", "--monorepo", str(root), "--quiet", "--trace", str(trace))
        argv = (sys.executable, "-c", _MEMORY, str(peak), *arguments)
        run_measured(argv, env=self.ours.environment, cwd=self.ours.base, disk=self.base)
        spans = {span.name: span.end - span.start for span in read_trace(json.loads(trace.read_text()))}
        report = json.loads((self.ours.cache / "cache/reports/bench/backend.json").read_text())
        done = sum(spans.get(name, 0.0) for name in ("sources", "fetch", "build"))
        return Built(done, spans["keep"], report, int(peak.read_text()))

    def entries(self) -> list[dict[str, Any]]:
        """The cache's entries, the newest last."""
        found = [json.loads(path.read_text()) for path in self.ours.cache.glob("cache/entries/*/*.json")]
        return sorted(found, key=lambda entry: entry["created"])

    def plain(self, root: Path) -> float:
        """Seconds of `cargo build` in a clone."""
        argv = ("cargo", "build", "--release", "--locked", "--quiet", "-p", "app", "--bin", "app")
        environment = dict(os.environ) | {"CARGO_INCREMENTAL": "0", "CARGO_PROFILE_RELEASE_STRIP": "symbols"}
        return run_measured(argv, env=environment, cwd=root / "backend", disk=self.base).usage.seconds


def run(towns: Towns) -> tuple[Table, ...]:
    bench = Bench(towns)
    try:
        return _measure(bench)
    finally:
        bench.ours.run("cache", "gc", "--max-bytes", "0", "--keep", "0")


def _measure(bench: Bench) -> tuple[Table, ...]:
    towns = bench.towns
    warm = towns.rounds.warm
    cold = bench.build(bench.clone())
    plain_root = bench.clone()
    plain = {"cold": [bench.plain(plain_root)], "same": [bench.plain(plain_root) for _ in range(warm)]}
    restored = [bench.build(bench.clone(), restore=True) for _ in range(warm)]
    again = [bench.build(bench.clone()) for _ in range(warm)]
    _require(all(one.report["compiled"] == 0 for one in (*restored, *again)), "something was compiled for no reason")
    root = bench.clone()
    app_workspace = [_changed(bench, root, _APP_LINE) for _ in range(warm)]
    app_restored = [_changed(bench, root, _APP_LINE, restore=True) for _ in range(warm)]
    deep_workspace = [_changed(bench, root, _DEEP_LINE) for _ in range(warm)]
    plain["app"] = [_plain_changed(bench, plain_root, _APP_LINE) for _ in range(warm)]
    plain["deep"] = [_plain_changed(bench, plain_root, _DEEP_LINE) for _ in range(warm)]
    leaf_root = bench.clone()
    bench.bump(leaf_root)
    leaf = bench.build(leaf_root, restore=True)
    dependants = _dependants(leaf_root / "backend", _LEAF[0])
    _require({unit["name"] for unit in leaf.report["units"]} == dependants, f"{_LEAF[0]}: {leaf.report['units']}")
    bench.bump(plain_root)
    plain["leaf"] = [bench.plain(plain_root)]
    entry = bench.entries()[-1]
    snapshots = _snapshots(bench, root)
    chef = _cargo_chef(bench)
    mounts = _cache_mounts(bench)

    def row(label: str, ours: list[Built], workspace: list[Built], key: str, goal: Goal | None = None) -> Row:
        cells = [[one.seconds for one in ours], [one.seconds for one in workspace], plain[key]]
        cells += [chef.get(key, []), mounts.get(key, [])]
        units = count([one.report["compiled"] for one in ours or workspace])
        return Row(label, (*(seconds(samples) if samples else None for samples in cells), units), goal)

    def middle(built: list[Built]) -> float:
        return median(one.seconds for one in built)

    def within(measured: float, limit: float, because: str) -> Goal:
        return Goal(Quantity(measured, "s"), Quantity(limit, "s"), because)

    same, app = median(plain["same"]), median(plain["app"])
    rows = (
        row("nothing there", [cold], [], "cold"),
        row("fresh clone, nothing changed", restored, again, "same",
            within(middle(restored), min(cold.seconds / SPEEDUP, same + 1), "cold / 40, and plain + 1 s")),
        row("the same, workspace", [], again, "same", within(middle(again), same + 0.3, "plain + 0.3 s")),
        row("one line of the binary", app_restored, app_workspace, "app",
            within(middle(app_restored), 1.3 * app, "1.3 × plain")),
        row("the same, workspace", [], app_workspace, "app", within(middle(app_workspace), 1.05 * app, "1.05 × plain")),
        row("one line of the library", [], deep_workspace, "deep"),
        row(f"{_LEAF[0]} bumped", [leaf], [], "leaf"),
    )  # fmt: skip
    total = cold.report["total"]
    columns = ("from the store", "in the workspace", "plain cargo", "cargo-chef", "cache mount", "units compiled")
    notes = (
        f"{total} units. Ours: sources, fetch and build of the backend; from the store: target/, sources and records "
        "removed before, what was fetched stays, as it does for the others.",
        "Plain cargo: where it built before, same flags. cargo-chef: cooked dependencies copied, sources fresh. Cache "
        "mount: `podman build` with `RUN --mount=type=cache` for CARGO_HOME and target, fresh clone as context.",
        f"{_LEAF[0]} bumped compiled exactly: {', '.join(sorted(dependants))}.",
    )
    saves = [one.save_seconds for one in app_workspace]
    share = Quantity(100 * entry["own_size"] / entry["size"])
    whole = Quantity(snapshots, "×")
    memory = max(one.memory for one in (cold, *restored, *app_workspace))
    costs = (
        Row("save after one line", (seconds(saves),), Goal(seconds(saves), Quantity(0.5, "s"))),
        Row("bytes of that save, % of target/", (share,), Goal(share, Quantity(10.0))),
        Row("a whole snapshot", (megabytes([entry["size"]]),)),
        Row(f"{SNAPSHOTS} snapshots of {SNAPSHOTS} edits, of a whole one", (whole,), Goal(whole, Quantity(2.0, "×"))),
        Row("peak memory of the orchestrator", (megabytes([memory]),),
            Goal(Quantity(memory / MEGABYTE, "MB"), Quantity(150.0, "MB"))),
    )  # fmt: skip
    return (
        Table("cargo", "Cargo builds, side by side", columns, rows, notes),
        Table("cargo-cache", "What the cargo cache costs", ("",), costs),
    )


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise BenchmarkError(problem)


def _changed(bench: Bench, root: Path, line: tuple[str, str], *, restore: bool = False) -> Built:
    bench.change(root, line)
    return bench.build(root, restore=restore)


def _plain_changed(bench: Bench, root: Path, line: tuple[str, str]) -> float:
    bench.change(root, line)
    return bench.plain(root)


def _dependants(backend: Path, package: str) -> set[str]:
    """The package and everything that depends on it."""
    said = run_checked(("cargo", "tree", "--invert", package, "--prefix", "none", "--format", "{p}"), cwd=backend)
    return {line.split()[0] for line in said.splitlines() if line}


def _snapshots(bench: Bench, root: Path) -> float:
    """Bytes of all layers after that many edits of the binary and the library, as a multiple of a whole snapshot."""
    for number in range(SNAPSHOTS):
        _changed(bench, root, _APP_LINE if number % 4 else _DEEP_LINE)
    newest = bench.entries()[-SNAPSHOTS:]
    sizes = {layer: 0 for entry in newest for layer in entry["layers"]}
    for layer in sizes:
        sizes[layer] = sum(path.stat().st_size for path in Path(layer).rglob("*") if path.is_file())
    return sum(sizes.values()) / newest[-1]["size"]


def _cargo_chef(bench: Bench) -> dict[str, list[float]]:
    """Seconds by case; what is cooked before is in a layer and not counted, except where the lock file changed."""
    tool = bench.base / "chef"
    install = ("cargo", "install", "--quiet", "--locked", "--root", str(tool), f"cargo-chef@{CARGO_CHEF}")
    run_checked(install, env=dict(os.environ))
    chef = str(tool / "bin" / "cargo-chef")
    cooked = bench.base / "cooked"
    cold = _cook(bench, chef, bench.clone(), cooked)
    cases: dict[str, Callable[[Path], None]] = {
        "same": lambda _: None,
        "app": lambda root: bench.change(root, _APP_LINE),
        "deep": lambda root: bench.change(root, _DEEP_LINE),
    }
    timed = {case: [_on_layer(bench, cooked, change) for _ in range(bench.towns.rounds.warm)]
             for case, change in cases.items()}  # fmt: skip
    bumped = bench.clone()
    bench.bump(bumped)
    leaf = _cook(bench, chef, bumped, bench.base / "cooked again")
    return {"cold": [cold], "leaf": [leaf]} | timed


def _cook(bench: Bench, chef: str, root: Path, layer: Path) -> float:
    """Cook the dependencies of a clone into `layer`, then build the clone on it; seconds of both."""
    layer.mkdir()
    backend = root / "backend"
    run_checked((chef, "chef", "prepare", "--recipe-path", str(layer / "recipe.json")), cwd=backend)
    cook = (chef, "chef", "cook", "--release", "--recipe-path", "recipe.json", "-p", "app")
    environment = dict(os.environ) | {"CARGO": shutil.which("cargo") or "cargo"}
    spent = run_measured(cook, env=environment, cwd=layer, disk=bench.base).usage.seconds
    return spent + _on_layer(bench, layer, lambda _: None, root)


def _on_layer(bench: Bench, layer: Path, change: Callable[[Path], None], root: Path | None = None) -> float:
    """Seconds of `cargo build` of a changed fresh clone copied over the layer, as COPY does."""
    source = root or bench.clone()
    change(source)
    place = bench.base / "over" / "backend"
    run_checked(("rm", "-rf", str(place.parent)))
    place.parent.mkdir()
    run_checked(("cp", "-a", str(layer), str(place)))
    run_checked(("cp", "-a", f"{source}/backend/.", str(place)))
    return bench.plain(place.parent)


def _cache_mounts(bench: Bench) -> dict[str, list[float]]:
    """Seconds of `podman build` by case."""
    engine = bench.towns.lab.orchestrator("mounts")
    try:
        make_base_images(engine)

        def build(change: Callable[[Path], None]) -> float:
            root = bench.clone()
            change(root)
            (root / "Containerfile").write_text(_CONTAINERFILE)
            certificates = "--volume=/etc/ssl/certs:/etc/ssl/certs:ro"
            arguments = ("build", "--layers", "--network=host", certificates, "--tag", "localhost/mounts", str(root))
            return engine.measure("engine", "--", *arguments).usage.seconds

        warm = range(bench.towns.rounds.warm)
        return {
            "cold": [build(lambda _: None)],
            "same": [build(lambda root: (root / "backend" / "new.txt").write_text(str(root)) and None) for _ in warm],
            "app": [build(lambda root: bench.change(root, _APP_LINE)) for _ in warm],
            "deep": [build(lambda root: bench.change(root, _DEEP_LINE)) for _ in warm],
            "leaf": [build(bench.bump)],
        }
    finally:
        engine.discard()
