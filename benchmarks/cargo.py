"""What the cargo cache is worth: a workspace of more than 130 units, built by us and in the usual ways, side by side.

Ours are the backend's phases in the trace: sources, fetch and build. Each case is built in every way before it is built
again, so that a machine that is slower for a while is so for all.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.cargo_ways import LEAF, Built, Change, Chef, Mounts, Ours, Plain, Subject, Way
from benchmarks.measure import BenchmarkError
from benchmarks.table import MEGABYTE, Goal, Quantity, Row, Table, count, megabytes, seconds
from benchmarks.towns import Rounds, Towns

SNAPSHOTS = 20
SPEEDUP = 40.0

_COLUMNS = ("from the store", "in the workspace", "plain cargo", "cargo-chef", "cache mount", "units compiled")


@dataclass(frozen=True, slots=True)
class Case:
    """One change, built in each way: ours from the store and in the workspace, and seconds of the others' in turn."""

    restored: list[Built] = field(default_factory=list)
    worked: list[Built] = field(default_factory=list)
    others: tuple[list[float], ...] = ()

    @property
    def plain(self) -> float:
        """The median of plain cargo's seconds."""
        return median(self.others[0])

    def row(self, label: str, goal: Goal | None = None) -> Row:
        ours = [[one.seconds for one in built] for built in (self.restored, self.worked)]
        units = count([one.report["compiled"] for one in (*self.restored, *self.worked)])
        return Row(label, (*(seconds(times) if times else None for times in (*ours, *self.others)), units), goal)


def run(towns: Towns) -> tuple[Table, ...]:
    base = towns.lab.base / "cargo-subject"
    base.mkdir()
    subject = Subject(base)
    with ExitStack() as stack:
        ours = Ours(subject, towns.lab.orchestrator("cargo"))
        stack.callback(ours.discard)
        plain = Plain(subject)
        mounts = Mounts(subject, towns.lab.orchestrator("mounts"))
        stack.callback(mounts.engine.discard)
        return _measure(subject, ours, (plain, Chef(subject, plain), mounts), towns.rounds)


def _measure(subject: Subject, ours: Ours, others: Sequence[Way], rounds: Rounds) -> tuple[Table, ...]:
    times = rounds.warm
    cold = Case([ours.restored(subject.nothing)], [], tuple([way.cold()] for way in others))
    same = _in_turn(ours, others, subject.nothing, times)
    _require(all(not one.report["compiled"] for one in (*same.restored, *same.worked)), "something was compiled anew")
    app = _in_turn(ours, others, subject.app_line, times)
    _measure_closely(ours, others[0], subject.app_line, app, rounds.close - times)
    deep = _in_turn(ours, others, subject.deep_line, times)
    leaf = Case([ours.restored(subject.bump)], [], tuple([way.bumped()] for way in others))
    dependants = subject.dependants()
    _require(leaf.restored[0].units == dependants, f"{LEAF} bumped compiled {leaf.restored[0].units}")
    whole = _snapshots(subject, ours)
    notes = (
        f"{cold.restored[0].report['total']} units. Ours: sources, fetch and build of the backend, of a fresh clone; "
        "from the store: target/, sources and records removed before, what was fetched stays, as for the others.",
        "Plain cargo: where it built before, same flags. cargo-chef: cooked dependencies copied, fresh clone copied "
        "over them, the copying not counted. Cache mount: `podman build` with `RUN --mount=type=cache` for CARGO_HOME "
        "and target, fresh clone as context; with nothing changed its layer cache answers, and cargo does not run.",
        f"The ways take turns; one line of the binary is built {rounds.close} times in the workspace and by plain "
        f"cargo, other cases {times} times, what is cold and the bump once.",
        f"{LEAF} bumped compiled exactly: {', '.join(sorted(dependants))}.",
    )
    return (
        Table("cargo", "Cargo builds, side by side", _COLUMNS, _rows(cold, same, app, deep, leaf), notes),
        Table("cargo-cache", "What the cargo cache costs", ("",), _costs(app, (cold, same, app, deep, leaf), whole)),
    )


def _in_turn(ours: Ours, others: Sequence[Way], change: Change, times: int) -> Case:
    case = Case(others=tuple([] for _ in others))
    for _ in range(times):
        case.restored.append(ours.restored(change))
        case.worked.append(ours.worked(change))
        for way, taken in zip(others, case.others, strict=True):
            taken.append(way.changed(change))
    return case


def _measure_closely(ours: Ours, plain: Way, change: Change, case: Case, times: int) -> None:
    for _ in range(times):
        case.others[0].append(plain.changed(change))
        case.worked.append(ours.worked(change))


def _snapshots(subject: Subject, ours: Ours) -> float:
    """Bytes of all layers after that many edits of the binary and the library, as a multiple of a whole snapshot."""
    for number in range(SNAPSHOTS):
        ours.worked(subject.app_line if number % 4 else subject.deep_line)
    newest = ours.entries()[-SNAPSHOTS:]
    sizes = {layer: 0 for entry in newest for layer in entry["layers"]}
    for layer in sizes:
        sizes[layer] = sum(path.stat().st_size for path in Path(layer).rglob("*") if path.is_file())
    return sum(sizes.values()) / newest[-1]["size"]


def _rows(cold: Case, same: Case, app: Case, deep: Case, leaf: Case) -> tuple[Row, ...]:
    def goal(built: list[Built], limit: float, because: str) -> Goal:
        return Goal(Quantity(median(one.seconds for one in built), "s"), Quantity(limit, "s"), because)

    empty = (None,) * len(_COLUMNS)
    return (
        cold.row("nothing there"),
        same.row("fresh clone, nothing changed", goal(
            same.restored, min(cold.restored[0].seconds / SPEEDUP, same.plain + 1), "cold / 40, and plain + 1 s")),
        Row("the same, workspace", empty, goal(same.worked, same.plain + 0.3, "plain + 0.3 s")),
        app.row("one line of the binary", goal(app.restored, 1.3 * app.plain, "1.3 × plain")),
        Row("the same, workspace", empty, goal(app.worked, 1.05 * app.plain, "1.05 × plain")),
        deep.row("one line of the library"),
        leaf.row(f"{LEAF} bumped"),
    )  # fmt: skip


def _costs(app: Case, cases: Sequence[Case], whole: float) -> tuple[Row, ...]:
    """What saving after one line of the binary costs, what `whole` of a snapshot many take, memory in all cases."""
    saves = seconds([one.save_seconds for one in app.worked])
    entry = app.worked[-1].entry
    share = Quantity(round(100 * entry["own_size"] / entry["size"], 1))
    snapshots = Quantity(whole, "×")
    memory = max(one.memory for case in cases for one in (*case.restored, *case.worked))
    return (
        Row("save after one line", (saves,), Goal(saves, Quantity(0.5, "s"))),
        Row("bytes of that save, % of target/", (share,), Goal(share, Quantity(10.0))),
        Row("a whole snapshot", (megabytes([entry["size"]]),)),
        Row(f"{SNAPSHOTS} snapshots of {SNAPSHOTS} edits, of a whole one", (snapshots,),
            Goal(snapshots, Quantity(2.0, "×"))),
        Row("peak memory of the orchestrator", (megabytes([memory]),),
            Goal(Quantity(memory / MEGABYTE, "MB"), Quantity(150.0, "MB"))),
    )  # fmt: skip


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise BenchmarkError(problem)
