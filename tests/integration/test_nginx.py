"""The rendered configuration in a real nginx, before a real backend."""

import base64
import gzip
import hashlib
import http.client
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from orchestrator.deploy.gate import render_gate_config
from orchestrator.deploy.health import Target, probe
from orchestrator.image.nginx import render_web_config
from orchestrator.plan import Proxy, WebPlan

SCRIPT = "console.log('a < b')"
PAGE = f"<!doctype html><title>app</title><script>{SCRIPT}</script><script src='/x.js'></script>".encode()
HASHED = "assets/index-BxYz12_a.js"
SECURITY = ("X-Content-Type-Options", "Referrer-Policy", "X-Frame-Options", "Permissions-Policy", "X-Request-Id")


class Backend(BaseHTTPRequestHandler):
    """Answers what it was asked; upgrades /api/socket and echoes; streams /api/events."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/api/socket":
            return self.upgrade()
        if self.path == "/api/events":
            return self.stream()
        if self.path == "/api/teapot":
            return self.answer(418, {"error": "teapot"})
        return self.answer(200, {"path": self.path, "headers": dict(self.headers.items())})

    def do_POST(self) -> None:
        size = len(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(200, {"size": size})

    def answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Frame-Options", "SAMEORIGIN")
        self.end_headers()
        self.wfile.write(body)

    def upgrade(self) -> None:
        self.send_response(101)
        self.send_header("Upgrade", self.headers["Upgrade"])
        self.send_header("Connection", "Upgrade")
        self.end_headers()
        self.wfile.write(self.rfile.read(4))
        self.close_connection = True

    def stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b"data: 1\n\n")
        self.wfile.flush()
        time.sleep(1.5)
        self.wfile.write(b"data: 2\n\n")
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@dataclass
class Site:
    """A running nginx on a unix socket, with a gate before it on a port."""

    directory: Path
    port: int
    backend: ThreadingHTTPServer

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> "Answer":
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body=body, headers={"Host": f"app.localhost:{self.port}", **named})
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    @property
    def log(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in (self.directory / "access.log").read_text().splitlines()]


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        return json.loads(self.body)


def write_site(directory: Path) -> None:
    files = {
        "index.html": PAGE,
        HASHED: b"let a" * 400,
        "assets/logo.svg": b"<svg/>",
        "assets/index-BxYz12_a.js.map": b"{}",
        "secret.map": b"{}",
        ".env": b"SECRET=1",
        ".git/config": b"x",
        ".well-known/security.txt": b"mail",
        "docs/index.html": b"docs",
    }
    for name, content in files.items():
        path = directory / "www" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (directory / "www" / f"{HASHED}.gz").write_bytes(gzip.compress(b"let a" * 400))


def start_nginx(directory: Path, name: str, config: str) -> "subprocess.Popen[bytes]":
    file = directory / f"{name}.conf"
    file.write_text(config)
    command = ["/usr/sbin/nginx", "-e", str(directory / f"{name}.log"), "-c", str(file)]
    subprocess.run([*command, "-t", "-q"], check=True)
    return subprocess.Popen([*command, "-g", "daemon off;"], stdin=subprocess.DEVNULL)


def localized(config: str, directory: Path, *, backend: int, name: str) -> str:
    """The configuration with the image's paths replaced by this test's."""
    config = "user root;\n" + config.replace("/tmp/", f"{directory}/{name}-tmp-")
    config = config.replace("/run/web/", f"{directory}/current/").replace("/srv/www", f"{directory}/www")
    config = config.replace("/srv/earlier", f"{directory}/earlier")
    return config.replace("/dev/stdout", f"{directory}/access.log").replace(":3000", f":{backend}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("n")
    write_site(directory)
    (directory / "current").mkdir()
    backend = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    backend.daemon_threads = True
    threading.Thread(target=backend.serve_forever, daemon=True).start()
    plan = WebPlan(static="frontend", spa=True, proxy=Proxy("backend", 3000, "/api", ("/health", "/ready")))
    web = localized(
        render_web_config(plan, html={"index.html": PAGE}), directory, backend=backend.server_port, name="web"
    )
    port = free_port()
    gate = localized(render_gate_config(), directory, backend=0, name="gate")
    gate = gate.replace("listen 8080", f"listen 127.0.0.1:{port}").replace("/run/gate/", f"{directory}/")
    children = [start_nginx(directory, "web", web), start_nginx(directory, "gate", gate)]
    try:
        deadline = time.monotonic() + 5
        while probe(Target("x", "/", port=port), timeout=1).status != 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        yield Site(directory, port, backend)
    finally:
        for child in children:
            child.terminate()
            child.wait()
        backend.shutdown()
        backend.server_close()


def test_the_page_and_every_unknown_path_without_extension_is_the_application(site: Site) -> None:
    for path in ("/", "/index.html", "/towns/42", "/docs"):
        answer = site.ask(path)
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert site.ask("/towns/42").body == PAGE
    assert site.ask("/docs").body == b"docs"


@pytest.mark.parametrize("path", ["/missing.js", "/assets/old-AbCd1234.js", "/assets/x.png", "/favicon.ico"])
def test_a_missing_file_is_404_and_never_the_page(site: Site, path: str) -> None:
    answer = site.ask(path)
    assert answer.status == 404
    assert b"<title>app" not in answer.body
    assert "immutable" not in (answer.headers["Cache-Control"] or "")


@pytest.mark.parametrize("path", ["/.env", "/.git/config", "/secret.map", "/assets/index-BxYz12_a.js.map", "/a/.b/c"])
def test_hidden_files_and_source_maps_are_denied(site: Site, path: str) -> None:
    assert site.ask(path).status == 404


def test_well_known_is_served(site: Site) -> None:
    assert site.ask("/.well-known/security.txt").body == b"mail"


def test_hashed_files_of_earlier_releases_are_served_and_nothing_else_of_them(site: Site) -> None:
    for name in ("assets/earlier-AbCd1234.js", "assets/index-BxYz12_a.js", "index.html", "assets/plain.js"):
        path = site.directory / "earlier" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"earlier")
    answer = site.ask("/assets/earlier-AbCd1234.js")
    assert (answer.status, answer.body) == (200, b"earlier")
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.headers["Content-Type"] == "application/javascript; charset=utf-8"
    assert site.ask(f"/{HASHED}").body != b"earlier"
    assert site.ask("/").body == PAGE
    assert site.ask("/assets/plain.js").status == 404


def test_only_hashed_names_are_kept_for_good(site: Site) -> None:
    assert site.ask(f"/{HASHED}").headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert site.ask("/assets/logo.svg").headers["Cache-Control"] == "no-cache"


def test_gzipped_twins_are_served(site: Site) -> None:
    answer = site.ask(f"/{HASHED}", Accept_Encoding="gzip")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert gzip.decompress(answer.body) == b"let a" * 400


@pytest.mark.parametrize("path", ["/", f"/{HASHED}", "/missing.js", "/.env", "/api/x", "/health", "/towns"])
def test_security_headers_are_on_every_answer_once(site: Site, path: str) -> None:
    answer = site.ask(path)
    for name in SECURITY:
        assert len(answer.headers.get_all(name) or []) == 1, name
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert "nginx/" not in (answer.headers["Server"] or "")


def test_the_policy_allows_the_built_inline_script_by_its_hash(site: Site) -> None:
    policy = site.ask("/").headers["Content-Security-Policy"]
    expected = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{expected}'" in policy
    assert policy.count("sha256-") == 1
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    assert "connect-src 'self'" in policy and "frame-ancestors 'none'" in policy


@pytest.mark.parametrize(
    "path", ["/api", "/api/", "/api/v1/towns?near=1%2C2&x=a%20b", "/api/.hidden", "/health", "/ready"]
)
def test_the_prefix_and_the_query_reach_the_backend_unchanged(site: Site, path: str) -> None:
    assert site.ask(path).json["path"] == path


def test_a_path_that_only_begins_like_the_prefix_is_a_page(site: Site) -> None:
    assert site.ask("/apiary").body == PAGE


def test_the_backend_learns_who_asks_and_cannot_be_lied_to(site: Site) -> None:
    headers = site.ask("/api/x", X_Forwarded_For="6.6.6.6", X_Real_IP="6.6.6.6", X_Request_Id="abc-1").json["headers"]
    assert isinstance(headers, dict)
    assert headers["X-Forwarded-For"] == "127.0.0.1"
    assert headers["X-Real-IP"] == "127.0.0.1"
    assert headers["X-Forwarded-Proto"] == "http"
    assert headers["Host"] == headers["X-Forwarded-Host"] == f"app.localhost:{site.port}"
    assert headers["X-Request-Id"] == "abc-1"


def test_a_malformed_request_id_is_replaced(site: Site) -> None:
    answer = site.ask("/api/x", X_Request_Id="a b {}")
    assert len(answer.headers["X-Request-Id"]) == 32


def test_the_backends_own_errors_pass(site: Site) -> None:
    answer = site.ask("/api/teapot")
    assert (answer.status, answer.json) == (418, {"error": "teapot"})


def test_uploads_up_to_the_limit(site: Site) -> None:
    assert site.ask("/api/upload", "POST", b"x" * 20_000_000).json == {"size": 20_000_000}


def test_an_upload_beyond_the_limit_is_413(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.port)) as client:
        client.sendall(b"POST /api/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n")
        assert b" 413 " in client.recv(200)


def test_websockets_are_upgraded(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.port), timeout=5) as client:
        client.sendall(b"GET /api/socket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nping")
        received = b""
        while chunk := client.recv(1000):
            received += chunk
    assert received.startswith(b"HTTP/1.1 101 ")
    assert received.endswith(b"ping")


def test_server_sent_events_are_not_held_back(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.port), timeout=5) as client:
        client.sendall(b"GET /api/events HTTP/1.1\r\nHost: x\r\n\r\n")
        started = time.monotonic()
        received = b""
        while b"data: 1" not in received:
            received += client.recv(1000)
    assert time.monotonic() - started < 1


def test_the_access_log_is_json_with_the_clients_address(site: Site) -> None:
    site.ask("/api/logged?q=%22x%22", X_Request_Id="log-1", User_Agent='a"b\\c')
    deadline = time.monotonic() + 5
    while not any(item["request_id"] == "log-1" for item in site.log) and time.monotonic() < deadline:
        time.sleep(0.02)
    entry = next(item for item in site.log if item["request_id"] == "log-1")
    assert (entry["uri"], entry["status"], entry["client"]) == ("/api/logged?q=%22x%22", 200, "127.0.0.1")
    assert entry["agent"] == 'a"b\\c'


def test_without_a_backend_the_answer_is_503_in_the_right_form(site: Site, tmp_path: Path) -> None:
    plan = WebPlan(static="frontend", spa=True, proxy=Proxy("backend", 3000, "/api", ("/health",)))
    config = localized(render_web_config(plan, html={}), site.directory, backend=free_port(), name="down")
    socket_path = tmp_path / "web.sock"
    child = start_nginx(tmp_path, "down", config.replace(f"{site.directory}/current/", f"{tmp_path}/"))
    try:
        while not socket_path.exists():
            time.sleep(0.02)
        for path, accept, kind in (
            ("/api/x", "*/*", "application/json"),
            ("/health", "application/json", "application/json"),
            ("/health", "text/html", "text/html"),
        ):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(socket_path))
                client.sendall(f"GET {path} HTTP/1.0\r\nAccept: {accept}\r\n\r\n".encode())
                answer = http.client.HTTPResponse(client)
                answer.begin()
                assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
                assert answer.headers["Cache-Control"] == "no-store"
                assert answer.headers.get_content_type() == kind
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert probe(Target("x", "/", socket=socket_path), timeout=2).status == 200
    finally:
        child.terminate()
        child.wait()


def test_the_gate_without_a_release_answers_503(site: Site) -> None:
    current = site.directory / "current"
    current.rename(site.directory / "away")
    try:
        time.sleep(0.5)
        answer = site.ask("/", Accept="application/json")
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert answer.json["error"] == "unavailable"
        assert site.ask("/", Accept="text/html").headers.get_content_type() == "text/html"
    finally:
        (site.directory / "away").rename(current)


@pytest.mark.parametrize(
    "plan",
    [
        WebPlan(static="frontend", spa=False, proxy=None),
        WebPlan(static=None, spa=False, proxy=Proxy("backend", 3000, "/", ())),
        WebPlan(static=None, spa=False, proxy=Proxy("backend", 3000, "/", ("/", "/health", "/health"))),
        WebPlan(static="frontend", spa=True, proxy=Proxy("backend", 3000, "/a.b-c~d", ("/a.b-c~d", '/he"al th'))),
        WebPlan(static=None, spa=False, proxy=Proxy("backend", 3000, "/api", ())),
    ],
)
def test_nginx_accepts_every_kind_of_plan(plan: WebPlan, tmp_path: Path) -> None:
    config = localized(render_web_config(plan, html={"404.html": b""}), tmp_path, backend=9, name="web")
    (tmp_path / "current").mkdir()
    (tmp_path / "nginx.conf").write_text(config)
    subprocess.run(["/usr/sbin/nginx", "-t", "-q", "-e", "stderr", "-c", str(tmp_path / "nginx.conf")], check=True)
