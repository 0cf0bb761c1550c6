"""An image for skopeo to read over loopback: each layer's bytes are made while they are read and lie on no disk.

Of the OCI Distribution Specification 1.0 what one pull needs: GET of /v2/, the manifest and the blobs. Whoever asks
must know a secret, since other users of the machine can reach the port as well.
"""

import base64
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from orchestrator.files import write_atomically
from orchestrator.image.archive import Layer, Sink, send_layer
from orchestrator.image.layers import LayerPlan
from orchestrator.image.layout import MANIFEST_TYPE, Documents

_NAME = "image"


@dataclass(frozen=True, slots=True)
class Offer:
    """Where an image can be read from. `authfile` holds the secret; `failures` are errors while layers were made."""

    reference: str
    authfile: Path
    failures: list[Exception] = field(default_factory=list)


@contextmanager
def offered(documents: Documents, layers: Mapping[Layer, LayerPlan], scratch: Path) -> Iterator[Offer]:
    """Offer an image on a free port of 127.0.0.1 while the block runs; `layers` are made from their plans."""
    secret = secrets.token_urlsafe()
    failures: list[Exception] = []
    handler = _handler(_answers(documents, layers), secret, failures)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        address = f"127.0.0.1:{server.server_port}"
        authfile = scratch / "auth.json"
        auths = {address: {"auth": base64.b64encode(f"{_NAME}:{secret}".encode()).decode()}}
        write_atomically(authfile, json.dumps({"auths": auths}), mode=0o600)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="offer", daemon=True)
        thread.start()
        try:
            yield Offer(f"docker://{address}/{_NAME}:{_NAME}", authfile, failures)
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a path gives: `size` bytes, sent by `send`."""

    kind: str
    size: int
    send: Callable[[Sink], object]


def _answers(documents: Documents, layers: Mapping[Layer, LayerPlan]) -> Mapping[str, _Answer]:
    blobs, manifests = f"/v2/{_NAME}/blobs", f"/v2/{_NAME}/manifests"
    manifest = _bytes_answer(documents.manifest, MANIFEST_TYPE)
    answers = {
        "/v2/": _bytes_answer(b"{}", "application/json"),
        f"{manifests}/{_NAME}": manifest,
        f"{manifests}/{documents.manifest_digest}": manifest,
        f"{blobs}/sha256:{documents.image_id}": _bytes_answer(documents.config, "application/octet-stream"),
    }
    for layer, plan in layers.items():
        answers[f"{blobs}/{layer.diff_id}"] = _layer_answer(layer, plan)
    return answers


def _bytes_answer(content: bytes, kind: str) -> _Answer:
    return _Answer(kind, len(content), lambda file: file.write(content))


def _layer_answer(layer: Layer, plan: LayerPlan) -> _Answer:
    return _Answer("application/octet-stream", layer.size, lambda file: send_layer(plan, file))


def _handler(answers: Mapping[str, _Answer], secret: str, failures: list[Exception]) -> type[BaseHTTPRequestHandler]:
    expected = "Basic " + base64.b64encode(f"{_NAME}:{secret}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path)
            if not secrets.compare_digest(self.headers.get("Authorization", ""), expected):
                self._refuse(401)
            elif answer is None:
                self._refuse(404)
            else:
                self._send(answer)

        def _refuse(self, status: int) -> None:
            self.send_response(status)
            self.send_header("WWW-Authenticate", f'Basic realm="{_NAME}"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send(self, answer: _Answer) -> None:
            self.send_response(200)
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(answer.size))
            self.end_headers()
            try:
                answer.send(self.wfile)
            except ConnectionError:
                return  # skopeo stopped reading; it says why itself
            except Exception as error:
                failures.append(error)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: standard error is the view's."""

    return Handler
