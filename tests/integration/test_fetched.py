"""What cargo fetched, kept in the store: real cargo and real git against registries and servers on loopback."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.build.cache.index import FetchedEntry, Index
from orchestrator.build.service import ServiceBuild
from orchestrator.events import Event, Line, Note
from orchestrator.tools.nix import Nix
from tests.integration import test_build
from tests.integration.crates import CrateRegistry, serving_crates
from tests.integration.test_build import backend, build, private_store, put

toolchain = test_build.toolchain


@pytest.fixture
def registry() -> Iterator[CrateRegistry]:
    with serving_crates() as served:
        publish_both(served)
        yield served


def publish_both(registry: CrateRegistry) -> None:
    registry.publish("leaf", "1.0.0", "pub fn leaf() -> u32 { 40 }\n")
    registry.publish(
        "middle", "1.0.0", "pub fn middle() -> u32 { leaf::leaf() + 1 }\n", needs={"leaf": "1.0.0"},
        build='fn main() { println!("cargo:rerun-if-changed=build.rs"); }',
    )  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("CARGO_HOME", "SSH_AUTH_SOCK", "GIT_SSH_COMMAND", "GIT_SSH"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def repo(tmp_path: Path, home: Path, registry: CrateRegistry) -> Path:
    """An application that needs `middle`, which needs `leaf`, from the user's registry called own."""
    put(home, ".cargo/config.toml", f'[registries.own]\nindex = "{registry.url}"\n')
    return write_app(tmp_path / "repo", 'middle = { version = "1.0.0", registry = "own" }')


def write_app(root: Path, dependency: str) -> Path:
    put(root, "Cargo.toml", '[workspace]\nmembers = ["app"]\nresolver = "2"\n')
    put(root, "app/Cargo.toml", '[package]\nname = "app"\nversion = "1.0.0"\nedition = "2021"\n'
        f"[dependencies]\n{dependency}\n")  # fmt: skip
    put(root, "app/src/main.rs", 'fn main() { println!("{}", middle::middle()); }\n')
    return root


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path / "cache/cache", Nix(Path(shutil.which("nix") or "nix"), (2, 8), private_store(tmp_path)))


def made(repo: Path, events: list[Event] | None = None, **settings: object) -> ServiceBuild:
    return build(repo, backend(), events=events, **({"cache_dir": repo.parent / "cache"} | settings)).services[0]


def said(service: ServiceBuild) -> str:
    return subprocess.run([service.artifact], capture_output=True, check=True, text=True).stdout.strip()


def forget(tmp_path: Path, *others: str) -> None:
    """Remove the workspaces and the finished artifacts: what is left is the store."""
    for name in ("artifacts", "workspaces", *others):
        shutil.rmtree(tmp_path / "cache" / name, ignore_errors=True)


def warnings(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Note) and event.level == "warning"]


def test_nothing_is_fetched_again_when_the_workspace_is_gone(repo: Path, tmp_path: Path, registry: CrateRegistry):
    first = made(repo, write_lock=True)
    assert (said(first), sorted(registry.downloads)) == ("41", ["leaf/1.0.0", "middle/1.0.0"])
    forget(tmp_path)
    registry.requests.clear()
    events: list[Event] = []
    again = made(repo, events)
    assert (again.compiled_units, said(again), registry.requests, warnings(events)) == (0, "41", [], [])
    assert again.artifact.read_bytes() == first.artifact.read_bytes()


def test_without_any_network_after_the_workspaces_are_gone(repo: Path, tmp_path: Path, registry: CrateRegistry):
    made(repo, write_lock=True)
    forget(tmp_path)
    registry.answers["/"] = 500
    registry.requests.clear()
    put(repo, "app/src/main.rs", 'fn main() { println!("new {}", middle::middle()); }\n')
    again = made(repo, offline=True)
    assert (again.compiled_units, said(again), registry.requests) == (1, "new 41", [])
