"""`releases` and `rollback`: what was live, and the way back."""

import click

from orchestrator.cli.options import app_argument, output_options
from orchestrator.cli.run import changing_app, print_json, print_result, state_dir


@click.command()
@app_argument
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
def releases(app: str, as_json: bool) -> None:
    """List an application's releases, the newest first: which is live, and which `rollback` can restore.

    \b
    Examples:
      orchestrator releases app
      orchestrator releases app --json

    A warm release has its stopped containers still; a cold one is started from its images and its record.
    """
    from orchestrator.cli.app_results import releases_result
    from orchestrator.deploy.rollback import list_releases
    from orchestrator.settings import check_name
    from orchestrator.tools.podman import open_engine

    state = state_dir()
    result = releases_result(app, list_releases(state, check_name(app), engine=open_engine(state)))
    if as_json:
        print_json(result)
        return
    for release in result.releases:
        state_text = click.style(release.role, fg="green") if release.role == "live" else release.role
        gone = "" if release.available else "  images are gone"
        print_result(f"{release.id}\t{state_text}\t{release.size / 1e6:.1f} MB\tenv {release.environment_hash}{gone}")


@click.command()
@app_argument
@click.option("--to", metavar="ID", help="Back to this release.  [default: the one live before the current]")
@output_options
def rollback(app: str, to: str | None, as_json: bool, verbosity: str | None) -> None:
    """Make an earlier release live again, with its images, configuration, environment and domains.

    \b
    Examples:
      orchestrator rollback app
      orchestrator rollback app --to 20260506-070809

    What runs keeps serving until the release has answered, and no request is dropped. A second `rollback`
    without --to takes the first one back.
    """
    from orchestrator.deploy.rollback import roll_back

    with changing_app(app, verbosity, stoppable=True) as (run, state, engine):
        release = roll_back(state, app, to=to, engine=engine, emit=run.emit, cancel=run.cancel)
    if as_json:
        from orchestrator.cli.app_results import started_result

        print_json(started_result(app, release))
    else:
        click.echo(f"{app} release {release.id} {'is' if release.changed else 'was already'} live:", err=True)
        print_result(release.url)
