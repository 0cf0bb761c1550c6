"""Rust linked by the quicker linker of a real dev shell, with the usual loader and search path."""

import shutil
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from orchestrator.build import runner
from orchestrator.build.elf import Elf, read_elf
from orchestrator.build.runner import run_builds
from orchestrator.build.service import ServiceBuild
from orchestrator.errors import ToolchainError
from orchestrator.events import Event, Note
from orchestrator.plan import BuildPlan, Plan, WebPlan
from orchestrator.process import Cancel, find
from orchestrator.recipes import CargoOutput, Step
from orchestrator.settings import Settings
from tests.integration.test_build import put

pytestmark = pytest.mark.skipif(find("nix") is None, reason="Nix is not installed")

FLAKE = """
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
  outputs = { nixpkgs, ... }: let
    shell = system: with nixpkgs.legacyPackages.${system}; {
      default = mkShell { packages = [ cargo rustc @packages@ ]; @more@ };
    };
  in { devShells.x86_64-linux = shell "x86_64-linux"; devShells.aarch64-linux = shell "aarch64-linux"; };
}
"""
BARE = """
for argument in "$@"; do
  case $argument in
    -rpath) skipped=1 ;;
    *) [ -n "$skipped" ] || kept+=("$argument"); skipped= ;;
  esac
done
exec ${mold}/bin/ld.mold "''${kept[@]}"
"""
"""A linker that is not told where libraries will be found."""

LOCK = 'version = 3\n[[package]]\nname = "app"\nversion = "1.0.0"\n'


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: making the host set takes seconds."""
    return tmp_path_factory.mktemp("linker")


@pytest.fixture(autouse=True)
def no_web_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "web_server", lambda *_, **__: Path("/nix/store/nginx"))


def repository(root: Path, packages: str, more: str = "") -> Path:
    put(root, "flake.nix", FLAKE.replace("@packages@", packages).replace("@more@", more))
    put(root, "Cargo.toml", '[package]\nname = "app"\nversion = "1.0.0"\nedition = "2021"\n')
    put(root, "Cargo.lock", LOCK)
    put(root, "src/main.rs", 'fn main() { println!("linked"); }\n')
    for arguments in (("init", "-q"), ("add", "-A")):
        subprocess.run(["git", "-C", root, *arguments], check=True)
    return root


def build(root: Path, cache_dir: Path, events: list[Event], name: str = "app") -> ServiceBuild:
    directory = PurePosixPath()
    cargo = ("cargo", "build", "--release", "--locked", "--offline", "-p", "app", "--bin", "app")
    step = Step("build", cargo, directory, network=False)
    output = CargoOutput("app", "app")
    plan = BuildPlan("backend", "backend", "rust", directory, PurePosixPath("Cargo.lock"), (step,), output)
    settings = Settings(
        name=name, monorepo=root, toolchain="host", cache_dir=cache_dir, state_dir=root.parent / "state"
    )
    whole = Plan(name, (plan,), WebPlan(None, False, None), None)
    return run_builds(settings, root, whole, emit=events.append, cancel=Cancel()).services[0]


def linked(built: ServiceBuild) -> tuple[Elf, str]:
    """The loader's facts of a binary that runs, and what its linker wrote about itself."""
    assert subprocess.run([built.artifact], capture_output=True, check=True, text=True).stdout == "linked\n"
    facts = read_elf(built.artifact)
    assert facts is not None
    comment = subprocess.run(["readelf", "-p", ".comment", built.artifact], capture_output=True, check=True, text=True)
    return facts, comment.stdout


def notes(events: list[Event]) -> str:
    return "\n".join(event.text for event in events if isinstance(event, Note))


def require(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed (apt-get install {program.removeprefix('ld.')})")


def test_the_shells_linker_is_used_and_the_binary_is_like_the_usual_one(tmp_path: Path, cache_dir: Path):
    require("ld.mold")
    events: list[Event] = []
    usual, before = linked(build(repository(tmp_path / "usual", ""), cache_dir, events))
    assert "mold" not in before and "linked with" not in notes(events)
    events.clear()
    made = build(repository(tmp_path / "mold", "mold"), cache_dir, events)
    facts, comment = linked(made)
    assert "mold" in comment and "backend: linked with the dev shell's mold" in notes(events)
    assert facts.interpreter == usual.interpreter and (facts.interpreter or "").startswith("/nix/store/")
    assert set(facts.runpath) == set(usual.runpath) != set()
    assert set(facts.needed) == set(usual.needed)
    again = build(repository(tmp_path / "elsewhere" / "clone", "mold"), cache_dir, [], name="other")
    assert again.artifact.read_bytes() == made.artifact.read_bytes()


def test_lld_is_used_where_there_is_no_mold_and_the_project_may_choose(tmp_path: Path, cache_dir: Path):
    require("ld.lld")
    events: list[Event] = []
    root = repository(tmp_path / "lld", "llvmPackages.bintools")
    assert "LLD" in linked(build(root, cache_dir, events))[1]
    assert "backend: linked with the dev shell's lld" in notes(events)
    events.clear()
    put(root, ".cargo/config.toml", "[build]\nrustflags = ['-Clinker-features=-lld', '-Clink-arg=-fuse-ld=bfd']\n")
    assert "LLD" not in linked(build(root, cache_dir, events))[1]
    assert "linked with the dev shell's" not in notes(events)


def test_a_linker_whose_programs_find_nothing_is_left_alone(tmp_path: Path, cache_dir: Path):
    """As nixpkgs' `lld`: it is on PATH, it links, and it leaves out where the libraries are."""
    require("ld.mold")
    events: list[Event] = []
    root = repository(tmp_path / "repo", f"(writeShellScriptBin \"ld.mold\" ''{BARE}'')")
    facts, comment = linked(build(root, cache_dir, events))
    assert facts.runpath and "mold" not in comment
    assert "linked as usual: what the dev shell's mold links does not find its libraries" in notes(events)


def test_a_shell_without_rust_is_told_as_before(tmp_path: Path, cache_dir: Path):
    root = repository(tmp_path / "repo", "")
    put(root, "flake.nix", FLAKE.replace("cargo rustc @packages@", "").replace("@more@", ""))
    with pytest.raises(ToolchainError, match="the dev shell has no cargo"):
        build(root, cache_dir, [])
