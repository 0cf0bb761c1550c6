"""The same commit gives the same images, whoever builds it where and when."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import LIMIT_SECONDS, PROGRAM, Machine, commit, git

FILES = {
    "backend/Cargo.toml": """\
[package]
name = "api"
version = "0.1.0"
edition = "2021"
build = "build.rs"
""",
    "backend/Cargo.lock": 'version = 3\n\n[[package]]\nname = "api"\nversion = "0.1.0"\n',
    "backend/build.rs": """\
use std::{env, process::Command};

fn run(program: &str, arguments: &[&str]) {
    assert!(Command::new(program).args(arguments).status().unwrap().success());
}

fn main() {
    let source = format!("{}/where.c", env::var("CARGO_MANIFEST_DIR").unwrap());
    let out = env::var("OUT_DIR").unwrap();
    let object = format!("{out}/where.o");
    run("cc", &["-g", "-O2", "-c", &source, "-o", &object]);
    run("ar", &["crs", &format!("{out}/libwhere.a"), &object]);
    println!("cargo:rustc-link-search=native={out}");
    println!("cargo:rustc-link-lib=static=where");
}
""",
    "backend/where.c": """\
#include <assert.h>
#include <time.h>

const char *where_it_was_built(int known) {
    assert(known);
    return __FILE__;
}
""",
    "backend/src/main.rs": """\
use std::{collections::HashMap, ffi::CStr, net::TcpListener, os::raw::c_char};

extern "C" {
    fn where_it_was_built(known: i32) -> *const c_char;
}

fn main() {
    let place = unsafe { CStr::from_ptr(where_it_was_built(1)) };
    let names: HashMap<&str, &str> = [("c", place.to_str().unwrap()), ("rust", file!())].into();
    let _listener = TcpListener::bind("0.0.0.0:3000").expect("port 3000");
    panic!("{names:?}");
}
""",
    "greet/package.json": '{"name": "greet", "version": "1.0.0", "type": "module", "main": "index.js"}',
    "greet/index.js": "export const greeting = 'hello';\n",
    "web/package.json": json.dumps(
        {
            "name": "web",
            "version": "1.0.0",
            "private": True,
            "scripts": {"build": "vite build"},
            "dependencies": {"greet": "file:../greet"},
            "devDependencies": {"vite": "file:vite"},
        }
    ),
    "web/package-lock.json": json.dumps(
        {
            "name": "web",
            "version": "1.0.0",
            "lockfileVersion": 3,
            "requires": True,
            "packages": {
                "": {
                    "name": "web",
                    "version": "1.0.0",
                    "dependencies": {"greet": "file:../greet"},
                    "devDependencies": {"vite": "file:vite"},
                },
                "../greet": {"version": "1.0.0"},
                "node_modules/greet": {"resolved": "../greet", "link": True},
                "node_modules/vite": {"resolved": "vite", "link": True},
                "vite": {"version": "5.0.0", "dev": True, "bin": {"vite": "vite.mjs"}},
            },
        }
    ),
    "web/vite/package.json": '{"name": "vite", "version": "5.0.0", "bin": {"vite": "vite.mjs"}}',
    "web/vite/vite.mjs": """\
#!/usr/bin/env node
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { greeting } from "../node_modules/greet/index.js";

const parts = readdirSync("src").map((name) => readFileSync(`src/${name}`, "utf8"));
const code = [`console.log(${JSON.stringify(greeting)});`, ...parts].join("\\n").repeat(40);
const hash = createHash("sha256").update(code).digest("base64url").slice(0, 7) + "1";
mkdirSync("dist/assets", { recursive: true });
writeFileSync(`dist/assets/index-${hash}.js`, code);
const page = readFileSync("index.html", "utf8").replace("/src/main.js", `/assets/index-${hash}.js`);
writeFileSync("dist/index.html", page);
""",
    "web/index.html": '<!doctype html><title>small</title><script type="module" src="/src/main.js"></script>\n',
    **{f"web/src/{name}.js": f"console.log({name!r});\n" for name in ("main", "b", "a", "ä", "Z")},
}


HABITS = (("USER", "somebody"), ("LANG", "de_DE.UTF-8"), ("LC_ALL", "tr_TR.UTF-8"), ("TZ", "Asia/Kathmandu"))


@dataclass(frozen=True)
class Builder(Machine):
    """Somebody with habits of their own."""

    own: tuple[tuple[str, str], ...] = ()
    umask: int = 0o022

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, **dict(self.own)}

    def build(self, root: Path, *flags: str) -> Any:
        done = subprocess.run(
            [PROGRAM, "build", "--name", "small", "--json", *flags],
            env={**self.environment, "ORCHESTRATOR_MONOREPO": str(root)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_SECONDS,
            umask=self.umask,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("origin") / "small"
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    (root / "web/vite/vite.mjs").chmod(0o755)
    commit(root)
    return root


@contextmanager
def builder(base: Path, **habits: Any) -> Iterator[Builder]:
    (base / "home").mkdir(parents=True)
    made = Builder(base, **habits)
    try:
        yield made
    finally:
        made.remove_everything()


def clone(origin: Path, target: Path, *, umask: int, time: int) -> Path:
    """A clone made under a umask; `time` (seconds) becomes every file's mtime, latest names first."""
    before = os.umask(umask)
    try:
        git(origin, "clone", "--quiet", "--no-hardlinks", str(origin), str(target))
        for name in sorted(git(target, "ls-files", "-z").split("\0"), reverse=True):
            if name:
                content = (target / name).read_bytes()
                mode = (target / name).stat().st_mode
                (target / name).unlink()
                (target / name).write_bytes(content)
                (target / name).chmod(mode & ~umask)
                os.utime(target / name, (time, time))
    finally:
        os.umask(before)
    return target


def somebody_elses_images(origin: Path, base: Path, *flags: str) -> list[Any]:
    """What somebody with other habits gets of another clone, from nothing."""
    root = clone(origin, base / "deeply nested ü" / "two", umask=0o027, time=1_700_000_000)
    with builder(base / "another-place", own=HABITS, umask=0o077) as somebody:
        return list(somebody.build(root, *flags)["images"])


def test_two_clones_give_the_same_images(origin: Path, tmp_path: Path) -> None:
    one = clone(origin, tmp_path / "one", umask=0o022, time=1_000_000_000)
    with builder(tmp_path / "a") as first:
        images = first.build(one, "--jobs", "1")["images"]
    assert [image["service"] for image in images] == ["web", "gate", "backend"]
    ids = [
        [(image["image_id"], image["manifest_digest"]) for image in built]
        for built in (images, somebody_elses_images(origin, tmp_path))
    ]
    assert ids[0] == ids[1]


def test_check_shows_the_first_difference(origin: Path, tmp_path: Path) -> None:
    root = clone(origin, tmp_path / "checked", umask=0o022, time=1_000_000_000)
    with builder(tmp_path / "machine") as somebody:
        flags = ("build", "--name", "small", "--monorepo", str(root), "--check")
        assert [service["name"] for service in somebody.json(*flags)["services"]] == ["frontend", "backend"]
        page = root / "web/vite/vite.mjs"
        page.write_text(page.read_text().replace('"/src/main.js", `', '"/src/main.js", `/${process.hrtime.bigint()}'))
        error = somebody.json(*flags, code=14)["error"]
        assert "frontend: two builds of the same sources differ, first in index.html" in error["message"]
        assert any(line.startswith("-<!doctype html>") for line in error["details"])
        assert not list((somebody.base / "cache" / "check").rglob("target"))
