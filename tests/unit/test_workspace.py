"""Sources are synchronised by content, whatever an earlier run or a build left behind."""

import contextlib
import os
import time
from functools import partial
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.build import records
from orchestrator.build import snapshot as snapshots
from orchestrator.build import workspace as workspaces
from orchestrator.build.records import Records, read_records
from orchestrator.build.snapshot import Snapshot, take_snapshot
from orchestrator.build.workspace import Workspace, open_workspace, sync_sources
from orchestrator.errors import BusyError, ProjectError
from orchestrator.files import sha256


@pytest.fixture(autouse=True)
def no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "list_files", lambda root: None)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    root.mkdir()
    return root


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "ws" / "src").mkdir(parents=True)
    return Workspace(tmp_path / "ws", inside=True)


def put(root: Path, path: str, content: str = "x") -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


def take(repo: Path) -> Snapshot:
    return take_snapshot(repo, cache_dir=repo.parent / "cache", emit=lambda event: None)


def tree(root: Path) -> dict[str, str]:
    found = (path for path in sorted(root.rglob("*")) if path.is_symlink() or path.is_file())
    return {
        str(path.relative_to(root)): f"-> {path.readlink()}" if path.is_symlink() else path.read_text()
        for path in found
    }


def test_equal_files_keep_their_time_and_written_ones_get_now(repo: Path, workspace: Workspace):
    put(repo, "a", "1")
    put(repo, "b", "1")
    assert len(sync_sources(workspace, take(repo), clock=lambda: 1_000)) == 2
    put(repo, "b", "2")
    os.utime(repo / "b", (5, 5))
    os.utime(repo / "a", (5, 5))
    assert len(sync_sources(workspace, take(repo), clock=lambda: 2_000)) == 1
    times = [(workspace.path / "src" / name).stat().st_mtime_ns for name in ("a", "b")]
    assert times == [1_000, 2_000]


def test_without_a_manifest_equal_content_still_keeps_its_time(repo: Path, workspace: Workspace):
    put(repo, "a", "1")
    sync_sources(workspace, take(repo), clock=lambda: 1_000)
    (workspace.path / "sources.json").unlink()
    assert len(sync_sources(workspace, take(repo), clock=lambda: 2_000)) == 0
    assert (workspace.path / "src/a").stat().st_mtime_ns == 1_000


def test_one_change_among_many_files_costs_one_look_at_each(
    repo: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    """No directory is listed and no record written whole: what is hashed and written is about the change alone."""
    count = 2_000
    for number in range(count):
        put(repo, f"d{number % 20}/f{number}", str(number))
    later = lambda: time.time_ns() + 10**10  # noqa: E731  # a clock in the future: the files have settled
    take_settled = partial(take_snapshot, repo, cache_dir=repo.parent / "cache", emit=lambda event: None, clock=later)
    sync_sources(workspace, take_settled())
    put(repo, "d7/f7", "changed")
    looks: list[object] = []
    hashed: list[Path] = []
    real_lstat = os.lstat
    monkeypatch.setattr(os, "lstat", lambda path, **options: looks.append(path) or real_lstat(path, **options))
    for module in (snapshots, workspaces):
        monkeypatch.setattr(module, "sha256", lambda path: hashed.append(path) or sha256(path))
    monkeypatch.setattr(records, "write_atomically", lambda path, content: pytest.fail(f"{path} was written whole"))
    assert sync_sources(workspace, take_settled()) == {"d7/f7"}
    assert 2 * count <= len(looks) < 2.1 * count
    assert hashed == [repo / "d7/f7", workspace.path / "src/d7/f7", workspace.path / "incoming/file"]
    assert (workspace.path / "sources.json.journal").stat().st_size < 500


def test_nothing_changed_writes_nothing(repo: Path, workspace: Workspace):
    put(repo, "a")
    sync_sources(workspace, take(repo))
    before = (workspace.path / "sources.json").stat().st_mtime_ns
    assert len(sync_sources(workspace, take(repo))) == 0
    assert (workspace.path / "sources.json").stat().st_mtime_ns == before


def test_removed_sources_go_and_build_products_stay(repo: Path, workspace: Workspace):
    gone = put(repo, "web/old/page.js")
    put(repo, "web/package.json")
    sync_sources(workspace, take(repo))
    put(workspace.path, "src/web/node_modules/x/index.js")
    put(workspace.path, "src/web/old/page.js.map")
    gone.unlink()
    assert len(sync_sources(workspace, take(repo))) == 1
    assert set(tree(workspace.path / "src")) == {
        "web/package.json",
        "web/node_modules/x/index.js",
        "web/old/page.js.map",
    }


def test_what_a_build_did_to_a_source_is_undone(repo: Path, workspace: Workspace):
    put(repo, "a", "1")
    put(repo, "dir/b", "1")
    sync_sources(workspace, take(repo))
    source = workspace.path / "src"
    (source / "a").write_text("changed by the build")
    (source / "dir" / "b").unlink()
    (source / "dir" / "b").mkdir()
    assert len(sync_sources(workspace, take(repo))) == 2
    assert tree(source) == {"a": "1", "dir/b": "1"}


def test_a_link_a_build_put_in_place_of_a_directory_is_not_followed(repo: Path, workspace: Workspace, tmp_path: Path):
    put(repo, "dir/a", "1")
    sync_sources(workspace, take(repo))
    outside = tmp_path / "outside"
    put(outside, "a", "precious")
    (workspace.path / "src" / "dir" / "a").unlink()
    (workspace.path / "src" / "dir").rmdir()
    (workspace.path / "src" / "dir").symlink_to(outside)
    put(repo, "dir/a", "2")
    sync_sources(workspace, take(repo))
    assert (outside / "a").read_text() == "precious"
    assert tree(workspace.path / "src") == {"dir/a": "2"}
    (workspace.path / "src" / "dir" / "a").unlink()
    (workspace.path / "src" / "dir").rmdir()
    (workspace.path / "src" / "dir").symlink_to(outside)
    (repo / "dir/a").unlink()
    sync_sources(workspace, take(repo))
    assert (outside / "a").read_text() == "precious"


def test_a_file_becomes_a_directory_and_back(repo: Path, workspace: Workspace):
    put(repo, "x", "file")
    sync_sources(workspace, take(repo))
    (repo / "x").unlink()
    put(repo, "x/y", "inside")
    sync_sources(workspace, take(repo))
    assert tree(workspace.path / "src") == {"x/y": "inside"}
    (repo / "x/y").unlink()
    (repo / "x").rmdir()
    (repo / "x").symlink_to("z")
    sync_sources(workspace, take(repo))
    assert tree(workspace.path / "src") == {"x": "-> z"}


def test_modes_follow(repo: Path, workspace: Workspace):
    file = put(repo, "run.sh")
    sync_sources(workspace, take(repo))
    file.chmod(0o755)
    sync_sources(workspace, take(repo))
    assert (workspace.path / "src/run.sh").stat().st_mode & 0o777 == 0o755


def test_a_source_that_changes_while_it_is_read_is_refused(repo: Path, workspace: Workspace):
    file = put(repo, "a", "1")
    taken = take(repo)
    file.write_text("2")
    with pytest.raises(ProjectError, match="changed while the build was reading it"):
        sync_sources(workspace, taken)


def test_new_files_are_never_older_than_the_last_build(repo: Path, tmp_path: Path):
    put(repo, "a", "1")
    with open_workspace(tmp_path, "app", "api", inside=True, clock=lambda: 5_000) as workspace:
        sync_sources(workspace, take(repo), clock=lambda: 4_000)
    put(repo, "a", "2")
    with open_workspace(tmp_path, "app", "api", inside=True, clock=lambda: 100) as workspace:
        sync_sources(workspace, take(repo), clock=lambda: 100)
        assert (workspace.path / "src/a").stat().st_mtime_ns == 5_001


def test_a_workspace_in_use_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workspaces, "LOCK_SECONDS", 0)
    with (
        open_workspace(tmp_path, "app", "api", inside=True),
        open_workspace(tmp_path, "app", "web", inside=True),
        pytest.raises(BusyError, match="app/api"),
        open_workspace(tmp_path, "app", "api", inside=True),
    ):
        pass


def test_paths_of_the_build_are_found_outside(tmp_path: Path):
    inside, direct = Workspace(tmp_path, inside=True), Workspace(tmp_path, inside=False)
    assert inside.seen("src") == PurePosixPath("/build/src")
    assert inside.outside(PurePosixPath("/build/target/x")) == tmp_path / "target/x"
    assert direct.seen("src") == PurePosixPath(tmp_path / "src")
    assert direct.outside(PurePosixPath("/elsewhere")) == Path("/elsewhere")
    assert inside.named(tmp_path / "src/web/dist") == "web/dist"


class Killed(BaseException):
    """The moment of a SIGKILL: nothing of ours runs after it."""


@pytest.mark.parametrize("moment", range(12))
def test_killed_anywhere_the_next_synchronisation_is_right(
    repo: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, moment: int
):
    """Whichever file operation is the last one, the following run gives the exact tree, with no rubbish."""
    for name in ("a", "b", "old/c"):
        put(repo, name, "1")
    sync_sources(workspace, take(repo))
    put(repo, "a", "2")
    (repo / "old/c").unlink()
    put(repo, "new/d", "1")
    left = moment

    def dying(function):
        def call(*arguments: object, **options: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Records, "put", dying(Records.put))
        patch.setattr(workspaces.shutil, "copyfile", dying(workspaces.shutil.copyfile))
        for name in ("replace", "unlink", "mkdir"):
            patch.setattr(Path, name, dying(getattr(Path, name)))
        with contextlib.suppress(Killed):
            sync_sources(workspace, take(repo))
    (repo / "new/d").unlink()
    sync_sources(workspace, take(repo))
    assert tree(workspace.path / "src") == {"a": "2", "b": "1"}
    assert read_records(workspace.path / "sources.json").rows.keys() == {"a", "b"}


names = st.sampled_from(["a", "b", "d/a", "d/b", "d/e/f", "b/x"])
trees = st.dictionaries(names, st.sampled_from(["1", "2", "3"]), max_size=5)


@settings(max_examples=60)
@given(st.lists(trees, min_size=1, max_size=4))
def test_any_sequence_of_trees_ends_in_the_last(
    tmp_path_factory: pytest.TempPathFactory, sequence: list[dict[str, str]]
):
    base = tmp_path_factory.mktemp("sequence")
    workspace = Workspace(base / "ws", inside=True)
    (base / "ws" / "src").mkdir(parents=True)
    for number, wanted in enumerate(sequence):
        root = base / f"repo{number}"
        root.mkdir()
        fitting = {
            path: text for path, text in wanted.items() if not any(other.startswith(f"{path}/") for other in wanted)
        }
        for path, text in fitting.items():
            put(root, path, text)
        sync_sources(workspace, take(root))
        assert tree(workspace.path / "src") == fitting
