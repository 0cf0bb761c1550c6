"""What is kept beside a release's record: the list of what each image contains, and where it comes from."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.deploy.state import AppStore, ReleaseRecord, current_release
from orchestrator.errors import UsageError
from orchestrator.files import write_atomically
from orchestrator.image.attestations import Attestations
from orchestrator.image.storage import Image

_SBOM = ".cdx.json"
_PROVENANCE = ".intoto.json"


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


def keep_documents(
    state_dir: Path, app: str, release_id: str, images: Sequence[Image], documents: Mapping[str, Attestations]
) -> None:
    """Keep what is said about a release's images beside its record, unless it is kept there already.

    Raises `DiskError`.
    """
    directory = _directory(state_dir, app, release_id)
    for image in images:
        paths = (directory / f"{image.name}{_SBOM}", directory / f"{image.name}{_PROVENANCE}")
        said = documents[image.name]
        for path, content in zip(paths, (said.sbom, said.provenance), strict=True):
            if not path.exists():
                write_atomically(path, content)


def read_documents(state_dir: Path, app: str, release_id: str, service: str) -> Attestations | None:
    """The documents; None for a release that was deployed without."""
    directory = _directory(state_dir, app, release_id)
    try:
        return Attestations(
            sbom=(directory / f"{service}{_SBOM}").read_bytes(),
            provenance=(directory / f"{service}{_PROVENANCE}").read_bytes(),
        )
    except OSError:
        return None


def sbom_path(state_dir: Path, app: str, release_id: str, service: str) -> Path:
    """Where an image's SBOM is kept."""
    return _directory(state_dir, app, release_id) / f"{service}{_SBOM}"


def _directory(state_dir: Path, app: str, release_id: str) -> Path:
    return AppStore(state_dir, app).directory / "releases" / release_id
