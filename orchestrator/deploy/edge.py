"""The edge: one nginx for every application with a domain, on the machine's public ports.

It hands requests to the same sockets as the gates do, so a deploy changes nothing here. Its configuration changes
when an application comes, goes or changes its domains or certificate: tried on a copy, put in place by rename(2),
and read by the running nginx after its connections have been told to end, so that none is cut.
"""

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.deploy.edge_certificates import forget_certificates, load_certificates, runtime_dir
from orchestrator.deploy.edge_config import (
    CHALLENGES_DIR,
    CONFIG_DIR,
    DRAIN,
    RUNTIME_DIR,
    SOCKETS_DIR,
    config_file,
    render_edge_config,
)
from orchestrator.deploy.edge_ports import has_ipv6
from orchestrator.deploy.edge_sites import EdgeRecord, EdgeStore, Site, check_claims, with_site
from orchestrator.deploy.names import APP, CONFIGURATION, SERVICE
from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.events import Emit
from orchestrator.files import locked, remove_tree, write_atomically
from orchestrator.settings import Limits
from orchestrator.tools.containers import (
    ContainerSpec,
    Mount,
    remove_container,
    run_container,
    signal_container,
    start_container,
    stop_container,
    try_container,
)
from orchestrator.tools.inspection import Container, inspect_containers
from orchestrator.tools.podman import Engine, EngineError

EDGE_NAME = "orchestrator-edge"
IMAGE_NAME = "localhost/orchestrator-edge/nginx"
"""The edge's own name for its image: it outlives the application the image came with."""

LIMITS = Limits(memory="256m", cpus=2.0, pids=64)
FIRST_FREE_PORT = 1024
"""Below it a port takes a capability, the only one a container of ours ever has."""

DRAIN_SECONDS = 0.5
"""How long clients have to end the connections they keep before the configuration is read anew."""

RELOAD_SECONDS = 0.5
"""By then nginx's new workers have taken over."""

STOP_SECONDS = 5.0
_ENGINE_FAILED = 125
"""From here on podman's own exit codes (podman-run(1)), below them the program's."""

LOCK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Change:
    """What bringing the edge up to date did."""

    started: bool
    reloaded: bool


def find_edge(engine: Engine) -> Container | None:
    """The edge's container, running or not."""
    return next(iter(inspect_containers(engine, [EDGE_NAME])), None)


def publish_site(engine: Engine, store: EdgeStore, record: EdgeRecord, site: Site, *, emit: Emit) -> Change:
    """Serve an application under its domains; the others are not touched.

    `record` says how to start the edge where it does not run. Raises `UsageError` for a domain another application
    holds, a certificate that will not do or a configuration nginx refuses; what was live then still is.
    """
    with _held(store):
        check_claims(store.sites(), site.app, site.domains)
        change = _apply(engine, store, record, with_site(store.sites(), site), emit=emit, strictly=site.app)
        store.put(site)
        return change


@contextmanager
def claimed(store: EdgeStore, site: Site) -> Iterator[None]:
    """The site's domains are its application's, beside those it has, before the block publishes it or fails.

    Raises `UsageError` for a domain another application holds.
    """
    with _held(store):
        check_claims(store.sites(), site.app, site.domains)
        before = next((other for other in store.sites() if other.app == site.app), None)
        both = dict.fromkeys((*(before or site).domains, *site.domains))
        store.put((before or site).model_copy(update={"domains": tuple(both)}))
    try:
        yield
    except BaseException:
        with _held(store):
            if before is None:
                store.drop(site.app)
            else:
                store.put(before)
        raise


def withdraw_site(engine: Engine, store: EdgeStore, app: str, *, emit: Emit) -> None:
    """Serve an application no more. Nothing there is fine."""
    with _held(store):
        record, left = store.record(), tuple(site for site in store.sites() if site.app != app)
        if len(left) == len(store.sites()):
            return
        store.drop(app)
        edge = find_edge(engine)
        if record is not None and edge is not None and edge.running:
            _apply(engine, store, record, left, emit=emit)


def start_edge(engine: Engine, store: EdgeStore, record: EdgeRecord, *, emit: Emit) -> Change:
    """Have the edge running on the record's ports with every site; one that runs rightly is only brought up to date.

    Raises `UsageError` as `publish_site`, and `EngineError` when it cannot be started.
    """
    with _held(store):
        return _apply(engine, store, record, store.sites(), emit=emit)


def stop_edge(engine: Engine, store: EdgeStore) -> bool:
    """Stop the edge and remove its container; its sites are remembered. False when there was none."""
    with _held(store):
        present = find_edge(engine)
        if present is None:
            return False
        stop_container(engine, EDGE_NAME, grace=STOP_SECONDS)
        remove_container(engine, EDGE_NAME)
        remove_tree(runtime_dir(engine))
        return True


def rehearse(engine: Engine, store: EdgeStore, record: EdgeRecord, site: Site, *, emit: Emit) -> None:
    """Have nginx try what `publish_site` would make live. Raises `UsageError`."""
    with _held(store):
        _prepare(engine, store, record, with_site(store.sites(), site), strictly=site.app, emit=emit)


def try_config(engine: Engine, image_id: str, store: EdgeStore, text: str) -> None:
    """Have nginx read a configuration in a container like the edge's. Raises `UsageError` with what it says."""
    with tempfile.TemporaryDirectory(dir=store.directory, prefix=".candidate-") as scratch:
        directory = Path(scratch)
        directory.chmod(0o755)
        write_atomically(config_file(directory), text)
        command = ("-c", f"{CONFIG_DIR}/nginx.conf", "-t", "-q")
        answer = try_container(engine, image_id, command, _mounts(engine, store, directory))
    if answer.returncode >= _ENGINE_FAILED:
        raise EngineError("the edge's configuration could not be tried", details=answer.stderr.splitlines()[-5:])
    if answer.returncode != 0:
        said = [line for line in answer.stderr.splitlines() if line.strip()]
        raise UsageError(
            "nginx refuses the edge's new configuration; the live one is as it was",
            details=said[-5:],
            hint="check web.edge_snippet in orchestrator.toml",
        )


def _apply(
    engine: Engine, store: EdgeStore, record: EdgeRecord, sites: Sequence[Site], *, emit: Emit, strictly: str = ""
) -> Change:
    """Bring the edge to these sites, or raise and leave it as it is."""
    prepared = _prepare(engine, store, record, sites, strictly=strictly, emit=emit)
    if prepared.changed:
        write_atomically(config_file(store.config), prepared.text)
    started = _ensure_running(engine, _spec(engine, store, record, listening_addresses(sites, ipv6=has_ipv6())))
    if prepared.changed and not started:
        _reload(engine)
    store.save(record)
    forget_certificates(engine, prepared.certificates)
    return Change(started, reloaded=prepared.changed and not started)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A configuration nginx accepts; `changed` when it is not the live one."""

    text: str
    certificates: tuple[str, ...]
    changed: bool


def _prepare(
    engine: Engine, store: EdgeStore, record: EdgeRecord, sites: Sequence[Site], *, strictly: str, emit: Emit
) -> _Prepared:
    _make_directories(engine, store)
    certificates = load_certificates(engine, sites, strictly=strictly, emit=emit)
    servable = tuple(site for site in sites if site.pair is None or site.app in certificates)
    text = render_edge_config(record, servable, certificates, listening_addresses(sites, ipv6=has_ipv6()))
    live = config_file(store.config)
    changed = not live.exists() or live.read_text() != text
    if changed:
        try_config(engine, record.image_id, store, text)
    return _Prepared(text, tuple(certificates.values()), changed)


def listening_addresses(sites: Sequence[Site], *, ipv6: bool) -> tuple[str, ...]:
    """Where the edge listens: names below localhost alone are for this machine, any other name is for all.

    "localhost" and what is below it never leave a machine (RFC 6761, section 6.3).
    """
    domains = [domain for site in sites for domain in site.domains]
    local = all(domain == "localhost" or domain.endswith(".localhost") for domain in domains)
    four, six = ("127.0.0.1", "[::1]") if domains and local else ("0.0.0.0", "[::]")
    return (four, six) if ipv6 else (four,)


def _ensure_running(engine: Engine, spec: ContainerSpec) -> bool:
    """Whether the edge had to be started, or replaced by one with other ports or another image."""
    present = find_edge(engine)
    if present is not None and present.labels.get(CONFIGURATION) == spec.labels[CONFIGURATION]:
        if not present.running:
            start_container(engine, EDGE_NAME)
        return not present.running
    if present is not None:
        stop_container(engine, EDGE_NAME, grace=STOP_SECONDS)
        remove_container(engine, EDGE_NAME)
    engine.tag_image(spec.image_id, f"{IMAGE_NAME}:{spec.image_id[:12]}")
    try:
        run_container(engine, spec)
    except OrchestratorError:
        remove_container(engine.undisturbed, EDGE_NAME)
        raise
    return True


def _reload(engine: Engine, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Have nginx read its configuration: kept connections are ended by their next answer first, so none is cut."""
    drain = runtime_dir(engine) / DRAIN
    drain.touch()
    try:
        sleep(DRAIN_SECONDS)
        signal_container(engine.undisturbed, EDGE_NAME, "HUP")
        sleep(RELOAD_SECONDS)
    finally:
        drain.unlink(missing_ok=True)


def _make_directories(engine: Engine, store: EdgeStore) -> None:
    for directory in (
        store.directory,
        store.config,
        store.challenges,
        runtime_dir(engine),
        runtime_dir(engine) / "certs",
    ):
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)


def _mounts(engine: Engine, store: EdgeStore, config: Path) -> tuple[Mount, ...]:
    return (
        Mount(config, CONFIG_DIR),
        Mount(engine.sockets, SOCKETS_DIR),
        Mount(runtime_dir(engine), RUNTIME_DIR),
        Mount(store.challenges, CHALLENGES_DIR),
    )


def _spec(engine: Engine, store: EdgeStore, record: EdgeRecord, addresses: Sequence[str]) -> ContainerSpec:
    """On the machine's own network: there it has IPv6 where the machine does, and sees who its clients are."""
    text = f"{record.image_id}\n{' '.join(addresses)}\n{record.http_port}\n{record.https_port}\n{LIMITS!r}"
    privileged = min(record.http_port, record.https_port) < FIRST_FREE_PORT
    return ContainerSpec(
        name=EDGE_NAME,
        image_id=record.image_id,
        # The image came with an application and carries its name; the edge belongs to none.
        labels={APP: "", SERVICE: "edge", CONFIGURATION: hashlib.sha256(text.encode()).hexdigest()[:16]},
        memory=LIMITS.memory,
        cpus=LIMITS.cpus,
        pids=LIMITS.pids,
        mounts=_mounts(engine, store, store.config),
        network="host",
        capabilities=("NET_BIND_SERVICE",) if privileged else (),
        command=("-c", f"{CONFIG_DIR}/nginx.conf"),
        stop_signal="SIGQUIT",
    )


def _held(store: EdgeStore) -> AbstractContextManager[None]:
    """One writer of the edge; several applications' deploys wait for each other here."""
    return locked(store.state_dir / "locks" / ".edge.lock", holder="the edge", wait_seconds=LOCK_SECONDS)
