"""A monorepo of what cargo projects are made of: C from a registry, git dependencies, submodules, odd names, loops.

What the random edits of the oracle change is not repeated here. One workspace serves all cases, in their order.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from orchestrator.build import runner
from orchestrator.build.runner import run_builds
from orchestrator.build.service import ServiceBuild
from orchestrator.events import Event, Note
from orchestrator.plan import BuildPlan, Plan, WebPlan
from orchestrator.process import Cancel
from orchestrator.recipes import Step
from orchestrator.settings import Settings
from tests.integration.test_build import backend, cargo_directory, open_host, put

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="cc is not installed")

GIT = ("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "protocol.file.allow=always")
FILES = {
    "backend/Cargo.toml": '[workspace]\nmembers = ["app", "native"]\nresolver = "2"\n',
    "backend/app/Cargo.toml": """\
[package]
name = "app"
version = "1.0.0"
edition = "2021"
[features]
default = ["loud"]
loud = ["native/loud"]
[dependencies]
native = { path = "../native", default-features = false }
shared = { path = "../../shared" }
vendored = { path = "../../vendor/module" }
remote = { git = "@remote@" }
libz-sys = { version = "=1.1.22", default-features = false, features = ["libc", "static"] }
""",
    "backend/app/src/main.rs": """\
extern "C" { fn place() -> *const std::ffi::c_char; }
#[path = "größe und so.rs"]
mod size;
fn main() {
    let place = unsafe { std::ffi::CStr::from_ptr(place()) }.to_str().unwrap();
    let zlib = unsafe { std::ffi::CStr::from_ptr(libz_sys::zlibVersion()) }.to_str().unwrap();
    println!("{place} {zlib} {} {} {} {} {}", native::VOICE, shared::WHERE, vendored::NAME, remote::NAME, size::SIZE);
    if std::env::args().count() > 1 { shared::fail(); native::fail(); remote::fail(); vendored::fail() }
}
""",
    "backend/app/src/größe und so.rs": "pub const SIZE: &str = include_str!(\"größe $(x) '1'.txt\");\n",
    "backend/app/src/größe $(x) '1'.txt": "big",
    "backend/native/Cargo.toml": """\
[package]
name = "native"
version = "1.0.0"
edition = "2021"
[features]
loud = []
[build-dependencies]
cc = "=1.2.30"
""",
    "backend/native/build.rs": """\
fn main() {
    println!("cargo:rerun-if-changed=place.c");
    cc::Build::new().file(format!("{}/place.c", env!("CARGO_MANIFEST_DIR"))).compile("place");
}
""",
    "backend/native/place.c": "const char *place(void) { return __FILE__; }\n",
    "backend/native/src/lib.rs": """\
pub const VOICE: &str = if cfg!(feature = "loud") { "LOUD" } else { "quiet" };
pub fn fail() { panic!("native fails") }
""",
    "shared/Cargo.toml": '[package]\nname = "shared"\nversion = "1.0.0"\nedition = "2021"\n[workspace]\n',
    "shared/src/lib.rs": 'pub const WHERE: &str = file!();\npub fn fail() { panic!("shared fails") }\n',
}


def library(name: str) -> dict[str, str]:
    """A crate that is a repository of its own."""
    return {
        "Cargo.toml": f'[package]\nname = "{name}"\nversion = "1.0.0"\nedition = "2021"\n[workspace]\n',
        "src/lib.rs": f'pub const NAME: &str = "{name} one";\npub fn fail() {{ panic!("{name} fails") }}\n',
    }


def git(root: Path, *arguments: str) -> None:
    subprocess.run([*GIT, "-C", root, *arguments], check=True, capture_output=True)


def repository(root: Path, files: dict[str, str]) -> Path:
    for path, content in files.items():
        put(root, path, content)
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "x")
    return root


@contextmanager
def git_server(base: Path) -> Iterator[str]:
    """The address of a git daemon that serves the repositories below `base`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ["--export-all", f"--base-path={base}", "--listen=127.0.0.1", f"--port={port}", "--reuseaddr"]
    with subprocess.Popen(["git", "daemon", *arguments], stderr=subprocess.DEVNULL, start_new_session=True) as daemon:
        try:
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield f"git://127.0.0.1:{port}"
        finally:
            os.killpg(daemon.pid, signal.SIGTERM)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("projects")


@pytest.fixture(scope="module")
def mono(base: Path) -> Iterator[Path]:
    """The monorepo, with its lock file, and the server its git dependency comes from."""
    repository(base / "served/remote", library("remote"))
    module = repository(base / "module", library("vendored"))
    root = base / "mono repo"
    with git_server(base / "served") as address:
        for path, content in FILES.items():
            put(root, path, content.replace("@remote@", f"{address}/remote"))
        for path, target in {"docs/loop": "..", "docs/ring": "gnir", "docs/gnir": "ring", "self": "self"}.items():
            (root / path).parent.mkdir(exist_ok=True)
            (root / path).symlink_to(target)
        git(root, "init", "-q")
        git(root, "submodule", "--quiet", "add", str(module), "vendor/module")
        environment = dict(os.environ) | {"PATH": f"{cargo_directory()}:{os.environ['PATH']}"}
        argv = ["cargo", "generate-lockfile", "--quiet"]
        subprocess.run(argv, cwd=root / "backend", env=environment, check=True)
        git(root, "add", "-A")
        yield root


def plan() -> BuildPlan:
    directory = PurePosixPath("backend")
    usual = backend()
    steps = tuple(Step(step.name, step.argv, directory, network=step.network) for step in usual.steps)
    return replace(usual, directory=directory, lock_file=directory / "Cargo.lock", steps=steps)


@pytest.fixture
def build(base: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runner, "open_toolchain", lambda *_, **__: open_host(base))
    monkeypatch.setattr(runner, "web_server", lambda *_, **__: Path("/nix/store/nginx"))

    def run(root: Path, events: list[Event] | None = None) -> ServiceBuild:
        shutil.rmtree(base / "cache/artifacts", ignore_errors=True)
        settings = Settings(name="app", monorepo=root, cache_dir=base / "cache", state_dir=base / "state")
        whole = Plan("app", (plan(),), WebPlan(None, False, None), None)
        emit = (events if events is not None else []).append
        return run_builds(settings, root, whole, emit=emit, cancel=Cancel()).services[0]

    return run


def said(built: ServiceBuild, *arguments: str) -> str:
    done = subprocess.run([built.artifact, *arguments], capture_output=True, check=False, text=True)
    return done.stdout.strip() + done.stderr


def test_everything_is_built_and_no_path_of_ours_is_in_the_binary(mono: Path, base: Path, build):
    events: list[Event] = []
    built = build(mono, events)
    shown = r"/src/backend/native/place\.c 1\.3\.1 LOUD \S*shared/src/lib\.rs vendored one remote one big"
    assert re.fullmatch(shown, said(built))
    assert "shared fails" in said(built, "fail")
    content = built.artifact.read_bytes()
    ours = rb"[ -~]*(?:(?<!\w)/build/|%s)[ -~]*" % re.escape(os.fsencode(base))
    leaks = re.findall(ours, content)
    assert leaks == []
    assert [event.text for event in events if isinstance(event, Note) and event.level == "warning"] == []


def test_a_clone_elsewhere_compiles_nothing_and_is_the_same(mono: Path, base: Path, build):
    before = build(mono).artifact.read_bytes()
    clone = base / "elsewhere" / "clone"
    shutil.copytree(mono, clone, symlinks=True)
    shutil.rmtree(base / "cache/workspaces/app/backend/target")
    (base / "cache/workspaces/app/backend/target.json").unlink()
    again = build(clone)
    assert (again.compiled_units, again.artifact.read_bytes()) == (0, before)


@pytest.mark.parametrize(
    ("path", "change", "shown"),
    [
        ("vendor/module/src/lib.rs", ("vendored one", "vendored two"), "vendored two"),
        ("shared/src/lib.rs", ("file!()", '"elsewhere"'), "elsewhere"),
        ("backend/app/src/größe $(x) '1'.txt", ("big", "small"), "small"),
        ("backend/native/place.c", ("__FILE__", '"nowhere"'), "nowhere"),
        ("backend/app/Cargo.toml", ('default = ["loud"]', "default = []"), "quiet"),
    ],
)
def test_a_change_is_seen_wherever_it_is(mono: Path, build, path: str, change: tuple[str, str], shown: str):
    content = (mono / path).read_text()
    (mono / path).write_text(content.replace(*change))
    os.utime(mono / path, (1, 1))
    try:
        assert re.search(rf"(?<!\S){shown}(?!\S)", said(build(mono)))
    finally:
        (mono / path).write_text(content)


def test_a_git_dependency_moves_on_with_the_lock_file(mono: Path, base: Path, build):
    served = base / "served/remote"
    put(served, "src/lib.rs", (served / "src/lib.rs").read_text().replace("remote one", "remote two"))
    git(served, "commit", "-q", "-a", "-m", "two")
    assert "remote one" in said(build(mono))
    commit = subprocess.run(["git", "-C", served, "rev-parse", "HEAD"], capture_output=True, check=True, text=True)
    lock = (mono / "backend/Cargo.lock").read_text()
    put(mono, "backend/Cargo.lock", re.sub(r"(/remote)#\w+", rf"\1#{commit.stdout.strip()}", lock))
    built = build(mono)
    assert "remote two" in said(built)
    assert built.compiled_units == 2
