"""Real cargo builds from a store of the tests' own: clones, damage, kills, full disks, clocks that jump."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from orchestrator.build.cache import layers
from orchestrator.build.cache.explain import Report, open_reports
from orchestrator.build.cache.index import Index, TargetEntry
from orchestrator.build.cache.prune import prune_all
from orchestrator.build.cache.target import TargetCache
from orchestrator.build.cache.verify import Comparison, require_same, verify_builds
from orchestrator.build.service import ServiceBuild
from orchestrator.errors import BuildError, BusyError, DiskError, ToolchainError
from orchestrator.events import Event, Note
from orchestrator.files import write_json
from orchestrator.plan import Plan, WebPlan
from orchestrator.process import Cancel
from orchestrator.settings import Settings
from orchestrator.tools.nix import Nix
from tests.integration import test_build
from tests.integration.test_build import backend, build, private_store, put

repo = test_build.repo
toolchain = test_build.toolchain

KILLS = int(os.environ.get("CACHE_KILLS", "50"))
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.integration import test_build as t
from orchestrator.build import runner
runner.open_toolchain = lambda *_, **__: t.open_host(Path(sys.argv[3]))
runner.web_server = lambda *_, **__: Path("/nix/store/nginx")
print("ready", flush=True)
t.build(Path(sys.argv[2]), t.backend())
"""


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path / "cache/cache", Nix(Path(shutil.which("nix") or "nix"), (2, 8), private_store(tmp_path)))


def answer(repo: Path, number: int) -> None:
    put(repo, "part/src/lib.rs", f"pub fn answer() -> u32 {{ {number} }}\n")


def forget(tmp_path: Path, *, workspace: bool = True) -> None:
    """Remove the finished artifacts and the workspace: what is left is what was fetched, and the store."""
    shutil.rmtree(tmp_path / "cache/artifacts", ignore_errors=True)
    if workspace:
        shutil.rmtree(tmp_path / "cache/workspaces", ignore_errors=True)


def made(repo: Path, events: list[Event] | None = None) -> ServiceBuild:
    return build(repo, backend(), events=events).services[0]


def said(service: ServiceBuild) -> str:
    return subprocess.run([service.artifact], capture_output=True, check=True, text=True).stdout.strip()


def report(tmp_path: Path) -> Report:
    found = open_reports(tmp_path / "cache").read("app", "backend")
    assert found is not None
    return found


def warnings(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Note) and event.level == "warning"]


def newest(index: Index) -> TargetEntry:
    return max(index.entries(TargetEntry), key=lambda entry: entry.created)


def writable(path: Path) -> Path:
    """A path in the store that can be damaged."""
    for directory in path.parents:
        if directory.name == "store":
            break
        directory.chmod(0o755)
    if not path.is_dir():
        path.chmod(0o644)
    return path


def layer_file(entry: TargetEntry) -> Path:
    found = [path for path in Path(entry.layers[0]).rglob("*.rlib") if path.stat().st_size]
    return writable(found[0])


def test_a_fresh_clone_without_a_workspace_compiles_nothing(repo: Path, tmp_path: Path):
    first = made(repo)
    forget(tmp_path)
    clone = tmp_path / "somewhere else" / "clone"
    shutil.copytree(repo, clone)
    for path in clone.rglob("*"):
        os.utime(path)
    events: list[Event] = []
    again = build(clone, backend(), events=events, cache_dir=tmp_path / "cache").services[0]
    assert (again.cache, again.compiled_units, said(again)) == ("hit", 0, "41")
    assert again.artifact.read_bytes() == first.artifact.read_bytes()
    assert (report(tmp_path).start, report(tmp_path).summary) == ("entry", "2 units, nothing to compile")
    assert warnings(events) == []


def test_what_changed_is_compiled_and_named(repo: Path, tmp_path: Path, index: Index):
    made(repo)
    forget(tmp_path)
    put(repo, "app/src/main.rs", 'fn main() { println!("new {}", part::answer()); }\n')
    changed = made(repo)
    assert (changed.cache, changed.compiled_units, said(changed)) == ("partial", 1, "new 41")
    seen = report(tmp_path)
    assert seen.summary == "recompiled 1 of 2: app/src/main.rs changed"
    assert [(unit.name, "main.rs" in unit.reason) for unit in seen.units] == [("app", True)]
    assert [entry.uses for entry in sorted(index.entries(TargetEntry), key=lambda entry: entry.created)] == [1, 0]


def test_an_earlier_state_is_found_again(repo: Path, tmp_path: Path):
    made(repo)
    answer(repo, 42)
    made(repo)
    forget(tmp_path)
    answer(repo, 41)
    back = made(repo)
    assert (back.compiled_units, said(back)) == (0, "41")


def test_what_a_build_left_in_the_sources_comes_back(repo: Path, tmp_path: Path):
    """A build script that writes beside its sources is not run again, so its file must be there."""
    put(repo, "part/build.rs", 'fn main() { println!("cargo:rerun-if-changed=build.rs");'
        'std::fs::write("src/made.rs", "pub fn made() -> u32 { 7 }").unwrap(); }')  # fmt: skip
    put(repo, "part/src/lib.rs", 'include!("made.rs");\npub fn answer() -> u32 { made() }\n')
    made(repo)
    forget(tmp_path)
    assert (made(repo).compiled_units, said(made(repo))) == (0, "7")


@pytest.mark.parametrize("damage", ["content", "missing", "manifest", "gone"])
def test_a_damaged_entry_costs_compiling_and_nothing_else(repo: Path, tmp_path: Path, index: Index, damage: str):
    made(repo)
    entry = newest(index)
    if damage == "content":
        layer_file(entry).write_bytes(b"another user's")
    elif damage == "missing":
        layer_file(entry).unlink()
    elif damage == "manifest":
        writable(Path(entry.layers[-1]) / "manifest.json").write_text('{"format": 1, "files": {')
    else:
        subprocess.run(["chmod", "-R", "u+w", entry.layers[0]], check=True)
        shutil.rmtree(entry.layers[0])
    forget(tmp_path)
    events: list[Event] = []
    again = made(repo, events)
    assert (again.compiled_units, said(again)) == (2, "41")
    assert len([text for text in warnings(events) if "damaged cache entry" in text]) == (
        damage in ("content", "missing")
    )


@pytest.mark.parametrize("where", ["in the store", "in the record"])
def test_an_entry_that_was_replaced_as_a_whole_is_not_used(repo: Path, tmp_path: Path, index: Index, where: str):
    """Somebody's own layer, right in itself: its files have the hashes its manifest says."""
    made(repo)
    entry = newest(index)
    manifest = writable(Path(entry.layers[-1]) / "manifest.json")
    rows = json.loads(manifest.read_text())
    planted = layer_file(entry)
    planted.write_bytes(b"planted")
    name = str(planted.relative_to(Path(entry.layers[0]) / "files"))
    rows["files"][name][4] = hashlib.sha256(b"planted").hexdigest()
    rows["files"][name][1] = len(b"planted")
    if where == "in the store":
        manifest.write_text(json.dumps(rows, sort_keys=True))
    else:
        other = tmp_path / "other"
        shutil.copytree(entry.layers[-1], other)
        (other / "manifest.json").write_text(json.dumps(rows, sort_keys=True))
        index._write(entry.model_copy(update={"layers": (str(other),), "created": time.time()}))
        index.remove(entry)
    forget(tmp_path)
    again = made(repo)
    assert (again.compiled_units, said(again)) == (2, "41")


def test_nix_collecting_garbage_takes_nothing_that_is_kept(repo: Path, tmp_path: Path, index: Index):
    made(repo)
    index.nix.store("--gc")
    forget(tmp_path)
    assert made(repo).compiled_units == 0
    shutil.rmtree(index.directory / "roots")
    index.nix.store("--gc")
    forget(tmp_path)
    cold = made(repo)
    assert (cold.compiled_units, said(cold)) == (2, "41")


def test_a_workspace_whose_entry_was_collected_is_saved_again(repo: Path, tmp_path: Path, index: Index):
    made(repo)
    shutil.rmtree(index.directory)
    index.nix.store("--gc")
    forget(tmp_path, workspace=False)
    assert made(repo).compiled_units == 0
    forget(tmp_path)
    assert made(repo).compiled_units == 0


def test_a_full_store_is_said_once_and_the_build_succeeds(repo: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(layers, "free_bytes", lambda path: 0)
    events: list[Event] = []
    assert said(made(repo, events)) == "41"
    assert len([text for text in warnings(events) if "not kept in the cache: the store needs" in text]) == 1


def test_a_disk_that_fills_while_saving_leaves_nothing_half_done(
    repo: Path, tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object, **__: object) -> None:
        raise DiskError("no space left for Nix")

    with monkeypatch.context() as patch:
        patch.setattr(layers.nix, "add_tree", full)
        assert said(made(repo)) == "41"
    assert list(index.entries(TargetEntry)) == []
    assert not (tmp_path / "cache/workspaces/app/backend/saving").exists()
    answer(repo, 42)
    assert said(made(repo)) == "42"
    assert len(list(index.entries(TargetEntry))) == 1


def test_a_build_that_changes_its_own_sources_is_not_kept(repo: Path, index: Index):
    put(repo, "part/build.rs", 'fn main() { std::fs::write("src/lib.rs", "pub fn answer() -> u32 { 9 }").unwrap(); }')
    events: list[Event] = []
    assert said(made(repo, events)) == "9"
    assert list(index.entries(TargetEntry)) == []
    assert any("changed its own sources" in event.text for event in events if isinstance(event, Note))


def test_a_clock_that_was_set_back_hides_no_change(repo: Path, tmp_path: Path):
    made(repo)
    workspace = tmp_path / "cache/workspaces/app/backend"
    ahead = time.time_ns() + 3600 * 10**9
    for path in [*workspace.glob("target/**/*"), *workspace.glob("src/**/*")]:
        os.utime(path, ns=(ahead, ahead))
    write_json(workspace / "moment.json", ahead)
    answer(repo, 42)
    assert said(made(repo)) == "42"
    assert report(tmp_path).start == "entry"
    answer(repo, 43)
    assert said(made(repo)) == "43"


def test_a_clock_set_during_the_build_is_noticed(repo: Path, index: Index, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(TargetCache, "_clock_was_set", lambda self, before: True)
    made(repo)
    assert list(index.entries(TargetEntry)) == []


def test_two_builds_at_once_are_both_right_or_one_is_told(repo: Path, tmp_path: Path):
    other = tmp_path / "other"
    shutil.copytree(repo, other)
    answer(other, 42)
    found: list[object] = []

    def run(root: Path) -> None:
        try:
            found.append(said(build(root, backend(), cache_dir=tmp_path / "cache").services[0]))
        except BusyError as error:
            found.append(error)

    threads = [threading.Thread(target=run, args=(root,)) for root in (repo, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one for one in found if isinstance(one, str)} <= {"41", "42"}
    assert len(found) == 2 and any(isinstance(one, str) for one in found)
    assert (said(made(repo)), said(build(other, backend(), cache_dir=tmp_path / "cache").services[0])) == ("41", "42")


def test_an_entry_that_is_being_laid_out_is_not_evicted(repo: Path, index: Index):
    made(repo)
    entry = newest(index)
    with index.using(entry):
        assert prune_all(index, max_bytes=0, keep=0, now=time.time()).entries == ()
    evicted = prune_all(index, max_bytes=0, keep=0, now=time.time())
    assert evicted.entries == (entry,) and evicted.freed > 0
    assert not Path(entry.layers[0]).exists()


def test_a_lock_file_that_is_out_of_date_is_said_with_the_crate(repo: Path):
    put(repo, "app/Cargo.toml", (repo / "app/Cargo.toml").read_text() + 'itoa = "1.0.15"\n')
    with pytest.raises(BuildError, match=r"^Cargo\.lock is out of date: itoa 1\.0\.15$") as caught:
        made(repo)
    assert len(caught.value.details) <= 20 and "cargo update --workspace" in (caught.value.hint or "")


def test_another_rust_than_asked_for_is_refused_unless_allowed(repo: Path):
    put(repo, "rust-toolchain.toml", '[toolchain]\nchannel = "1.2.3"\n')
    for _ in range(2):
        with pytest.raises(
            ToolchainError, match=r"rust-toolchain.toml asks for Rust 1\.2\.3, the dev shell has rustc 1"
        ):
            made(repo)
    assert said(build(repo, backend(), ignore_rust_toolchain=True).services[0]) == "41"
    put(repo, "rust-toolchain.toml", '[toolchain]\nchannel = "stable"\n')
    assert said(made(repo)) == "41"


def test_another_key_takes_nothing_from_this_one(repo: Path, tmp_path: Path):
    made(repo)
    put(repo, ".cargo/config.toml", '[build]\nrustflags = ["-Copt-level=1"]\n')
    other = made(repo)
    assert (other.compiled_units, report(tmp_path).summary) == (2, "recompiled 2 of 2: cargo configuration changed")
    (repo / ".cargo/config.toml").unlink()
    forget(tmp_path, workspace=False)
    assert made(repo).compiled_units == 0


def verify(repo: Path, tmp_path: Path) -> tuple[Comparison, ...]:
    settings = Settings(name="app", monorepo=repo, cache_dir=tmp_path / "cache", state_dir=tmp_path / "state")
    plan = Plan("app", (backend(),), WebPlan(None, False, None), None)
    return verify_builds(settings, repo, plan, emit=lambda event: None, cancel=Cancel())


def test_a_clean_build_gives_the_same_binary(repo: Path, tmp_path: Path, index: Index):
    made(repo)
    answer(repo, 42)
    compared = verify(repo, tmp_path)
    require_same(compared)
    assert [(one.service, one.same) for one in compared] == [("backend", True)]
    assert len(list(index.entries(TargetEntry))) == 2, "the clean build leaves nothing in the cache"
    assert not (tmp_path / "cache/verify/app").exists()


def test_a_binary_that_differs_is_told(repo: Path, tmp_path: Path):
    put(repo, "part/build.rs", 'fn main() { println!("cargo:rerun-if-changed=build.rs");'
        'println!("cargo:rustc-env=NOW={:?}", std::time::SystemTime::now()); }')  # fmt: skip
    put(repo, "app/src/main.rs", 'fn main() { println!("{}", part::NOW); }\n')
    put(repo, "part/src/lib.rs", 'pub const NOW: &str = env!("NOW");\n')
    compared = verify(repo, tmp_path)
    with pytest.raises(BuildError, match="another binary: backend"):
        require_same(compared)


def test_killed_at_any_moment_the_next_build_is_right(repo: Path, tmp_path: Path):
    """SIGKILL while it synchronises, restores, builds and saves; half of the time without a workspace."""
    chance = random.Random(5)
    here = Path(__file__).resolve().parents[2]
    for number in range(KILLS):
        forget(tmp_path, workspace=chance.random() < 0.5)
        answer(repo, number)
        argv = [sys.executable, "-c", SCRIPT, here, repo, tmp_path]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            assert child.stdout is not None and child.stdout.readline() == b"ready\n"
            time.sleep(chance.random() * 1.2)
            child.kill()
        if chance.random() < 0.5:
            answer(repo, number + 1000)
        wanted = (repo / "part/src/lib.rs").read_text().split("{ ")[1].split(" }")[0]
        assert said(made(repo)) == wanted, f"kill {number}"
