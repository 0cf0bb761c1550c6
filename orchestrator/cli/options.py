"""Options several commands share. Each name is a field of `Settings`; a flag not given leaves the cascade alone."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from orchestrator.cli.view import Verbosity

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def project_options(command: Decorated) -> Decorated:
    """What the monorepo is and where its parts are."""
    for option in reversed(
        (
            click.option("--name", metavar="NAME", help="The application's name: a-z, 0-9 and dashes, at most 63."),
            click.option("--monorepo", metavar="DIR", help="The monorepo.  [default: this directory]"),
            click.option("--domain", "domains", multiple=True, metavar="HOST", help="Serve it under this name too."),
            click.option("--port", type=int, metavar="PORT", help="Publish on 127.0.0.1:PORT.  [default: 8080]"),
            click.option("--frontend-dir", metavar="DIR", help="The frontend, relative to the monorepo."),
            click.option("--backend-dir", metavar="DIR", help="The backend, relative to the monorepo."),
            click.option("--backend-port", type=int, metavar="PORT", help="The port the backend listens on."),
            click.option("--backend-bin", metavar="NAME", help="Which binary, application or file is the backend."),
            click.option("--api-prefix", metavar="PATH", help="What goes to the backend.  [default: /api]"),
            click.option(
                "--strip-prefix", is_flag=True, default=None, help="Take the prefix away before the backend sees it."
            ),
            click.option(
                "--layout",
                type=click.Choice(["pod", "single"]),
                help="A container for each service, or one image and container for all.  [default: pod]",
            ),
            click.option("--frontend-build", metavar="COMMAND", help="Build the frontend with this instead."),
            click.option("--backend-build", metavar="COMMAND", help="Build the backend with this instead."),
            click.option("--only", multiple=True, metavar="SERVICE", help="Take this service and no other."),
            click.option("--skip", multiple=True, metavar="SERVICE", help="Leave this service out."),
        )
    ):
        command = option(command)
    return command


def edge_options(command: Decorated) -> Decorated:
    """How the application's domains are served."""
    for option in reversed(
        (
            click.option(
                "--cert", type=click.Path(resolve_path=True), metavar="FILE", help="The domains' certificate chain."
            ),
            click.option("--key", type=click.Path(resolve_path=True), metavar="FILE", help="Its private key."),
            click.option("--http-port", type=int, metavar="PORT", help="The edge's port.  [default: 80, or 8080]"),
            click.option("--https-port", type=int, metavar="PORT", help="Its TLS port.  [default: 443, or 8443]"),
            click.option("--env", type=click.Choice(["DEV", "PRO"]), help="Presets.  [default: PRO]"),
        )
    ):
        command = option(command)
    return command


def variable_options(command: Decorated) -> Decorated:
    """What the backend is given when it runs."""
    for option in reversed(
        (
            click.option(
                "--env-file", type=click.Path(resolve_path=True), metavar="FILE", help="The backend's variables."
            ),
            click.option(
                "--var",
                "variables",
                multiple=True,
                metavar="KEY[=VALUE]",
                help="One of them; KEY alone takes it from the environment.",
            ),
            click.option(
                "--generate-secret",
                "generate_secrets",
                multiple=True,
                metavar="KEY",
                help="Give it a random value, made once and kept.",
            ),
        )
    ):
        command = option(command)
    return command


def build_options(command: Decorated) -> Decorated:
    """How the builds run."""
    for option in reversed(
        (
            click.option(
                "--toolchain",
                type=click.Choice(["auto", "flake", "host"]),
                help="The flake's own nixpkgs, or this machine's own tools.  [default: auto]",
            ),
            click.option("--offline", is_flag=True, default=None, help="Never use the network."),
            click.option("--jobs", type=int, metavar="N", help="Build jobs in parallel.  [default: one per core]"),
            click.option("--serial", is_flag=True, default=None, help="Build one service after the other."),
            click.option("--keep-going", is_flag=True, default=None, help="Let other builds finish when one fails."),
            click.option(
                "--write-lock",
                is_flag=True,
                default=None,
                help="Write a missing lock file into the monorepo.",
            ),
            click.option(
                "--ignore-rust-toolchain",
                is_flag=True,
                default=None,
                help="Build with the dev shell's Rust whatever rust-toolchain.toml asks for.",
            ),
            click.option(
                "--assembler",
                type=click.Choice(["oci", "buildah", "podman"]),
                help="What assembles the images.  [default: oci]",
            ),
            click.option(
                "--allow-absolute-urls",
                is_flag=True,
                default=None,
                help="Go on although the built frontend asks the visitor's own machine.",
            ),
            click.option(
                "--platform",
                "platforms",
                multiple=True,
                metavar="OS/ARCH",
                help="Make images for it, such as linux/arm64; may be repeated.  [default: this machine's]",
            ),
            click.option("--trace", metavar="FILE", help="Write Chrome trace events of the builds to FILE."),
        )
    ):
        command = option(command)
    return command


def output_options(command: Decorated) -> Decorated:
    """How much is said: `as_json` and `verbosity`."""
    for option in reversed(
        (
            click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output."),
            click.option("-q", "--quiet", "verbosity", flag_value="quiet", help="Warnings and errors only."),
            click.option("-v", "--verbose", "verbosity", flag_value="verbose", help="Every line the tools print."),
        )
    ):
        command = option(command)
    return command


def complete_apps(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of deployed applications, for shell completion."""
    from orchestrator.cli.run import state_dir
    from orchestrator.deploy.state import list_apps

    return [name for name in list_apps(state_dir()) if name.startswith(incomplete)]


def app_argument(command: Decorated) -> Decorated:
    """The application a command is about."""
    return click.argument("app", shell_complete=complete_apps)(command)


def verbosity_of(value: str | None) -> Verbosity:
    """The verbosity a flag stands for."""
    return value if value in ("quiet", "verbose") else "normal"  # type: ignore[return-value]  # narrowed by the tuple
