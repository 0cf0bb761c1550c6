"""`export`, and the same for `build --export`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from orchestrator.cli.options import app_argument, output_options, verbosity_of
from orchestrator.cli.push import elsewhere, layer_options, made_sources, release_sources
from orchestrator.cli.run import Run, cache_dir, print_json, print_result, running, state_dir

if TYPE_CHECKING:
    from orchestrator.cli.results import ExportFields
    from orchestrator.image.assemble import Image
    from orchestrator.image.attestations import Attestations
    from orchestrator.image.export import Export
    from orchestrator.image.packed import Source
    from orchestrator.tools.podman import Engine


@dataclass(frozen=True, slots=True)
class ExportWish:
    """What the command line says about the export: where to, under which tags, how."""

    directory: Path
    tags: tuple[str, ...]
    compression: Literal["gzip", "zstd"]

    def check(self, app: str) -> None:
        """Raises `UsageError` before anything is built."""
        from orchestrator.image.export import check_directory
        from orchestrator.tools.registry import check_tag

        check_directory(self.directory, app)
        for tag in self.tags:
            check_tag(tag)


export_option = click.option(
    "--export",
    "export_dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write the images into DIR in the end, as an OCI layout.",
)


@click.command()
@app_argument
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--release", metavar="ID", help="Export this release.  [default: the live one]")
@layer_options
@output_options
def export(app: str, directory: Path, release: str | None, as_json: bool, verbosity: str | None, **how: Any) -> None:
    """Write the images of a deployed application into a directory, for machines without a registry.

    \b
    Examples:
      orchestrator export app /media/stick/app
      orchestrator export app images --tag 1.2 --compression zstd
      podman pull oci:images:1.2-backend
      skopeo copy --multi-arch all oci:images:1.2-web docker://registry.example.org/team/app:1.2-web

    DIR becomes an OCI layout of exactly what a push would send: the images as TAG-web, TAG-backend, or TAG alone where
    one image holds all, an index where there are several platforms, and what is said about each image. It must be
    empty, absent, or an earlier export of this application, of which only what changed is written anew.
    """
    from orchestrator.cli.results import ExportResult
    from orchestrator.deploy.documents import find_release
    from orchestrator.settings import check_name
    from orchestrator.tools.podman import open_engine

    wish = ExportWish(directory.absolute(), **how)
    state = state_dir()
    record = find_release(state, check_name(app), release)
    wish.check(app)
    with running(verbosity_of(verbosity)) as run:
        engine = open_engine(state, cancel=run.cancel)
        sources = release_sources(state, app, record)
        exported = _export(wish, sources, app=app, default_tag=record.id, engine=engine, run=run)
    if as_json:
        print_json(ExportResult(app=app, release=record.id, **exported_fields(exported).model_dump()))
    else:
        print_exported(exported)


def export_wish_from(flags: Mapping[str, Any], directory: Path | None) -> ExportWish | None:
    """The export asked for with `--export`, which shares flags with `--push`."""
    return ExportWish(directory.absolute(), flags["tags"], flags["compression"]) if directory else None


def export_made(
    wish: ExportWish | None,
    images: "tuple[Image, ...]",
    documents: "Mapping[str, Attestations]",
    *,
    app: str,
    engine: "Engine",
    run: Run,
) -> "Export | None":
    """Export the images just made, if that was asked for."""
    if wish is None:
        return None
    return _export(wish, made_sources(images, documents), app=app, default_tag="latest", engine=engine, run=run)


def _export(
    wish: ExportWish, sources: "tuple[Source, ...]", *, app: str, default_tag: str, engine: "Engine", run: Run
) -> "Export":
    from orchestrator.image.export import export_images
    from orchestrator.image.packed import Dock

    return export_images(
        elsewhere(sources),
        wish.directory,
        app=app,
        tags=wish.tags or (default_tag,),
        compression=wish.compression,
        dock=Dock(engine, cache_dir(), run.emit, run.cancel),
    )


def exported_fields(exported: "Export") -> "ExportFields":
    """What `--json` says of an export."""
    from dataclasses import asdict

    from orchestrator.cli.results import ExportFields

    images = [asdict(image) | {"platforms": dict(image.platforms)} for image in exported.images]
    fields = {"directory": str(exported.directory), "images": images, "written": exported.written}
    return ExportFields.model_validate(fields)


def print_exported(exported: "Export | None") -> None:
    """One line per image: what it is called, its digest, and how to name it for skopeo and podman."""
    if exported is None:
        return
    for image in exported.images:
        for name in image.names:
            print_result(f"{image.service}\t{image.digest}\toci:{exported.directory}:{name}")
