"""Keys, manifests, entries and what is evicted first."""

import os
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.build.cache.explain import Reasons, Report, Reports, changed_packages, read_packages
from orchestrator.build.cache.index import Index, TargetEntry
from orchestrator.build.cache.kept import Kept, identity, read_kept, write_kept
from orchestrator.build.cache.key import CacheKey, cargo_key, changed_parts
from orchestrator.build.cache.manifest import NAME, File, Manifest, UnusableManifest, digest, read_manifest, to_json
from orchestrator.build.cache.prune import choose, layers_of, value
from orchestrator.build.cache.restore import _moved_back, _own_directories
from orchestrator.build.cache.save import take_manifest
from orchestrator.build.snapshot import Entry, Snapshot
from orchestrator.build.toolchain import Toolchain
from orchestrator.plan import BuildPlan
from orchestrator.recipes import CargoOutput, Step
from orchestrator.tools.nix import Nix

NIX = Nix(Path("/usr/bin/nix"), (2, 8), {})


def toolchain(key: str = "shell") -> Toolchain:
    return Toolchain("host", "", "flake.nix", key, Path("/nowhere"), NIX, "", (), (), False)


def plan(*, environment: tuple[tuple[str, str], ...] = (), argv: tuple[str, ...] = ("cargo", "build")) -> BuildPlan:
    directory = PurePosixPath("api")
    steps = (Step("build", argv, directory, network=False, environment=environment),)
    return BuildPlan("api", "backend", "rust", directory, PurePosixPath("api/Cargo.lock"), steps, CargoOutput("a", "a"))


def key_of(build: BuildPlan, seen: Snapshot, shell: Toolchain, *influences: str, place: str = "/build/src") -> CacheKey:
    return cargo_key(build, seen, shell, place=PurePosixPath(place), influences=list(influences))


def snapshot(root: Path, **contents: str) -> Snapshot:
    entries = tuple(Entry(path.replace("__", "/"), "file", False, content) for path, content in contents.items())
    return Snapshot(root, entries, frozenset(), "digest")


def test_the_key_changes_with_what_cargo_does_not_look_at(tmp_path: Path):
    (tmp_path / "api").mkdir()
    seen = snapshot(tmp_path)
    config = Snapshot(tmp_path, (Entry(".cargo/config.toml", "file", False, "1"),), frozenset(), "")
    keys = [
        key_of(plan(), seen, toolchain()),
        key_of(plan(), seen, toolchain("other")),
        key_of(plan(environment=(("CC", "clang"),)), seen, toolchain()),
        key_of(plan(argv=("cargo", "build", "--release")), seen, toolchain()),
        key_of(plan(), config, toolchain()),
        key_of(plan(), seen, toolchain(), "a mirror"),
        key_of(plan(), seen, toolchain(), place="/home/me/.cache/orchestrator/workspaces/app/api.direct/src"),
    ]
    (tmp_path / "api/Cargo.toml").write_text("[profile.release]\nlto = true\n")
    keys.append(key_of(plan(), seen, toolchain()))
    assert len({key.digest for key in keys}) == len(keys)
    assert changed_parts(keys[0].parts, keys[1].parts) == ("toolchain",)
    assert changed_parts(keys[0].parts, keys[2].parts) == ("variables",)


def test_sources_and_the_lock_file_are_not_in_the_digest(tmp_path: Path):
    lock = Entry("api/Cargo.lock", "file", False, "locked")
    plain = key_of(plan(), snapshot(tmp_path, api__main="1"), toolchain())
    other = key_of(plan(), Snapshot(tmp_path, (lock,), frozenset(), ""), toolchain())
    assert (plain.digest, plain.lock, other.lock) == (other.digest, "", "locked")


paths = st.sampled_from(["target/a", "target/release/deps/x-1.rlib", "src/made.rs", "target/ü"])
files = st.builds(File, st.just(0), st.integers(0, 9), st.integers(0, 10**18), st.booleans(), st.just("aa"))
manifests = st.builds(
    Manifest,
    layers=st.just(("",)),
    files=st.dictionaries(paths, files),
    same=st.dictionaries(paths, paths),
    links=st.dictionaries(paths, st.text(max_size=5)),
    directories=st.dictionaries(paths, st.tuples(st.integers(0, 10**18), st.just("names"))),
    sources=st.dictionaries(
        st.just("main.rs"), st.tuples(st.just(Entry("main.rs", "file", True, "bb")), st.integers(0, 10**18))
    ),
)


@given(manifest=manifests)
def test_a_manifest_survives_the_store(tmp_path_factory: pytest.TempPathFactory, manifest: Manifest):
    layer = tmp_path_factory.mktemp("layer")
    content = to_json(manifest)
    (layer / NAME).write_bytes(content)
    assert read_manifest(layer, digest(content)) == replace(manifest, layers=(str(layer),))
    with pytest.raises(UnusableManifest, match="not what was saved"):
        read_manifest(layer, digest(content + b" "))


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"format": 0}', b'{"format": 1}', b'{"format": 1, "layers": 3}', b"\xff"]
)
def test_a_damaged_manifest_is_no_entry(tmp_path: Path, content: bytes):
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(UnusableManifest):
        read_manifest(tmp_path, digest(content))


def test_a_manifest_cannot_name_a_path_outside_the_workspace(tmp_path: Path):
    bad = Manifest(("",), {"target/../../etc/passwd": File(0, 1, 1, False, "")}, {}, {}, {}, {})
    (tmp_path / NAME).write_bytes(to_json(bad))
    with pytest.raises(UnusableManifest, match="not a path"):
        read_manifest(tmp_path, digest(to_json(bad)))


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A workspace after a build: an object, a second name of it, a link, a source, a file the build left in src/."""
    for path in ("target/deps", "target/empty", "src/app"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "target/deps/a.rlib").write_text("object")
    os.link(tmp_path / "target/deps/a.rlib", tmp_path / "target/z")
    (tmp_path / "target/link").symlink_to("deps")
    (tmp_path / "src/app/main.rs").write_text("source")
    (tmp_path / "src/app/made.rs").write_text("left")
    return tmp_path


def test_what_is_in_a_workspace(built: Path):
    seen = Snapshot(built, (Entry("app/main.rs", "file", False, "hash"),), frozenset(), "")
    manifest, fresh = take_manifest(built, seen, Kept((), {}))
    assert set(fresh) in ({"target/z", "src/app/made.rs"}, {"target/deps/a.rlib", "src/app/made.rs"})
    assert manifest.links == {"target/link": "deps"} and len(manifest.same) == 1
    assert manifest.sources["app/main.rs"][1] == (built / "src/app/main.rs").stat().st_mtime_ns
    assert set(manifest.directories) == {"target", "target/deps", "target/empty", "src", "src/app"}
    assert manifest.layers == ("",)


def test_only_what_changed_is_added_and_layers_nobody_needs_go(built: Path):
    seen = Snapshot(built, (Entry("app/main.rs", "file", False, "hash"),), frozenset(), "")
    first, _ = take_manifest(built, seen, Kept((), {}))
    write_kept(built, replace(first, layers=("/nix/store/one",)))
    second, fresh = take_manifest(built, seen, read_kept(built))
    assert (fresh, second.layers) == ([], ("/nix/store/one", ""))
    (built / "src/app/made.rs").write_text("new!")
    third, fresh = take_manifest(built, seen, read_kept(built))
    assert fresh == ["src/app/made.rs"] and third.files["src/app/made.rs"].layer == 1
    for path in ("target/deps/a.rlib", "target/z"):
        (built / path).write_text("changed")
    last, _ = take_manifest(built, seen, read_kept(built))
    assert last.layers == ("",)


def test_a_file_touched_without_change_stays_in_its_layer(built: Path):
    seen = Snapshot(built, (Entry("app/main.rs", "file", False, "hash"),), frozenset(), "")
    first, _ = take_manifest(built, seen, Kept((), {}))
    write_kept(built, replace(first, layers=("/nix/store/one",)))
    os.utime(built / "src/app/made.rs", (5, 5))
    manifest, fresh = take_manifest(built, seen, read_kept(built))
    assert fresh == [] and manifest.files["src/app/made.rs"].mtime == 5_000_000_000


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"layers": []',
        b'{"layers": [], "files": {"x": 5}}',
        b'{"layers": [], "files": {"x": [[0, 6, 1, false, ""]]}}',
        b'{"layers": [], "files": {"x": [[0, 6], [6, 1, 1, 1]]}}',
        b'{"layers": [], "files": {"x": {"file": {"layer": 0, "size": 6}, "status": [6, 1, 1, 1]}}}',
        b'{"files": {}}',
    ],
)
def test_a_damaged_record_of_what_was_kept_knows_nothing(built: Path, content: bytes):
    (built / "kept.json").write_bytes(content)
    assert read_kept(built) == Kept((), {})


def test_same_size_and_time_is_not_enough(built: Path):
    """A program can set a modification time; it cannot set the time of the last status change."""
    path = built / "target/deps/a.rlib"
    status = path.stat()
    kept = Kept(("/nix/store/one",), {"x": (File(0, 6, status.st_mtime_ns, False, ""), identity(status))})
    path.write_text("OBJECT")
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert kept.find("x", path.stat()) is None


def test_a_pipe_cannot_be_kept(built: Path):
    os.mkfifo(built / "target/pipe")
    with pytest.raises(UnusableManifest, match="target/pipe"):
        take_manifest(built, snapshot(built), Kept((), {}))


def test_times_in_the_future_move_back_together():
    manifest = Manifest(
        ("",),
        {"target/a": File(0, 1, 1000, False, "")},
        {},
        {},
        {"target": (900, "")},
        {"m": (Entry("m", "file", False, ""), 800)},
    )
    moved = _moved_back(manifest, manifest.newest - 700)
    assert (moved.newest, moved.directories["target"][0], moved.sources["m"][1]) == (700, 600, 500)
    assert _moved_back(manifest, -5) is manifest


def test_directories_that_only_held_sources_are_not_laid_out():
    manifest = Manifest(
        ("",),
        {"src/a/made/x": File(0, 1, 1, False, "")},
        {},
        {},
        dict.fromkeys(("src", "src/a", "src/a/made", "src/b", "src/empty", "target"), (1, "")),
        {
            "b/main.rs": (Entry("b/main.rs", "file", False, ""), 1),
            "a/lib.rs": (Entry("a/lib.rs", "file", False, ""), 1),
        },
    )
    assert _own_directories(manifest) == {"src", "src/a", "src/a/made", "src/empty", "target"}


def entry(tmp_path: Path, name: str = "layer", **changes: object) -> TargetEntry:
    layer = tmp_path / name
    layer.mkdir(exist_ok=True)
    fields = {
        "key": "k", "parts": {}, "lock": "", "packages": (), "app": "app", "service": "api",
        "layers": (str(layer),), "manifest": "", "size": 100, "own_size": 100, "units": 3, "worth": 10.0,
        "created": 1.0, "last_used": 1.0,
    }  # fmt: skip
    return TargetEntry.model_validate(fields | changes)


def test_entries_are_read_back_and_rubbish_is_none(tmp_path: Path):
    index = Index(tmp_path / "cache", NIX)
    one = entry(tmp_path)
    index._write(one)
    (tmp_path / "cache/entries/k/bad.json").write_text("{")
    assert list(index.entries(TargetEntry, "k")) == [one] == list(index.entries(TargetEntry))
    index.used(one, 4.0)
    assert [(found.uses, found.saved) for found in index.entries(TargetEntry, "k")] == [(1, 4.0)]
    index.remove(one)
    index.used(one, 4.0)
    assert list(index.entries(TargetEntry)) == []


def test_what_another_user_wrote_is_neither_an_entry_nor_a_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    index = Index(tmp_path / "cache", NIX)
    one = entry(tmp_path)
    index._write(one)
    root = tmp_path / "cache/roots/layer"
    root.parent.mkdir()
    root.symlink_to(tmp_path / "layer")
    assert (list(index.entries(TargetEntry)), index.is_rooted(one.layers[0])) == ([one], True)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert (list(index.entries(TargetEntry)), index.is_rooted(one.layers[0])) == ([], False)


def test_an_entry_being_laid_out_is_in_use(tmp_path: Path):
    index = Index(tmp_path / "cache", NIX)
    one = entry(tmp_path)
    with index.using(one), index.using(entry(tmp_path, "other")):
        assert index.is_used(one)
    assert not index.is_used(one)
    (tmp_path / "cache/used").mkdir(exist_ok=True)
    (tmp_path / f"cache/used/{one.id}.1.1").touch()
    assert not index.is_used(one), "a killed user is none"


def test_what_saves_least_for_its_bytes_goes_first(tmp_path: Path):
    small = entry(tmp_path, "small", size=10, own_size=10, worth=10.0, key="a")
    large = entry(tmp_path, "large", size=1000, own_size=1000, worth=20.0, key="b")
    stale = entry(tmp_path, "stale", size=10, own_size=10, worth=10.0, last_used=-9 * 86_400.0, key="c")
    assert value(small, 1.0) > value(stale, 1.0) > value(large, 1.0)
    assert choose([small, large, stale], max_bytes=20, keep=5, now=1.0) == [large]
    assert choose([small, large, stale], max_bytes=0, keep=5, now=1.0) == [large, stale, small]
    gone = entry(tmp_path, "gone", layers=("/nowhere",))
    assert choose([gone, small], max_bytes=10**9, keep=5, now=1.0) == [gone]


def test_no_more_of_one_key_than_asked(tmp_path: Path):
    entries = [entry(tmp_path, f"l{number}", worth=float(number)) for number in range(4)]
    assert choose(entries, max_bytes=10**9, keep=2, now=1.0) == entries[:2]


def test_a_layer_that_two_entries_have_counts_once(tmp_path: Path):
    base = entry(tmp_path, "base")
    later = entry(tmp_path, "later", own_size=5, layers=(base.layers[0], str(tmp_path / "later")))
    assert sum(layers_of([base, later]).values()) == 105
    assert sum(layers_of([later]).values()) == 100


def test_what_happened_to_the_lock_file(tmp_path: Path):
    lock = tmp_path / "Cargo.lock"
    lock.write_text('[[package]]\nname = "tokio"\nversion = "1.43.0"\n[[package]]\nname = "old"\nversion = "1.0.0"\n')
    before = read_packages(lock)
    lock.write_text('[[package]]\nname = "tokio"\nversion = "1.44.0"\n[[package]]\nname = "itoa"\nversion = "1.0.1"\n')
    assert changed_packages(before, read_packages(lock)) == ("+ itoa 1.0.1", "- old 1.0.0", "tokio 1.43.0 → 1.44.0")
    assert read_packages(tmp_path / "absent") == ()


def report(**changes: object) -> Report:
    fields = {
        "app": "app", "service": "api", "when": 1.0, "seconds": 2.0, "start": "workspace", "entry": "", "compiled": 8,
        "total": 130, "parts": {"toolchain": "1"}, "changed_key": (), "changed_packages": (), "changed_sources": (),
        "units": (),
    }  # fmt: skip
    return Report.model_validate(fields | changes)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"compiled": 0}, "130 units, nothing to compile"),
        (
            {"changed_packages": ("tokio 1.43.0 → 1.44.0",), "changed_sources": ("Cargo.lock",)},
            "recompiled 8 of 130: tokio 1.43.0 → 1.44.0 and what depends on it",
        ),
        ({"changed_sources": ("a", "b", "c")}, "recompiled 8 of 130: a, b and 1 more changed"),
        ({"start": "nothing", "changed_key": ("toolchain",)}, "recompiled 8 of 130: toolchain changed"),
        ({"start": "nothing"}, "recompiled 8 of 130: nothing usable in the cache"),
        (
            {"units": ({"name": "a", "version": "1.0.0", "reason": "the list of features changed"},)},
            "recompiled 8 of 130: the list of features changed",
        ),
    ],
)
def test_one_line_says_why(changes: dict[str, object], line: str):
    assert report(**changes).summary == line


def test_reports_are_kept_by_service(tmp_path: Path):
    reports = Reports(tmp_path)
    assert reports.read("app", "api") is None and reports.all("app") == []
    reports.write(report())
    assert reports.all("app") == [report()]
    assert reports.changed_key("app", "api", {"toolchain": "2"}) == ("toolchain",)


def test_cargos_reason_without_its_time_stamps():
    reasons = Reasons()
    line = (
        "       Dirty api v1.0.0 (/build/src/api): the file `src/main.rs` has changed (1.5s, 2s after last build at 0s)"
    )
    assert reasons.read(line)
    assert reasons.units[0].reason == "the file `src/main.rs` has changed"
