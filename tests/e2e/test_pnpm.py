"""A pnpm workspace: a Vite page that uses a package of the monorepo and packages of the registry."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator import process
from tests.e2e.conftest import Machine, ask, commit, free_port, git

pytestmark = pytest.mark.skipif(process.find("pnpm") is None, reason="pnpm is not installed")

FILES = {
    "flake.nix": """{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
  outputs = { nixpkgs, ... }: {
    devShells = builtins.mapAttrs (system: pkgs: {
      default = pkgs.mkShell { packages = [ pkgs.nodejs pkgs.pnpm ]; };
    }) nixpkgs.legacyPackages;
  };
}
""",
    ".gitignore": "node_modules\ndist\n",
    "package.json": '{"name": "mono", "private": true, "packageManager": "pnpm@9.1.0"}',
    # Which package may run scripts is said in one way to pnpm 10 and in another to later ones.
    "pnpm-workspace.yaml": 'packages: ["packages/*"]\nonlyBuiltDependencies: [esbuild]\nallowBuilds: {esbuild: true}\n',
    "packages/ui/package.json": json.dumps(
        {
            "name": "@mono/ui",
            "version": "0.1.0",
            "type": "module",
            "main": "index.js",
            "dependencies": {"clsx": "2.1.1"},
        }
    ),
    "packages/ui/index.js": 'import { clsx } from "clsx";\nexport const title = (name) => clsx("from-the-ui", name);\n',
    "packages/web/package.json": json.dumps(
        {
            "name": "web",
            "private": True,
            "type": "module",
            "scripts": {"build": "vite build"},
            "dependencies": {"@mono/ui": "workspace:*", "nanoid": "5.0.7", "older": "npm:nanoid@3.3.7"},
            "devDependencies": {"vite": "5.4.11"},
        }
    ),
    "packages/web/index.html": '<!doctype html><title>x</title><script type="module" src="/src/main.js"></script>\n',
    "packages/web/src/main.js": 'import { title } from "@mono/ui";\nimport { nanoid } from "nanoid";\n'
    "document.title = title(nanoid());\n",
}


@dataclass(frozen=True)
class Workspace:
    """The monorepo, deployed once; its lock file was written by the first deploy."""

    machine: Machine
    root: Path
    port: int
    first: Any

    @property
    def flags(self) -> tuple[str, ...]:
        return ("--name", "pnpm", "--monorepo", str(self.root), "--port", str(self.port))


@pytest.fixture(scope="module")
def workspace(machine: Machine) -> Iterator[Workspace]:
    root, port = machine.base / "pnpm", free_port()
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    commit(root)
    flags = ("--name", "pnpm", "--monorepo", str(root), "--port", str(port))
    refused = machine.run("deploy", *flags, code=3).stderr
    assert "pnpm-lock.yaml does not exist" in refused
    assert git(root, "status", "--porcelain") == ""
    first = machine.json("deploy", *flags, "--write-lock")
    commit(root)
    yield Workspace(machine, root, port, first)
    machine.run("remove", "pnpm")


def script_of(port: int) -> str:
    page = ask(f"http://127.0.0.1:{port}/").body.decode()
    return ask(f"http://127.0.0.1:{port}" + page.partition('src="')[2].partition('"')[0]).body.decode()


def test_the_page_has_the_code_of_both_packages(workspace: Workspace):
    assert workspace.first["changed"] is True
    assert "from-the-ui" in script_of(workspace.port)
    assert git(workspace.root, "status", "--porcelain", "--ignored") == "", "nothing else was written"


def test_the_committed_lock_changes_nothing(workspace: Workspace):
    assert workspace.machine.json("deploy", *workspace.flags)["changed"] is False


def test_the_sbom_has_what_is_installed_for_production(workspace: Workspace):
    document = json.loads(workspace.machine.run("sbom", "pnpm", "web").stdout)
    packages = {part.get("purl") or part["name"]: part for part in document["components"]}
    found = {name for name in packages if name.startswith(("pkg:npm/", "@mono"))}
    assert found == {"pkg:npm/clsx@2.1.1", "pkg:npm/nanoid@3.3.7", "pkg:npm/nanoid@5.0.7", "@mono/ui"}
    assert packages["pkg:npm/clsx@2.1.1"]["licenses"] == [{"expression": "MIT"}]


def test_a_workspace_that_is_gone_costs_no_download(workspace: Workspace):
    machine = workspace.machine
    before = machine.json("build", *workspace.flags[:4])["images"]
    machine.forget_builds("pnpm")
    again = machine.json("build", *workspace.flags[:4], "--offline")["images"]
    assert [image["image_id"] for image in again] == [image["image_id"] for image in before]


def test_two_builds_in_different_places_are_equal(workspace: Workspace):
    checked = workspace.machine.run("build", *workspace.flags[:4], "--check", "--offline").stdout
    assert "frontend\treproducible" in checked


def test_a_lock_file_that_does_not_fit_is_said_and_the_old_page_stays(workspace: Workspace):
    manifest = workspace.root / "packages/web/package.json"
    text = manifest.read_text()
    manifest.write_text(text.replace("5.0.7", "5.0.9"))
    try:
        said = workspace.machine.run("deploy", *workspace.flags, code=7).stderr
    finally:
        manifest.write_text(text)
    assert "ERR_PNPM_OUTDATED_LOCKFILE" in said and "nanoid" in said
    assert "from-the-ui" in script_of(workspace.port)
