"""`gc`: give back room."""

import click

from orchestrator.cli.options import output_options, verbosity_of
from orchestrator.cli.run import print_json, print_result, running, state_dir


@click.command()
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--keep-bytes", metavar="SIZE", help="Cached builds and layers to keep, such as 500m.  [default: 5g]")
@click.option(
    "--keep-releases",
    type=click.IntRange(min=1),
    metavar="N",
    help="Forget releases beyond N as well.  [default: all that deploys kept]",
)
@output_options
def gc(dry_run: bool, keep_bytes: str | None, keep_releases: int | None, as_json: bool, verbosity: str | None) -> None:
    """Remove images no release uses, the oldest cached builds and the compressed layers of pushes.

    \b
    Examples:
      orchestrator gc --dry-run
      orchestrator gc --keep-bytes 1g --keep-releases 2

    Only what the orchestrator made is looked at. What runs, what a rollback needs and applications another
    orchestrator is working on are left alone. The Nix store has a collector of its own: nix-collect-garbage.
    """
    import os

    from orchestrator.cli.results import gc_result
    from orchestrator.deploy.retention import collect_garbage
    from orchestrator.settings import default_cache_dir, keep_bytes_from
    from orchestrator.tools.podman import open_engine

    state = state_dir()
    with running(verbosity_of(verbosity)) as run:
        found = collect_garbage(
            state,
            default_cache_dir(os.environ),
            engine=open_engine(state, cancel=run.cancel),
            keep_bytes=keep_bytes_from(keep_bytes, os.environ),
            keep_releases=keep_releases,
            dry_run=dry_run,
            emit=run.emit,
        )
    if as_json:
        print_json(gc_result(found, dry_run=dry_run))
        return
    for item in found:
        print_result(f"{item.kind}\t{item.size / 1e6:.1f} MB\t{item.name}\t{item.reason}")
    verb = "would be removed" if dry_run else "removed"
    click.echo(f"{len(found)} things {verb}, {sum(item.size for item in found) / 1e6:.1f} MB at most", err=True)
