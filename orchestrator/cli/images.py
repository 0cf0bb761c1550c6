"""`images`: what is stored, what is shared, and where the bytes are."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.run import print_json, print_result, state_dir
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.cli.results import ImagesResult


@click.command()
@click.argument("words", nargs=-1, metavar="[NAME | explain NAME SERVICE]")
@click.option("--html", metavar="FILE", type=click.Path(dir_okay=False), help="explain: write a page with a treemap.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
def images(words: tuple[str, ...], html: str | None, as_json: bool) -> None:
    """List images with their layers and what they share, or explain where one's bytes are.

    \b
    Examples:
      orchestrator images
      orchestrator images app --json
      orchestrator images explain app backend
      orchestrator images explain app web --html web.html
    """
    from orchestrator.settings import check_name

    match words:
        case ("explain", app, service):
            _explain(check_name(app), service, html=html, as_json=as_json)
        case () | (_,) if html is None:
            _list(check_name(words[0]) if words else None, as_json=as_json)
        case _:
            raise UsageError("images takes nothing, NAME, or explain NAME SERVICE", hint="see: orchestrator images -h")


def _list(app: str | None, *, as_json: bool) -> None:
    from orchestrator.cli.results import images_result
    from orchestrator.deploy.listing import list_app_images
    from orchestrator.tools.podman import open_engine

    state = state_dir()
    result = images_result(list_app_images(state, app, engine=open_engine(state)))
    if as_json:
        print_json(result)
        return
    _print(result)


def _print(result: "ImagesResult") -> None:
    for image in result.images:
        used = ", ".join(image.releases) or "never deployed"
        print_result(f"{image.app}\t{image.service}\t{image.size / 1e6:.1f} MB\t{image.image_id[:12]}\t{used}")
        for layer in image.layers:
            shared = f"  shared with {', '.join(layer.shared_with)}" if layer.shared_with else ""
            print_result(f"  {layer.digest.removeprefix('sha256:')[:12]}  {layer.size / 1e6:8.2f} MB{shared}")
    click.echo(f"{result.size / 1e6:.1f} MB, shared layers once", err=True)


def _explain(app: str, service: str, *, html: str | None, as_json: bool) -> None:
    import os

    from orchestrator.cli.results import ExplainResult
    from orchestrator.deploy.state import AppStore
    from orchestrator.files import write_atomically
    from orchestrator.image.explain import find_contents, make_tree, render_page, tree_lines
    from orchestrator.settings import default_cache_dir

    current = AppStore(state_dir(), app).current()
    deployed = current.images[service].image_id if current is not None and service in current.images else None
    cache = default_cache_dir(os.environ)
    contents = find_contents(cache, app, service, deployed) or find_contents(cache, app, service, None)
    if contents is None:
        known = ", ".join(sorted(path.name for path in cache.glob(f"contents/{app}/*"))) or "none"
        raise UsageError(f"nothing is known of an image {service} of {app}", hint=f"its images here: {known}")
    if html is not None:
        write_atomically(Path(html), render_page(contents))
        click.echo(f"written to {html}", err=True)
    if as_json:
        print_json(ExplainResult.model_validate(contents.model_dump()))
    elif html is None:
        print_result("      MB      own  part")
        for line in tree_lines(make_tree(contents)):
            print_result(line)
