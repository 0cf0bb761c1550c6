"""Registries as they are in the field: bearer tokens, refresh tokens, and their own account of referrers."""

import base64
import hashlib
import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.errors import RegistryError
from orchestrator.image.referrers import Attachment, attach
from orchestrator.tools.distribution import Registry
from orchestrator.tools.registry import Access, ConnectionDropped, Repository

PATH = "team/app"
MANIFEST = b'{"schemaVersion":2}'


@dataclass
class Field:
    """A registry that wants a bearer token and keeps track of referrers; what it was given."""

    port: int = 0
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    grants: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def serving(made: Field) -> Iterator[Field]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            url = urllib.parse.urlsplit(self.path)
            if url.path == "/token":
                self._grant(url.query, body)
            elif self.headers.get("Authorization") != "Bearer given":
                realm = f'Bearer realm="http://127.0.0.1:{made.port}/token",service="field",scope="ignored"'
                self._answer(401, WWW_Authenticate=realm)
            elif self.command == "POST":
                self._answer(202, Location=f"/v2/{PATH}/blobs/uploads/1?state=x")
            elif self.command == "PUT" and "/uploads/" in url.path:
                digest = urllib.parse.parse_qs(url.query)["digest"][0]
                assert digest == f"sha256:{hashlib.sha256(body).hexdigest()}"
                made.blobs[digest] = body
                self._answer(201)
            elif self.command == "PUT":
                made.manifests[url.path.rpartition("/")[2]] = body
                self._answer(201, **({"OCI_Subject": "x"} if b'"subject"' in body else {}))
            else:
                content = {**made.blobs, **made.manifests}.get(url.path.rpartition("/")[2])
                self._answer(404 if content is None else 200, content or b"")

        def _grant(self, query: str, body: bytes) -> None:
            basic = self.headers.get("Authorization", "")
            asked = dict(urllib.parse.parse_qsl(query or body.decode()))
            made.grants.append({"method": self.command, "basic": basic, **asked})
            right = basic == "Basic " + base64.b64encode(b"me:secret").decode() or "refresh_token" in asked
            self._answer(200 if right else 401, json.dumps({"token": "given"}).encode())

        do_GET = do_HEAD = do_POST = do_PUT = _serve

        def log_message(self, *_: object) -> None:
            """Nothing is said."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        made.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield made
        server.shutdown()
        thread.join()


@pytest.fixture
def registry() -> Iterator[Field]:
    with serving(Field()) as made:
        yield made


def open_registry(made: Field, home: Path, entry: dict[str, str] | None) -> Registry:
    """The repository as someone with this login sees it."""
    (home / "auth.json").write_text(json.dumps({"auths": {f"127.0.0.1:{made.port}": entry} if entry else {}}))
    return Registry(Repository(f"127.0.0.1:{made.port}", PATH), Access({"REGISTRY_AUTH_FILE": str(home / "auth.json")}))


PASSWORD = {"auth": base64.b64encode(b"me:secret").decode()}
DOCUMENTS = [Attachment("application/x", b"first"), Attachment("application/y", b"second")]


def test_a_registry_that_keeps_track_of_referrers_gets_no_index(registry: Field, tmp_path: Path):
    opened = open_registry(registry, tmp_path, PASSWORD)
    assert attach(opened, MANIFEST, DOCUMENTS) == len(b"{}firstsecond")
    assert set(registry.blobs.values()) == {b"{}", b"first", b"second"}
    assert len(registry.manifests) == 2 and all(name.startswith("sha256:") for name in registry.manifests)
    assert attach(opened, MANIFEST, DOCUMENTS) == 0


def test_a_token_is_asked_for_once_with_the_login(registry: Field, tmp_path: Path):
    attach(open_registry(registry, tmp_path, PASSWORD), MANIFEST, DOCUMENTS)
    scope = f"repository:{PATH}:pull,push"
    basic = f"Basic {PASSWORD['auth']}"
    assert registry.grants == [{"method": "GET", "basic": basic, "service": "field", "scope": scope}]


def test_a_refresh_token_stands_in_for_a_password(registry: Field, tmp_path: Path):
    assert open_registry(registry, tmp_path, {"identitytoken": "kept"}).put_blob(b"x") == 1
    assert (registry.grants[0]["method"], registry.grants[0]["refresh_token"]) == ("POST", "kept")


def test_a_wrong_login_and_none_are_refused_with_what_to_do(registry: Field, tmp_path: Path):
    for entry in (None, {"auth": base64.b64encode(b"me:wrong").decode()}):
        with pytest.raises(RegistryError) as caught:
            open_registry(registry, tmp_path, entry).put_blob(b"x")
        assert "podman login" in (caught.value.hint or "")
    assert registry.blobs == {}


def test_a_registry_nobody_answers_for_may_be_tried_again(tmp_path: Path):
    with serving(Field()) as made:
        pass
    with pytest.raises(ConnectionDropped, match="cannot be asked"):
        open_registry(made, tmp_path, None).manifest("1", "application/x")


def test_a_login_is_not_sent_in_the_clear(registry: Field, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened = open_registry(registry, tmp_path, PASSWORD)
    opened.put_blob(b"x")
    monkeypatch.setattr(Access, "trusts_all", lambda *_: False)
    opened._authorization = ""
    with pytest.raises(RegistryError, match="in the clear"):
        opened.put_blob(b"y")
    assert len(registry.grants) == 1


def test_a_credential_helper_is_asked(registry: Field, tmp_path: Path):
    helper = tmp_path / "docker-credential-test"
    helper.write_text('#!/bin/sh\nread -r host\necho "{\\"Username\\":\\"me\\",\\"Secret\\":\\"secret\\"}"\n')
    helper.chmod(0o755)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"credHelpers": {f"127.0.0.1:{registry.port}": "test"}}))
    environment = {"REGISTRY_AUTH_FILE": str(file), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    opened = Registry(Repository(f"127.0.0.1:{registry.port}", PATH), Access(environment))
    assert opened.put_blob(b"x") == 1
