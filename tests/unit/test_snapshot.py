"""What of a directory a build may see. (Repositories are in tests/integration/test_git.py.)"""

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.build import snapshot
from orchestrator.build.snapshot import Snapshot, take_snapshot
from orchestrator.errors import ProjectError
from orchestrator.events import Event, Note
from orchestrator.tools.git import GitFiles


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(snapshot, "list_files", lambda root: None)
    (tmp_path / "repo").mkdir()
    return tmp_path / "repo"


def put(root: Path, path: str, content: str = "x") -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


def take(root: Path, events: list[Event] | None = None, clock=time.time_ns) -> Snapshot:
    return take_snapshot(root, cache_dir=root.parent / "cache", emit=(events or []).append, clock=clock)


def paths(taken: Snapshot) -> list[str]:
    return [entry.path for entry in taken.entries]


def test_secrets_and_build_products_are_left_out(root: Path):
    for path in (".env", "a/.env.local", "backend/target/x", "web/node_modules/y/z.js", ".git/config"):
        put(root, path)
    for path in (".env.example", "a/.env.sample", ".env.template", "src/main.rs", ".envrc"):
        put(root, path)
    assert paths(take(root)) == [".env.example", ".env.template", ".envrc", "a/.env.sample", "src/main.rs"]


def test_a_directory_without_git_is_said(root: Path):
    events: list[Event] = []
    take_snapshot(root, cache_dir=root.parent / "cache", emit=events.append)
    assert isinstance(events[0], Note)
    assert events[0].text.startswith(f"{root} is not a git repo")


def test_unusual_names_survive(root: Path):
    names = ["mit leer zeichen.txt", "größe/ß.rs", "new\nline", "tab\t", "'\"$(x)"]
    for name in names:
        put(root, name)
    assert paths(take(root)) == sorted(names)


def test_a_name_that_is_not_utf8_is_refused(root: Path):
    Path(os.fsdecode(os.fsencode(root) + b"/\xff.txt")).write_text("x")
    with pytest.raises(ProjectError, match="not UTF-8"):
        take(root)


def test_links_stay_links_and_leaving_ones_are_refused(root: Path):
    put(root, "a/file")
    (root / "b").symlink_to("a")
    (root / "a" / "back").symlink_to("../b/file")
    entries = {entry.path: entry for entry in take(root).entries}
    assert (entries["b"].kind, entries["b"].content) == ("link", "a")
    assert entries["a/back"].content == "../b/file"
    (root / "a" / "out").symlink_to("../../elsewhere")
    with pytest.raises(ProjectError, match="a/out leaves the monorepo"):
        take(root)


def test_links_in_loops_stay_links(root: Path):
    put(root, "a/file")
    links = {"a/up": "..", "ring": "gnir", "gnir": "ring", "self": "self", "a/here": "."}
    for path, target in links.items():
        (root / path).symlink_to(target)
    found = {entry.path: entry.content for entry in take(root).entries if entry.kind == "link"}
    assert found == links


def test_an_absolute_link_is_refused_but_a_nix_result_is_skipped(root: Path):
    (root / "result").symlink_to("/nix/store/abc-x")
    assert paths(take(root)) == []
    (root / "home").symlink_to("/home")
    with pytest.raises(ProjectError, match="home leaves"):
        take(root)


def test_the_digest_follows_content_mode_and_path(root: Path):
    file = put(root, "a", "1")
    digests = [take(root).digest]
    file.write_text("2")
    digests.append(take(root).digest)
    file.chmod(0o755)
    digests.append(take(root).digest)
    file.rename(root / "b")
    digests.append(take(root).digest)
    assert len(set(digests)) == 4
    os.utime(root / "b", (1, 1))
    assert take(root).digest == digests[-1]


def test_an_unchanged_file_is_not_read_again(root: Path, monkeypatch: pytest.MonkeyPatch):
    put(root, "a")
    later = lambda: time.time_ns() + 10**10  # noqa: E731  # a clock in the future: the file has settled
    first = take(root, clock=later)
    monkeypatch.setattr(snapshot, "sha256", lambda path: pytest.fail(f"{path} was read again"))
    assert take(root, clock=later).digest == first.digest


def test_a_file_changed_a_moment_ago_is_read_again(root: Path, monkeypatch: pytest.MonkeyPatch):
    """It may have changed again within one tick of the file system's clock."""
    file = put(root, "a")
    moment = file.stat().st_mtime_ns
    read: list[Path] = []
    monkeypatch.setattr(snapshot, "sha256", lambda path: read.append(path) or "x")
    for _ in range(2):
        take(root, clock=lambda: moment + 10**9)
    assert read == [file, file]


def test_a_tracked_target_is_source_unless_beside_a_manifest(root: Path, monkeypatch: pytest.MonkeyPatch):
    tracked = frozenset({"src/target/mod.rs", "Cargo.toml", "target/debug/x"})
    monkeypatch.setattr(snapshot, "list_files", lambda root: GitFiles(tracked, frozenset({"lib/target/y", "new"})))
    for path in (*tracked, "lib/target/y", "new"):
        put(root, path)
    taken = take_snapshot(root, cache_dir=root.parent / "cache", emit=lambda _: None)
    assert paths(taken) == ["Cargo.toml", "new", "src/target/mod.rs"]
    assert taken.untracked == {"new"}


def test_committed_modes_are_public_but_secrets_stay_out_even_when_tracked(root: Path, monkeypatch: pytest.MonkeyPatch):
    tracked = frozenset({"a", ".env", "web/.env.production", "web/.env.production.local"})
    monkeypatch.setattr(snapshot, "list_files", lambda root: GitFiles(tracked, frozenset({".env.staging"})))
    for path in (*tracked, ".env.staging"):
        put(root, path)
    events: list[Event] = []
    taken = take_snapshot(root, cache_dir=root.parent / "cache", emit=events.append)
    assert paths(taken) == ["a", "web/.env.production"]
    assert [event.level for event in events if isinstance(event, Note)] == ["warning"]
    assert all(name in str(events) for name in (".env,", "web/.env.production.local"))


def test_deleted_files_are_not_there(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(snapshot, "list_files", lambda root: GitFiles(frozenset({"gone", "here"}), frozenset()))
    put(root, "here")
    assert paths(take(root)) == ["here"]


def test_restricted_keeps_only_the_wanted_files(root: Path):
    put(root, "a")
    put(root, "b")
    taken = take(root)
    part = taken.restricted(["b", "c"])
    assert paths(part) == ["b"]
    assert part.digest != taken.digest


@given(st.text(), st.text(min_size=1))
def test_no_link_that_leaves_the_tree_passes(path: str, target: str):
    """Whatever passes the check resolves below the root."""
    path = "/".join(part for part in path.split("/") if part not in ("", ".", "..")) or "x"
    try:
        snapshot._check_link(path, target)
    except ProjectError:
        return
    resolved = os.path.normpath(Path("/root/tree", path).parent / target)
    assert resolved == "/root/tree" or resolved.startswith("/root/tree/")
