"""`python -m benchmarks [NAME …] [--repeat N] [--cold N]`: measure, print the tables, save them."""

import argparse
import importlib
import sys
import time
from pathlib import Path

from benchmarks.lab import PROGRAM, REPOSITORY, open_lab
from benchmarks.machine import Neighbours, machine_facts
from benchmarks.measure import BenchmarkError
from benchmarks.table import Table, render_terminal, save_table
from benchmarks.towns import Rounds, Towns

BENCHMARKS = ("startup", "deploy", "images", "assemble", "push", "swap", "container", "sources", "cargo", "edge")
"""Modules with `run(towns) -> tables`, in the order of a whole run."""

RESULTS = Path(__file__).resolve().parent / "results"


def main(arguments: list[str]) -> int:
    options = _parse(arguments)
    command = " ".join(("python -m benchmarks", *arguments))
    names = [name for name in BENCHMARKS if name in options.names or "all" in options.names]
    if not PROGRAM.exists():
        return _fail(f"{PROGRAM} is missing; run: make setup")
    facts = machine_facts(REPOSITORY)
    neighbours = Neighbours()
    try:
        with open_lab() as lab:
            towns = Towns(lab, Rounds(cold=options.cold, warm=options.repeat))
            for name in names:
                tables = _run(name, towns)
                disturbance = {"others used meanwhile": f"{neighbours.share():.0%} of the processor time"}
                for table in tables:
                    save_table(table, {**facts, **disturbance}, command, directory=options.results)
    except BenchmarkError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted; nothing is left behind", code=130)
    return 0


def _run(name: str, towns: Towns) -> tuple[Table, ...]:
    started = time.monotonic()
    tables: tuple[Table, ...] = importlib.import_module(f"benchmarks.{name}").run(towns)
    for table in tables:
        print(render_terminal(table), flush=True)
    print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return tables


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the orchestrator.")
    parser.add_argument("names", nargs="*", default=["all"], metavar="NAME", help=f"all, {', '.join(BENCHMARKS)}")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="times what takes seconds is run [3]")
    parser.add_argument("--cold", type=int, default=1, metavar="N", help="times what takes minutes is run [1]")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where tables are saved")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - {"all", *BENCHMARKS}
    if unknown or options.repeat < 1 or options.cold < 1:
        parser.error(f"names are {', '.join(('all', *BENCHMARKS))}; numbers are at least 1")
    return options


def _fail(message: str, *, code: int = 1) -> int:
    print(f"benchmarks: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
