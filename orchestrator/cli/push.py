"""`push`, and the same for `deploy --push` and `build --push`."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

import click

from orchestrator.cli.options import app_argument, output_options, verbosity_of
from orchestrator.cli.run import Run, print_json, print_result, running, state_dir

if TYPE_CHECKING:
    from orchestrator.cli.results import PushedImage, PushedIndexResult
    from orchestrator.deploy.state import ReleaseRecord
    from orchestrator.image.assemble import Image
    from orchestrator.image.attestations import Attestations
    from orchestrator.image.index import Delivery
    from orchestrator.image.packed import Source
    from orchestrator.image.push import Target
    from orchestrator.tools.podman import Engine

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

LOCAL_SERVICES = frozenset({"gate"})
"""The gate publishes a port of this machine; elsewhere that is the work of what runs the images."""


class PushedFields(TypedDict):
    """What `--json` says of a push."""

    pushed: "tuple[PushedImage, ...]"
    indexes: "tuple[PushedIndexResult, ...]"


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line says about the push: where to, under which tags, how."""

    repository: str
    tags: tuple[str, ...]
    compression: Literal["gzip", "zstd"]
    cert_dir: Path | None
    plain_http: bool


def layer_options(command: Decorated) -> Decorated:
    """What images are called elsewhere, and how their layers are compressed."""
    compression = click.option(
        "--compression",
        type=click.Choice(["gzip", "zstd"]),
        default="gzip",
        help="zstd is smaller; gzip is read by everything.  [default: gzip]",
    )
    tags = click.option("--tag", "tags", multiple=True, metavar="TAG", help="Name it TAG-SERVICE; may be repeated.")
    return tags(compression(command))


def registry_options(command: Decorated) -> Decorated:
    """How images reach a registry."""
    directory = click.option(
        "--cert-dir",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        metavar="DIR",
        help="Trust the authorities in DIR/*.crt; DIR may hold a client certificate too.",
    )
    http = click.option("--plain-http", is_flag=True, help="Allow http; on loopback it always is.")
    return layer_options(directory(http(command)))


def push_option(command: Decorated) -> Decorated:
    """`--push` and how: for commands that make images."""
    pushing = click.option("--push", "repository", metavar="REGISTRY/REPO", help="Push the images there in the end.")
    return pushing(registry_options(command))


@click.command()
@app_argument
@click.argument("repository", metavar="REGISTRY/REPO")
@click.option("--release", metavar="ID", help="Push this release.  [default: the live one]")
@registry_options
@output_options
def push(app: str, repository: str, release: str | None, as_json: bool, verbosity: str | None, **how: Any) -> None:
    """Push the images of a deployed application to a registry.

    \b
    Examples:
      orchestrator push app registry.example.org/team/app
      orchestrator push app registry.example.org/team/app --tag 1.2 --tag latest
      orchestrator push app localhost:5000/app --compression zstd --json

    Each service has its own tag in the one repository: TAG-web, TAG-backend, or TAG alone where one image holds all;
    without --tag the release's id is the tag. A release made for several platforms gets an image index under each.
    What the registry has is never sent again. Logins are those of `podman login` and `docker login`.
    """
    from orchestrator.cli.results import PushResult
    from orchestrator.deploy.documents import find_release
    from orchestrator.settings import check_name
    from orchestrator.tools.podman import open_engine

    wish = Wish(repository, **how)
    state = state_dir()
    record = find_release(state, check_name(app), release)
    with running(verbosity_of(verbosity)) as run:
        engine = open_engine(state, cancel=run.cancel)
        pushed = push_all(wish, release_sources(state, app, record), default_tag=record.id, engine=engine, run=run)
    if as_json:
        print_json(PushResult(app=app, release=record.id, **pushed_results(pushed)))
    else:
        print_pushed(pushed)


def release_sources(state: Path, app: str, record: "ReleaseRecord") -> "tuple[Source, ...]":
    """The images of a release and what was said about them."""
    from orchestrator.deploy.documents import read_documents
    from orchestrator.image.packed import Source
    from orchestrator.plan import build_name

    images = [(service, "", image) for service, image in record.images.items()]
    images += [(image.service, image.platform, image) for image in record.foreign_images]
    return tuple(
        Source(
            service,
            image.image_id,
            image.reference,
            read_documents(state, app, record.id, build_name(service, platform)),
            platform,
        )
        for service, platform, image in images
    )


def made_sources(images: "tuple[Image, ...]", documents: "Mapping[str, Attestations]") -> "tuple[Source, ...]":
    """The images just made and what is said about them."""
    from orchestrator.image.packed import Source

    return tuple(
        Source(image.service, image.image_id, image.reference, documents[image.name], image.platform)
        for image in images
    )


def elsewhere(sources: "tuple[Source, ...]") -> "tuple[Source, ...]":
    """Those that are of use on other machines too."""
    return tuple(source for source in sources if source.service not in LOCAL_SERVICES)


def wish_from(flags: dict[str, Any]) -> Wish | None:
    """The push asked for with `--push`, taken out of `flags`. Raises `UsageError` before anything is built."""
    names = ("repository", "tags", "compression", "cert_dir", "plain_http")
    repository, tags, compression, cert_dir, plain_http = (flags.pop(name) for name in names)
    if repository is None:
        return None
    wish = Wish(repository, tags, compression, cert_dir, plain_http)
    make_target(wish, "checked", run=None)
    return wish


def push_made(
    wish: Wish | None,
    images: "tuple[Image, ...]",
    documents: "Mapping[str, Attestations]",
    *,
    default_tag: str,
    engine: "Engine",
    run: Run,
) -> "Delivery":
    """Push the images just made and what is said about them, if that was asked for."""
    from orchestrator.image.index import Delivery

    if wish is None:
        return Delivery()
    return push_all(wish, made_sources(images, documents), default_tag=default_tag, engine=engine, run=run)


def push_all(wish: Wish, sources: "tuple[Source, ...]", *, default_tag: str, engine: "Engine", run: Run) -> "Delivery":
    """Push the images, except what is of use on this machine only."""
    from orchestrator.cli.run import cache_dir
    from orchestrator.image.index import push_platforms
    from orchestrator.image.packed import Dock

    target = make_target(wish, default_tag, run=run)
    return push_platforms(elsewhere(sources), target, Dock(engine, cache_dir(), run.emit, run.cancel))


def make_target(wish: Wish, default_tag: str, *, run: Run | None) -> "Target":
    """The wish, checked. Raises `UsageError`."""
    import os

    from orchestrator.image.push import Target
    from orchestrator.process import base_environment
    from orchestrator.tools.registry import CREDENTIAL_VARIABLES, Access, check_tag, parse_repository

    logins = {name: os.environ[name] for name in CREDENTIAL_VARIABLES if name in os.environ}
    access = Access(
        environment={**base_environment(os.environ), **logins},
        cert_dir=wish.cert_dir.absolute() if wish.cert_dir else None,
        plain_http=wish.plain_http,
        cancel=run.cancel if run else None,
    )
    tags = tuple(map(check_tag, wish.tags or (default_tag,)))
    return Target(parse_repository(wish.repository), tags, wish.compression, access)


def pushed_results(pushed: "Delivery") -> "PushedFields":
    """The images and indexes for `--json`."""
    from orchestrator.cli.results import PushedImage, PushedIndexResult

    return {
        "pushed": tuple(PushedImage.model_validate(asdict(image)) for image in pushed.images),
        "indexes": tuple(
            PushedIndexResult.model_validate(asdict(index) | {"platforms": dict(index.platforms)})
            for index in pushed.indexes
        ),
    }


def print_pushed(pushed: "Delivery") -> None:
    """One line per index, and per image that is in none, with the reference that never changes its meaning."""
    listed = {digest for index in pushed.indexes for _, digest in index.platforms}
    single = [image for image in pushed.images if image.digest not in listed]
    found = [(index.service, index.digest, index.references[0]) for index in pushed.indexes]
    found += [(image.service, image.digest, image.references[0]) for image in single]
    for service, digest, reference in found:
        print_result(f"{service}\t{reference.rpartition(':')[0]}@{digest}\t{reference}")
