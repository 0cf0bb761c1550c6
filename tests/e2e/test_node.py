"""A Node backend in TypeScript, in an npm workspace with a package of its own and an addon: deployed and asked."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Machine, ask, commit, free_port, git
from tests.e2e.test_reproducible import somebody_elses_images

FILES = {
    "flake.nix": """{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
  outputs = { nixpkgs, ... }: {
    devShells = builtins.mapAttrs (system: pkgs: {
      default = pkgs.mkShell { packages = [ pkgs.nodejs ]; };
    }) nixpkgs.legacyPackages;
  };
}
""",
    ".gitignore": "node_modules\ndist\n*.tsbuildinfo\n",
    "package.json": json.dumps({"name": "mono", "private": True, "workspaces": ["api", "shared"]}),
    "shared/package.json": json.dumps({"name": "@mono/shared", "version": "1.0.0", "main": "index.js"}),
    "shared/index.js": "exports.greeting = 'hello';\n",
    "shared/index.d.ts": "export const greeting: string;\n",
    "api/package.json": json.dumps(
        {
            "name": "api",
            "version": "1.0.0",
            "scripts": {"build": "tsc", "start": "NODE_ENV=production node --enable-source-maps dist/server.js"},
            "dependencies": {"@mono/shared": "1.0.0", "bcrypt": "6.0.0", "fastify": "5.2.0"},
            "devDependencies": {"typescript": "5.7.2", "@types/node": "20.17.10", "@types/bcrypt": "5.0.2"},
        }
    ),
    "api/tsconfig.json": json.dumps(
        {
            "compilerOptions": {
                "target": "es2022",
                "module": "commonjs",
                "strict": True,
                "esModuleInterop": True,
                "rootDir": "src",
                "outDir": "dist",
                "sourceMap": True,
                "incremental": True,
                "tsBuildInfoFile": "node_modules/.tmp/tsconfig.tsbuildinfo",
            },
            "include": ["src"],
        }
    ),
    "api/src/server.ts": """
import fs from "node:fs";
import bcrypt from "bcrypt";
import Fastify from "fastify";
import { greeting } from "@mono/shared";
import { extra } from "./extra";

const app = Fastify();
app.get("/health", async () => ({}));
app.get("/api/notes", async () => ({
  says: greeting,
  extra,
  same: await bcrypt.compare("x", await bcrypt.hash("x", 4)),
  env: process.env.NODE_ENV,
  typescript: fs.existsSync("/app/src/node_modules/typescript"),
  npm: fs.existsSync("/app/bin/npm"),
}));
app.listen({ port: Number(process.env.PORT), host: process.env.HOST ?? "0.0.0.0" });
process.on("SIGTERM", () => app.close());
""",
    "api/src/extra.ts": 'export const extra = "one";\n',
}


@dataclass(frozen=True)
class Notes:
    """The workspace, deployed once; its lock file was written by the first deploy."""

    machine: Machine
    root: Path
    port: int

    @property
    def flags(self) -> tuple[str, ...]:
        return ("--name", "jsnotes", "--monorepo", str(self.root), "--port", str(self.port))

    def asked(self) -> Any:
        return json.loads(ask(f"http://127.0.0.1:{self.port}/api/notes").body)


@pytest.fixture(scope="module")
def notes(machine: Machine) -> Iterator[Notes]:
    root, port = machine.base / "js notes", free_port()
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    commit(root)
    flags = ("--name", "jsnotes", "--monorepo", str(root), "--port", str(port))
    refused = machine.run("deploy", *flags, code=3).stderr
    assert "package-lock.json does not exist" in refused
    machine.json("deploy", *flags, "--write-lock")
    commit(root)
    yield Notes(machine, root, port)
    machine.run("remove", "jsnotes")


def test_the_backend_runs_with_what_production_needs(notes: Notes):
    told = {"says": "hello", "extra": "one", "same": True, "env": "production", "typescript": False, "npm": False}
    assert notes.asked() == told
    assert git(notes.root, "status", "--porcelain", "--ignored") == "", "nothing was written into the monorepo"


def test_somebody_else_gets_the_same_image(notes: Notes, tmp_path: Path):
    images = (
        notes.machine.json("build", *notes.flags[:4])["images"],
        somebody_elses_images(notes.root, tmp_path, "--name", "jsnotes"),
    )
    ids = [{image["service"]: (image["image_id"], image["manifest_digest"]) for image in built} for built in images]
    assert ids[0] == ids[1]


def test_the_sbom_has_what_production_needs(notes: Notes):
    document = json.loads(notes.machine.run("sbom", "jsnotes", "backend").stdout)
    packages = {part.get("purl") or part["name"]: part for part in document["components"]}
    assert {"pkg:npm/fastify@5.2.0", "pkg:npm/bcrypt@6.0.0", "@mono/shared"} <= packages.keys()
    assert not any(name.startswith("pkg:npm/typescript@") for name in packages)


def test_a_workspace_that_is_gone_costs_no_download(notes: Notes):
    machine = notes.machine
    before = machine.json("build", *notes.flags[:4])["images"]
    machine.forget_builds("jsnotes")
    again = machine.json("build", *notes.flags[:4], "--offline")["images"]
    assert [image["image_id"] for image in again] == [image["image_id"] for image in before]


def test_two_builds_in_different_places_are_equal(notes: Notes):
    checked = notes.machine.run("build", *notes.flags[:4], "--check", "--offline")
    assert "backend\treproducible" in checked.stdout


def test_a_file_that_is_gone_from_the_sources_is_gone_from_the_image(notes: Notes):
    (notes.root / "README").write_text("The compiler has nothing to do, and all of dist/ is wanted again.")
    notes.machine.json("build", *notes.flags[:4])
    server, extra = notes.root / "api/src/server.ts", notes.root / "api/src/extra.ts"
    text = server.read_text()
    server.write_text(text.replace('import { extra } from "./extra";', 'const extra = "two";'))
    extra.unlink()
    result = notes.machine.json("deploy", *notes.flags)
    assert notes.asked()["extra"] == "two"
    backend = next(image for image in result["images"] if image["service"] == "backend")
    assert [layer["name"] for layer in backend["layers"] if layer["written"]] == ["application"]
    missing = notes.machine.run("exec", "jsnotes", "--service", "backend", "--", "/app/bin/node", "-e",
                                "require('/app/src/api/dist/extra.js')", code=1)  # fmt: skip
    assert "Cannot find module" in missing.stderr


def test_what_does_not_compile_is_said_and_the_old_release_serves(notes: Notes):
    source = notes.root / "api/src/server.ts"
    text = source.read_text()
    source.write_text(f"{text}\nconst wrong: number = 'text';\n")
    try:
        said = notes.machine.run("deploy", *notes.flags, code=7).stderr
    finally:
        source.write_text(text)
    assert "error TS2322" in said
    assert notes.asked()["says"] == "hello"


def test_a_build_that_does_not_give_what_is_to_run_is_said(notes: Notes):
    manifest = notes.root / "api/package.json"
    text = manifest.read_text()
    manifest.write_text(text.replace("dist/server.js", "dist/index.js"))
    try:
        said = notes.machine.run("deploy", *notes.flags, code=7).stderr
    finally:
        manifest.write_text(text)
    assert "did not give api/dist/index.js, which Node is to run" in said
