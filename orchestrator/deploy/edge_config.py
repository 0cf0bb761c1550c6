"""The edge's nginx configuration, and the directories its container sees."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.deploy.edge_sites import EdgeRecord, Site
from orchestrator.deploy.gate import KEEP_MILLISECONDS
from orchestrator.deploy.names import CURRENT
from orchestrator.image.nginx import SOCKET_NAME, nginx_templates

CONFIG_DIR = "/etc/edge"
SOCKETS_DIR = "/run/sockets"
RUNTIME_DIR = "/run/edge"
CHALLENGES_DIR = "/srv/acme"
DRAIN = "drain"
"""While this file is in the runtime directory, every answer ends its connection: a reload then cuts none."""

WORKERS = 2


def render_edge_config(
    record: EdgeRecord, sites: Sequence[Site], certificates: dict[str, str], addresses: Sequence[str]
) -> str:
    """The text of nginx.conf(5). It names no host, so that nothing is looked up when it starts.

    `certificates` maps applications to directories below the runtime directory; it listens on `addresses`, in
    brackets where they are of IPv6.
    """
    return (
        nginx_templates()
        .get_template("edge.conf.j2")
        .render(
            sites=[_describe(site, certificates.get(site.app)) for site in sites],
            http=record.http_port,
            https=record.https_port,
            public_https=record.https_port,
            addresses=addresses,
            workers=WORKERS,
            keep_milliseconds=KEEP_MILLISECONDS,
            drain_file=f"{RUNTIME_DIR}/{DRAIN}",
            challenge_root=CHALLENGES_DIR,
        )
    )


def certificate_path(name: str) -> str:
    """Where the container sees a certificate's directory."""
    return f"{RUNTIME_DIR}/certs/{name}"


def socket_path(app: str) -> str:
    """Where the container sees the live release's socket: through a symlink, so that a swap needs nothing here."""
    return f"{SOCKETS_DIR}/{app}/{CURRENT}/{SOCKET_NAME}"


def _describe(site: Site, certificate: str | None) -> dict[str, Any]:
    return {
        **site.model_dump(),
        "upstream": f"app_{re.sub('[^a-z0-9]', '_', site.app)}",
        "socket": socket_path(site.app),
        "certificate": certificate_path(certificate) if certificate else None,
    }


def config_file(directory: Path) -> Path:
    return directory / "nginx.conf"
