"""Debian's docker-registry on loopback, and a proxy before it that counts what is sent and can break off."""

import http.client
import http.server
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator import process

REGISTRY = process.find("docker-registry")


@contextmanager
def serving_registry(
    base: Path, *, tls: tuple[Path, Path] | None = None, htpasswd: Path | None = None
) -> Iterator[int]:
    """A registry with storage of its own below `base`; its port."""
    base.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    settings: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(base / "storage")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if tls:
        settings["http"]["tls"] = {"certificate": str(tls[0]), "key": str(tls[1])}
    if htpasswd:
        settings["auth"] = {"htpasswd": {"realm": "test", "path": str(htpasswd)}}
    config = base / "config.yml"
    config.write_text(json.dumps(settings))
    with (base / "log").open("wb") as log:
        child = subprocess.Popen([str(REGISTRY), "serve", str(config)], stdout=log, stderr=log)
    try:
        _wait_for(port, child)
        yield port
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(10)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_for(port: int, child: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        assert child.poll() is None, "the registry ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError("the registry did not start")


@dataclass
class Proxy:
    """What went through: `uploaded` counts the bytes of blobs, `drops` how many uploads shall yet be broken off."""

    upstream: int
    port: int = 0
    uploaded: int = 0
    drops: int = 0
    requests: list[tuple[str, str]] = field(default_factory=list)

    def reset(self) -> None:
        self.uploaded, self.drops = 0, 0
        self.requests.clear()

    def asked(self, method: str, part: str) -> int:
        return sum(made == method and part in path for made, path in self.requests)


@contextmanager
def counting_proxy(upstream: int) -> Iterator[Proxy]:
    proxy = Proxy(upstream)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _forward(self) -> None:
            body = self._body()
            proxy.requests.append((self.command, self.path))
            if "/blobs/uploads/" in self.path:
                if body and proxy.drops:
                    proxy.drops -= 1
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                proxy.uploaded += len(body)
            connection = http.client.HTTPConnection("127.0.0.1", proxy.upstream)
            skipped = {"transfer-encoding", "content-length", "connection"}
            headers = {name: value for name, value in self.headers.items() if name.lower() not in skipped}
            connection.request(self.command, self.path, body=body, headers=headers)
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            length = answer.getheader("content-length") if self.command == "HEAD" else str(len(content))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            self.wfile.write(content)
            connection.close()

        do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = _forward

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def log_message(self, *_: object) -> None:
            """Nothing is said."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        proxy.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield proxy
        server.shutdown()
        thread.join()


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key; the certificate is its own authority."""
    directory.mkdir(parents=True, exist_ok=True)
    certificate, key = directory / "ca.crt", directory / "server.pem"
    process.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        env={**process.base_environment(os.environ)},
    )
    return certificate, key
