"""Python backends: a uv workspace with packages in C, deployed and asked; a list of requirements in one container."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator import process
from tests.e2e.conftest import Machine, ask, commit, free_port, git
from tests.e2e.test_reproducible import somebody_elses_images

pytestmark = pytest.mark.skipif(process.find("uv") is None, reason="uv is not installed")

FLAKE = """{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
  outputs = { nixpkgs, ... }: {
    devShells = builtins.mapAttrs (system: pkgs: {
      default = pkgs.mkShell { packages = [ pkgs.python3 pkgs.uv ]; };
    }) nixpkgs.legacyPackages;
  };
}
"""

NOTES = {
    "flake.nix": FLAKE,
    ".gitignore": ".venv\n__pycache__\n",
    "pyproject.toml": """
[project]
name = "mono"
version = "0"
requires-python = ">=3.9"

[tool.uv]
no-binary-package = ["markupsafe"]

[tool.uv.workspace]
members = ["api", "greeting"]
""",
    "api/pyproject.toml": """
[project]
name = "notes"
version = "0"
requires-python = ">=3.9"
dependencies = ["fastapi==0.115.6", "uvicorn==0.34.0", "greenlet==3.1.1", "markupsafe==3.0.2", "greeting"]

[dependency-groups]
dev = ["iniconfig==2.0.0"]

[tool.uv.sources]
greeting = { workspace = true }
""",
    "api/main.py": """
import sys
from importlib import metadata

import greenlet
import markupsafe._speedups
from fastapi import FastAPI
from greeting import hello

app = FastAPI()


@app.get("/health")
def health():
    return {}


@app.get("/api/notes")
def notes():
    installed = sorted(found.metadata["Name"] for found in metadata.distributions())
    code = health.__code__.co_filename
    return {"says": hello(), "prefix": sys.prefix, "installed": installed, "file": __file__, "code": code}
""",
    "api/tests/test_main.py": "raise SystemExit('not for an image')\n",
    "greeting/pyproject.toml": """
[project]
name = "greeting"
version = "1.0"

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
""",
    "greeting/src/greeting/__init__.py": "def hello():\n    return 'hello'\n",
}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    commit(root)
    return root


@dataclass(frozen=True)
class Notes:
    """The workspace, deployed once; its lock file was written by the first deploy."""

    machine: Machine
    root: Path
    port: int
    first: Any

    @property
    def flags(self) -> tuple[str, ...]:
        return ("--name", "pynotes", "--monorepo", str(self.root), "--port", str(self.port))

    def asked(self) -> Any:
        return json.loads(ask(f"http://127.0.0.1:{self.port}/api/notes").body)


@pytest.fixture(scope="module")
def notes(machine: Machine) -> Iterator[Notes]:
    root, port = write(machine.base / "py notes", NOTES), free_port()
    flags = ("--name", "pynotes", "--monorepo", str(root), "--port", str(port))
    refused = machine.run("deploy", *flags, code=3).stderr
    assert "uv.lock does not exist" in refused and "run: uv lock" in refused
    first = machine.json("deploy", *flags, "--write-lock")
    commit(root)
    yield Notes(machine, root, port, first)
    machine.run("remove", "pynotes")


def test_the_backend_runs_with_its_packages_and_nothing_else(notes: Notes):
    told = notes.asked()
    assert (told["says"], told["prefix"], told["file"]) == ("hello", "/app", "/app/src/main.py")
    assert told["code"] == "/app/src/main.py", "bytecode was compiled for where it runs"
    assert {"fastapi", "greeting", "greenlet", "MarkupSafe"} <= set(told["installed"])
    assert not {"iniconfig", "pip", "setuptools", "notes", "mono"} & set(told["installed"])
    assert git(notes.root, "status", "--porcelain", "--ignored") == "", "nothing was written into the monorepo"


def test_the_image_has_one_interpreter_and_no_tool(notes: Notes):
    tree = notes.machine.run("images", "explain", "pynotes", "backend").stdout
    assert "python3" in tree and "bash" not in tree
    backend = next(
        image for image in notes.machine.json("images", "pynotes")["images"] if image["service"] == "backend"
    )
    assert sum(layer["size"] for layer in backend["layers"]) < 80_000_000


def test_both_assemblers_give_the_same_image(notes: Notes):
    images = []
    for assembler in ("oci", "podman"):
        built = notes.machine.json("build", *notes.flags[:4], "--assembler", assembler)["images"]
        images.append(next(image["image_id"] for image in built if image["service"] == "backend"))
    ours, theirs = (json.loads(notes.machine.engine("image", "inspect", image))[0]["Config"] for image in images)
    assert ours["WorkingDir"] == theirs["WorkingDir"] == "/app/src"
    assert ours["Entrypoint"] == theirs["Entrypoint"] and sorted(ours["Env"]) == sorted(theirs["Env"])
    assert notes.machine.listing(images[0]) == notes.machine.listing(images[1])


def test_somebody_else_gets_the_same_image(notes: Notes, tmp_path: Path):
    images = (
        notes.machine.json("build", *notes.flags[:4])["images"],
        somebody_elses_images(notes.root, tmp_path, "--name", "pynotes"),
    )
    ids = [{image["service"]: (image["image_id"], image["manifest_digest"]) for image in built} for built in images]
    assert ids[0] == ids[1]


def test_the_sbom_has_what_is_installed(notes: Notes):
    document = json.loads(notes.machine.run("sbom", "pynotes", "backend").stdout)
    packages = {part.get("purl") or part["name"]: part for part in document["components"]}
    assert {"pkg:pypi/fastapi@0.115.6", "pkg:pypi/markupsafe@3.0.2", "greeting"} <= packages.keys()
    assert packages["pkg:pypi/anyio@4.16.0" if "pkg:pypi/anyio@4.16.0" in packages else "pkg:pypi/h11@0.16.0"][
        "licenses"
    ]


def test_a_workspace_that_is_gone_costs_no_download(notes: Notes):
    machine = notes.machine
    before = machine.json("build", *notes.flags[:4])["images"]
    machine.forget_builds("pynotes")
    again = machine.json("build", *notes.flags[:4], "--offline")["images"]
    assert [image["image_id"] for image in again] == [image["image_id"] for image in before]


def test_two_builds_in_different_places_are_equal(notes: Notes):
    """Without the network, so with the downloads of the first deploy; the package in C is compiled both times."""
    checked = notes.machine.run("build", *notes.flags[:4], "--check", "--offline")
    assert "backend\treproducible" in checked.stdout


def test_a_changed_package_of_the_monorepo_is_live_and_only_its_layer_is_new(notes: Notes):
    source = notes.root / "greeting/src/greeting/__init__.py"
    source.write_text(source.read_text().replace("'hello'", "'good evening'"))
    result = notes.machine.json("deploy", *notes.flags)
    assert notes.asked()["says"] == "good evening"
    backend = next(image for image in result["images"] if image["service"] == "backend")
    assert [layer["name"] for layer in backend["layers"] if layer["written"]] == ["application"]


def test_a_lock_file_that_does_not_fit_is_said_and_the_old_release_serves(notes: Notes):
    manifest = notes.root / "api/pyproject.toml"
    text = manifest.read_text()
    manifest.write_text(text.replace("uvicorn==0.34.0", "uvicorn==0.34.1"))
    try:
        said = notes.machine.run("deploy", *notes.flags, code=7).stderr
    finally:
        manifest.write_text(text)
    assert "uv.lock is out of date" in said and "run: uv lock in" in said
    assert notes.asked()["prefix"] == "/app"


SHOP = {
    "flake.nix": FLAKE,
    "app.py": """
import os

import psycopg2
from flask import Flask, jsonify


def create_app():
    app = Flask(__name__)

    @app.get("/healthz")
    def healthz():
        return "ok"

    @app.get("/api/port")
    def port():
        return jsonify([os.environ["PORT"], psycopg2.__libpq_version__ > 0])

    return app
""",
    "requirements.txt": """
blinker==1.9.0
click==8.1.8
flask==3.1.0
gunicorn==23.0.0
itsdangerous==2.2.0
jinja2==3.1.5
markupsafe==3.0.2
packaging==24.2
psycopg2-binary==2.9.10
werkzeug==3.1.3
""",
}


def test_requirements_and_a_factory_in_one_container(machine: Machine):
    """psycopg2-binary brings libraries that find each other only when its module loads them."""
    root, port = write(machine.base / "shop", SHOP), free_port()
    flags = ("--name", "pyshop", "--monorepo", str(root), "--port", str(port), "--layout", "single")
    try:
        assert machine.json("deploy", *flags)["changed"] is True
        assert json.loads(ask(f"http://127.0.0.1:{port}/api/port").body) == ["3000", True]
        requirements = root / "requirements.txt"
        requirements.write_text(requirements.read_text().replace("werkzeug==3.1.3\n", ""))
        said = machine.run("deploy", *flags, code=7).stderr
        assert "requirements.txt is not complete: flask requires werkzeug" in said
        assert ask(f"http://127.0.0.1:{port}/healthz").body == b"ok"
    finally:
        machine.run("remove", "pyshop")
