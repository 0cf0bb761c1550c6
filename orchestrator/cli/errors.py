"""How errors reach a person: one message, its evidence, a hint, an exit code. A traceback only with --debug."""

import json
import logging
import sys
import traceback
from pathlib import Path

import click

from orchestrator.errors import Interrupted, OrchestratorError
from orchestrator.files import is_no_space, no_space_error


def configure_logging(debug: bool) -> None:
    """With --debug every command the orchestrator runs is a copy-pasteable line on standard error."""
    if debug:
        logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(message)s", stream=sys.stderr)


def run_command(command: click.Command, argv: list[str] | None = None) -> int:
    """Run `command` and return the exit code, having printed any error."""
    arguments = sys.argv[1:] if argv is None else argv
    debug = "--debug" in arguments
    try:
        result = command.main(args=arguments, prog_name="orchestrator", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _report(Interrupted(), debug=debug)
    except OrchestratorError as error:
        return _refuse(error, arguments, debug=debug)
    except BrokenPipeError:
        sys.stdout = None  # nothing more can be written there; Python must not try at exit
        return 1
    except Exception as error:
        if isinstance(error, OSError) and is_no_space(error):
            return _refuse(no_space_error(Path(error.filename or ".")), arguments, debug=debug)
        return _report_bug(error, debug=debug)


def _refuse(error: OrchestratorError, arguments: list[str], *, debug: bool) -> int:
    if "--json" in arguments:
        click.echo(json.dumps({"error": as_json(error)}))
    return _report(error, debug=debug)


def as_json(error: OrchestratorError) -> dict[str, object]:
    """What `--json` prints when a command fails."""
    return {
        "exit_code": error.exit_code,
        "message": error.message,
        "details": list(error.details),
        "hint": error.hint,
    }


def _report(error: OrchestratorError, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(error.message, err=True)
    for line in error.details:
        click.echo(f"  │ {line}", err=True)
    if error.hint:
        click.secho("hint: ", fg="cyan", bold=True, nl=False, err=True)
        click.echo(error.hint, err=True)
    return error.exit_code


def _report_bug(error: Exception, *, debug: bool) -> int:
    """An error we did not foresee is ours: said as such, in one line, with the way to see more."""
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, OSError) and error.filename is not None:
        return _report(OrchestratorError(f"{error.filename}: {error.strerror}"), debug=False)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return _report(
        OrchestratorError(
            f"a mistake in the orchestrator itself: {type(error).__name__}: {error} ({place.filename}:{place.lineno})",
            hint="run the same command as `orchestrator --debug …` and report what it prints",
        ),
        debug=False,
    )
