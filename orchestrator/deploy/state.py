"""Releases on disk: `apps/<app>/releases/<id>/release.json`; `current` links to the live one, `previous` to the last.

A record holds all it takes to start its release again. It is written whole or not at all, so that a run killed at
any moment leaves at worst a directory without a record, which the next run removes.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.deploy.edge_sites import Site
from orchestrator.errors import UnknownAppError, UsageError
from orchestrator.files import remove_tree, replace_symlink, write_atomically
from orchestrator.plan import build_name
from orchestrator.settings import Health, Layout, Limits

_ID_FORMAT = "%Y%m%d-%H%M%S"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageRecord(_Model):
    """The image a service ran; `reference` is the name it had in the engine's storage."""

    image_id: str
    manifest_digest: str
    reference: str
    size: int


class ForeignImageRecord(ImageRecord):
    """An image made for another platform than this machine's: it is pushed with the release's own, and never run."""

    service: str
    platform: str


class BackendRecord(_Model):
    """How the backend was run. `environment` is plain; `secrets` are the names its other variables' values have.

    The file is readable by its owner only all the same.
    """

    port: int
    health_path: str | None
    api_path: str | None
    ready_path: str | None = None
    environment: dict[str, str]
    secrets: dict[str, str] = {}
    limits: Limits
    replicas: int = 1


class ReleaseRecord(_Model):
    """A release: image ids and configuration. `page` tells whether "/" is a page of files.

    `site` is what the edge serves for it; records from before it was written down have domains and no site.
    """

    version: Literal[1] = 1
    id: str
    app: str
    created: datetime
    layout: Layout = "pod"
    port: int
    domains: tuple[str, ...]
    page: bool
    api_prefix: str | None
    images: dict[str, ImageRecord]
    foreign_images: tuple[ForeignImageRecord, ...] = ()
    web_limits: Limits
    backend: BackendRecord | None
    health: Health
    site: Site | None = None

    @property
    def fingerprint(self) -> str:
        """Equal for two releases that would run the same: images and configuration, not id, time or image names.

        What is the edge's alone changes without a new release, and so do images that are not run here.
        """
        names = {"__all__": {"reference", "manifest_digest", "size"}}
        unimportant = {"id": True, "created": True, "site": True, "foreign_images": True}
        text = self.model_dump_json(exclude={**unimportant, "images": names})
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def stored_images(self) -> tuple[ImageRecord, ...]:
        """Every image that is kept for the release's sake."""
        return (*self.images.values(), *self.foreign_images)

    @property
    def names(self) -> dict[str, ImageRecord]:
        """The same by name, that of the service or such as "backend-arm64"."""
        return {**self.images, **{build_name(image.service, image.platform): image for image in self.foreign_images}}

    @property
    def environment_hash(self) -> str:
        """Equal for two releases whose backend gets the same variables."""
        backend = self.backend
        environment = [backend.environment, backend.secrets] if backend else []
        return hashlib.sha256(json.dumps(environment, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def url(self) -> str:
        """Where the application answers on this machine, whatever a resolver makes of its domains."""
        return f"http://127.0.0.1:{self.port}/"


@dataclass(frozen=True, slots=True)
class AppStore:
    """The records of one application."""

    state_dir: Path
    app: str

    @property
    def directory(self) -> Path:
        return self.state_dir / "apps" / self.app

    @property
    def gate_config(self) -> Path:
        """The configuration mounted into the gate."""
        return self.directory / "gate.conf"

    def releases(self) -> tuple[ReleaseRecord, ...]:
        """Every readable record, oldest first; damaged ones are passed over."""
        found = (load_record(directory) for directory in sorted(_subdirectories(self.directory / "releases")))
        return tuple(record for record in found if record is not None)

    def current(self) -> ReleaseRecord | None:
        """The live release, or the newest readable one when the link is lost or leads to a damaged record."""
        record = load_record(self.directory / "current")
        return record or next(reversed(self.releases()), None)

    def previous(self) -> ReleaseRecord | None:
        """The release that was live before the current one; its stopped pod is kept for a quick rollback."""
        record, current = load_record(self.directory / "previous"), self.current()
        return record if record is not None and current is not None and record.id != current.id else None

    def release(self, release_id: str) -> ReleaseRecord:
        """One release. Raises `UsageError` naming those there are."""
        known = {record.id: record for record in self.releases()}
        if release_id not in known:
            raise UsageError(f"{self.app} has no release {release_id}", hint=f"its releases: {', '.join(known)}")
        return known[release_id]

    def slowest_start(self) -> float:
        """Seconds the slowest healthy start so far took; 0 before the first."""
        try:
            return float((self.directory / "slowest_start").read_text())
        except (OSError, ValueError):
            return 0.0

    def note_start(self, seconds: float) -> None:
        """Remember how long a start took until it was healthy, where none was slower."""
        if seconds > self.slowest_start():
            write_atomically(self.directory / "slowest_start", f"{seconds:.3f}\n")

    def new_id(self, now: datetime) -> str:
        """An id that sorts after every other of the application, also when the clock was set back."""
        moment = now.astimezone(UTC)
        ids = [directory.name for directory in _subdirectories(self.directory / "releases")]
        newest = max((parsed for parsed in map(_parse_id, ids) if parsed), default=None)
        if newest is not None and newest >= moment.replace(microsecond=0):
            moment = newest + timedelta(seconds=1)
        return moment.strftime(_ID_FORMAT)

    def write(self, record: ReleaseRecord) -> None:
        """Write a record, whole or not at all. Raises `DiskError` when there is no room."""
        path = self.directory / "releases" / record.id / "release.json"
        write_atomically(path, record.model_dump_json(indent=2) + "\n", mode=0o600)

    def activate(self, record: ReleaseRecord) -> None:
        """Write the record and make it the current one. Raises `DiskError` when there is no room."""
        replaced = self.current()
        self.write(record)
        if replaced is not None and replaced.id != record.id:
            replace_symlink(self.directory / "previous", f"releases/{replaced.id}")
        replace_symlink(self.directory / "current", f"releases/{record.id}")
        (self.directory / "stopped").unlink(missing_ok=True)

    @property
    def stopped(self) -> bool:
        """Whether the application was stopped on purpose and not started since."""
        return (self.directory / "stopped").exists()

    def note_stop(self) -> None:
        """Remember that the application is not meant to run until a release of it is activated."""
        write_atomically(self.directory / "stopped", "")

    @property
    def unfinished(self) -> bool:
        """Whether a run that changed the application has not come to its end: it works still, or was killed."""
        return (self.directory / "unfinished").exists()

    def note_begin(self) -> None:
        """Remember that the application is being changed."""
        write_atomically(self.directory / "unfinished", "")

    def note_end(self) -> None:
        """Remember that nothing half-made is left."""
        (self.directory / "unfinished").unlink(missing_ok=True)

    def forget(self, record: ReleaseRecord) -> None:
        """Remove a record."""
        remove_tree(self.directory / "releases" / record.id)

    def remove(self) -> None:
        """Remove everything recorded about the application."""
        remove_tree(self.directory)

    def remove_partial(self) -> None:
        """Remove what a killed run left: release directories without a record, half-written files, stray links."""
        for directory in _subdirectories(self.directory / "releases"):
            if not (directory / "release.json").exists():
                remove_tree(directory)
                continue
            for leftover in directory.glob(".release.json.*"):
                leftover.unlink(missing_ok=True)
        for leftover in self.directory.glob(".*"):
            leftover.unlink(missing_ok=True)

    def superfluous(self, keep: int) -> tuple[ReleaseRecord, ...]:
        """The oldest records beyond `keep`; never the current one, and the one before it last."""
        current, previous = self.current(), self.previous()
        others = [record for record in self.releases() if current is None or record.id != current.id]
        others.sort(key=lambda record: previous is not None and record.id == previous.id)
        return tuple(others[: max(0, len(others) - (keep - 1))])


def load_record(directory: Path) -> ReleaseRecord | None:
    """The record in a release's directory; None when it is absent or damaged."""
    try:
        return ReleaseRecord.model_validate_json((directory / "release.json").read_bytes())
    except (OSError, ValidationError):
        return None


def list_apps(state_dir: Path) -> tuple[str, ...]:
    """The applications with at least one readable release, by name."""
    directories = sorted(_subdirectories(state_dir / "apps"))
    return tuple(path.name for path in directories if AppStore(state_dir, path.name).releases())


def current_release(state_dir: Path, app: str) -> ReleaseRecord:
    """The application's current release. Raises `UnknownAppError` naming the applications there are."""
    record = AppStore(state_dir, app).current()
    if record is None:
        known = ", ".join(list_apps(state_dir)) or "none"
        raise UnknownAppError(f"no application named {app} is deployed here", hint=f"deployed applications: {known}")
    return record


def _subdirectories(directory: Path) -> tuple[Path, ...]:
    try:
        return tuple(path for path in directory.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return ()


def _parse_id(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, _ID_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None
