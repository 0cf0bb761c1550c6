"""The edge in a real container before real releases: domains, certificates, faults, reloads under load."""

import http.client
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from orchestrator.deploy.app import remove_app
from orchestrator.deploy.authority import TlsDir, ensure_authority, self_sign, sign_locally
from orchestrator.deploy.edge import (
    EDGE_NAME,
    find_edge,
    publish_site,
    start_edge,
    stop_edge,
    withdraw_site,
)
from orchestrator.deploy.edge_certificates import has_new_certificates, runtime_dir
from orchestrator.deploy.edge_config import config_file
from orchestrator.deploy.edge_ports import has_ipv6, port_is_free
from orchestrator.deploy.edge_sites import EdgeRecord, EdgeStore, Site
from orchestrator.deploy.preflight import check_port
from orchestrator.deploy.release import deploy_release
from orchestrator.deploy.rollback import roll_back
from orchestrator.deploy.state import AppStore
from orchestrator.errors import MachineError, UsageError
from orchestrator.events import Event
from orchestrator.process import Cancel
from tests.integration.release_bench import Bench, free_port, make_plan


def quiet(event: Event) -> None:
    pass


@dataclass(frozen=True)
class Edge:
    """A running edge with one application, "live", that answers under live.test with a certificate."""

    bench: Bench
    store: EdgeStore
    record: EdgeRecord
    tls: TlsDir
    site: Site

    def publish(self, site: Site) -> None:
        publish_site(self.bench.engine, self.store, self.record, site, emit=quiet)

    def get(self, domain: str, path: str = "/api/version", *, tls: bool = True) -> tuple[int, str]:
        connection = self.connect(domain, tls=tls)
        try:
            connection.request("GET", path, headers={"Host": domain})
            answer = connection.getresponse()
            body = answer.read().decode()
            return answer.status, answer.headers["Location"] if answer.status == 308 else body
        finally:
            connection.close()

    def connect(self, domain: str, *, tls: bool = True) -> http.client.HTTPConnection:
        port = self.record.https_port if tls else self.record.http_port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.connect()
        if tls:
            context = ssl.create_default_context(cafile=str(self.tls.authority.cert))
            connection.sock = context.wrap_socket(connection.sock, server_hostname=domain)
        return connection

    def shown(self, domain: str) -> bytes:
        """The certificate the edge shows for a domain."""
        connection = self.connect(domain)
        try:
            assert isinstance(connection.sock, ssl.SSLSocket)
            return connection.sock.getpeercert(binary_form=True) or b""
        finally:
            connection.close()


def deploy(bench: Bench, app: str, version: str = "", *, site: Site | None = None) -> None:
    settings = bench.settings(name=app, port=free_port(), domains=site.domains if site else ())
    plan = make_plan(app, environment={"VERSION": version or app})
    deploy_release(settings, plan, bench.images, site=site, engine=bench.engine, emit=quiet, cancel=Cancel())


@pytest.fixture(scope="module")
def edge(prepared: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    tls = TlsDir(tmp_path_factory.mktemp("tls"))
    ensure_authority(tls)
    pair = sign_locally(tls, ("live.test",))
    gate = next(image for image in prepared.images if image.service == "gate")
    record = EdgeRecord(image_id=gate.image_id, http_port=free_port(), https_port=free_port())
    site = Site(app="live", domains=("live.test",), cert=pair.cert, key=pair.key, hsts_seconds=600)
    made = Edge(prepared, EdgeStore(prepared.state_dir), record, tls, site)
    deploy(prepared, "live")
    try:
        made.publish(site)
        wait_until_it_answers(made)
        yield made
    finally:
        stop_edge(prepared.engine, made.store)
        remove_app(prepared.state_dir, "live", engine=prepared.engine)


def wait_until_it_answers(edge: Edge) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            edge.get("live.test")
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the edge does not answer")


def test_a_domain_is_served_over_tls_and_plain_requests_are_sent_there(edge: Edge) -> None:
    assert edge.get("live.test") == (200, "live")
    assert edge.get("live.test", "/a?b=1", tls=False) == (308, f"https://live.test:{edge.record.https_port}/a?b=1")
    connection = edge.connect("live.test")
    connection.request("GET", "/", headers={"Host": "live.test"})
    answer = connection.getresponse()
    assert answer.headers["Strict-Transport-Security"] == "max-age=600"
    assert b"<title>one" in answer.read()
    connection.close()


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_it_listens_in_ipv6_where_the_machine_has_it(edge: Edge) -> None:
    connection = http.client.HTTPConnection("::1", edge.record.http_port, timeout=10)
    connection.request("GET", "/", headers={"Host": "live.test"})
    answer = connection.getresponse()
    assert (answer.status, answer.read() != b"") == (308, True)
    connection.close()


def test_ports_of_the_web_take_one_capability_and_it_gives_it_up_again(edge: Edge) -> None:
    low = [port for port in range(880, 1000) if port_is_free(port)][:2]
    engine, moved = edge.bench.engine, edge.record.model_copy(update={"http_port": low[0], "https_port": low[1]})
    try:
        assert start_edge(engine, edge.store, moved, emit=quiet).started
        wait_until_it_answers(replace(edge, record=moved))
        assert replace(edge, record=moved).get("live.test") == (200, "live")
        assert capabilities(edge) == "[CAP_NET_BIND_SERVICE]"
    finally:
        start_edge(engine, edge.store, edge.record, emit=quiet)
        wait_until_it_answers(edge)
    assert capabilities(edge) == "[]"


def capabilities(edge: Edge) -> str:
    return edge.bench.engine.run("inspect", "--format", "{{.EffectiveCaps}}", EDGE_NAME).stdout.strip()


def test_unknown_names_are_refused(edge: Edge) -> None:
    with pytest.raises(ssl.SSLError):
        edge.connect("other.test")
    with pytest.raises(http.client.RemoteDisconnected):
        edge.get("other.test", tls=False)


def test_a_dead_application_is_503_on_its_own_domain_only_and_the_edge_starts_with_it(edge: Edge) -> None:
    engine = edge.bench.engine
    edge.publish(Site(app="dead", domains=("dead.test",)))
    try:
        for _ in range(2):
            status, body = edge.get("dead.test", tls=False)
            assert (status, "unavailable" in body) == (503, True)
            assert edge.get("live.test") == (200, "live")
            engine.run("kill", "--signal", "KILL", EDGE_NAME)
            wait_until(lambda: not (find_edge(engine) or _gone()).running)
            start_edge(engine, edge.store, edge.record, emit=quiet)
            wait_until_it_answers(edge)
    finally:
        withdraw_site(engine, edge.store, "dead", emit=quiet)
    with pytest.raises(http.client.RemoteDisconnected):
        edge.get("dead.test", tls=False)


def test_the_edge_is_named_where_it_holds_a_port(edge: Edge) -> None:
    with pytest.raises(MachineError, match="is taken by the edge"):
        check_port(edge.bench.settings(name="late", port=edge.record.http_port), edge.bench.engine)


def test_a_domain_belongs_to_one_application(edge: Edge) -> None:
    with pytest.raises(UsageError, match=r"live\.test belongs to the application live"):
        edge.publish(Site(app="thief", domains=("mine.test", "live.test")))
    assert [site.app for site in edge.store.sites()] == ["live"]


def test_a_snippet_nginx_refuses_leaves_the_live_configuration_as_it_was(edge: Edge) -> None:
    live = config_file(edge.store.config)
    before, inode = live.read_bytes(), live.stat().st_ino
    with pytest.raises(UsageError) as refused:
        edge.publish(edge.site.model_copy(update={"snippet": "no_such_directive on;"}))
    assert "no_such_directive" in " ".join(refused.value.details)
    assert (live.read_bytes(), live.stat().st_ino) == (before, inode)
    assert edge.get("live.test") == (200, "live")
    edge.publish(edge.site.model_copy(update={"snippet": "add_header X-Mine yes always;"}))
    edge.publish(edge.site)
    assert live.read_bytes() == before


def test_a_bad_certificate_is_refused_and_the_others_trouble_is_its_own(edge: Edge, tmp_path: Path) -> None:
    wrong = self_sign(edge.tls, ["elsewhere.test"])
    shown = edge.shown("live.test")
    with pytest.raises(UsageError, match=r"not for live\.test"):
        edge.publish(edge.site.model_copy(update={"cert": wrong.cert, "key": wrong.key}))
    pair = sign_locally(edge.tls, ("second.test",))
    edge.publish(Site(app="second", domains=("second.test",), cert=pair.cert, key=pair.key))
    cert = pair.cert.read_bytes()
    pair.cert.unlink()
    try:
        edge.publish(Site(app="third", domains=("third.test",)))
        assert edge.get("second.test")[0] == 503, "what it has shown so far is kept"
        assert edge.shown("live.test") == shown
    finally:
        pair.cert.write_bytes(cert)
        for app in ("second", "third"):
            withdraw_site(edge.bench.engine, edge.store, app, emit=quiet)


def test_keys_are_in_memory_only_and_the_container_cannot_change_them(edge: Edge) -> None:
    assert edge.site.key is not None
    key = edge.site.key.read_bytes()
    for path in edge.bench.state_dir.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 1_000_000:
            assert key not in path.read_bytes(), path
    copies = list(runtime_dir(edge.bench.engine).rglob("key.pem"))
    assert len(copies) == 1 and copies[0].read_bytes() == key
    assert edge.bench.engine.dirs.runtime.stat().st_mode & 0o077 == 0
    mounts = edge.bench.engine.run("inspect", "--format", "{{range .Mounts}}{{.RW}} {{end}}", EDGE_NAME).stdout
    assert set(mounts.split()) == {"false"}


def test_the_edge_is_confined_like_every_container(edge: Edge) -> None:
    wanted = "{{.HostConfig.ReadonlyRootfs}} {{.EffectiveCaps}} {{.Config.User}} {{.HostConfig.SecurityOpt}}"
    said = edge.bench.engine.run("inspect", "--format", wanted, EDGE_NAME).stdout.split(maxsplit=3)
    assert said[:3] == ["true", "[]", "10001:10001"] and "no-new-privileges" in said[3]


def test_an_acme_challenge_is_answered_before_anything_else(edge: Edge) -> None:
    challenge = edge.store.challenges / ".well-known/acme-challenge/token"
    challenge.parent.mkdir(parents=True)
    challenge.write_text("proof")
    assert edge.get("live.test", "/.well-known/acme-challenge/token", tls=False) == (200, "proof")
    assert "<title>one" in edge.get("live.test", "/.well-known/acme-challenge/other", tls=False)[1], "the application"


def test_no_request_is_lost_while_certificates_change_and_applications_come_and_go(edge: Edge) -> None:
    before = edge.shown("live.test")
    with Load(edge) as load:
        for number in range(3):
            edge.publish(Site(app="guest", domains=(f"guest{number}.test",)))
        assert edge.site.cert is not None
        assert edge.site.key is not None and not has_new_certificates(edge.bench.engine, edge.store)
        key = edge.site.key.read_bytes()
        edge.site.cert.unlink()
        sign_locally(edge.tls, ("live.test",))
        renewed = edge.site.key.read_bytes()
        edge.site.key.write_bytes(key)
        assert not has_new_certificates(edge.bench.engine, edge.store), "half of it is not renewed yet"
        edge.site.key.write_bytes(renewed)
        assert has_new_certificates(edge.bench.engine, edge.store)
        assert start_edge(edge.bench.engine, edge.store, edge.record, emit=quiet).reloaded
        withdraw_site(edge.bench.engine, edge.store, "guest", emit=quiet)
    assert edge.shown("live.test") != before
    assert set(load.answers) == {"200 live"}, load.answers
    assert load.answers["200 live"] > 500


def test_no_request_is_lost_while_a_release_is_swapped_behind_the_edge(edge: Edge) -> None:
    with Load(edge) as load:
        deploy(edge.bench, "live", "two")
        deploy(edge.bench, "live")
    assert set(load.answers) == {"200 live", "200 two"}, load.answers
    assert min(load.answers.values()) > 50


def test_the_way_back_restores_domains_or_is_refused_where_another_application_has_them(edge: Edge) -> None:
    bench, engine = edge.bench, edge.bench.engine
    limited = Site(app="mover", domains=("old.test",), snippet="add_header X-Edge old always;")
    wide = Site(app="mover", domains=("new.test", "both.test"))

    def back() -> None:
        roll_back(bench.state_dir, "mover", to=None, engine=engine, emit=quiet, cancel=Cancel())

    try:
        for version, site in (("one", limited), ("two", wide)):
            deploy(bench, "mover", version, site=site)
            edge.publish(site)
        assert edge.get("both.test", tls=False) == (200, "two")
        back()
        assert edge.get("old.test", tls=False) == (200, "one")
        assert "add_header X-Edge old always;" in config_file(edge.store.config).read_text()
        with pytest.raises(http.client.RemoteDisconnected):
            edge.get("new.test", tls=False)
        edge.publish(Site(app="thief", domains=("both.test",)))
        with pytest.raises(UsageError, match=r"both\.test belongs to the application thief"):
            back()
        withdraw_site(engine, edge.store, "thief", emit=quiet)
        before = config_file(edge.store.config).read_bytes(), edge.store.sites()
        with broken_snippet(bench), pytest.raises(UsageError, match="nginx refuses"):
            back()
        assert before == (config_file(edge.store.config).read_bytes(), edge.store.sites())
        assert edge.get("old.test", tls=False) == (200, "one")
        assert [site.domains for site in edge.store.sites() if site.app == "mover"] == [limited.domains]
        back()
        assert edge.get("both.test", tls=False) == (200, "two")
    finally:
        for app in ("mover", "thief"):
            withdraw_site(engine, edge.store, app, emit=quiet)
        remove_app(bench.state_dir, "mover", engine=engine)


@contextmanager
def broken_snippet(bench: Bench) -> Iterator[None]:
    """The release before the current one has a snippet nginx refuses."""
    store = AppStore(bench.state_dir, "mover")
    record = store.previous()
    assert record is not None and record.site is not None
    store.write(record.model_copy(update={"site": record.site.model_copy(update={"snippet": "nonsense on;"})}))
    yield
    store.write(record)


class Load:
    """Clients with connections they keep, some with TLS; a lost request is not tried again."""

    def __init__(self, edge: Edge) -> None:
        self.answers: Counter[str] = Counter()
        self._edge = edge
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        connection = None
        while not self._stop.is_set():
            try:
                connection = connection or self._edge.connect("live.test")
                connection.request("GET", "/api/version", headers={"Host": "live.test"})
                answer = connection.getresponse()
                self.answers[f"{answer.status} {answer.read().decode()}"] += 1
                if answer.will_close:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                self.answers[repr(error)] += 1
                connection = None
        if connection is not None:
            connection.close()


def wait_until(condition: object) -> None:
    deadline = time.monotonic() + 10
    while not condition():  # type: ignore[operator]  # a function without arguments
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _gone() -> object:
    raise AssertionError("the edge's container is gone")
