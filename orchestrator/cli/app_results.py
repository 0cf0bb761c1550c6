"""The JSON the commands of a deployed application's life print with --json, and what they share with others."""

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from orchestrator.deploy.health import Probe
    from orchestrator.deploy.release import Release
    from orchestrator.deploy.rollback import ListedRelease
    from orchestrator.deploy.status import AppStatus


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProbeResult(_Model):
    url: str
    status: int
    seconds: float


class ServiceStatusResult(_Model):
    """One container. Memory in bytes, cpu as the share of one core; `exit_code` is that of its last death.

    `last_lines` are what it last wrote, where it fails; `cause` tells which part of it ended, where it holds several.
    """

    name: str
    state: str
    exit_code: int | None
    restarts: int
    image_id: str
    uptime_seconds: float | None
    memory: int | None
    cpu: float | None
    last_lines: tuple[str, ...]
    cause: str | None = None


class StatusResult(_Model):
    """`status --json`. `probe` is a request made while the command ran; null for a stopped application."""

    app: str
    state: str
    release: str
    url: str
    services: tuple[ServiceStatusResult, ...]
    probe: ProbeResult | None


class StartedResult(_Model):
    """`start --json` and `rollback --json`. `changed` is false when it ran already."""

    app: str
    release: str
    url: str
    changed: bool
    probes: tuple[ProbeResult, ...]


class ReleaseResult(_Model):
    """One release; `images` are ids, `size` is bytes. A warm one has its stopped containers still."""

    id: str
    created: datetime
    role: Literal["live", "warm", "cold"]
    images: dict[str, str]
    size: int
    environment_hash: str
    available: bool


class ReleasesResult(_Model):
    """`releases --json`, the newest first."""

    app: str
    releases: tuple[ReleaseResult, ...]


class StoppedResult(_Model):
    """`stop --json`. `changed` is false when nothing ran."""

    app: str
    changed: bool


class RemovedResult(_Model):
    """`remove --json`."""

    app: str
    removed: Literal[True]


class ListResult(_Model):
    """`list --json`."""

    apps: tuple[StatusResult, ...]


APPS_PUBLISHED: dict[str, type[BaseModel]] = {
    "status": StatusResult,
    "start": StartedResult,
    "releases": ReleasesResult,
    "rollback": StartedResult,
    "stop": StoppedResult,
    "remove": RemovedResult,
    "list": ListResult,
}


def status_result(status: "AppStatus") -> StatusResult:
    return StatusResult(
        app=status.app,
        state=status.state,
        release=status.release,
        url=status.url,
        services=tuple(ServiceStatusResult.model_validate(asdict(service)) for service in status.services),
        probe=probe_result(status.probe) if status.probe else None,
    )


def releases_result(app: str, found: "tuple[ListedRelease, ...]") -> ReleasesResult:
    return ReleasesResult(app=app, releases=tuple(ReleaseResult.model_validate(asdict(item)) for item in found))


def started_result(app: str, release: "Release") -> StartedResult:
    return StartedResult(
        app=app,
        release=release.id,
        url=release.url,
        changed=release.changed,
        probes=tuple(probe_result(probe) for probe in release.probes),
    )


def probe_result(probe: "Probe") -> ProbeResult:
    return ProbeResult(url=probe.url, status=probe.status, seconds=round(probe.seconds, 4))
