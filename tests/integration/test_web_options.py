"""The user's web options in a real nginx: prefix, body size, policy, other origins."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from orchestrator.image.nginx import render_web_config
from orchestrator.plan import Proxy, WebPlan
from orchestrator.settings import Csp, Web
from tests.integration.test_nginx import PAGE, Answer, Backend, free_port, localized, start_nginx, write_site

Ask = Callable[..., Answer]
FRIEND = "https://friend.example.org"


@contextmanager
def serving(directory: Path, plan: WebPlan, *, port: int | None = None) -> Iterator[Ask]:
    """nginx on a unix socket, or alone on `port`, before a real backend; gives a function that asks it."""
    write_site(directory)
    (directory / "current").mkdir()
    backend = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    backend.daemon_threads = True
    threading.Thread(target=backend.serve_forever, daemon=True).start()
    config = render_web_config(plan, html={"index.html": PAGE}, port=port)
    child = start_nginx(directory, "web", localized(config, directory, backend=backend.server_port, name="web"))
    path = directory / "current/web.sock"

    def connected() -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("app", timeout=5)
        connection.sock = socket.socket(socket.AF_INET if port else socket.AF_UNIX)
        try:
            connection.sock.connect(("127.0.0.1", port) if port else str(path))
        except OSError:
            connection.close()
            raise
        return connection

    def ask(target: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        connection = connected()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, target, body=body, headers=named)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    try:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            with suppress(OSError):
                connected().close()
                break
            time.sleep(0.02)
        yield ask
    finally:
        child.terminate()
        child.wait()
        backend.shutdown()
        backend.server_close()


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Everything set: prefix stripped, small bodies, one friendly origin, report-only policy."""
    options = Web(
        body_size="1k",
        cors_origins=(FRIEND,),
        source_maps=True,
        csp=Csp(report_only=True, connect=("wss://live.example.org",), script=("https://cdn.example.org",)),
    )
    plan = WebPlan(
        static="frontend", spa=True, proxy=Proxy("backend", 3000, "/api", ("/health",), strip=True), options=options
    )
    with ExitStack() as stack:
        yield stack.enter_context(serving(tmp_path_factory.mktemp("w"), plan))


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("/api", "/"),
        ("/api?a=1", "/?a=1"),
        ("/api/", "/"),
        ("/api/v1/towns?near=1%2C2&x=a%20b", "/v1/towns?near=1%2C2&x=a%20b"),
        ("/api/v1//x", "/v1//x"),
        ("/api/a%2Fb%20c", "/a%2Fb%20c"),
        ("/api/api/x", "/api/x"),
        ("/health", "/health"),
    ],
)
def test_a_stripped_prefix_leaves_the_rest_as_it_was_sent(strict: Ask, asked: str, given: str) -> None:
    assert strict(asked).json["path"] == given


def test_a_path_that_only_begins_like_the_prefix_is_a_page(strict: Ask) -> None:
    assert strict("/apiary").body == PAGE


def test_the_body_size_is_the_users(strict: Ask) -> None:
    assert strict("/api/upload", "POST", b"x" * 1000).status == 200
    assert strict("/api/upload", "POST", b"x" * 2000).status == 413


def test_a_friendly_origin_may_call_the_api(strict: Ask) -> None:
    answer = strict("/api/x", Origin=FRIEND)
    assert answer.headers.get_all("Access-Control-Allow-Origin") == [FRIEND]
    assert answer.headers["Vary"] == "Origin"
    preflight = strict(
        "/api/x", "OPTIONS", Origin=FRIEND, Access_Control_Request_Method="PUT", Access_Control_Request_Headers="x-a"
    )
    assert (preflight.status, preflight.headers["Access-Control-Allow-Headers"]) == (204, "x-a")
    assert "PUT" in preflight.headers["Access-Control-Allow-Methods"]
    assert preflight.headers["X-Content-Type-Options"] == "nosniff"


def test_a_stranger_may_not_call_the_api(strict: Ask) -> None:
    stranger = {"Origin": "https://friend.example.org.evil.example", "Access_Control_Request_Method": "PUT"}
    assert "Access-Control-Allow-Origin" not in strict("/api/x", **stranger).headers
    assert strict("/api/x", "OPTIONS", **stranger).status == 501, "the backend's own answer"


def test_the_policy_has_one_owner_and_the_users_sources(strict: Ask) -> None:
    headers = strict("/").headers
    assert headers["Content-Security-Policy"] is None
    policy = headers.get_all("Content-Security-Policy-Report-Only")
    assert len(policy) == 1
    assert "connect-src 'self' wss://live.example.org" in policy[0]
    assert policy[0].count("script-src") == 1 and policy[0].rstrip().endswith("frame-ancestors 'none'")
    assert "https://cdn.example.org" in policy[0]


def test_source_maps_are_served_where_they_are_wanted(strict: Ask) -> None:
    assert strict("/assets/index-BxYz12_a.js.map").body == b"{}"


def test_the_prefix_alone_is_kept_by_default(tmp_path: Path) -> None:
    plan = WebPlan(static="frontend", spa=True, proxy=Proxy("backend", 3000, "/api", ()))
    with serving(tmp_path, plan) as ask:
        for path in ("/api", "/api/", "/api/v1/x?y=%2F", "/api//x"):
            assert json.loads(ask(path).body)["path"] == path
        assert "Access-Control-Allow-Origin" not in ask("/api/x", Origin=FRIEND).headers


@pytest.mark.parametrize(
    ("trusted", "client", "scheme"), [((), "127.0.0.1", "http"), (("127.0.0.0/8",), "1.2.3.4", "https")]
)
def test_alone_on_a_port_it_believes_declared_proxies_only(
    tmp_path: Path, trusted: tuple[str, ...], client: str, scheme: str
) -> None:
    options = Web.model_validate({"trusted_proxies": trusted})
    plan = WebPlan(static="frontend", spa=True, proxy=Proxy("backend", 3000, "/api", ()), options=options)
    said = {"X_Forwarded_For": "1.2.3.4", "X_Forwarded_Proto": "https", "Forwarded": "for=1.2.3.4"}
    with serving(tmp_path, plan, port=free_port()) as ask:
        seen = json.loads(ask("/api/x", **said).body)["headers"]
        assert (seen["X-Forwarded-For"], seen["X-Real-IP"], seen["X-Forwarded-Proto"]) == (client, client, scheme)
        assert "Forwarded" not in seen
        assert ask("/").body == PAGE
