"""What of a CARGO_HOME is kept, in which layers, and what comes back."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.build.cache.cargo_home import Wanted, is_empty, read_home, read_wanted, restore_home
from orchestrator.build.cache.fetched import share_layers
from orchestrator.build.cache.layers import MAX_LAYERS
from orchestrator.build.cache.manifest import File, Manifest, UnusableManifest
from orchestrator.process import Cancel

LOCK = """
version = 4
[[package]]
name = "app"
version = "0.1.0"
[[package]]
name = "leaf"
version = "1.0.0"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "{leaf}"
[[package]]
name = "own"
version = "2.0.0"
source = "sparse+https://own.example/"
[[package]]
name = "forge"
version = "3.0.0"
source = "git+ssh://git@forge.example/forge?branch=main#{rev}"
"""
CRATES = "cargo/registry/cache/index.crates.io-1"
INDEX = "cargo/registry/index/index.crates.io-1"
DB = "cargo/git/db/forge-1"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def put(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    put(tmp_path, "lock/Cargo.lock", LOCK.format(leaf=digest("leaf"), rev="0" * 40))
    return read_wanted(tmp_path / "lock/Cargo.lock")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A workspace with a CARGO_HOME as cargo and git leave it."""
    root = tmp_path / "workspace"
    put(root, f"{CRATES}/leaf-1.0.0.crate", "leaf")
    put(root, f"{CRATES}/leaf-0.9.0.crate", "an older one")
    put(root, "cargo/registry/cache/own-1/own-2.0.0.crate", "own")
    put(root, f"{INDEX}/config.json", "{}")
    put(root, f"{INDEX}/.cache/le/af/leaf", "versions")
    put(root, "cargo/registry/src/index.crates.io-1/leaf-1.0.0/Cargo.toml", "unpacked")
    put(root, "cargo/config.toml", "[registries]")
    put(root, "cargo/credentials.toml", "token")
    put(root, f"{DB}/HEAD", "ref: refs/heads/main")
    put(root, f"{DB}/FETCH_HEAD", "https://me:password@forge.example/forge")
    put(root, f"{DB}/objects/pack/pack-1.pack", "objects")
    (root / DB / "refs/heads").mkdir(parents=True)
    put(root, "cargo/git/checkouts/forge-1/0000000/Cargo.toml", "checked out")
    return root


def test_a_lock_file_says_which_crates_and_whether_git(tmp_path: Path, wanted: Wanted):
    assert wanted.crates == {"leaf-1.0.0.crate": {digest("leaf")}, "own-2.0.0.crate": frozenset()}
    assert wanted.git
    assert read_wanted(tmp_path / "absent") == Wanted({}, git=False)


def test_only_what_an_offline_build_needs_is_kept(home: Path, wanted: Wanted):
    manifest = read_home(home, wanted, ())
    assert set(manifest.files) == {
        f"{CRATES}/leaf-1.0.0.crate", "cargo/registry/cache/own-1/own-2.0.0.crate", f"{INDEX}/config.json",
        f"{INDEX}/.cache/le/af/leaf", f"{DB}/HEAD", f"{DB}/objects/pack/pack-1.pack",
    }  # fmt: skip
    assert f"{DB}/refs/heads" in manifest.directories
    without_git = read_home(home, replace(wanted, git=False), ())
    assert not any(path.startswith("cargo/git") for path in (*without_git.files, *without_git.directories))


def test_the_same_files_make_the_same_entry(home: Path, wanted: Wanted):
    before = read_home(home, wanted, ())
    (home / INDEX / "config.json").touch()
    assert read_home(home, wanted, ()) == before


def test_a_crate_that_is_not_what_the_lock_file_says_is_left_out(home: Path, wanted: Wanted):
    put(home, f"{CRATES}/leaf-1.0.0.crate", "what a build script wrote")
    assert f"{CRATES}/leaf-1.0.0.crate" not in read_home(home, wanted, ()).files


def test_a_file_with_a_token_in_it_keeps_everything_out(home: Path, wanted: Wanted):
    put(home, f"{INDEX}/config.json", '{"dl": "https://s3cret@own.example"}')
    with pytest.raises(UnusableManifest, match=r"config\.json has one of your tokens in it"):
        read_home(home, wanted, ("another", "s3cret"))


def stored(tmp_path: Path, home: Path, wanted: Wanted) -> Manifest:
    """What is kept of a CARGO_HOME, as an entry in a store."""
    layer = tmp_path / "store/layer"
    manifest = read_home(home, wanted, ())
    for path in manifest.files:
        put(layer, f"files/{path}", (home / path).read_text())
    return replace(manifest, layers=(str(layer),))


def restore(root: Path, manifest: Manifest, wanted: Wanted, *, exact: bool = True) -> bool:
    return restore_home(root, manifest, wanted, exact=exact, cancel=Cancel())


def test_everything_comes_back_into_an_empty_workspace(tmp_path: Path, home: Path, wanted: Wanted):
    manifest = stored(tmp_path, home, wanted)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    assert is_empty(fresh) and restore(fresh, manifest, wanted)
    assert not is_empty(fresh) and read_home(fresh, wanted, ()).files == {**read_home(home, wanted, ()).files}
    assert (fresh / DB / "refs/heads").is_dir()
    assert [path.name for path in fresh.iterdir()] == ["cargo"]
    assert not restore(fresh, manifest, wanted), "nothing is missing any more"


def test_only_what_is_wanted_comes_back(tmp_path: Path, home: Path, wanted: Wanted):
    manifest = stored(tmp_path, home, wanted)
    other = Wanted({"leaf-1.0.0.crate": frozenset({digest("leaf of another registry")})}, git=False)
    (tmp_path / "fresh").mkdir()
    restore(tmp_path / "fresh", manifest, other)
    assert not (tmp_path / "fresh/cargo/registry/cache").exists() and not (tmp_path / "fresh/cargo/git").exists()
    assert (tmp_path / "fresh" / INDEX / "config.json").is_file()


def test_an_exact_entry_mends_and_another_one_only_adds(tmp_path: Path, home: Path, wanted: Wanted):
    manifest = stored(tmp_path, home, wanted)
    put(home, f"{INDEX}/.cache/le/af/leaf", "more versions")
    (home / DB / "HEAD").unlink()
    (home / CRATES / "leaf-1.0.0.crate").unlink()
    restore(home, manifest, wanted, exact=False)
    assert (home / INDEX / ".cache/le/af/leaf").read_text() == "more versions"
    assert (home / DB / "HEAD").is_file() and (home / CRATES / "leaf-1.0.0.crate").read_text() == "leaf"
    restore(home, manifest, wanted, exact=True)
    assert (home / INDEX / ".cache/le/af/leaf").read_text() == "versions"


@pytest.mark.parametrize("path", [f"{CRATES}/leaf-1.0.0.crate", f"{DB}/HEAD"])
def test_nothing_comes_back_from_a_damaged_entry(tmp_path: Path, home: Path, wanted: Wanted, path: str):
    manifest = stored(tmp_path, home, wanted)
    (tmp_path / "store/layer/files" / path).write_text("damage!")
    (tmp_path / "fresh").mkdir()
    with pytest.raises(UnusableManifest, match="is not what was saved"):
        restore(tmp_path / "fresh", manifest, wanted)
    assert list((tmp_path / "fresh").iterdir()) == []


names = st.sampled_from([f"{CRATES}/{name}.crate" for name in "abcdefgh"])
contents = st.builds(lambda number: File(0, number + 1, 0, False, f"{number:064}"), st.integers(0, 2))
manifests = st.builds(
    lambda files, layer: Manifest((f"/nix/store/{layer}",), files, {}, {}, {}, {}),
    st.dictionaries(names, contents, max_size=8),
    st.integers(0, 30),
)


@given(manifest=manifests, others=st.lists(manifests, max_size=20))
def test_every_file_is_in_a_layer_that_has_it_or_added(manifest: Manifest, others: list[Manifest]):
    shared, fresh = share_layers(replace(manifest, layers=("",)), others)
    assert len(shared.layers) <= MAX_LAYERS and shared.layers[-1] == ""
    assert shared.files.keys() == manifest.files.keys()
    have = {(other.layers[0], path, file.sha256) for other in others for path, file in other.files.items()}
    for path, file in shared.files.items():
        layer = shared.layers[file.layer]
        assert path in fresh if not layer else (layer, path, file.sha256) in have
    in_layers = {shared.layers[file.layer] for file in shared.files.values()}
    assert set(shared.layers[:-1]) <= in_layers, "no layer is rooted for nothing"
