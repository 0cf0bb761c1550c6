"""An image for skopeo to read over loopback: each layer's bytes are made while they are read and lie on no disk.

Of the OCI Distribution Specification 1.0 what one pull needs: GET of /v2/, the manifest and the blobs. Whoever asks
must know a secret, since other users of the machine can reach the port as well.
"""

import base64
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from threading import Condition, Thread

from orchestrator.files import write_atomically
from orchestrator.image.archive import Archive, Layer, Sink
from orchestrator.image.layout import MANIFEST_TYPE, Documents

_NAME = "image"


@dataclass(frozen=True, slots=True)
class Offer:
    """Where an image can be read from. `authfile` holds the secret; `failures` are errors while layers were made."""

    reference: str
    authfile: Path
    failures: list[Exception] = field(default_factory=list)


@contextmanager
def offered(documents: Documents, layers: Mapping[Layer, Callable[[], Archive]], scratch: Path) -> Iterator[Offer]:
    """Offer an image on a free port of 127.0.0.1 while the block runs; archives are made when they are asked for."""
    secret = secrets.token_urlsafe()
    failures: list[Exception] = []
    handler = _handler(_answers(documents, layers), secret, failures)
    with ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        address = f"127.0.0.1:{server.server_address[1]}"
        authfile = scratch / "auth.json"
        auths = {address: {"auth": base64.b64encode(f"{_NAME}:{secret}".encode()).decode()}}
        write_atomically(authfile, json.dumps({"auths": auths}), mode=0o600, durable=False)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005}, name="offer", daemon=True)
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


def _answers(documents: Documents, layers: Mapping[Layer, Callable[[], Archive]]) -> Mapping[str, _Answer]:
    blobs, manifests = f"/v2/{_NAME}/blobs", f"/v2/{_NAME}/manifests"
    manifest = _bytes_answer(documents.manifest, MANIFEST_TYPE)
    answers = {
        "/v2/": _bytes_answer(b"{}", "application/json"),
        f"{manifests}/{_NAME}": manifest,
        f"{manifests}/{documents.manifest_digest}": manifest,
        f"{blobs}/sha256:{documents.image_id}": _bytes_answer(documents.config, "application/octet-stream"),
    }
    turns = _Turns()
    for number, (layer, archive) in enumerate(layers.items()):
        answers[f"{blobs}/{layer.diff_id}"] = _layer_answer(layer, archive, partial(turns.sink, number))
    return answers


def _bytes_answer(content: bytes, kind: str) -> _Answer:
    return _Answer(kind, len(content), lambda file: file.write(content))


def _layer_answer(
    layer: Layer, archive: Callable[[], Archive], in_turn: Callable[[Sink], AbstractContextManager[Sink]]
) -> _Answer:
    def send(sink: Sink) -> None:
        with in_turn(sink) as patient:
            archive().write(patient)

    return _Answer("application/octet-stream", layer.size, send)


class _Turns:
    """Of the layers being sent at a time the lowest goes first.

    skopeo asks for all at once and unpacks them one after another: it can begin with the first while it reads the
    others.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._sending: list[int] = []

    @contextmanager
    def sink(self, number: int, sink: Sink) -> Iterator[Sink]:
        """`sink` for the layer of this number, whose writes wait while a lower one is being sent."""
        with self._changed:
            self._sending.append(number)
        try:
            yield _Patient(sink, partial(self._wait, number))
        finally:
            with self._changed:
                self._sending.remove(number)
                self._changed.notify_all()

    def _wait(self, number: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: min(self._sending) >= number)


@dataclass(frozen=True, slots=True)
class _Patient:
    """A sink that waits before each write."""

    sink: Sink
    wait: Callable[[], None]

    def write(self, data: bytes | memoryview) -> int:
        self.wait()
        return self.sink.write(data)


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
