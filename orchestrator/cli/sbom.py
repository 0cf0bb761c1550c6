"""`sbom` and `scan`: what is in the images of a release, and what is known to be wrong with it."""

from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import app_argument, output_options, verbosity_of
from orchestrator.cli.run import print_json, print_result, running, state_dir

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.deploy.scan import Severity
    from orchestrator.deploy.state import ReleaseRecord

release_option = click.option("--release", metavar="ID", help="Of this release.  [default: the live one]")


@click.command()
@app_argument
@click.argument("service", required=False)
@release_option
@click.option("--provenance", is_flag=True, help="Print where the image comes from instead (in-toto, SLSA).")
def sbom(app: str, service: str | None, release: str | None, provenance: bool) -> None:
    """Print what an image contains, as CycloneDX JSON; the backend's where there is one, else the web server's.

    \b
    Examples:
      orchestrator sbom app
      orchestrator sbom app web > web.cdx.json
      orchestrator sbom app backend --provenance

    The same image always gives the same bytes. The documents are kept beside the release and are attached to the
    image when it is pushed. Provenance is not signed.
    """
    from orchestrator.deploy.documents import read_documents
    from orchestrator.errors import UsageError

    state, record = _record(app, release)
    wanted = service or next(name for name in ("backend", "single", "web") if name in record.images)
    if wanted not in record.names:
        raise UsageError(f"{app} has no service {wanted}", hint=f"its services: {', '.join(sorted(record.names))}")
    documents = read_documents(state, app, record.id, wanted)
    if documents is None:
        raise UsageError(
            f"release {record.id} was deployed without an SBOM", hint=f"run: orchestrator deploy --name {app}"
        )
    print_result((documents.provenance if provenance else documents.sbom).decode())


@click.command()
@app_argument
@release_option
@click.option(
    "--fail-on",
    type=click.Choice(["negligible", "low", "medium", "high", "critical"]),
    metavar="SEVERITY",
    help="Exit with 13 when something this bad or worse is found.",
)
@output_options
def scan(app: str, release: str | None, fail_on: "Severity | None", as_json: bool, verbosity: str | None) -> None:
    """Ask a scanner on this machine (grype or trivy) about the packages in the images of a release.

    \b
    Examples:
      orchestrator scan app
      orchestrator scan app --fail-on high
      orchestrator scan app --json

    Without a scanner nothing is scanned, and the exit code is 4.
    """
    from dataclasses import asdict

    from orchestrator.cli.results import FindingResult, ScanResult
    from orchestrator.deploy.documents import sbom_path
    from orchestrator.deploy.scan import at_least, find_scanner, scan_sbom
    from orchestrator.errors import FindingsError, UsageError

    state, record = _record(app, release)
    paths = {service: sbom_path(state, app, record.id, service) for service in sorted(record.names)}
    if missing := [service for service, path in paths.items() if not path.is_file()]:
        text = f"release {record.id} was deployed without an SBOM of {', '.join(missing)}"
        raise UsageError(text, hint=f"run: orchestrator deploy --name {app}")
    scanner = find_scanner()[1].name
    with running(verbosity_of(verbosity)) as run:
        found = tuple(
            finding for service, path in paths.items() for finding in scan_sbom(service, path, cancel=run.cancel)
        )
    bad = at_least(found, fail_on) if fail_on else ()
    if as_json:
        rows = tuple(FindingResult.model_validate(asdict(finding)) for finding in found)
        print_json(ScanResult(app=app, release=record.id, scanner=scanner, findings=rows))
        raise click.exceptions.Exit(FindingsError.exit_code if bad else 0)
    for finding in found:
        fixed = f"fixed in {finding.fixed}" if finding.fixed else "no fix yet"
        row = (finding.severity, finding.service, f"{finding.package} {finding.version}", finding.identifier, fixed)
        print_result("\t".join(row))
    if not found:
        click.echo(f"{scanner} knows nothing against {app} release {record.id}", err=True)
    if bad:
        names = sorted({f"{finding.identifier} in {finding.package} {finding.version}" for finding in bad})
        raise FindingsError(f"{len(names)} vulnerabilities are {fail_on} or worse", details=names[:20])


def _record(app: str, release: str | None) -> "tuple[Path, ReleaseRecord]":
    from orchestrator.deploy.documents import find_release
    from orchestrator.settings import check_name

    state = state_dir()
    return state, find_release(state, check_name(app), release)
