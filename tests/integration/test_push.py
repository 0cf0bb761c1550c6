"""Pushing to Debian's docker-registry, through a proxy that counts what is sent."""

import base64
import hashlib
import json
import os
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from orchestrator import process
from orchestrator.errors import ImageError, RegistryError
from orchestrator.events import Event, Note
from orchestrator.image import packed as packed_module
from orchestrator.image import push as push_module
from orchestrator.image.attestations import Attestations
from orchestrator.image.layout import MANIFEST_TYPE
from orchestrator.image.packed import Dock, Source
from orchestrator.image.packing import Compression
from orchestrator.image.push import Pushed, Target, push_image, references_of
from orchestrator.image.referrers import INDEX_TYPE
from orchestrator.image.storage import Image, Workshop, store_layers
from orchestrator.process import Cancel
from orchestrator.tools.podman import Engine
from orchestrator.tools.registry import Access, ConnectionDropped, parse_repository
from tests.integration.registry import Proxy, counting_proxy, make_certificate, serving_registry
from tests.integration.test_images import engine, make_sources, plan_of, short

__all__ = ["engine", "short"]

MISSING = [name for name in ("podman", "skopeo", "docker-registry", "zstd") if process.find(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {MISSING}")

HTPASSWD = "tester:$2y$04$iA1xcuWgs5BfqmAEnE3FZ.oIENIUQFCJnX1EeS2bPEoD3C11rzsr2\n"
"""The password is "secret"."""


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with serving_registry(tmp_path_factory.mktemp("registry")) as port:
        yield port


@pytest.fixture
def proxy(upstream: int) -> Iterator[Proxy]:
    with counting_proxy(upstream) as made:
        yield made


@dataclass
class Machine:
    """One machine with its engine, cache and home, and the repository it pushes to."""

    engine: Engine
    base: Path
    repository: str
    events: list[Event]

    def store(self, name: str, *, page: bytes | None = None) -> Image:
        sources = make_sources(self.base / "sources" / name)
        # Incompressible, so that sizes mean something.
        (sources / "program").write_bytes(b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(20_000)))
        workshop = Workshop("towns", self.engine, self.base / "cache", lambda _: None, Cancel())
        return store_layers(plan_of(sources, page=page), workshop, check=lambda: None)

    def push(
        self,
        image: Image,
        *,
        compression: Compression = "gzip",
        cache: str = "cache",
        attestations: Attestations | None = None,
        **how: object,
    ) -> Pushed:
        access = Access({**process.base_environment(os.environ), "HOME": str(self.base)})
        target = Target(parse_repository(self.repository), ("1",), compression, replace(access, **how))
        dock = Dock(self.engine, self.base / cache, self.events.append, Cancel())
        source = Source(image.service, image.image_id, image.reference, attestations)
        return push_image(source, target, dock, references=references_of(source.name, target)).image


@pytest.fixture
def machine(tmp_path: Path, engine: Engine, proxy: Proxy, request: pytest.FixtureRequest) -> Machine:
    repository = hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    return Machine(engine, tmp_path, f"127.0.0.1:{proxy.port}/team/{repository}", [])


def get(port: int, path: str, *, accept: str = MANIFEST_TYPE) -> bytes:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v2/{path}", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        content: bytes = answer.read()
    return content


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_what_arrives_is_the_image_with_compressed_layers(machine: Machine, proxy: Proxy, compression: Compression):
    image = machine.store("a")
    pushed = machine.push(image, compression=compression)
    path = machine.repository.partition("/")[2]
    raw = get(proxy.port, f"{path}/manifests/1-web")
    assert f"sha256:{hashlib.sha256(raw).hexdigest()}" == pushed.digest
    manifest = json.loads(raw)
    assert manifest["config"]["digest"] == f"sha256:{image.image_id}"
    assert {layer["mediaType"].rpartition("+")[2] for layer in manifest["layers"]} == {compression}
    assert pushed.sent == pushed.size == proxy.uploaded
    unpack = {"gzip": ["gzip", "-dc"], "zstd": ["zstd", "-dcq"]}[compression]
    for layer, known in zip(manifest["layers"], image.layers, strict=True):
        blob = machine.base / "blob"
        blob.write_bytes(get(proxy.port, f"{path}/blobs/{layer['digest']}"))
        assert blob.stat().st_size == layer["size"]
        unpacked = machine.base / "unpacked"
        process.run(["sh", "-c", f"{' '.join(unpack)} < {blob} > {unpacked}"])
        assert f"sha256:{hashlib.sha256(unpacked.read_bytes()).hexdigest()}" == known.diff_id


def test_a_second_push_sends_no_blob_from_a_machine_without_state_too(machine: Machine, proxy: Proxy):
    image = machine.store("a")
    first = machine.push(image)
    for cache in ("cache", "elsewhere"):
        proxy.reset()
        again = machine.push(image, cache=cache)
        assert (again.digest, again.sent) == (first.digest, 0)
        assert proxy.uploaded == 0
        assert proxy.asked("HEAD", "/blobs/") >= len(image.layers)
        assert proxy.asked("POST", "/blobs/uploads/") == 0


def test_a_change_of_the_page_sends_its_layer_and_the_config(machine: Machine, proxy: Proxy):
    machine.push(machine.store("a"))
    proxy.reset()
    page = b"<p>another</p>"
    pushed = machine.push(machine.store("b", page=page))
    assert pushed.sent == proxy.uploaded
    assert proxy.uploaded <= 16 * 1024 + len(page) < pushed.size


def test_layers_in_the_cache_are_not_read_from_the_storage_again(machine: Machine, monkeypatch: pytest.MonkeyPatch):
    machine.push(machine.store("a"))
    read: list[int] = []
    extract = packed_module.extract_layers

    def watch(reference: str, layout: Path, **how: object) -> None:
        extract(reference, layout, **how)  # type: ignore[arg-type]  # handed on
        read.append(sum(path.stat().st_size for path in (layout / "blobs" / "sha256").iterdir()))

    monkeypatch.setattr(packed_module, "extract_layers", watch)
    image = machine.store("b", page=b"other")
    machine.push(image)
    machine.push(image)
    assert len(read) == 1
    assert read[0] < 40_000 < 640_000 < sum(layer.size for layer in image.layers)


def test_a_dropped_connection_is_tried_again_and_what_arrived_is_not_sent_twice(
    machine: Machine, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(push_module, "RETRY_SECONDS", (0.0, 0.0, 0.0))
    image = machine.store("a")
    proxy.drops = 2
    pushed = machine.push(image)
    notes = [event.text for event in machine.events if isinstance(event, Note)]
    assert notes and all("trying again" in note for note in notes)
    assert proxy.uploaded == pushed.size


def test_a_registry_that_stays_away_is_named(machine: Machine, proxy: Proxy, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(push_module, "RETRY_SECONDS", (0.0,))
    image = machine.store("a")
    proxy.drops = 100
    with pytest.raises(ConnectionDropped, match=f"could not push to {machine.repository}:1-web"):
        machine.push(image)
    assert list((machine.base / "cache" / "tmp").iterdir()) == []


def test_a_private_authority_and_a_login_in_an_engines_auth_file(machine: Machine, tmp_path: Path):
    image = machine.store("a")
    certificate, key = make_certificate(tmp_path / "tls")
    htpasswd = tmp_path / "htpasswd"
    htpasswd.write_text(HTPASSWD)
    authorities = tmp_path / "authorities"
    authorities.mkdir()
    (authorities / "ca.crt").write_bytes(certificate.read_bytes())
    (tmp_path / "nobody").mkdir()
    with serving_registry(tmp_path / "secure", tls=(certificate, key), htpasswd=htpasswd) as port:
        machine.repository = f"127.0.0.1:{port}/team/app"
        with pytest.raises(RegistryError, match="did not let us push") as caught:
            machine.push(image, cert_dir=authorities)
        assert caught.value.hint is not None and "podman login" in caught.value.hint
        with pytest.raises(RegistryError) as caught:
            machine.push(image, cert_dir=tmp_path / "nobody")
        assert "certificate" in "".join(caught.value.details)
        login = base64.b64encode(b"tester:secret").decode()
        text = json.dumps({"auths": {f"127.0.0.1:{port}": {"auth": login}}})
        for place in (tmp_path / "auth.json", tmp_path / ".docker" / "config.json"):
            place.parent.mkdir(exist_ok=True)
            place.write_text(text)
            variables = {"REGISTRY_AUTH_FILE": str(place)} if place.name == "auth.json" else {}
            environment = {**process.base_environment(os.environ), "HOME": str(tmp_path), **variables}
            documents = Attestations(b'{"bomFormat":"CycloneDX"}', b'{"subject":[]}')
            pushed = machine.push(image, cert_dir=authorities, environment=environment, attestations=documents)
            assert pushed.digest.startswith("sha256:")
            place.unlink()


def test_an_image_that_is_gone_is_named(machine: Machine):
    image = machine.store("a")
    machine.engine.remove_image(image.reference)
    with pytest.raises(ImageError, match=f"{image.reference} is not on this machine any more") as caught:
        machine.push(image)
    assert caught.value.hint == "run: orchestrator deploy"


def referrers(proxy: Proxy, machine: Machine, pushed: Pushed) -> dict[str, bytes]:
    """The documents attached to a pushed image, found as any client finds them: media type to content."""
    path = machine.repository.partition("/")[2]
    index = json.loads(get(proxy.port, f"{path}/manifests/{pushed.digest.replace(':', '-')}", accept=INDEX_TYPE))
    found = {}
    for listed in index["manifests"]:
        artifact = json.loads(get(proxy.port, f"{path}/manifests/{listed['digest']}"))
        assert artifact["subject"]["digest"] == pushed.digest
        assert artifact["artifactType"] == listed["artifactType"]
        found[listed["artifactType"]] = get(proxy.port, f"{path}/blobs/{artifact['layers'][0]['digest']}")
    return found


def test_what_is_said_about_an_image_is_attached_to_it_once(machine: Machine, proxy: Proxy):
    statement = b'{"predicate":{},"subject":[{"name":"towns/web"}]}'
    documents = Attestations(sbom=b'{"bomFormat":"CycloneDX"}', provenance=statement)
    image = machine.store("a")
    pushed = machine.push(image, attestations=documents)
    assert pushed.sent == proxy.uploaded
    found = referrers(proxy, machine, pushed)
    assert found["application/vnd.cyclonedx+json"] == documents.sbom
    subjects = json.loads(found["application/vnd.in-toto+json"])["subject"]
    assert subjects[0] == {"name": machine.repository, "digest": {"sha256": pushed.digest.removeprefix("sha256:")}}
    proxy.reset()
    assert machine.push(image, attestations=documents).sent == proxy.uploaded == 0
    assert len(referrers(proxy, machine, pushed)) == 2
