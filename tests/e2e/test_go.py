"""A Go backend, for this machine and another: built, pushed under one index, run, and refused where it must be."""

import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator import process
from orchestrator.build.elf import read_elf
from orchestrator.tools.platforms import architecture_name, host_platform, platform_name
from tests.e2e.conftest import Machine, ask, commit, free_port, wait_until
from tests.integration.registry import REGISTRY, serving_registry

pytestmark = pytest.mark.skipif(
    REGISTRY is None or process.find("go") is None, reason="docker-registry or go is not installed"
)

HERE = host_platform()
OTHER = "linux/arm64" if HERE != "linux/arm64" else "linux/amd64"
EMULATOR = process.find("qemu-aarch64-static" if OTHER == "linux/arm64" else "qemu-x86_64-static")

FILES = {
    "backend/go.mod": "module example.org/notes\n\ngo 1.19\n\nrequire github.com/go-chi/chi/v5 v5.0.12\n",
    "backend/go.sum": """\
github.com/go-chi/chi/v5 v5.0.12 h1:9euLV5sTrTNTRUU9POmDUvfxyj6LAABLUcEWO+JJb4s=
github.com/go-chi/chi/v5 v5.0.12/go.mod h1:DslCQbL2OYiznFReuXYUmQ2hGd1aDpCnlMNITLSKoi8=
""",
    "backend/cmd/api/main.go": """\
package main

import (
	"fmt"
	"net/http"
	"os"
	"runtime"

	"github.com/go-chi/chi/v5"
)

func main() {
	router := chi.NewRouter()
	router.Get("/health", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	router.Route("/api", func(r chi.Router) {
		r.Get("/notes", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, runtime.GOARCH) })
	})
	panic(http.ListenAndServe(":"+os.Getenv("PORT"), router))
}
""",
    "backend/cmd/migrate/main.go": "package main\n\nfunc main() {}\n",
}


@pytest.fixture(scope="module")
def notes(machine: Machine) -> Path:
    root = machine.base / "notes"
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    commit(root)
    return root


def test_one_name_for_two_platforms(machine: Machine, notes: Path, tmp_path: Path):
    flags = ("--name", "notes", "--monorepo", str(notes), "--backend-bin", "api", "--platform", f"{OTHER},{HERE}")
    with serving_registry(tmp_path / "registry") as port:
        repository = f"localhost:{port}/team/notes"
        built = machine.json("build", *flags, "--push", repository, "--tag", "1")
        assert {service["name"] for service in built["services"]} == {"backend", f"backend-{architecture_name(OTHER)}"}
        assert all(service["compiled_units"] > 10 for service in built["services"])
        check_images(built["images"])
        (index,) = (index for index in built["indexes"] if index["service"] == "backend")
        check_index(machine, f"{repository}:1-backend", index)
        check_program(f"{repository}:1-backend", tmp_path)
        check_bill(built, machine)

        published = ("--port", str(free_port()))
        live = machine.json("deploy", *flags, *published, "--push", repository, "--tag", "2")
        assert ask(f"{live['url']}api/notes").body.decode() == architecture_name(HERE)
        assert live["indexes"][0]["digest"] == index["digest"], "the same again, from the cache"

        def tag(found: dict[str, Any]) -> str:
            return f"{repository}:3-{found['service']}"

        pushed = machine.json("push", "notes", repository, "--tag", "3")
        assert pushed["indexes"] == [{**found, "references": [tag(found)]} for found in live["indexes"]]
        assert sum(image["sent"] for image in pushed["pushed"]) == 0
        foreign = f"backend-{architecture_name(OTHER)}"
        assert foreign in {image["service"] for image in machine.json("images", "notes")["images"]}
        assert "pkg:golang/github.com/go-chi/chi/v5@v5.0.12" in machine.run("sbom", "notes", foreign).stdout
        unused = [item for item in machine.json("gc", "--dry-run")["removed"] if "notes" in item["name"]]
        assert unused == [], "a release keeps what it can push"

    machine.forget_builds("notes")
    again = machine.json("build", *flags, "--offline")["images"]
    assert {image["image_id"] for image in again} == {image["image_id"] for image in built["images"]}


def check_images(images: list[dict[str, Any]]) -> None:
    """The gate is of use here only; what is equal on both platforms is one layer."""
    named = {(image["service"], image["platform"]): image for image in images}
    assert {service for service, platform in named if platform == HERE} == {"backend", "gate", "web"}
    assert {service for service, platform in named if platform == OTHER} == {"backend", "web"}
    layers = [{layer["diff_id"] for layer in named["backend", platform]["layers"]} for platform in (HERE, OTHER)]
    assert len(layers[0] & layers[1]) == 1


def check_index(machine: Machine, reference: str, index: dict[str, Any]) -> None:
    raw = json.loads(skopeo("inspect", "--tls-verify=false", "--raw", f"docker://{reference}"))
    platforms = {f"{item['platform']['os']}/{item['platform']['architecture']}": item for item in raw["manifests"]}
    assert {name: item["digest"] for name, item in platforms.items()} == index["platforms"]
    name = reference.rpartition(":")[0]
    for item in platforms.values():
        tag = item["digest"].replace(":", "-")
        attached = json.loads(skopeo("inspect", "--tls-verify=false", "--raw", f"docker://{name}:{tag}"))
        assert len(attached["manifests"]) == 2, "SBOM and provenance"


def check_program(reference: str, tmp_path: Path) -> None:
    """What the other machine would pull: its platform in the config, its machine in the program."""
    architecture = architecture_name(OTHER)
    pull = ("copy", "--quiet", "--src-tls-verify=false", f"docker://{reference}", f"dir:{tmp_path / 'pulled'}")
    skopeo(*pull, before=("--override-arch", architecture))
    manifest = json.loads((tmp_path / "pulled" / "manifest.json").read_text())
    config = json.loads((tmp_path / "pulled" / manifest["config"]["digest"].removeprefix("sha256:")).read_text())
    assert config["architecture"] == architecture
    for layer in manifest["layers"]:
        with tarfile.open(tmp_path / "pulled" / layer["digest"].removeprefix("sha256:")) as archive:
            archive.extractall(tmp_path / "root", filter="fully_trusted")
    program = tmp_path / "root" / "app" / "bin" / "api"
    elf = read_elf(program)
    assert elf is not None
    assert (platform_name(elf.machine), elf.interpreter) == (OTHER, None)
    if EMULATOR is not None:
        with serving(program) as url:
            wait_until(lambda: answers(url))
            assert ask(f"{url}/api/notes").body.decode() == architecture


@contextmanager
def serving(program: Path) -> Iterator[str]:
    port = free_port()
    child = subprocess.Popen([str(EMULATOR), str(program)], env={"PORT": str(port)})
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        child.kill()
        child.wait()


def answers(url: str) -> bool:
    try:
        return ask(f"{url}/health").status == 200
    except OSError:
        return False


def check_bill(built: dict[str, Any], machine: Machine) -> None:
    """The modules in the program are those go itself reads out of it."""
    (artifact,) = (service["artifact"] for service in built["services"] if service["name"] == "backend")
    go = process.find("go")
    said = subprocess.run([str(go), "version", "-m", artifact], capture_output=True, text=True, check=True).stdout
    linked = {tuple(line.split("\t")[2:4]) for line in said.splitlines() if line.startswith("\tdep\t")}
    kept = json.loads((Path(artifact).parent / "artifact.json").read_text())["components"]
    assert {(name, version) for _, name, version, _, _ in kept if name != "stdlib"} == linked


def skopeo(*arguments: str, before: tuple[str, ...] = ()) -> str:
    argv = ["skopeo", "--insecure-policy", *before, *arguments]
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    return subprocess.run(argv, capture_output=True, text=True, check=True, env=environment).stdout


def test_what_cannot_be_built_is_said_with_the_remedy(machine: Machine, notes: Path, tmp_path: Path):
    root = tmp_path / "notes"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    flags = ("--name", "refused", "--monorepo", str(root))
    commit(root)
    assert "--backend-bin: api, migrate" in machine.run("build", *flags, code=3).stderr
    flags = (*flags, "--backend-bin", "api")
    said = machine.run("deploy", *flags, "--platform", OTHER, code=2).stderr
    assert f"the images are for {OTHER} only" in said

    (root / "backend/go.sum").write_text("")
    commit(root)
    said = machine.run("build", *flags, code=7).stderr
    assert "backend/go.sum is out of date: github.com/go-chi/chi/v5" in said
    assert f"go mod tidy in {root / 'backend'}" in said
    (root / "backend/go.sum").unlink()
    commit(root)
    assert "backend/go.sum does not exist" in machine.run("build", *flags, code=3).stderr
    (root / "backend/go.sum").write_text(FILES["backend/go.sum"])
    (root / "backend/go.mod").write_text(FILES["backend/go.mod"].replace("go 1.19", "go 1.99"))
    commit(root)
    assert "asks for Go 1.99, the dev shell has 1." in machine.run("build", *flags, code=6).stderr
