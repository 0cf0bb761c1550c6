"""The server that answers for a Python application, and how the interpreter starts it where HOST and PORT say."""

from collections.abc import Mapping

from orchestrator.detect.python.apps import Application, Interface

_SERVERS: Mapping[Interface, tuple[str, ...]] = {"asgi": ("uvicorn",), "wsgi": ("gunicorn", "waitress")}
_HOST = "os.environ.get('HOST', '0.0.0.0')"
_PORT = "os.environ.get('PORT', '8000')"


def choose_server(interface: Interface, installed: frozenset[str]) -> str | None:
    """The first server for the interface among the installed packages."""
    return next((server for server in _SERVERS[interface] if server in installed), None)


def usual_server(interface: Interface) -> str:
    """The server to install where there is none."""
    return _SERVERS[interface][0]


def server_arguments(server: str, application: Application) -> tuple[str, ...]:
    """The interpreter's arguments. gunicorn reads PORT itself; the others are called by a line of code that does.

    https://docs.gunicorn.org/en/stable/settings.html#bind, https://www.uvicorn.org/settings/,
    https://docs.pylonsproject.org/projects/waitress/en/stable/runner.html
    """
    match server:
        case "uvicorn":
            return "-c", _uvicorn_code(application)
        case "gunicorn":
            called = f"{application.binary}()" if application.factory else application.binary
            return "-m", "gunicorn", *_option("--chdir", application), called
        case _:
            return "-c", _waitress_code(application)


def _uvicorn_code(application: Application) -> str:
    factory = ("--factory",) if application.factory else ()
    given = _listed((application.binary, *factory, *_option("--app-dir", application)))
    arguments = f"[{given}, '--host', {_HOST}, '--port', {_PORT}]"
    return f"import os, sys; from uvicorn.main import main; sys.argv[1:] = {arguments}; main()"


def _waitress_code(application: Application) -> str:
    factory = ("--call",) if application.factory else ()
    arguments = f"['waitress', '--listen=' + {_HOST} + ':' + {_PORT}, {_listed((*factory, application.binary))}]"
    there = f"os.chdir({application.base.as_posix()!r}); " if application.base.parts else ""
    return f"import os, sys; from waitress.runner import run; {there}sys.exit(run({arguments}))"


def _option(name: str, application: Application) -> tuple[str, ...]:
    """The option for the directory the module is imported from; none for the one the program starts in."""
    return (name, application.base.as_posix()) if application.base.parts else ()


def _listed(arguments: tuple[str, ...]) -> str:
    return ", ".join(repr(argument) for argument in arguments)
