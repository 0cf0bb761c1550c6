"""What cargo fetched, kept in the store: real cargo and real git against registries and servers on loopback."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.build.cache import layers
from orchestrator.build.cache.index import FetchedEntry, Index
from orchestrator.build.cache.prune import prune_all
from orchestrator.build.cache.verify import require_same, verify_builds
from orchestrator.build.runner import run_builds
from orchestrator.build.service import ServiceBuild
from orchestrator.cli.cache import cache
from orchestrator.events import Event, Note
from orchestrator.plan import Plan, WebPlan
from orchestrator.process import Cancel
from orchestrator.settings import Settings
from orchestrator.tools.nix import Nix
from tests.integration import test_build
from tests.integration.crates import CrateRegistry, serving_crates
from tests.integration.test_build import backend, build, private_store, put
from tests.integration.test_cache_builds import SCRIPT

toolchain = test_build.toolchain

KILLS = int(os.environ.get("FETCH_KILLS", "3"))


@pytest.fixture
def registry() -> Iterator[CrateRegistry]:
    with serving_crates() as served:
        publish_both(served)
        yield served


def publish_both(registry: CrateRegistry) -> None:
    registry.publish("leaf", "1.0.0", "pub fn leaf() -> u32 { 40 }\n")
    registry.publish("middle", "1.0.0", "pub fn middle() -> u32 { leaf::leaf() + 1 }\n", needs={"leaf": "1.0.0"})


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
    put(root, "Cargo.toml", '[workspace]\nmembers = ["app"]\nresolver = "2"\n[profile.release]\nopt-level = 0\n')
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


def newest(index: Index) -> FetchedEntry:
    return max(index.entries(FetchedEntry), key=lambda entry: entry.created)


def warnings(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Note) and event.level == "warning"]


def test_nothing_is_fetched_again_when_the_workspace_is_gone(repo: Path, tmp_path: Path, registry: CrateRegistry):
    """Unpacked anew, crates with build scripts that watch files are as fresh as the others."""
    script = 'fn main() { println!("cargo:rerun-if-changed=build.rs"); }'
    needs = {"leaf": "1.0.0"}
    registry.publish("middle", "1.0.1", "pub fn middle() -> u32 { leaf::leaf() + 1 }\n", needs=needs, build=script)
    first = made(repo, write_lock=True)
    assert (said(first), sorted(registry.downloads)) == ("41", ["leaf/1.0.0", "middle/1.0.1"])
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


def test_a_new_version_of_one_crate_adds_that_crate_alone(
    repo: Path, tmp_path: Path, registry: CrateRegistry, index: Index
):
    made(repo, write_lock=True)
    first = newest(index)
    lock = (repo / "Cargo.lock").read_text()
    old = hashlib.sha256(registry.crates["leaf/1.0.0"]).hexdigest()
    new = registry.publish("leaf", "1.0.1", "pub fn leaf() -> u32 { 50 }\n")
    registry.requests.clear()
    put(repo, "Cargo.lock", lock.replace('"leaf"\nversion = "1.0.0"', '"leaf"\nversion = "1.0.1"').replace(old, new))
    forget(tmp_path)
    assert (said(made(repo)), registry.downloads) == ("51", ["leaf/1.0.1"])
    later = newest(index)
    assert later.layers[:-1] == first.layers and later.own_size < first.size
    crates = [path.name for path in Path(later.layers[-1]).rglob("*.crate")]
    assert crates == ["leaf-1.0.1.crate"]
    forget(tmp_path)
    registry.requests.clear()
    put(repo, "Cargo.lock", lock)
    assert (said(made(repo)), registry.requests) == ("41", []), "both lock files have their entry"


def test_applications_share_what_they_have_in_common(repo: Path, tmp_path: Path, registry: CrateRegistry, index: Index):
    registry.publish("other", "1.0.0", "pub fn middle() -> u32 { leaf::leaf() }\n", needs={"leaf": "1.0.0"})
    made(repo, write_lock=True)
    registry.requests.clear()
    second = write_app(tmp_path / "second", 'middle = { package = "other", version = "1.0.0", registry = "own" }')
    settings = Settings(
        name="second", monorepo=second, cache_dir=tmp_path / "cache", state_dir=tmp_path / "state", write_lock=True
    )
    plan = Plan("second", (backend(),), WebPlan(None, False, None), None)
    run_builds(settings, second, plan, emit=lambda event: None, cancel=Cancel())
    assert registry.downloads == ["other/1.0.0"]
    ours, theirs = (entry for entry in sorted(index.entries(FetchedEntry), key=lambda entry: entry.created))
    assert theirs.app == "second" and theirs.layers[:-1] == ours.layers
    assert {path.name for path in Path(theirs.layers[-1]).rglob("*.crate")} == {"other-1.0.0.crate"}


@pytest.mark.parametrize("damage", ["content", "manifest", "collected"])
def test_a_damaged_entry_is_fetched_again_and_kept_again(
    repo: Path, tmp_path: Path, registry: CrateRegistry, index: Index, damage: str
):
    made(repo, write_lock=True)
    layer = Path(newest(index).layers[0])
    if damage == "collected":
        shutil.rmtree(index.directory / "roots")
        index.nix.store("--gc")
    else:
        subprocess.run(["chmod", "-R", "u+w", layer], check=True)
    if damage == "content":
        next(layer.rglob("leaf-1.0.0.crate")).write_bytes(b"another user's")
    elif damage == "manifest":
        (layer / "manifest.json").write_text("{")
    forget(tmp_path)
    registry.requests.clear()
    events: list[Event] = []
    assert (said(made(repo, events)), len(registry.downloads)) == ("41", 2)
    noted = [text for text in warnings(events) if "damaged cache entry" in text and "leaf-1.0.0.crate" in text]
    assert len(noted) == (damage == "content")
    if damage == "content":
        forget(tmp_path)
        registry.requests.clear()
        assert (said(made(repo)), registry.requests) == ("41", [])


def test_a_workspace_whose_entry_is_gone_is_kept_again_without_fetching(
    repo: Path, tmp_path: Path, registry: CrateRegistry, index: Index
):
    made(repo, write_lock=True)
    assert prune_all(index, max_bytes=0, keep=0, now=time.time()).freed > 0
    assert not list(index.entries(FetchedEntry))
    shutil.rmtree(tmp_path / "cache/artifacts")
    registry.requests.clear()
    made(repo)
    assert registry.requests == [] and len(list(index.entries(FetchedEntry))) == 1


def test_a_crate_that_something_changed_is_not_kept(repo: Path, tmp_path: Path, index: Index):
    made(repo, write_lock=True)
    crate = next((tmp_path / "cache/workspaces/app/backend/cargo").rglob("leaf-1.0.0.crate"))
    crate.write_bytes(b"what a build script wrote")
    prune_all(index, max_bytes=0, keep=0, now=time.time())
    shutil.rmtree(tmp_path / "cache/artifacts")
    made(repo)
    assert [path.name for path in Path(newest(index).layers[-1]).rglob("*.crate")] == ["middle-1.0.0.crate"]


def test_without_room_in_the_store_it_is_said_and_the_build_succeeds(
    repo: Path, index: Index, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(layers, "free_bytes", lambda path: 0)
    events: list[Event] = []
    assert said(made(repo, events, write_lock=True)) == "41"
    assert len([text for text in warnings(events) if "what was fetched is not kept: the store needs" in text]) == 1
    assert not list(index.entries(FetchedEntry))


def test_it_is_listed_and_evicted_like_any_entry(repo: Path, index: Index, monkeypatch: pytest.MonkeyPatch):
    made(repo, write_lock=True)
    monkeypatch.setenv("ORCHESTRATOR_CACHE_DIR", str(repo.parent / "cache"))
    for name, value in index.nix.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("orchestrator.tools.nix.open_nix", lambda: index.nix)
    listed = json.loads(CliRunner().invoke(cache, ["list", "--json"]).stdout)["entries"]
    assert sorted(entry["kind"] for entry in listed) == ["fetched", "target"]
    assert "app/backend" in (shown := CliRunner().invoke(cache, ["list"]).stdout) and "fetched" in shown
    roots = json.loads(CliRunner().invoke(cache, ["root", "--json"]).stdout)["roots"]
    assert set(newest(index).layers) <= set(roots.values())
    evicted = json.loads(CliRunner().invoke(cache, ["gc", "--max-bytes", "0", "--json"]).stdout)
    assert sorted(evicted["evicted"]) == sorted(entry["id"] for entry in listed) and evicted["size"] == 0
    assert not any(Path(layer).exists() for entry in listed for layer in entry["layers"])


def test_killed_at_any_moment_the_next_build_is_right(repo: Path, tmp_path: Path):
    """SIGKILL while it lays out, fetches and keeps, most of the time without a workspace; then once without network."""
    chance = random.Random(7)
    made(repo, write_lock=True)
    here = Path(__file__).resolve().parents[2]
    for number in range(KILLS):
        forget(tmp_path, *(["cache", "nix"] if chance.random() < 0.3 else []))
        argv = [sys.executable, "-c", SCRIPT, here, repo, tmp_path]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            assert child.stdout is not None and child.stdout.readline() == b"ready\n"
            time.sleep(0.1 + chance.random() * 0.7)
            child.kill()
        assert said(made(repo)) == "41", f"kill {number}"
        shutil.rmtree(tmp_path / "cache/workspaces")
        shutil.rmtree(tmp_path / "cache/artifacts")
        assert said(made(repo, offline=True)) == "41", f"kill {number}"


def test_verifying_needs_no_network(repo: Path, tmp_path: Path, registry: CrateRegistry):
    made(repo, write_lock=True)
    shutil.rmtree(tmp_path / "cache/workspaces")
    registry.requests.clear()
    settings = Settings(
        name="app", monorepo=repo, cache_dir=tmp_path / "cache", state_dir=tmp_path / "state", offline=True
    )
    plan = Plan("app", (backend(),), WebPlan(None, False, None), None)
    require_same(verify_builds(settings, repo, plan, emit=lambda event: None, cancel=Cancel()))
    assert registry.requests == []
