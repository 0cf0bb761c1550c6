"""What people are told about images: the list, the tree, the page with the treemap, the Dockerfile, what can go."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from orchestrator import process
from tests.e2e.test_reproducible import builder, clone, origin

__all__ = ["origin"]


def test_images_are_listed_explained_rendered_and_collected(origin: Path, tmp_path: Path) -> None:
    root = clone(origin, tmp_path / "small", umask=0o022, time=1_000_000_000)
    flags = ("--name", "small", "--monorepo", str(root))
    with builder(tmp_path / "machine") as somebody:
        built = {image["service"]: image for image in somebody.json("build", *flags)["images"]}
        listed = somebody.json("images", "small")
        assert {image["service"]: image["image_id"] for image in listed["images"]} == {
            service: image["image_id"] for service, image in built.items()
        }
        assert listed["size"] < sum(image["size"] for image in listed["images"]), "shared layers count once"
        gate = next(image for image in listed["images"] if image["service"] == "gate")
        assert "small/web" in gate["layers"][0]["shared_with"]

        explained = somebody.json("images", "explain", "small", "backend")
        assert explained["files"]["/app/bin/api"] > 100_000
        assert abs(sum(explained["store"].values()) - built["backend"]["size"]) < 2_000_000
        tree = somebody.run("images", "explain", "small", "web").stdout
        assert "nginx" in tree.splitlines()[2]
        somebody.run("images", "explain", "small", "web", "--html", str(tmp_path / "web.html"))
        check_page(tmp_path / "web.html")
        assert "its images here: backend, gate, web" in somebody.run("images", "explain", "small", "x", code=2).stderr

        (rendered,) = somebody.json("render", "dockerfile", "web", *flags)["dockerfiles"]
        assert rendered["dockerfile"].startswith(("FROM scratch", "#"))
        lines = rendered["dockerfile"].splitlines()
        sources = [json.loads(line.removeprefix("COPY "))[0] for line in lines if line.startswith("COPY")]
        assert sources
        assert all((Path(rendered["context"]) / source).is_dir() for source in sources)
        assert (Path(rendered["context"]) / "Dockerfile").read_text() == rendered["dockerfile"]

        exported = somebody.json("build", *flags, "--export", str(tmp_path / "out"), "--tag", "2")["exported"]
        assert sorted(name for image in exported["images"] for name in image["names"]) == ["2-backend", "2-web"]
        config = ("skopeo", "inspect", "--config", "--raw", f"oci:{tmp_path / 'out'}:2-backend")
        found = hashlib.sha256(subprocess.run(config, capture_output=True, check=True).stdout).hexdigest()
        assert found == built["backend"]["image_id"]

        would = somebody.json("gc", "--dry-run")
        assert {item["kind"] for item in would["removed"]} == {"image"}
        assert len(would["removed"]) == 3
        assert somebody.json("gc")["removed"] == would["removed"]
        assert somebody.json("images")["images"] == []
        assert [image["image_id"] for image in somebody.json("build", *flags)["images"]] == [
            image["image_id"] for image in built.values()
        ]


def check_page(page: Path) -> None:
    """Chromium shows the boxes with no network at all."""
    chromium = process.find("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    arguments = ("--headless", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom")
    sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
    profile = f"--user-data-dir={page.parent / 'profile'}"
    shown = subprocess.run(
        [chromium, *sandbox, *arguments, profile, page.as_uri()], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert shown.count("<rect") > 5
    assert "<svg" in shown
    assert "nginx" in shown
