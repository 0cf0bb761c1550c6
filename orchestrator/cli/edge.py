"""`edge`: the shared nginx for every application with a domain."""

from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import output_options, verbosity_of
from orchestrator.cli.run import print_json, print_result, running, state_dir

if TYPE_CHECKING:
    from orchestrator.deploy.edge_status import EdgeStatus


@click.group()
def edge() -> None:
    """The shared nginx on the machine's public ports, for every application with a domain.

    A deploy with --domain starts it; it outlives every release. See `orchestrator edge up --help`.
    """


@edge.command()
@click.option("--http-port", type=click.IntRange(1, 65535), metavar="PORT", help="[default: 80, or 8080]")
@click.option("--https-port", type=click.IntRange(1, 65535), metavar="PORT", help="[default: 443, or 8443]")
@output_options
def up(http_port: int | None, https_port: int | None, as_json: bool, verbosity: str | None) -> None:
    """Start the edge with every application's domains, or move it to other ports.

    \b
    Examples:
      orchestrator edge up
      orchestrator edge up --http-port 8080 --https-port 8443
    """
    from orchestrator.deploy.edge import start_edge
    from orchestrator.deploy.edge_sites import EdgeStore
    from orchestrator.deploy.edge_status import edge_record, edge_status
    from orchestrator.tools.podman import open_engine

    state = state_dir()
    with running(verbosity_of(verbosity)) as run:
        engine = open_engine(state, cancel=run.cancel)
        record = edge_record(engine, state, (http_port, https_port))
        start_edge(engine, EdgeStore(state), record, emit=run.emit)
        result = edge_status(engine, state)
    _show(result, as_json=as_json)


@edge.command()
@output_options
def down(as_json: bool, verbosity: str | None) -> None:
    """Stop the edge and free its ports. Applications still answer on their own ports; domains are remembered.

    \b
    Examples:
      orchestrator edge down
    """
    from orchestrator.deploy.edge import stop_edge
    from orchestrator.deploy.edge_sites import EdgeStore
    from orchestrator.deploy.edge_status import edge_status
    from orchestrator.tools.podman import open_engine

    state = state_dir()
    with running(verbosity_of(verbosity)):
        engine = open_engine(state)
        stop_edge(engine, EdgeStore(state))
    _show(edge_status(engine, state), as_json=as_json)


@edge.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
def status(as_json: bool) -> None:
    """Say which domains the edge serves, for whom, and until when their certificates last.

    \b
    Examples:
      orchestrator edge status
      orchestrator edge status --json
    """
    from orchestrator.deploy.edge_status import edge_status
    from orchestrator.tools.podman import open_engine

    state = state_dir()
    _show(edge_status(open_engine(state), state), as_json=as_json)


@edge.command()
@output_options
def reload(as_json: bool, verbosity: str | None) -> None:
    """Read renewed certificates; no connection is cut. Nothing happens when nothing changed.

    \b
    Examples:
      orchestrator edge reload
      certbot renew --deploy-hook "orchestrator edge reload"
    """
    from orchestrator.deploy.edge import start_edge
    from orchestrator.deploy.edge_sites import EdgeStore
    from orchestrator.deploy.edge_status import edge_record, edge_status
    from orchestrator.tools.podman import open_engine

    state = state_dir()
    with running(verbosity_of(verbosity)) as run:
        engine = open_engine(state, cancel=run.cancel)
        change = start_edge(engine, EdgeStore(state), edge_record(engine, state, (None, None)), emit=run.emit)
        result = edge_status(engine, state)
    if not as_json:
        done = "started" if change.started else "reloaded" if change.reloaded else "up to date already"
        click.echo(f"the edge is {done}", err=True)
    _show(result, as_json=as_json)


def _show(result: "EdgeStatus", *, as_json: bool) -> None:
    from orchestrator.cli.results import edge_result

    if as_json:
        print_json(edge_result(result))
        return
    ports = f" on ports {result.http_port} and {result.https_port}" if result.state == "running" else ""
    print_result(f"edge: {click.style(result.state, fg='green' if result.state == 'running' else 'yellow')}{ports}")
    for site in result.sites:
        until = f"  certificate until {site.certificate_until[:10]}" if site.certificate_until else "  without TLS"
        print_result(f"  {site.app}\t{', '.join(site.domains)}{until}{f'  {site.problem}' if site.problem else ''}")
