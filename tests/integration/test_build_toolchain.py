"""A real flake's dev shell, made of this machine's tools, around a real build step."""

import subprocess
import time
from pathlib import Path, PurePosixPath

import pytest

from orchestrator.build import runner
from orchestrator.build.runner import run_builds
from orchestrator.build.snapshot import take_snapshot
from orchestrator.build.toolchain import open_toolchain
from orchestrator.errors import ProjectError, ToolchainError
from orchestrator.events import Event, Line, Note
from orchestrator.plan import BuildPlan, Plan, WebPlan
from orchestrator.process import Cancel, find
from orchestrator.recipes import Step, TreeOutput
from orchestrator.settings import Settings

pytestmark = pytest.mark.skipif(find("nix") is None, reason="Nix is not installed")

FLAKE = """
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
  outputs = { nixpkgs, ... }: let
    shell = system: let pkgs = nixpkgs.legacyPackages.${system}; in {
      default = pkgs.mkShellNoCC {
        packages = [ pkgs.gnumake ];
        GREETING = builtins.readFile ./greeting;
        shellHook = ''
          echo "hook in $PWD"
          touch "@repo@/written-by-hook" 2>/dev/null || true
        '';
      };
    };
  in { devShells.x86_64-linux = shell "x86_64-linux"; devShells.aarch64-linux = shell "aarch64-linux"; };
}
"""


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    (root / "web").mkdir(parents=True)
    (root / "flake.nix").write_text(FLAKE.replace("@repo@", str(root)))
    (root / "greeting").write_text("hello")
    (root / "web/package-lock.json").write_text("{}")
    subprocess.run(["git", "-C", root, "init", "-q"], check=True)
    subprocess.run(["git", "-C", root, "add", "-A"], check=True)
    return root


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: making the host set takes seconds."""
    return tmp_path_factory.mktemp("toolchain")


@pytest.fixture
def settings(repo: Path, cache_dir: Path) -> Settings:
    state_dir = repo.parent / "state"
    return Settings(name="app", monorepo=repo, toolchain="host", cache_dir=cache_dir, state_dir=state_dir)


def build(settings: Settings, script: str, events: list[Event]) -> None:
    directory = PurePosixPath("web")
    plan = BuildPlan(
        service="web",
        kind="frontend",
        framework="vite",
        directory=directory,
        lock_file=directory / "package-lock.json",
        steps=(Step("build", ("bash", "-c", script), directory, network=False),),
        output=TreeOutput(directory / "dist"),
    )
    run_builds(
        settings,
        settings.monorepo,
        Plan("app", (plan,), WebPlan("web", True, None), None),
        emit=events.append,
        cancel=Cancel(),
    )


def test_a_step_runs_in_the_dev_shell_and_its_hook_in_the_sandbox(
    repo: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(runner, "web_server", lambda *_, **__: Path("/nix/store/nginx"))
    events: list[Event] = []
    report = 'echo "at $PWD: $GREETING, $(type -p make), jobs $MAKEFLAGS, home $HOME, tmp $TMPDIR"; mkdir dist'
    build(settings, f"{report}; touch /nix/store/x 2>/dev/null && echo WRITABLE; true", events)
    lines = [event.text for event in events if isinstance(event, Line) and event.service == "web"]
    said = next(line for line in lines if line.startswith("at "))
    assert "hook in /build/src/web" in lines
    assert said.startswith("at /build/src/web: hello, /nix/store/")
    assert "--jobserver-auth=" in said and "home /build/home, tmp /build/tmp" in said
    assert "WRITABLE" not in lines
    assert not (repo / "written-by-hook").exists()
    assert any("host, asked for" in event.text for event in events if isinstance(event, Note))


def test_the_second_time_nothing_is_evaluated(repo: Path, settings: Settings):
    def opened() -> float:
        started = time.monotonic()
        taken = take_snapshot(repo, cache_dir=settings.cache_dir, emit=lambda event: None)
        keys.append(open_toolchain(settings, taken, emit=lambda event: None, cancel=Cancel()).key)
        return time.monotonic() - started

    keys: list[str] = []
    opened()
    (repo / "main.rs").write_text("unrelated")
    assert opened() < 1
    (repo / "greeting").write_text("changed")
    opened()
    assert keys[0] == keys[1] != keys[2]


def test_a_syntax_error_is_told_with_its_place(repo: Path, settings: Settings):
    (repo / "flake.nix").write_text("{\n  outputs = { nixpkgs }: { oops ;\n}\n")
    taken = take_snapshot(repo, cache_dir=settings.cache_dir, emit=lambda event: None)
    with pytest.raises(ToolchainError, match=r"flake\.nix:2") as caught:
        open_toolchain(settings, taken, emit=lambda event: None, cancel=Cancel())
    assert "/flakes/" not in caught.value.message


def test_a_package_the_machine_lacks_is_named(repo: Path, settings: Settings):
    flake = (repo / "flake.nix").read_text().replace("pkgs.gnumake", "pkgs.no-such-package")
    (repo / "flake.nix").write_text(flake)
    taken = take_snapshot(repo, cache_dir=settings.cache_dir, emit=lambda event: None)
    with pytest.raises(ToolchainError, match="no-such-package"):
        open_toolchain(settings, taken, emit=lambda event: None, cancel=Cancel())


def test_an_untracked_flake_is_refused_naming_git_add(repo: Path, settings: Settings):
    subprocess.run(["git", "-C", repo, "rm", "-q", "--cached", "flake.nix"], check=True)
    taken = take_snapshot(repo, cache_dir=settings.cache_dir, emit=lambda event: None)
    with pytest.raises(ProjectError, match="not tracked by git") as caught:
        open_toolchain(settings, taken, emit=lambda event: None, cancel=Cancel())
    assert caught.value.hint == f"git -C {repo} add flake.nix"


def test_a_program_outside_the_dev_shell_is_not_found(repo: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runner, "web_server", lambda *_, **__: Path("/nix/store/nginx"))
    assert find("git") is not None
    with pytest.raises(ToolchainError, match="the dev shell has no git"):
        build(settings, "git --version", [])
