"""`status`, `logs`, `stop`, `start`, `remove`, `list`: the life of a deployed application."""

from collections import deque
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import app_argument, output_options
from orchestrator.cli.run import changing_app, print_json, print_result, running, state_dir

if TYPE_CHECKING:
    from orchestrator.cli.app_results import StatusResult
    from orchestrator.deploy.app import Logs
    from orchestrator.tools.podman import Engine

STATE_COLOURS = {"running": "green", "starting": "yellow", "stopped": "yellow"}
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")


@click.command()
@app_argument
@json_option
def status(app: str, as_json: bool) -> None:
    """Say how an application is, from what its containers do and a real request made now.

    \b
    Examples:
      orchestrator status app
      orchestrator status app --json
    """
    from orchestrator.cli.app_results import status_result
    from orchestrator.deploy.status import app_status
    from orchestrator.settings import check_name
    from orchestrator.tools.podman import open_engine

    state = state_dir()
    result = status_result(app_status(state, check_name(app), engine=open_engine(state)))
    if as_json:
        print_json(result)
    else:
        _print_status(result)


@click.command()
@app_argument
@click.option("-f", "--follow", is_flag=True, help="Keep printing what comes.")
@click.option(
    "--service", "only", multiple=True, metavar="SERVICE", help="Of this only: web, backend, backend-2, gate."
)
@click.option("--since", metavar="TIME", help='What was written since: "10m", "2h", "2026-05-06T07:08:09".')
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="The last N lines.")
def logs(app: str, follow: bool, only: tuple[str, ...], since: str | None, tail: int | None) -> None:
    """Print what the containers of an application wrote.

    \b
    Examples:
      orchestrator logs app
      orchestrator logs app -f --service backend
      orchestrator logs app --tail 50 --since 10m
    """
    from orchestrator.deploy.app import app_logs
    from orchestrator.process import interact
    from orchestrator.settings import check_name
    from orchestrator.tools.podman import open_engine

    state = state_dir()
    engine = open_engine(state)
    found = app_logs(state, check_name(app), engine=engine, only=only, tail=tail, since=since, follow=follow)
    code = _print_chosen(found, engine) if found.parts else interact(found.argv, env=engine.environment)
    raise click.exceptions.Exit(code)


def _print_chosen(logs: "Logs", engine: "Engine") -> int:
    """The lines of some parts of a container, as they come or, where only the last ones are wanted, in the end."""
    from orchestrator.process import stream

    last: deque[str] = deque(maxlen=logs.tail)

    def take(line: str) -> None:
        if logs.means(line) and logs.tail is None:
            click.echo(line)
        elif logs.means(line):
            last.append(line)

    with running("quiet", live=False) as run:
        code = stream(logs.argv, on_line=take, env=engine.environment, cancel=run.cancel).returncode
    for line in last:
        click.echo(line)
    return code


@click.command()
@app_argument
@output_options
def stop(app: str, as_json: bool, verbosity: str | None) -> None:
    """Stop an application in order; its release, images and logs stay.

    \b
    Examples:
      orchestrator stop app
    """
    from orchestrator.cli.app_results import StoppedResult
    from orchestrator.deploy.app import stop_app

    with changing_app(app, verbosity) as (run, state, engine):
        ran = stop_app(state, app, engine=engine, emit=run.emit)
    if as_json:
        print_json(StoppedResult(app=app, changed=ran))
    else:
        print_result(f"{app} is stopped" if ran else f"{app} was already stopped")


@click.command()
@app_argument
@output_options
def start(app: str, as_json: bool, verbosity: str | None) -> None:
    """Start the current release of a stopped application, and ask it whether it works.

    \b
    Examples:
      orchestrator start app
    """
    from orchestrator.cli.app_results import started_result
    from orchestrator.deploy.app import start_app

    with changing_app(app, verbosity) as (run, state, engine):
        release = start_app(state, app, engine=engine, emit=run.emit, cancel=run.cancel)
    if as_json:
        print_json(started_result(app, release))
    else:
        click.echo(f"{app} release {release.id} {'is' if release.changed else 'was already'} live:", err=True)
        print_result(release.url)


@click.command()
@app_argument
@output_options
def remove(app: str, as_json: bool, verbosity: str | None) -> None:
    """Remove an application: its containers, images and records. Other applications are not touched.

    \b
    Examples:
      orchestrator remove app
    """
    from orchestrator.cli.app_results import RemovedResult
    from orchestrator.deploy.app import remove_app
    from orchestrator.deploy.edge import withdraw_site
    from orchestrator.deploy.edge_sites import EdgeStore

    with changing_app(app, verbosity) as (run, state, engine):
        remove_app(state, app, engine=engine)
        withdraw_site(engine, EdgeStore(state), app, emit=run.emit)
    if as_json:
        print_json(RemovedResult(app=app, removed=True))
    else:
        print_result(f"{app} is removed")


@click.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the applications deployed here and how they are.

    \b
    Examples:
      orchestrator list
      orchestrator list --json
    """
    from orchestrator.cli.app_results import ListResult, status_result
    from orchestrator.deploy.state import list_apps
    from orchestrator.deploy.status import app_status
    from orchestrator.tools.podman import open_engine

    state = state_dir()
    names = list_apps(state)
    engine = open_engine(state) if names else None
    apps = tuple(status_result(app_status(state, name, engine=engine)) for name in names) if engine else ()
    if as_json:
        print_json(ListResult(apps=apps))
    for app in apps if not as_json else ():
        print_result(f"{app.app}\t{_coloured(app.state)}\t{app.url}")
    if not apps and not as_json:
        click.echo("no applications are deployed here", err=True)


def _print_status(result: "StatusResult") -> None:
    print_result(f"{result.app}: {_coloured(result.state)}, release {result.release}, {result.url}")
    for service in result.services:
        facts = [_coloured(service.state)]
        if service.uptime_seconds is not None:
            facts.append(f"up {service.uptime_seconds:.0f} s")
        if service.memory is not None:
            facts.append(f"{service.memory / 1e6:.1f} MB")
        if service.cpu is not None:
            facts.append(f"{service.cpu * 100:.1f} % of a core")
        if service.restarts:
            facts.append(f"{service.restarts} restarts")
        if service.exit_code is not None:
            facts.append(f"last exit code {service.exit_code}")
        if service.cause is not None:
            facts.append(service.cause)
        print_result(f"  {service.name}: {', '.join(facts)}")
        for line in service.last_lines:
            print_result(f"    │ {line}")
    if result.probe:
        answer = result.probe.status or "no answer"
        print_result(f"  asked {result.probe.url}: {answer} in {result.probe.seconds * 1000:.0f} ms")


def _coloured(state: str) -> str:
    return click.style(state, fg=STATE_COLOURS.get(state, "red"))
