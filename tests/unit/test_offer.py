"""An image offered over loopback: whoever knows the secret gets it, the lowest layer first."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest

from orchestrator.image.archive import Layer, Sink
from orchestrator.image.layout import Documents
from orchestrator.image.offer import Offer, offered

DOCUMENTS = Documents(config=b'{"config":1}', manifest=b'{"manifest":1}')
SECONDS = 10


def layer(digit: str, size: int = 4) -> Layer:
    return Layer(digit, f"sha256:{digit * 64}", size, written=False)


def archive(write: Callable[[Sink], object]) -> Callable[[], SimpleNamespace]:
    return lambda: SimpleNamespace(write=write)


def get(offer: Offer, path: str) -> bytes:
    address = offer.reference.removeprefix("docker://").partition("/")[0]
    secret = json.loads(offer.authfile.read_text())["auths"][address]["auth"]
    request = urllib.request.Request(f"http://{address}/v2/{path}", headers={"Authorization": f"Basic {secret}"})
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        content: bytes = answer.read()
    return content


def test_manifest_config_and_layers_are_what_they_were(tmp_path: Path):
    layers = {
        layer("a"): archive(lambda sink: sink.write(b"AAAA")),
        layer("b"): archive(lambda sink: sink.write(b"BBBB")),
    }
    with offered(DOCUMENTS, layers, tmp_path) as offer:  # type: ignore[arg-type]  # what is used of an archive
        for reference in ("image", DOCUMENTS.manifest_digest):
            assert get(offer, f"image/manifests/{reference}") == DOCUMENTS.manifest
        assert get(offer, f"image/blobs/sha256:{DOCUMENTS.image_id}") == DOCUMENTS.config
        assert get(offer, f"image/blobs/sha256:{'b' * 64}") == b"BBBB", "without the lower one being asked for"
        assert get(offer, f"image/blobs/sha256:{'a' * 64}") == b"AAAA"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(offer, "image/blobs/sha256:none")
        assert offer.authfile.stat().st_mode & 0o777 == 0o600


def test_nobody_gets_anything_without_the_secret(tmp_path: Path):
    with offered(DOCUMENTS, {}, tmp_path) as offer:
        address = offer.reference.removeprefix("docker://").partition("/")[0]
        for path in ("", "image/manifests/image"):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(f"http://{address}/v2/{path}", timeout=SECONDS)


def test_a_layer_waits_for_the_lower_one_that_is_being_sent(tmp_path: Path):
    begun, go_on, asked = Event(), Event(), Event()
    order: list[str] = []

    def lower(sink: Sink) -> None:
        sink.write(b"A")
        begun.set()
        go_on.wait(SECONDS)
        sink.write(b"AAA")
        order.append("lower")

    def upper(sink: Sink) -> None:
        asked.set()
        sink.write(b"BBBB")
        order.append("upper")

    layers = {layer("a"): archive(lower), layer("b"): archive(upper)}
    with offered(DOCUMENTS, layers, tmp_path) as offer, ThreadPoolExecutor() as pool:  # type: ignore[arg-type]  # as above
        first = pool.submit(get, offer, f"image/blobs/sha256:{'a' * 64}")
        assert begun.wait(SECONDS)
        second = pool.submit(get, offer, f"image/blobs/sha256:{'b' * 64}")
        assert asked.wait(SECONDS)
        with pytest.raises(TimeoutError):
            second.result(timeout=0.2)
        go_on.set()
        assert (first.result(SECONDS), second.result(SECONDS)) == (b"AAAA", b"BBBB")
    assert order == ["lower", "upper"]


def test_a_failure_of_the_lower_one_is_told_and_lets_the_upper_go_on(tmp_path: Path):
    def broken(sink: Sink) -> None:
        sink.write(b"A")
        raise ValueError("changed")

    layers = {layer("a"): archive(broken), layer("b"): archive(lambda sink: sink.write(b"BBBB"))}
    with offered(DOCUMENTS, layers, tmp_path) as offer:  # type: ignore[arg-type]  # as above
        with pytest.raises(Exception, match="IncompleteRead"):
            get(offer, f"image/blobs/sha256:{'a' * 64}")
        assert get(offer, f"image/blobs/sha256:{'b' * 64}") == b"BBBB"
        assert [str(failure) for failure in offer.failures] == ["changed"]
