"""Images as files: skopeo and podman read them, nothing is written twice, and what is not ours stays."""

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator import process
from orchestrator.errors import DiskError, ImageError, Interrupted, UsageError
from orchestrator.image.attestations import Attestations
from orchestrator.image.export import Export, check_directory, export_images
from orchestrator.image.packed import Dock, Source
from orchestrator.image.packing import Compression
from orchestrator.image.storage import Image, Workshop, store_layers
from orchestrator.process import Cancel
from orchestrator.tools.platforms import host_platform
from orchestrator.tools.podman import Engine
from tests.integration.test_full_disk import SmallDisk, disk
from tests.integration.test_images import engine, make_sources, plan_of, short

__all__ = ["disk", "engine", "short"]

MISSING = [name for name in ("podman", "skopeo", "zstd") if process.find(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {MISSING}")

SAID = Attestations(sbom=b'{"bomFormat":"CycloneDX"}', provenance=b'{"subject":[]}')


@dataclass
class Shop:
    """Where images are made, and exported to `out`."""

    engine: Engine
    base: Path

    @property
    def out(self) -> Path:
        return self.base / "out"

    def store(self, *, page: bytes | None = None) -> Image:
        sources = self.base / "sources"
        if not sources.exists():
            make_sources(sources)
        workshop = Workshop("towns", self.engine, self.base / "cache", lambda _: None, Cancel())
        return store_layers(plan_of(sources, page=page), workshop, check=lambda: None)

    def export(
        self, *images: tuple[Image, str], out: Path | None = None, app: str = "towns", tags: tuple[str, ...] = ("1",),
        compression: Compression = "gzip", cancel: Cancel | None = None,
    ) -> Export:  # fmt: skip
        sources = [Source(image.service, image.image_id, image.reference, SAID, platform) for image, platform in images]
        dock = Dock(self.engine, self.base / "cache", lambda _: None, cancel or Cancel())
        return export_images(sources, out or self.out, app=app, tags=tags, compression=compression, dock=dock)


@pytest.fixture
def shop(tmp_path: Path, engine: Engine) -> Shop:
    return Shop(engine, tmp_path)


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def blob(root: Path, digest: str) -> Any:
    return json.loads((root / "blobs/sha256" / digest.removeprefix("sha256:")).read_bytes())


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_skopeo_reads_what_was_exported(shop: Shop, compression: Compression):
    image = shop.store()
    exported = shop.export((image, ""), tags=("1", "latest"), compression=compression)
    assert exported.written == sum(len(data) for name, data in files_of(shop.out / "blobs").items())
    for name, content in files_of(shop.out / "blobs/sha256").items():
        assert hashlib.sha256(content).hexdigest() == name
    for tag in ("1-web", "latest-web"):
        config = process.run(["skopeo", "inspect", "--config", "--raw", f"oci:{shop.out}:{tag}"]).stdout
        assert hashlib.sha256(config.encode()).hexdigest() == image.image_id
    copied = shop.base / "copied"
    process.run(["skopeo", "--insecure-policy", "copy", "--quiet", f"oci:{shop.out}:1-web", f"dir:{copied}"])
    manifest = (copied / "manifest.json").read_bytes()
    assert exported.images[0].digest == f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def test_podman_pulls_it_and_it_is_the_same_image(shop: Shop):
    image = shop.store()
    shop.export((image, ""))
    shop.engine.remove_image(image.reference)
    assert not shop.engine.image_exists(image.image_id)
    shop.engine.run("pull", "--quiet", f"oci:{shop.out}:1-web")
    assert shop.engine.image_exists(image.image_id)


def test_what_is_said_about_an_image_refers_to_it(shop: Shop):
    exported = shop.export((shop.store(), ""))
    index = json.loads((shop.out / "index.json").read_bytes())
    attached = [entry for entry in index["manifests"] if "artifactType" in entry]
    assert {entry["artifactType"] for entry in attached} == {
        "application/vnd.cyclonedx+json",
        "application/vnd.in-toto+json",
    }
    for entry in attached:
        artifact = blob(shop.out, entry["digest"])
        assert artifact["subject"]["digest"] == exported.images[0].digest
    sbom = next(entry for entry in attached if "cyclonedx" in entry["artifactType"])
    layer = blob(shop.out, sbom["digest"])["layers"][0]["digest"]
    assert blob(shop.out, layer) == {"bomFormat": "CycloneDX"}


def test_several_platforms_are_one_index(shop: Shop):
    image, other = shop.store(), shop.store(page=b"for another machine")
    foreign = "linux/arm64" if host_platform() != "linux/arm64" else "linux/amd64"
    exported = shop.export((image, ""), (other, foreign)).images[0]
    assert dict(exported.platforms).keys() == {host_platform(), foreign}
    index = blob(shop.out, exported.digest)
    assert [entry["digest"] for entry in index["manifests"]] == [digest for _, digest in exported.platforms]
    copied = shop.base / "copied"
    argv = ["skopeo", "--insecure-policy", "copy", "--quiet", "--multi-arch", "all"]
    process.run([*argv, f"oci:{shop.out}:1-web", f"dir:{copied}"])
    assert json.loads((copied / "manifest.json").read_bytes()) == index


def test_only_what_changed_is_written_and_what_nothing_needs_goes(shop: Shop):
    first = shop.export((shop.store(), ""))
    before = files_of(shop.out)
    assert shop.export((shop.store(), "")).written == 0
    assert files_of(shop.out) == before
    changed = shop.export((shop.store(page=b"<p>another page"), ""))
    assert 0 < changed.written < first.written
    elsewhere = shop.base / "elsewhere"
    shop.export((shop.store(page=b"<p>another page"), ""), out=elsewhere)
    assert files_of(elsewhere) == files_of(shop.out), "as if nothing had been there before"


def test_a_killed_export_is_completed_by_the_next(shop: Shop):
    image = shop.store()
    shop.export((image, ""))
    whole = files_of(shop.out)
    largest = max((shop.out / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    os.truncate(largest, 10)
    (shop.out / "blobs/sha256" / f".{largest.name}").write_bytes(b"half")
    shop.export((image, ""))
    assert files_of(shop.out) == whole
    stopped = Cancel()
    stopped.request()
    with pytest.raises(Interrupted):
        shop.export((image, ""), out=shop.base / "new", cancel=stopped)
    shop.export((image, ""), out=shop.base / "new")
    assert files_of(shop.base / "new") == whole


def test_an_image_that_is_gone_is_said(shop: Shop):
    image = shop.store()
    shop.engine.remove_image(image.image_id)
    with pytest.raises(ImageError, match=f"{image.reference} is not on this machine any more") as caught:
        shop.export((image, ""))
    assert caught.value.hint == "run: orchestrator deploy"


def test_what_is_not_ours_is_refused_and_stays(shop: Shop):
    image = shop.store()
    shop.out.mkdir()
    shop.export((image, ""))
    with pytest.raises(UsageError, match="holds the images of towns"):
        shop.export((image, ""), app="other")
    foreign = shop.base / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds files that are no export"):
        shop.export((image, ""), out=foreign)
    assert files_of(foreign) == {"notes.txt": b"mine"}


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("file", "file is not a directory"),
        ("file/below", "file is not a directory"),
        ("locked", "locked cannot be written"),
        ("locked/below/it", "locked cannot be written"),
        ("with:colon", "has a colon"),
    ],
)
def test_a_place_that_cannot_be_one_is_said(
    tmp_path: Path, name: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "locked").mkdir()
    honest = os.access  # which lets root write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "locked" and honest(path, mode))
    with pytest.raises(UsageError, match=problem):
        check_directory(tmp_path / name, "towns")
    check_directory(tmp_path / "new/one", "towns")


def test_a_full_disk_is_refused_and_the_export_before_stays_whole(shop: Shop, disk: SmallDisk):
    image, out = shop.store(), disk.path / "out"
    shop.export((image, ""), out=out)
    data = files_of(out)
    disk.fill(leave=100_000)
    with pytest.raises(DiskError, match=r"0\.[2-9] MB are needed, 0\.\d MB are free"):
        shop.export((shop.store(page=os.urandom(200_000)), ""), out=out)
    assert files_of(out) == data
    found = subprocess.run(["skopeo", "inspect", "--raw", f"oci:{out}:1-web"], capture_output=True, check=True)
    assert f"sha256:{hashlib.sha256(found.stdout).hexdigest()}" in data["index.json"].decode()
