"""`render`: the same plan in other people's formats."""

from typing import Any

import click

from orchestrator.cli.deploy import build_services, check_frontend, decide
from orchestrator.cli.options import build_options, output_options, project_options, verbosity_of
from orchestrator.cli.run import print_json, print_result, running, settings_from


@click.group()
def render() -> None:
    """Print the application in another format."""


@render.command()
@click.argument("services", nargs=-1)
@project_options
@build_options
@output_options
def dockerfile(
    services: tuple[str, ...], trace: str | None, as_json: bool, verbosity: str | None, **flags: Any
) -> None:
    """Print the Dockerfile of each image (or of SERVICES), with the path of its build context.

    \b
    Examples:
      orchestrator render dockerfile --name app
      orchestrator render dockerfile web --name app --monorepo ~/src/shop

    What is not built yet is built first. The context is complete: podman, buildah and docker build the same files
    from it.
    """
    from orchestrator.cli.results import DockerfilesResult, RenderedDockerfile
    from orchestrator.image.assemble import write_contexts

    settings = settings_from(flags)
    with running(verbosity_of(verbosity)) as run:
        project, plan = decide(settings)
        results = build_services(settings, project, plan, run=run, trace=trace)
        check_frontend(settings, project, plan, results, run=run)
        contexts = write_contexts(settings, plan, results, services=services, cancel=run.cancel)
    rendered = tuple(
        RenderedDockerfile(service=service, context=str(context), dockerfile=(context / "Dockerfile").read_text())
        for service, context in contexts.items()
    )
    if as_json:
        print_json(DockerfilesResult(app=settings.name, dockerfiles=rendered))
    for item in rendered if not as_json else ():
        print_result(f"# {item.service}: the context is {item.context}\n{item.dockerfile}")
