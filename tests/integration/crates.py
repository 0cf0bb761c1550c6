"""A cargo registry on loopback: a sparse index and downloads, every request counted, with a token when asked for."""

import gzip
import hashlib
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class CrateRegistry:
    """What is published, what was asked for, and what is to go wrong: answers by path, crates that are damaged.

    `leaks` are command lines on this machine that had the token in them while a request was answered.
    """

    token: str | None = None
    port: int = 0
    index: dict[str, list[str]] = field(default_factory=dict)
    crates: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    answers: dict[str, int] = field(default_factory=dict)
    leaks: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"sparse+http://127.0.0.1:{self.port}/index/"

    @property
    def downloads(self) -> list[str]:
        """The crates that were downloaded, such as "left/1.0.0"."""
        return [path.removeprefix("/dl/") for path in self.requests if path.startswith("/dl/")]

    def publish(
        self, name: str, version: str, lib: str, *, needs: Mapping[str, str] | None = None, build: str | None = None
    ) -> str:
        """Publish a crate that needs others of this registry; its checksum."""
        manifest = f'[package]\nname = "{name}"\nversion = "{version}"\nedition = "2021"\n[dependencies]\n'
        manifest += "".join(f'{other} = "{wanted}"\n' for other, wanted in (needs or {}).items())
        files = {"Cargo.toml": manifest, "src/lib.rs": lib, **({"build.rs": build} if build else {})}
        data = crate_file(f"{name}-{version}", files)
        row = {
            "name": name, "vers": version, "cksum": hashlib.sha256(data).hexdigest(), "features": {}, "yanked": False,
            "deps": [
                {"name": other, "req": f"^{wanted}", "features": [], "optional": False, "default_features": True,
                 "target": None, "kind": "normal"} for other, wanted in (needs or {}).items()
            ],
        }  # fmt: skip
        self.crates[f"{name}/{version}"] = data
        self.index.setdefault(name, []).append(json.dumps(row))
        return str(row["cksum"])

    def answer(self, path: str, token: str | None) -> tuple[int, bytes]:
        """Status and body for a request."""
        self.requests.append(path)
        wrong = next((code for prefix, code in self.answers.items() if path.startswith(prefix)), None)
        if wrong is not None:
            return wrong, b"no"
        if self.token and token != self.token:
            return 401, b"a token is needed"
        self.leaks += command_lines_with(self.token) if self.token else []
        if path == "/index/config.json":
            config = {"dl": f"http://127.0.0.1:{self.port}/dl/{{crate}}/{{version}}"}
            return 200, json.dumps(config | ({"auth-required": True} if self.token else {})).encode()
        if path.startswith("/dl/"):
            data = self.crates.get(path.removeprefix("/dl/"))
            return (200, data) if data else (404, b"")
        rows = self.index.get(path.rpartition("/")[2])
        return (200, "\n".join(rows).encode()) if rows else (404, b"")


def crate_file(prefix: str, files: Mapping[str, str]) -> bytes:
    """A .crate file, the same for the same content."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"{prefix}/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return gzip.compress(raw.getvalue(), mtime=0)


def command_lines_with(text: str) -> list[str]:
    """The processes of this machine whose arguments have the text in them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            content = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in content:
            found.append(content)
    return found


@contextmanager
def serving_crates(token: str | None = None) -> Iterator[CrateRegistry]:
    """A registry that answers while the block runs."""
    registry = CrateRegistry(token)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body = registry.answer(self.path, self.headers.get("Authorization"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        registry.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield registry
        finally:
            server.shutdown()
            thread.join()
