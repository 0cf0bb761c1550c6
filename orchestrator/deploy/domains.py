"""An application's domains: checked before anything is built, served at the edge once its release is live."""

import hashlib
import http.client
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.deploy.authority import default_tls_dir, sign_locally
from orchestrator.deploy.edge import claimed, find_edge, publish_site, rehearse, withdraw_site
from orchestrator.deploy.edge_ports import choose_ports
from orchestrator.deploy.edge_sites import EdgeRecord, EdgeStore, Site, check_claims
from orchestrator.deploy.edge_status import edge_record
from orchestrator.deploy.health import Patience, Probe, wait_healthy
from orchestrator.deploy.probes import live_expectations
from orchestrator.deploy.state import ReleaseRecord, current_release
from orchestrator.deploy.tls import SOON, Pair, check_pair
from orchestrator.errors import DeployError, UsageError
from orchestrator.events import Emit, Note
from orchestrator.process import Cancel
from orchestrator.settings import Settings
from orchestrator.tools.podman import Engine

EDGE_PATIENCE = Patience(interval=0.2, timeout=5.0, deadline=15.0)
"""The edge was just started or has been running; the release behind it is live already."""


@dataclass(frozen=True, slots=True)
class Domains:
    """What the edge is to serve for an application, and on which ports."""

    site: Site
    http_port: int
    https_port: int


def check_domains(settings: Settings, engine: Engine, environ: Mapping[str, str], *, emit: Emit) -> Domains | None:
    """What the edge will serve; None without a domain.

    Raises `UsageError` for a domain of another application, a certificate that will not do or a configuration nginx
    refuses, and `MachineError` when the edge's ports are not free.
    """
    pair = _given_pair(settings)
    if not settings.domains:
        if pair is not None:
            raise UsageError("--cert and --key are for domains, and there is none", hint="pass --domain HOST")
        return None
    store = EdgeStore(settings.state_dir)
    check_claims(store.sites(), settings.name, settings.domains)
    if pair is None and settings.env == "DEV":
        pair = sign_locally(default_tls_dir(environ), settings.domains)
    site = _site(settings, pair)
    if pair is not None:
        _warn_of_end(check_pair(pair, settings.domains).not_after, pair.cert, emit=emit)
    elif settings.web.hsts_seconds:
        raise UsageError("web.hsts_seconds needs TLS", hint="pass --cert and --key, or --env DEV")
    edge = find_edge(engine)
    running = edge is not None and edge.running
    ports = choose_ports(
        (settings.http_port, settings.https_port), store.record(), running=running, reserved=settings.port
    )
    record = store.record()
    if record is not None and engine.image_exists(record.image_id):
        rehearse(engine, store, record, site, emit=emit)
    return Domains(site, *ports)


def serve_domains(
    settings: Settings, domains: Domains | None, *, engine: Engine, emit: Emit, cancel: Cancel
) -> tuple[tuple[str, Probe], ...]:
    """Have the edge serve the live release; (URL, answer) of each domain. Domains it no longer has are given up.

    Raises `DeployError` when a domain does not answer, and what `publish_site` raises.
    """
    if domains is None:
        withdraw_site(engine, EdgeStore(settings.state_dir), settings.name, emit=emit)
        return ()
    return _serve(settings.state_dir, domains, engine=engine, emit=emit, cancel=cancel)


@contextmanager
def restored_domains(
    state_dir: Path, target: ReleaseRecord, *, engine: Engine, emit: Emit, cancel: Cancel
) -> Iterator[None]:
    """Once the block has made `target` live, the edge serves what it served for that release; else what it serves now.

    Before the block everything is checked as for a deploy, and the domains are the application's from then on. Raises
    `UsageError` when another application holds one of them, a certificate will not do or nginx refuses it.
    """
    store = EdgeStore(state_dir)
    present = next((site for site in store.sites() if site.app == target.app), None)
    if target.site == present or (target.site is None and target.domains):
        yield
    elif target.site is None:
        yield
        withdraw_site(engine, store, target.app, emit=emit)
    else:
        edge = edge_record(engine, state_dir, (None, None))
        rehearse(engine, store, edge, target.site, emit=emit)
        with claimed(store, target.site):
            yield
        _serve(
            state_dir,
            Domains(target.site, edge.http_port, edge.https_port),
            engine=engine,
            emit=emit,
            cancel=cancel,
        )


def _serve(
    state_dir: Path, domains: Domains, *, engine: Engine, emit: Emit, cancel: Cancel
) -> tuple[tuple[str, Probe], ...]:
    store = EdgeStore(state_dir)
    release = current_release(state_dir, domains.site.app)
    present = store.record()
    usable = present is not None and engine.image_exists(present.image_id)
    image_id = present.image_id if present is not None and usable else release.images["gate"].image_id
    record = EdgeRecord(image_id=image_id, http_port=domains.http_port, https_port=domains.https_port)
    publish_site(engine, store, record, domains.site, emit=emit)
    return tuple(
        (domain_url(domains, name), _ask_domain(domains, name, release, cancel)) for name in domains.site.domains
    )


def domain_url(domains: Domains, name: str) -> str:
    """Where a browser finds the domain."""
    scheme, usual, port = ("https", 443, domains.https_port) if domains.site.pair else ("http", 80, domains.http_port)
    return f"{scheme}://{name}{'' if port == usual else f':{port}'}/"


def _ask_domain(domains: Domains, name: str, release: ReleaseRecord, cancel: Cancel) -> Probe:
    expected = live_expectations(release)[0]
    connection = _Connection(domains, name)
    answer = wait_healthy(
        lambda timeout: connection.ask(expected.path, timeout=timeout),
        expected,
        EDGE_PATIENCE,
        check_alive=lambda: None,
        cancel=cancel,
    )
    if not expected.met_by(answer):
        said = f"answered {answer.status}" if answer.status else f"did not answer: {answer.problem}"
        raise DeployError(f"{answer.url} {said} at the edge; {release.url} does", hint="see: orchestrator edge status")
    return answer


@dataclass(frozen=True, slots=True)
class _Connection:
    """Asks the edge on this machine for a domain, whatever a resolver makes of it."""

    domains: Domains
    name: str

    def ask(self, path: str, *, timeout: float) -> Probe:
        url, started = domain_url(self.domains, self.name).rstrip("/") + path, time.monotonic()
        try:
            answer = self._answer(path, timeout)
            return Probe(url, answer, time.monotonic() - started)
        except (OSError, http.client.HTTPException) as error:
            return Probe(url, 0, time.monotonic() - started, problem=str(error) or type(error).__name__)

    def _answer(self, path: str, timeout: float) -> int:
        pair = self.domains.site.pair
        port = self.domains.https_port if pair else self.domains.http_port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        try:
            connection.connect()
            if pair is not None:
                connection.sock = _with_tls(connection.sock, self.name, pair)
            connection.request("GET", path, headers={"Host": self.name, "Connection": "close"})
            answer = connection.getresponse()
            answer.read(1)
            return answer.status
        finally:
            connection.close()


def _with_tls(plain: socket.socket, name: str, pair: Pair) -> ssl.SSLSocket:
    """The connection with TLS on it. The edge must show this very certificate, whoever signed it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    wrapped = context.wrap_socket(plain, server_hostname=name)
    shown = hashlib.sha256(wrapped.getpeercert(binary_form=True) or b"").hexdigest()
    if shown != check_pair(pair, ()).fingerprint:
        raise OSError("the edge shows another certificate")
    return wrapped


def _given_pair(settings: Settings) -> Pair | None:
    if (settings.cert is None) != (settings.key is None):
        raise UsageError("--cert and --key belong together", hint="pass both, or neither")
    if settings.cert is None or settings.key is None:
        return None
    return Pair(settings.cert.absolute(), settings.key.absolute())


def _site(settings: Settings, pair: Pair | None) -> Site:
    return Site(
        app=settings.name,
        domains=settings.domains,
        cert=pair.cert if pair else None,
        key=pair.key if pair else None,
        hsts_seconds=settings.web.hsts_seconds,
        trusted_proxies=settings.web.trusted_proxies,
        flood_limit=settings.web.flood_limit,
        snippet=settings.web.edge_snippet,
    )


def _warn_of_end(end: datetime, path: Path, *, emit: Emit) -> None:
    left = end - datetime.now(UTC)
    if left < SOON:
        emit(Note(f"the certificate {path} ends in {left.days} days", "warning"))
