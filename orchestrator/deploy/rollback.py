"""The releases of an application, and the way back to one of them."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from orchestrator.deploy.domains import restored_domains
from orchestrator.deploy.names import APP, pod_name
from orchestrator.deploy.release import Release, clean_up, go_live, serving
from orchestrator.deploy.repair import changing
from orchestrator.deploy.state import AppStore, ReleaseRecord, current_release
from orchestrator.errors import UsageError
from orchestrator.events import Emit
from orchestrator.process import Cancel
from orchestrator.tools.inspection import list_pods, stored_images
from orchestrator.tools.podman import Engine

Role = Literal["live", "warm", "cold"]
"""`warm`: its stopped pod is still there and starts within a second; `cold`: made anew from its record."""


@dataclass(frozen=True, slots=True)
class ListedRelease:
    """`available` tells whether all its images are still stored; `size` is their bytes."""

    id: str
    created: datetime
    role: Role
    images: dict[str, str]
    size: int
    environment_hash: str
    available: bool


def list_releases(state_dir: Path, app: str, *, engine: Engine) -> tuple[ListedRelease, ...]:
    """Every release that can be gone back to, newest first. Raises `UnknownAppError`."""
    current = current_release(state_dir, app)
    pods = list_pods(engine, {APP: app})
    records = AppStore(state_dir, app).releases()
    stored = stored_images(engine, (image.image_id for record in records for image in record.images.values()))
    return tuple(
        ListedRelease(
            id=record.id,
            created=record.created,
            role="live" if record.id == current.id else "warm" if pod_name(app, record.id) in pods else "cold",
            images={service: image.image_id for service, image in record.images.items()},
            size=sum(image.size for image in record.images.values()),
            environment_hash=record.environment_hash,
            available=all(image.image_id in stored for image in record.images.values()),
        )
        for record in reversed(records)
    )


def roll_back(state_dir: Path, app: str, *, to: str | None, engine: Engine, emit: Emit, cancel: Cancel) -> Release:
    """Make an earlier release live again: images, configuration, environment, domains. The caller holds the lock.

    Without `to`, the release that was live before the current one. No request is dropped, and when the release does
    not become healthy the current one keeps serving. Raises `UnknownAppError`, `UsageError`, `DeployError`.
    """
    current = current_release(state_dir, app)
    store = AppStore(state_dir, app)
    target = store.release(to) if to is not None else _release_before(store, current)
    with changing(engine, store, emit=emit):
        if target.id == current.id and (probes := serving(engine, current)):
            return Release(current.id, current.url, changed=False, probes=probes)
        previous = current if target.id != current.id else None
        with restored_domains(state_dir, target, engine=engine, emit=emit, cancel=cancel):
            probes = go_live(engine, store, target, previous, emit=emit, cancel=cancel)
        clean_up(engine.undisturbed, store, previous, keep=len(store.releases()), emit=emit)
    return Release(target.id, target.url, changed=True, probes=probes)


def _release_before(store: AppStore, current: ReleaseRecord) -> ReleaseRecord:
    if (previous := store.previous()) is not None:
        return previous
    older = [record for record in store.releases() if record.id < current.id]
    if not older:
        raise UsageError(
            f"{store.app} has no release before {current.id}", hint=f"see: orchestrator releases {store.app}"
        )
    return older[-1]
