"""`doctor`, `engine`, `nix`, `completion`: the machine and the programs exactly as the orchestrator calls them."""

import os

import click

from orchestrator.cli.options import output_options, verbosity_of
from orchestrator.cli.run import print_json, print_result, running, state_dir

PASS_THROUGH = {
    "ignore_unknown_options": True,
    "allow_interspersed_args": False,
    "help_option_names": ["--help"],
}
MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "missing": ("✗", "red")}


@click.command()
@output_options
def doctor(as_json: bool, verbosity: str | None) -> None:
    """Check this machine: programs, engine, sandbox, disk; say what to do about each finding.

    \b
    Examples:
      orchestrator doctor
      orchestrator doctor --json

    Exits with 0 when a deploy can work here, with 4 when something needed is missing.
    """
    from orchestrator.cli.doctor import examine
    from orchestrator.errors import MachineError

    with running(verbosity_of(verbosity)) as run:
        result = examine(os.environ, cancel=run.cancel)
    if as_json:
        print_json(result)
    else:
        for check in result.checks:
            mark, colour = MARKS[check.state]
            print_result(f"{click.style(mark, fg=colour)} {check.name}: {check.found}")
            if check.advice:
                print_result(f"    {check.advice}")
    if not result.ready and not as_json:
        raise MachineError("this machine is not ready to deploy", hint="mend what is marked ✗ above")
    if not result.ready:
        raise click.exceptions.Exit(MachineError.exit_code)


@click.command(context_settings=PASS_THROUGH)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="-- ARGS")
def engine(arguments: tuple[str, ...]) -> None:
    """Run the container engine exactly as the orchestrator does: same storage, same configuration.

    \b
    Examples:
      orchestrator engine -- ps --pod
      orchestrator engine -- images
      orchestrator engine -- inspect orchestrator-app-gate
    """
    from orchestrator.process import interact
    from orchestrator.tools.podman import open_engine

    opened = open_engine(state_dir())
    raise click.exceptions.Exit(interact(opened.argv(*arguments), env=opened.environment))


@click.command(context_settings=PASS_THROUGH)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="-- ARGS")
def nix(arguments: tuple[str, ...]) -> None:
    """Run Nix exactly as the orchestrator does: same settings, and the host package set where no cache is reached.

    \b
    Examples:
      orchestrator nix -- run .#deploy -- --name app
      orchestrator nix -- develop path:. --command cargo --version
    """
    from orchestrator.build.toolchain import nix_argv
    from orchestrator.process import interact
    from orchestrator.settings import default_cache_dir

    argv, environment = nix_argv(arguments, cache_dir=default_cache_dir(os.environ))
    raise click.exceptions.Exit(interact(argv, env={**os.environ, **environment}))


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Examples:
      orchestrator completion bash > ~/.local/share/bash-completion/completions/orchestrator
      orchestrator completion fish > ~/.config/fish/completions/orchestrator.fish
    """
    from click.shell_completion import get_completion_class

    from orchestrator.cli import orchestrator_command

    class_ = get_completion_class(shell)
    assert class_ is not None
    print_result(class_(orchestrator_command, {}, "orchestrator", "_ORCHESTRATOR_COMPLETE").source())
