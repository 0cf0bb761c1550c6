"""`exec`: a command in a running container."""

import sys

import click

from orchestrator.cli.options import app_argument
from orchestrator.cli.run import state_dir

NOT_RUNNABLE = (126, 127, 255)
"""What the engine exits with when a command is not there or cannot be executed."""


@click.command("exec")
@click.option("--service", metavar="SERVICE", help="In its container: backend, web, gate.  [default: backend]")
@app_argument
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND [ARGS]")
def exec_(app: str, service: str | None, command: tuple[str, ...]) -> None:
    """Run a program of a container's own image inside the container.

    \b
    Examples:
      orchestrator exec app -- /app/bin/server --version
      orchestrator exec app --service web -- /usr/sbin/nginx -v

    Images hold nothing but what runs: there is no shell in them. Exits with the program's own code.
    """
    from orchestrator.deploy.app import app_exec
    from orchestrator.process import interact
    from orchestrator.settings import check_name
    from orchestrator.tools.podman import open_engine

    state = state_dir()
    engine = open_engine(state)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    inside = app_exec(state, check_name(app), command, service=service, terminal=terminal, engine=engine)
    code = interact(inside.argv, env=engine.environment)
    if code in NOT_RUNNABLE:
        click.secho("hint: ", fg="cyan", bold=True, nl=False, err=True)
        click.echo(
            f"if {command[0]} was not found: the image holds what {inside.program} needs and nothing else, no shell"
            f" either. From outside: its files are below /proc/{inside.pid}/root, its network is seen with"
            f" `nsenter --target {inside.pid} --net ss -tlnp`, its output with `orchestrator logs {app}`",
            err=True,
        )
    raise click.exceptions.Exit(code)
