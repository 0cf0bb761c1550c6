"""`deploy`, `build` and `plan`: the chain from settings to a release, read from top to bottom."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.export import export_made, export_option, export_wish_from, exported_fields, print_exported
from orchestrator.cli.options import (
    build_options,
    edge_options,
    output_options,
    project_options,
    variable_options,
    verbosity_of,
)
from orchestrator.cli.push import print_pushed, push_made, push_option, pushed_results, wish_from
from orchestrator.cli.run import Run, print_json, print_result, running, settings_from

if TYPE_CHECKING:
    from orchestrator.build.runner import BuildResults
    from orchestrator.deploy.environment import Environment
    from orchestrator.deploy.health import Probe
    from orchestrator.deploy.release import Release
    from orchestrator.image.assemble import Image
    from orchestrator.plan import Plan
    from orchestrator.project import Project
    from orchestrator.settings import Settings
    from orchestrator.tools.podman import Engine


@click.command()
@project_options
@edge_options
@variable_options
@build_options
@push_option
@output_options
def deploy(trace: str | None, as_json: bool, verbosity: str | None, **flags: Any) -> None:
    """Build the monorepo, start it beside what runs, and switch over once it answers.

    \b
    Examples:
      orchestrator deploy --name app
      orchestrator deploy --name app --monorepo ~/src/shop --domain shop.localhost --port 8090
      orchestrator deploy --name app --domain shop.example.org --cert fullchain.pem --key privkey.pem
      orchestrator deploy --name app --backend-dir services/api --backend-port 4000 --json
      orchestrator deploy --name app --env-file .env --var DATABASE_URL --generate-secret JWT_SECRET

    What ran before keeps serving until the new release has answered a real request for the page and one for
    the API. Run twice, the second run changes nothing. Variables the settings or .env.example require are checked
    before anything is built; their values are kept in the engine's secret store only.
    """
    from orchestrator.cli.results import deploy_result
    from orchestrator.deploy.assets import assets_dir, keep_assets
    from orchestrator.deploy.documents import keep_documents
    from orchestrator.deploy.domains import check_domains, serve_domains
    from orchestrator.deploy.lock import locked_app
    from orchestrator.deploy.preflight import check_platforms, check_port
    from orchestrator.deploy.release import deploy_release
    from orchestrator.image.assemble import find_products
    from orchestrator.image.attestations import attest_images
    from orchestrator.tools.podman import open_engine

    wish = wish_from(flags)
    settings = settings_from(flags)
    with running(verbosity_of(verbosity)) as run, locked_app(settings.state_dir, settings.name):
        project, plan = decide(settings)
        check_platforms(plan)
        engine = open_engine(settings.state_dir, cancel=run.cancel)
        check_port(settings, engine)
        domains = check_domains(settings, engine, os.environ, emit=run.emit)
        environment = prepare_environment(settings, project, engine)
        results = build_services(settings, project, plan, run=run, trace=trace)
        check_frontend(settings, project, plan, results, run=run)
        images = make_images(settings, plan, results, engine=engine, run=run)
        keep_assets(assets_dir(engine, settings.name), find_products(plan, results).site)
        release = deploy_release(
            settings,
            plan,
            images,
            environment=environment,
            site=domains.site if domains else None,
            engine=engine,
            emit=run.emit,
            cancel=run.cancel,
        )
        urls = serve_domains(settings, domains, engine=engine, emit=run.emit, cancel=run.cancel)
        documents = attest_images(settings, plan, project.root, results, images)
        keep_documents(settings.state_dir, settings.name, release.id, images, documents)
        pushed = push_made(wish, images, documents, default_tag=release.id, engine=engine, run=run)
    if as_json:
        print_json(
            deploy_result(settings.name, results, images, release).model_copy(
                update={**pushed_results(pushed), "domains": tuple(url for url, _ in urls)}
            )
        )
    else:
        print_pushed(pushed)
        print_domains(urls)
        print_release(settings, release)


@click.command()
@project_options
@build_options
@push_option
@export_option
@click.option("--check", is_flag=True, help="Build twice from nothing and compare; nothing is kept.")
@output_options
def build(
    trace: str | None, check: bool, export_dir: Path | None, as_json: bool, verbosity: str | None, **flags: Any
) -> None:
    """Build the services and assemble their images, without starting anything.

    \b
    Examples:
      orchestrator build --name app
      orchestrator build --name app --only backend --verbose
      orchestrator build --name app --json --trace trace.json
      orchestrator build --name app --push registry.example.org/team/app --tag 1.2
      orchestrator build --name app --platform linux/amd64,linux/arm64 --push registry.example.org/team/app
      orchestrator build --name app --export images
      orchestrator build --name app --check

    With --check the first file in which the two builds differ is shown, and the exit code is 14.
    """
    from orchestrator.cli.results import build_result
    from orchestrator.errors import UsageError
    from orchestrator.image.attestations import attest_images
    from orchestrator.tools.podman import open_engine

    export_wish = export_wish_from(flags, export_dir)
    wish = wish_from(flags)
    settings = settings_from(flags)
    if export_wish is not None:
        export_wish.check(settings.name)
    if check and (wish or export_wish):
        raise UsageError("--check keeps nothing that could be pushed or exported", hint="run the command twice")
    if check:
        check_build(settings, as_json=as_json, verbosity=verbosity)
        return
    with running(verbosity_of(verbosity)) as run:
        project, plan = decide(settings)
        engine = open_engine(settings.state_dir, cancel=run.cancel)
        results = build_services(settings, project, plan, run=run, trace=trace)
        check_frontend(settings, project, plan, results, run=run)
        images = make_images(settings, plan, results, engine=engine, run=run)
        documents = attest_images(settings, plan, project.root, results, images)
        pushed = push_made(wish, images, documents, default_tag="latest", engine=engine, run=run)
        exported = export_made(export_wish, images, documents, app=settings.name, engine=engine, run=run)
    if as_json:
        update = {**pushed_results(pushed), "exported": exported_fields(exported) if exported else None}
        print_json(build_result(settings.name, results, images).model_copy(update=update))
    else:
        print_pushed(pushed)
        print_exported(exported)
        print_images(images)


@click.command()
@project_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
def plan(as_json: bool, **flags: Any) -> None:
    """Say what would be done and why, with the file and line behind each claim.

    \b
    Examples:
      orchestrator plan --name app
      orchestrator plan --name app --json
    """
    from orchestrator.cli.results import plan_result
    from orchestrator.plan import PUBLIC_PORT

    settings = settings_from(flags)
    project, decided = decide(settings)
    result = plan_result(settings.port, project, decided)
    if as_json:
        print_json(result)
        return
    print_result(f"{result.app}: {result.monorepo}, to be published on 127.0.0.1:{result.port}")
    if result.layout == "single":
        held = "nginx and the backend" if decided.backend else "nginx"
        print_result(f"one image and one container for {held}; run alone it listens on port {PUBLIC_PORT}")
    for service in result.services:
        print_result(f"\n{service.name} ({service.framework}) in {service.directory}")
        for item in service.evidence:
            print_result(f"  {item.claim}  [{item.path}{f':{item.line}' if item.line else ''}]")
        for step in service.steps:
            network = "with the network" if step.network else "without network"
            print_result(f"  {step.name}: {' '.join(step.command)}  ({network})")
        for name, value in service.environment.items():
            print_result(f"  {name}={value!r}")


def check_build(settings: "Settings", *, as_json: bool, verbosity: str | None) -> None:
    """Say of each service that its two builds were equal; a difference is raised."""
    from orchestrator.build.reproduce import check_reproducible
    from orchestrator.cli.results import ReproducedResult, ReproducedService

    with running(verbosity_of(verbosity)) as run:
        project, plan = decide(settings)
        checked = check_reproducible(settings, project.root, plan, emit=run.emit, cancel=run.cancel)
    services = tuple(ReproducedService(name=item.service, size=item.size) for item in checked)
    if as_json:
        print_json(ReproducedResult(app=settings.name, services=services))
    for service in services if not as_json else ():
        print_result(f"{service.name}\treproducible\t{service.size / 1e6:.1f} MB")


def decide(settings: "Settings") -> "tuple[Project, Plan]":
    """Look at the monorepo and plan; nothing is started."""
    from orchestrator.plan import make_plan
    from orchestrator.project import detect_project

    project = detect_project(settings)
    return project, make_plan(settings, project)


def prepare_environment(settings: "Settings", project: "Project", engine: "Engine") -> "Environment":
    """The backend's variables. Raises `UsageError` naming what is missing and where it is required."""
    from orchestrator.deploy.environment import check_required, gather_environment, requirements
    from orchestrator.deploy.secretvalues import generated_variables

    environment = gather_environment(settings, os.environ)
    if project.backend is not None and (wanted := requirements(settings, project.root, project.backend.directory)):
        check_required(environment, wanted, kept=generated_variables(engine, settings.name))
    return environment


def build_services(
    settings: "Settings", project: "Project", plan: "Plan", *, run: Run, trace: str | None
) -> "BuildResults":
    from orchestrator.build.runner import run_builds

    return run_builds(
        settings,
        project.root,
        plan,
        emit=run.emit,
        cancel=run.cancel,
        trace=Path(trace).absolute() if trace else None,
    )


def check_frontend(
    settings: "Settings", project: "Project", plan: "Plan", results: "BuildResults", *, run: Run
) -> None:
    """Refuse a frontend that would ask the visitor's own machine, before any image is made of it."""
    from orchestrator.image.addresses import check_addresses
    from orchestrator.image.assemble import find_products

    site = find_products(plan, results).site
    if site is not None and project.frontend is not None:
        check_addresses(site, project.root, project.frontend, allow=settings.allow_absolute_urls, emit=run.emit)


def make_images(
    settings: "Settings", plan: "Plan", results: "BuildResults", *, engine: "Engine", run: Run
) -> "tuple[Image, ...]":
    from orchestrator.image.assemble import assemble_images

    return assemble_images(settings, plan, results, engine=engine, emit=run.emit, cancel=run.cancel)


def print_images(images: "tuple[Image, ...]") -> None:
    for image in images:
        print_result(f"{image.name}\t{image.size / 1e6:.1f} MB\t{image.reference}")


def print_domains(urls: "tuple[tuple[str, Probe], ...]") -> None:
    """The application's domains, each after it answered at the edge."""
    for url, probe in urls:
        click.echo(f"  {probe.status} {probe.url} ({probe.seconds * 1000:.0f} ms, at the edge)", err=True)
        print_result(url)


def print_release(settings: "Settings", release: "Release") -> None:
    """The URL last, alone on its line, and only after it answered."""
    verb = "is live" if release.changed else "was already live, nothing changed"
    for probe in release.probes:
        click.echo(f"  {probe.status} {probe.url} ({probe.seconds * 1000:.0f} ms)", err=True)
    click.echo(f"{settings.name} release {release.id} {verb}:", err=True)
    print_result(release.url)
