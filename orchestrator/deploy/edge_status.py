"""How the edge is, and with what it would be started."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.deploy.edge import find_edge
from orchestrator.deploy.edge_ports import choose_ports, port_is_free
from orchestrator.deploy.edge_sites import EdgeRecord, EdgeStore, Site
from orchestrator.deploy.state import AppStore, list_apps
from orchestrator.deploy.tls import check_pair
from orchestrator.errors import MachineError, UsageError
from orchestrator.tools.podman import Engine


@dataclass(frozen=True, slots=True)
class SiteStatus:
    """One application at the edge; `problem` says what is wrong with its certificate now."""

    app: str
    domains: tuple[str, ...]
    certificate_until: str | None
    problem: str


@dataclass(frozen=True, slots=True)
class EdgeStatus:
    """`state` is what the engine says; the ports are those it has, or had."""

    state: Literal["running", "stopped", "absent"]
    http_port: int | None
    https_port: int | None
    sites: tuple[SiteStatus, ...]


def edge_status(engine: Engine, state_dir: Path) -> EdgeStatus:
    """The edge and its sites."""
    store, present = EdgeStore(state_dir), find_edge(engine)
    record = store.record()
    return EdgeStatus(
        state="absent" if present is None else "running" if present.running else "stopped",
        http_port=record.http_port if record else None,
        https_port=record.https_port if record else None,
        sites=tuple(map(_site_status, store.sites())),
    )


def edge_record(engine: Engine, state_dir: Path, asked: tuple[int | None, int | None]) -> EdgeRecord:
    """With what to run the edge: the ports asked for, else those it has; the image it has, else an application's.

    Raises `MachineError` when no image is left, or a port is not free.
    """
    present, container = EdgeStore(state_dir).record(), find_edge(engine)
    image_id = _image(engine, state_dir, present)
    held = {present.http_port, present.https_port} if present and container and container.running else set[int]()
    http, https = choose_ports(asked, present, running=False, is_free=lambda port: port in held or port_is_free(port))
    return EdgeRecord(image_id=image_id, http_port=http, https_port=https)


def _image(engine: Engine, state_dir: Path, present: EdgeRecord | None) -> str:
    if present is not None and engine.image_exists(present.image_id):
        return present.image_id
    for app in list_apps(state_dir):
        current = AppStore(state_dir, app).current()
        if current is not None and engine.image_exists(current.images["gate"].image_id):
            return current.images["gate"].image_id
    raise MachineError(
        "there is no image for the edge yet: it comes with the first application",
        hint="run: orchestrator deploy --name NAME --domain HOST",
    )


def _site_status(site: Site) -> SiteStatus:
    if site.pair is None:
        return SiteStatus(site.app, site.domains, None, "")
    try:
        certificate = check_pair(site.pair, site.domains)
        return SiteStatus(site.app, site.domains, certificate.not_after.isoformat(), "")
    except UsageError as error:
        return SiteStatus(site.app, site.domains, None, error.message)
