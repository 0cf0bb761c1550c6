"""What is kept of the directories in which npm, pnpm, Go and uv keep what they downloaded, and what comes back."""

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from orchestrator.build.cache.downloads import DownloadDirectories, read_integrities
from orchestrator.build.cache.manifest import Manifest, UnusableManifest
from orchestrator.build.golang import Go
from orchestrator.build.node import Node
from orchestrator.build.python import Python
from orchestrator.build.snapshot import Snapshot
from orchestrator.plan import BuildPlan
from orchestrator.process import Cancel
from orchestrator.recipes import GoOutput, Output, PythonOutput, TreeOutput

KEPT = DownloadDirectories("x-fetched", ("home/.x", "home/.y"), (), re.compile(r"\.lock$|/tmp/"))


def put(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"content of {path}")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    root = tmp_path / "workspace"
    put(root, "home/.x/a/one", "home/.x/.lock", "home/.x/tmp/half", "home/.y/two", "home/other", "src/three")
    (root / "home/.x/empty").mkdir()
    (root / "home/.x/a/one").chmod(0o755)
    for name, target in (("near", "a/one"), ("out", "../other"), ("away", "/etc/passwd")):
        (root / "home/.x" / name).symlink_to(target)
    return root


def stored(tmp_path: Path, root: Path) -> Manifest:
    """What is kept, as an entry in a store."""
    manifest = KEPT.read(root, ())
    put(tmp_path / "store/files", *manifest.files)
    return replace(manifest, layers=(str(tmp_path / "store"),))


def test_downloads_are_kept_and_nothing_else(workspace: Path):
    manifest = KEPT.read(workspace, ())
    assert manifest.files.keys() == {"home/.x/a/one", "home/.y/two"}
    assert manifest.files["home/.x/a/one"].executable
    assert manifest.links == {"home/.x/near": "a/one"}
    assert "home/.x/empty" in manifest.directories


def test_the_same_files_make_the_same_entry(workspace: Path):
    before = KEPT.read(workspace, ())
    (workspace / "home/.y/two").touch()
    assert KEPT.read(workspace, ()) == before


def test_a_file_with_a_token_in_it_keeps_everything_out(workspace: Path):
    (workspace / "home/.y/two").write_text("https://s3cret@own.example")
    with pytest.raises(UnusableManifest, match="two has one of your tokens in it"):
        KEPT.read(workspace, ("s3cret",))


def test_everything_comes_back_into_an_empty_workspace(tmp_path: Path, workspace: Path):
    manifest, fresh = stored(tmp_path, workspace), tmp_path / "fresh"
    fresh.mkdir()
    assert KEPT.is_empty(fresh) and KEPT.restore(fresh, manifest, exact=True, cancel=Cancel())
    assert KEPT.read(fresh, ()) == replace(manifest, layers=("",))
    assert (fresh / "home/.x/empty").is_dir() and not (fresh / "restoring").exists()
    assert not KEPT.restore(fresh, manifest, exact=True, cancel=Cancel()), "nothing is missing any more"


def test_a_directory_that_is_there_is_left_alone(tmp_path: Path, workspace: Path):
    manifest, other = stored(tmp_path, workspace), tmp_path / "other"
    put(other, "home/.x/mine")
    assert KEPT.restore(other, manifest, exact=True, cancel=Cancel())
    assert [path.name for path in (other / "home/.x").iterdir()] == ["mine"]
    assert (other / "home/.y/two").is_file()


def test_nothing_comes_back_from_a_damaged_entry(tmp_path: Path, workspace: Path):
    manifest, fresh = stored(tmp_path, workspace), tmp_path / "fresh"
    (tmp_path / "store/files/home/.y/two").write_text("something else")
    with pytest.raises(UnusableManifest):
        KEPT.restore(fresh, manifest, exact=True, cancel=Cancel())
    assert KEPT.is_empty(fresh) and not (fresh / "restoring").exists()


def test_a_lock_file_lists_digests(tmp_path: Path):
    npm, go, uv = f"sha512-{'Ab3+/' * 17}A==", f"h1:{'a' * 43}=", f"sha256:{'0' * 64}"
    text = f'"integrity": "{npm}"\nx v1.0.0 {go}\nx v1.0.0/go.mod {go}\nhash = "{uv}"\n--hash={uv}\nversion: 1\n'
    (tmp_path / "lock").write_text(text)
    assert read_integrities(tmp_path / "lock") == tuple(sorted((npm, go, uv)))
    assert read_integrities(tmp_path / "absent") == ()


UV, PNPM = "home/.cache/uv", "home/.pnpm-store/v10"


@pytest.mark.parametrize(
    ("output", "lock", "kept", "left"),
    [
        (GoOutput(".", "x"), "go.sum", ["home/go/pkg/mod/cache/download/x/@v/v1.zip"], ["home/go/pkg/mod/x@v1/a.go"]),
        (
            TreeOutput(PurePosixPath("dist")),
            "package-lock.json",
            ["home/.npm/_cacache/content-v2/a"],
            ["home/.npm/_logs/a", "home/.npm/_cacache/tmp/a"],
        ),
        (
            TreeOutput(PurePosixPath("dist")),
            "pnpm-lock.yaml",
            [f"{PNPM}/files/00/a", f"{PNPM}/index/a.json"],
            [f"{PNPM}/projects/a"],
        ),
        (
            PythonOutput(""),
            "uv.lock",
            [
                f"{UV}/archive-v0/Ab/a.py",
                f"{UV}/wheels-v8/pypi/a/1.0-py3-none-any.http",
                f"{UV}/sdists-v11/pypi/m/3.0.2/Ab/src/setup.py",
                f"{UV}/sdists-v11/pypi/m/3.0.2/Ab/metadata.msgpack",
            ],
            [
                f"{UV}/builds-v0/.tmpa/bin/python",
                f"{UV}/sdists-v11/path/ab/revision.rev",
                f"{UV}/sdists-v11/pypi/m/3.0.2/Ab/m-3.0.2-cp311-cp311-linux_x86_64.whl",
                f"{UV}/sdists-v11/pypi/m/3.0.2/Ab/m-3.0.2-cp311-cp311-linux_x86_64/m.so",
                f"{UV}/.lock",
            ],
        ),
    ],
)
def test_what_each_tool_downloads_is_kept(tmp_path: Path, output: Output, lock: str, kept: list[str], left: list[str]):
    put(tmp_path, *kept, *left)
    build = BuildPlan("x", "backend", "x", PurePosixPath(), PurePosixPath(lock), (), output)
    snapshot = Snapshot(tmp_path, (), frozenset(), "")
    tool = {GoOutput: Go, PythonOutput: Python}.get(type(output), Node)(build, snapshot)
    assert sorted(tool.downloads(tmp_path / lock).read(tmp_path, ()).files) == sorted(kept)
