"""What npm and pnpm are told and what their tools say."""

from pathlib import Path, PurePosixPath

import pytest

from orchestrator.build.node import Node
from orchestrator.build.snapshot import Entry, Snapshot
from orchestrator.build.workspace import Workspace
from orchestrator.plan import BuildPlan
from orchestrator.recipes import TreeOutput


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, inside=True)


def make(*paths: str, output: str = "web/dist", lock: str = "web/package-lock.json") -> Node:
    plan = BuildPlan(
        "web", "frontend", "vite", PurePosixPath("web"), PurePosixPath(lock), (),
        TreeOutput(PurePosixPath(output)),
    )  # fmt: skip
    entries = tuple(Entry(path, "file", False, "") for path in paths)
    return Node(plan, Snapshot(Path("/repo"), entries, frozenset(), ""))


def test_modules_are_counted_and_every_line_is_shown():
    node = make()
    assert node.read("✓ 34 modules transformed.") == "✓ 34 modules transformed."
    assert node.read("built in 2 s") == "built in 2 s"
    assert node.compiled == 34


def test_an_old_output_is_removed_unless_it_holds_sources(workspace: Workspace):
    old = workspace.path / "src/web/dist/old.js"
    old.parent.mkdir(parents=True)
    old.touch()
    make("web/dist/index.html").prepare(workspace)
    assert old.exists()
    make("web/index.html").prepare(workspace)
    assert not old.parent.exists()
    assert old.parent.parent.is_dir()


def test_a_plain_directory_of_files_is_never_removed(workspace: Workspace):
    (workspace.path / "src").mkdir()
    make(output=".").prepare(workspace)
    assert (workspace.path / "src").is_dir()


def test_an_install_is_there_when_npm_finished_it(workspace: Workspace):
    modules = workspace.path / "src/web/node_modules"
    modules.mkdir(parents=True)
    assert not make().is_fetched(workspace)
    (modules / ".package-lock.json").touch()
    assert make().is_fetched(workspace)


def test_an_install_of_a_pnpm_workspace_is_there_when_pnpm_finished_it(workspace: Workspace):
    node = make(lock="pnpm-lock.yaml")
    modules = workspace.path / "src/node_modules"
    modules.mkdir(parents=True)
    (modules / ".package-lock.json").touch()
    assert not node.is_fetched(workspace)
    (modules / ".modules.yaml").touch()
    assert node.is_fetched(workspace)


def test_what_decides_an_install():
    npm, pnpm = make(), make(lock="pnpm-lock.yaml")
    for node in (npm, pnpm):
        assert all(node.decides_fetch(path) for path in ("package.json", "a/.npmrc", "patches/a@1.patch"))
        assert not any(node.decides_fetch(path) for path in ("src/main.ts", "my-package.json"))
    for path in ("pnpm-lock.yaml", "pnpm-workspace.yaml", ".pnpmfile.cjs"):
        assert (npm.decides_fetch(path), pnpm.decides_fetch(path)) == (False, True)
    assert (npm.decides_fetch("a/package-lock.json"), pnpm.decides_fetch("package-lock.json")) == (True, False)


def test_pnpm_keeps_downloads_in_the_workspace_and_stays_what_it_is(workspace: Workspace):
    variables = make(lock="pnpm-lock.yaml").variables(workspace)
    for prefix in ("npm_config_", "pnpm_config_"):
        assert variables[f"{prefix}store_dir"] == "/build/home/.pnpm-store"
        assert variables[f"{prefix}manage_package_manager_versions"] == "false"
    assert make(lock="pnpm-lock.yaml").fetch_variables(offline=True)["pnpm_config_offline"] == "true"


def test_offline_npm_does_not_try(workspace: Workspace):
    assert make().fetch_variables(offline=True) == {"npm_config_offline": "true"}
    assert make().fetch_variables(offline=False) == {}
    assert make().variables(workspace)["npm_config_cache"] == "/build/home/.npm"
