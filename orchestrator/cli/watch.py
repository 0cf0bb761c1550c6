"""`watch`: the supervisor, and a systemd unit for it."""

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from orchestrator.cli.options import complete_apps
from orchestrator.cli.run import print_result, running, state_dir

UNIT = """\
[Unit]
Description=Keeps the applications of the orchestrator running
Wants=network-online.target
After=network-online.target

[Service]
{environment}ExecStart={command}
Restart=always
RestartSec=5
# Containers outlive their supervisor, and have control groups of their own.
KillMode=process
Delegate=yes

[Install]
WantedBy={target}
"""


@click.command()
@click.argument("apps", nargs=-1, shell_complete=complete_apps, metavar="[APP]...")
@click.option("--print-unit", is_flag=True, help="Print a systemd unit that runs this command, and nothing else.")
def watch(apps: tuple[str, ...], print_unit: bool) -> None:
    """Keep applications running: ask each whether it is alive, start what died, restart what is frozen.

    \b
    Examples:
      orchestrator watch
      orchestrator watch shop blog
      orchestrator watch --print-unit > /etc/systemd/system/orchestrator-watch.service

    Run it at boot and everything that ran before the reboot runs again. What `stop` stopped stays stopped. Pauses
    between two attempts double up to a minute. Ends on Ctrl-C or SIGTERM; the applications go on running.
    """
    if print_unit:
        print_result(render_unit(apps, os.environ, executable=Path(sys.argv[0]), root=os.geteuid() == 0).rstrip())
        return
    from orchestrator.deploy.watch import lock_watch
    from orchestrator.deploy.watch import watch as supervise
    from orchestrator.settings import check_name
    from orchestrator.tools.podman import open_engine

    state = state_dir()
    names = tuple(check_name(app) for app in apps)
    with running(live=False) as run, lock_watch(state):
        supervise(state, names, engine=open_engine(state, cancel=run.cancel), emit=run.emit, cancel=run.cancel)


def render_unit(apps: tuple[str, ...], environ: Mapping[str, str], *, executable: Path, root: bool) -> str:
    """A systemd.service(5) that supervises `apps` with the directories this command has."""
    names = [name for name in ("ORCHESTRATOR_STATE_DIR", "ORCHESTRATOR_CACHE_DIR", "PATH") if environ.get(name)]
    lines = "".join(f'Environment="{name}={environ[name]}"\n' for name in names)
    command = shlex.join([str(executable.absolute()), "watch", *apps])
    return UNIT.format(environment=lines, command=command, target="multi-user.target" if root else "default.target")
