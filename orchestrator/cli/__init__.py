"""The command line: the only code that prints and the only code that exits.

Command modules import the rooms they use when they run, so that `--help` and completion stay quick.
"""

import importlib
import sys
from typing import NoReturn

import click

import orchestrator

COMMANDS = {
    "deploy": "orchestrator.cli.deploy:deploy",
    "build": "orchestrator.cli.deploy:build",
    "plan": "orchestrator.cli.deploy:plan",
    "status": "orchestrator.cli.apps:status",
    "logs": "orchestrator.cli.apps:logs",
    "exec": "orchestrator.cli.inside:exec_",
    "releases": "orchestrator.cli.releases:releases",
    "rollback": "orchestrator.cli.releases:rollback",
    "stop": "orchestrator.cli.apps:stop",
    "start": "orchestrator.cli.apps:start",
    "remove": "orchestrator.cli.apps:remove",
    "watch": "orchestrator.cli.watch:watch",
    "list": "orchestrator.cli.apps:list_",
    "edge": "orchestrator.cli.edge:edge",
    "certs": "orchestrator.cli.certs:certs",
    "push": "orchestrator.cli.push:push",
    "export": "orchestrator.cli.export:export",
    "sbom": "orchestrator.cli.sbom:sbom",
    "scan": "orchestrator.cli.sbom:scan",
    "cache": "orchestrator.cli.cache:cache",
    "images": "orchestrator.cli.images:images",
    "gc": "orchestrator.cli.gc:gc",
    "render": "orchestrator.cli.render:render",
    "doctor": "orchestrator.cli.machine:doctor",
    "engine": "orchestrator.cli.machine:engine",
    "nix": "orchestrator.cli.machine:nix",
    "completion": "orchestrator.cli.machine:completion",
}


class Commands(click.Group):
    """A group whose commands are imported when they are asked for, listed in the order of `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's signature
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(orchestrator.__version__, message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Log every command that is run, and show tracebacks.")
@click.pass_context
def orchestrator_command(context: click.Context, debug: bool) -> None:
    """Turn a monorepo with a flake into running, slim, reproducible containers.

    \b
    Examples:
      orchestrator deploy --name app                 deploy the monorepo in this directory
      orchestrator plan --name app                   see what would be done, and why
      orchestrator status app                        see how it is
      orchestrator logs app -f                       follow what its containers print

    Results go to standard output, progress and messages to standard error.
    """
    from orchestrator.cli.errors import configure_logging

    context.obj = debug
    configure_logging(debug)


def main() -> NoReturn:
    """Run the command line and exit with the documented code."""
    from orchestrator.cli.errors import run_command

    sys.exit(run_command(orchestrator_command))
