"""What is kept beside a release's record: the list of what each image contains, and where it comes from."""

from pathlib import Path

from orchestrator.deploy.state import AppStore, ReleaseRecord, current_release
from orchestrator.errors import UsageError
from orchestrator.files import write_atomically
from orchestrator.image.attestations import Attestations


def find_release(state_dir: Path, app: str, release_id: str | None) -> ReleaseRecord:
    """The release of that id, the live one by default. Raises `UnknownAppError`, `UsageError` for an unknown id."""
    current = current_release(state_dir, app)
    if release_id is None:
        return current
    records = {record.id: record for record in AppStore(state_dir, app).releases()}
    if release_id not in records:
        known = ", ".join(sorted(records, reverse=True))
        raise UsageError(f"{app} has no release {release_id}", hint=f"its releases, the newest first: {known}")
    return records[release_id]


def write_documents(state_dir: Path, app: str, release_id: str, service: str, documents: Attestations) -> None:
    """Keep the documents beside the record. Raises `DiskError`."""
    directory = _directory(state_dir, app, release_id)
    write_atomically(directory / f"{service}.cdx.json", documents.sbom)
    write_atomically(directory / f"{service}.intoto.json", documents.provenance)


def read_documents(state_dir: Path, app: str, release_id: str, service: str) -> Attestations | None:
    """The documents; None for a release that was deployed without."""
    directory = _directory(state_dir, app, release_id)
    try:
        sbom = (directory / f"{service}.cdx.json").read_bytes()
        provenance = (directory / f"{service}.intoto.json").read_bytes()
    except OSError:
        return None
    return Attestations(sbom, provenance)


def sbom_path(state_dir: Path, app: str, release_id: str, service: str) -> Path:
    """Where an image's SBOM is kept."""
    return _directory(state_dir, app, release_id) / f"{service}.cdx.json"


def _directory(state_dir: Path, app: str, release_id: str) -> Path:
    return AppStore(state_dir, app).directory / "releases" / release_id
