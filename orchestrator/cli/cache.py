"""`cache list`, `explain`, `verify`, `gc`, `root`: what builds keep in the Nix store, and why they compiled."""

import os
import re
import time
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options import build_options, output_options, project_options, verbosity_of
from orchestrator.cli.run import print_json, print_result, running, settings_from

if TYPE_CHECKING:
    from orchestrator.build.cache.index import Index
    from orchestrator.cli.cache_results import CacheListResult, ExplainedBuildResult

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")

_UNITS = {"": 1, "K": 1_000, "M": 1_000_000, "G": 1_000_000_000, "T": 1_000_000_000_000}
_SHOWN_UNITS = 30


class Bytes(click.ParamType[int]):
    """A number of bytes such as 500M or 20G (powers of 1000)."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"(\d+)([KMGT]?)B?", str(value).upper())
        if found is None:
            self.fail(f"{value!r} is not a number of bytes such as 500M or 20G", param, ctx)
        return int(found[1]) * _UNITS[found[2]]


@click.group()
def cache() -> None:
    """Look at and prune what builds keep in the Nix store.

    \b
    Examples:
      orchestrator cache list                        what is kept, and what it saved
      orchestrator cache explain app                 why the last build compiled what it compiled
      orchestrator cache gc --max-bytes 5G           let go of what saves least
    """


@cache.command(name="list")
@click.argument("app", required=False)
@json_option
def list_(app: str | None, as_json: bool) -> None:
    """Show each entry: its age, its size, how often it was used and how many seconds that saved.

    \b
    Examples:
      orchestrator cache list
      orchestrator cache list app --json
    """
    from orchestrator.build.cache.prune import layers_of
    from orchestrator.cli.cache_results import list_result

    entries = [entry for entry in _index().all() if app in (None, entry.app)]
    entries.sort(key=lambda entry: entry.created, reverse=True)
    size = sum(layers_of([entry for entry in entries if entry.present]).values())
    result = list_result(entries, size)
    if as_json:
        print_json(result)
    else:
        _print_entries(result)


@cache.command()
@click.argument("app")
@json_option
def explain(app: str, as_json: bool) -> None:
    """Say why the last build of an application compiled what it compiled.

    \b
    Examples:
      orchestrator cache explain app
      orchestrator cache explain app --json

    Names what changed (toolchain, flags, lock file, sources) and cargo's own reason for each package.
    """
    from orchestrator.build.cache.explain import open_reports
    from orchestrator.cli.cache_results import explain_result
    from orchestrator.errors import UnknownAppError
    from orchestrator.settings import check_name, default_cache_dir

    reports = open_reports(default_cache_dir(os.environ)).all(check_name(app))
    if not reports:
        raise UnknownAppError(f"no cargo build of {app} is known here", hint=f"run: orchestrator build --name {app}")
    result = explain_result(app, reports)
    if as_json:
        print_json(result)
        return
    for service in result.services:
        _print_explained(service)


@cache.command()
@click.argument("app", required=False)
@project_options
@build_options
@output_options
def verify(app: str | None, trace: str | None, as_json: bool, verbosity: str | None, **flags: Any) -> None:
    """Build once from the cache and once from nothing, and compare the binaries byte by byte.

    \b
    Examples:
      orchestrator cache verify app
      orchestrator cache verify app --monorepo ~/src/shop --json

    Takes as long as a first build. Exits with 7 when they differ.
    """
    from orchestrator.build.cache.verify import require_same, verify_builds
    from orchestrator.cli.cache_results import verify_result
    from orchestrator.cli.deploy import decide

    settings = settings_from(flags | ({"name": app} if app else {}))
    with running(verbosity_of(verbosity)) as run:
        project, plan = decide(settings)
        compared = verify_builds(settings, project.root, plan, emit=run.emit, cancel=run.cancel)
    if as_json:
        print_json(verify_result(settings.name, compared))
    else:
        for one in compared:
            print_result(f"{one.service}: {'the same' if one.same else 'DIFFERENT'}  {one.cached}  {one.clean}")
    del trace
    require_same(compared)


@cache.command()
@click.option("--max-bytes", type=Bytes(), metavar="SIZE", help="What all entries may take together.  [default: 10G]")
@click.option("--keep", type=click.IntRange(min=0), metavar="N", help="Entries of one key at most.  [default: 20]")
@json_option
def gc(max_bytes: int | None, keep: int | None, as_json: bool) -> None:
    """Let go of the entries that save the fewest seconds for their bytes, and of those Nix collected.

    \b
    Examples:
      orchestrator cache gc
      orchestrator cache gc --max-bytes 5G --keep 3

    An entry that a build is using stays. What is lost costs compiling again, nothing else.
    """
    from orchestrator.build.cache.prune import KEEP, MAX_BYTES, layers_of, prune_all
    from orchestrator.cli.cache_results import gc_result

    index = _index()
    limit = MAX_BYTES if max_bytes is None else max_bytes
    evicted = prune_all(index, max_bytes=limit, keep=KEEP if keep is None else keep, now=time.time())
    result = gc_result(evicted, sum(layers_of(index.all()).values()))
    if as_json:
        print_json(result)
    else:
        count = len(result.evicted)
        print_result(f"{count} entries evicted, {_mb(result.freed)} freed, {_mb(result.size)} kept")


@cache.command()
@json_option
def root(as_json: bool) -> None:
    """Say where the records are and which store paths are kept from Nix's garbage collector.

    \b
    Examples:
      orchestrator cache root
      orchestrator cache root --json
    """
    from orchestrator.cli.cache_results import CacheRootResult

    directory = _index().directory
    roots = {str(link): str(link.readlink()) for link in sorted(directory.glob("roots/*"))}
    if as_json:
        print_json(CacheRootResult(directory=str(directory), roots=roots))
        return
    print_result(str(directory))
    for target in roots.values():
        print_result(f"  {target}")


def _index() -> "Index":
    from orchestrator.build.cache.index import open_index
    from orchestrator.settings import default_cache_dir
    from orchestrator.tools.nix import open_nix

    return open_index(default_cache_dir(os.environ), open_nix())


def _print_entries(result: "CacheListResult") -> None:
    for entry in result.entries:
        state = "" if entry.present else "  (collected by Nix)"
        what = f"{entry.units} units" if entry.kind == "target" else "fetched"
        print_result(
            f"{entry.id}  {entry.app}/{entry.service}  {_age(entry.created)} old  {what}"
            f"  {_mb(entry.size)} (+{_mb(entry.own_size)})  used {entry.uses} times"
            f"  saved {entry.saved_seconds:.0f} s{state}"
        )
    print_result(f"{len(result.entries)} entries, {_mb(result.size)} in the store")


def _print_explained(build: "ExplainedBuildResult") -> None:
    begun = {"nothing": "from nothing", "workspace": "from its workspace", "entry": f"from cache entry {build.entry}"}
    print_result(f"{build.service}: {build.summary}")
    print_result(f"  built {_age(build.when)} ago in {build.seconds:.1f} s, {begun[build.start]}")
    for title, lines in (
        ("of the key changed", build.changed_key),
        ("packages", build.changed_packages),
        ("sources that changed", build.changed_sources),
        ("compiled", tuple(f"{unit.name} {unit.version}: {unit.reason}" for unit in build.units)),
    ):
        for line in lines[:_SHOWN_UNITS]:
            print_result(f"  {title}: {line}")
        if len(lines) > _SHOWN_UNITS:
            print_result(f"  {title}: {len(lines) - _SHOWN_UNITS} more (see --json)")


def _age(since: float) -> str:
    seconds = max(0, int(time.time() - since))
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} seconds"


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
