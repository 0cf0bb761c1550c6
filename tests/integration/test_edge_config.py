"""The edge's configuration in a real nginx before a real release: floods, proxies in front, streams, uploads."""

import http.client
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.deploy.edge_config import render_edge_config
from orchestrator.deploy.edge_sites import EdgeRecord, Site
from orchestrator.plan import Proxy, WebPlan
from tests.integration.test_nginx import Answer, free_port, start_nginx
from tests.integration.test_web_options import serving

ADDRESSES = ("127.0.0.1", "[::1]")
PLAN = WebPlan(static="frontend", spa=True, proxy=Proxy("backend", 3000, "/api", ("/health",)))
BEHIND = Site(app="behind", domains=("behind.test",), trusted_proxies=("127.0.0.0/8", "::1/128"), flood_limit=20)
OPEN = Site(app="open", domains=("open.test",), flood_limit=20)


@dataclass(frozen=True)
class Edge:
    port: int
    directory: Path

    def connect(self, address: str = "127.0.0.1") -> http.client.HTTPConnection:
        return http.client.HTTPConnection(address, self.port, timeout=10)

    def ask(
        self,
        host: str,
        path: str = "/api/x",
        method: str = "GET",
        body: bytes | None = None,
        address: str = "127.0.0.1",
        **headers: str,
    ) -> Answer:
        connection = self.connect(address)
        named = {"Host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
        try:
            connection.request(method, path, body=body, headers=named)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def flood(self, count: int, *, host: str = "127.0.0.1", **headers: str) -> list[int]:
        """The statuses of `count` requests, as fast as one connection carries them."""
        connection = self.connect(host)
        statuses = []
        for _ in range(count):
            connection.request("GET", "/index.html", headers={"Host": "behind.test", **headers})
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        connection.close()
        return statuses


def localized(config: str, directory: Path, socket_path: Path) -> str:
    """The configuration with the container's paths replaced by this test's."""
    config = "user root;\n" + config.replace("/tmp/", f"{directory}/edge-tmp-")
    config = config.replace("/dev/stdout", f"{directory}/access.log").replace("flush=1s", "flush=1ms")
    for app in ("behind", "open"):
        config = config.replace(f"/run/sockets/{app}/current/web.sock", str(socket_path))
    return config.replace("/run/edge/", f"{directory}/").replace("/srv/acme", f"{directory}/acme")


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    site, directory, port = tmp_path_factory.mktemp("s"), tmp_path_factory.mktemp("e"), free_port()
    record = EdgeRecord(image_id="", http_port=port, https_port=free_port())
    config = render_edge_config(record, (BEHIND, OPEN), {}, ADDRESSES)
    with serving(site, PLAN):
        child = start_nginx(directory, "edge", localized(config, directory, site / "current/web.sock"))
        try:
            made = Edge(port, directory)
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline:
                try:
                    made.ask("open.test")
                    break
                except OSError:
                    time.sleep(0.02)
            yield made
        finally:
            child.terminate()
            child.wait()


def test_a_page_with_sixty_assets_is_never_limited_and_a_flood_is(edge: Edge) -> None:
    client = {"X-Forwarded-For": "203.0.113.5"}
    assert set(edge.flood(61, **client)) == {200}
    statuses = edge.flood(400, **client)
    assert set(statuses) == {200, 429} and statuses.count(429) > 100
    assert set(edge.flood(61, **{"X-Forwarded-For": "203.0.113.6"})) == {200}, "another client is not touched"


def test_clients_that_cannot_be_told_apart_are_not_limited(edge: Edge) -> None:
    assert set(edge.flood(400)) == {200}
    assert set(edge.flood(400, **{"X-Forwarded-For": "::1"})) == {200}


def test_a_client_in_ipv6_is_its_network(edge: Edge) -> None:
    """The requests come over IPv6, and those of one /64 are counted together."""
    statuses = [
        status
        for number in range(8)
        for status in edge.flood(50, host="::1", **{"X-Forwarded-For": f"2001:db8:7:1::{number}"})
    ]
    assert set(statuses) == {200, 429}
    assert set(edge.flood(61, host="::1", **{"X-Forwarded-For": "2001:db8:7:2::1"})) == {200}
    asked = edge.ask("open.test", address="::1")
    assert json.loads(asked.body)["headers"]["X-Forwarded-For"] == "::1"
    assert '"client":"::1"' in (edge.directory / "access.log").read_text()


def test_forwarded_headers_are_believed_from_declared_proxies_only(edge: Edge) -> None:
    said = {
        "X_Forwarded_For": "203.0.113.9",
        "X_Forwarded_Proto": "https",
        "X_Real_IP": "6.6.6.6",
        "X_Request_Id": "r-1",
    }
    believed = json.loads(edge.ask("behind.test", **said).body)["headers"]
    assert (believed["X-Forwarded-For"], believed["X-Forwarded-Proto"]) == ("203.0.113.9", "https")
    assert (believed["X-Real-IP"], believed["X-Request-Id"]) == ("203.0.113.9", "r-1")
    doubted = json.loads(edge.ask("open.test", **said).body)["headers"]
    assert (doubted["X-Forwarded-For"], doubted["X-Forwarded-Proto"]) == ("127.0.0.1", "http")
    assert doubted["Host"] == doubted["X-Forwarded-Host"] == "open.test"


def test_the_request_id_is_the_same_everywhere(edge: Edge) -> None:
    answer = edge.ask("open.test")
    assert json.loads(answer.body)["headers"]["X-Request-Id"] == answer.headers["X-Request-Id"]


def test_prefix_query_and_large_bodies_pass_unchanged(edge: Edge) -> None:
    assert json.loads(edge.ask("open.test", "/api//v1/a%2Fb?x=%20").body)["path"] == "/api//v1/a%2Fb?x=%20"
    assert edge.ask("open.test", "/api/upload", "POST", b"x" * 20_000_000).json == {"size": 20_000_000}
    assert edge.ask("open.test", "/api/teapot").status == 418


def test_websockets_and_server_sent_events_pass(edge: Edge) -> None:
    with socket.create_connection(("127.0.0.1", edge.port), timeout=5) as client:
        client.sendall(
            b"GET /api/socket HTTP/1.1\r\nHost: open.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nping"
        )
        received = b""
        while chunk := client.recv(1000):
            received += chunk
    assert received.startswith(b"HTTP/1.1 101 ") and received.endswith(b"ping")
    with socket.create_connection(("127.0.0.1", edge.port), timeout=5) as client:
        client.sendall(b"GET /api/events HTTP/1.1\r\nHost: open.test\r\n\r\n")
        started, received = time.monotonic(), b""
        while b"data: 1" not in received:
            received += client.recv(1000)
    assert time.monotonic() - started < 1


def test_while_draining_every_answer_ends_its_connection_and_posts_pass(edge: Edge) -> None:
    drain = edge.directory / "drain"
    drain.touch()
    try:
        answer = edge.ask("open.test", "/api/upload", "POST", b"x" * 1000)
        assert (answer.status, answer.json, answer.headers["Connection"]) == (200, {"size": 1000}, "close")
    finally:
        drain.unlink()
    assert edge.ask("open.test").headers["Connection"] == "keep-alive"


@pytest.mark.parametrize("snippet", ["", "add_header X-A b always;\nclient_max_body_size 1m;"])
def test_nginx_accepts_sites_of_every_kind(tmp_path: Path, snippet: str) -> None:
    sites = [Site(app=f"a-{number}", domains=(f"{'x' * 60}.a{number}.test",), snippet=snippet) for number in range(40)]
    config = render_edge_config(EdgeRecord(image_id="", http_port=1, https_port=2), sites, {}, ADDRESSES)
    (tmp_path / "nginx.conf").write_text(localized(config, tmp_path, tmp_path / "web.sock"))
    subprocess.run(["/usr/sbin/nginx", "-t", "-q", "-e", "stderr", "-c", str(tmp_path / "nginx.conf")], check=True)
