"""The Nix adapter with real Nix, and our own flake built from a clone at another path."""

import os
import re
from pathlib import Path

import pytest

from orchestrator import process
from orchestrator.errors import ToolchainError
from orchestrator.tools import hostset, nix, nixreach
from orchestrator.tools.hostset import HostSet
from orchestrator.tools.nix import FlakeInputs, Nix

REPOSITORY = Path(__file__).resolve().parents[2]

FLAKE = """
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs";
  inputs.local.url = "path:./sub";
  inputs.tree = { url = "github:some/tree"; flake = false; };
  inputs.same.follows = "nixpkgs";
  inputs.parts = { type = "github"; owner = "hercules-ci"; repo = "flake-parts"; };
  outputs = { self, nixpkgs, undeclared, ... }: { };
}
"""


def shell_flake(attributes: str) -> str:
    """A flake with one dev shell of these attributes."""
    system = f"{os.uname().machine}-linux"
    shell = f"nixpkgs.legacyPackages.{system}.mkShell {{ {attributes} }}"
    return f"{{ outputs = {{ self, nixpkgs }}: {{ devShells.{system}.default = {shell}; }}; }}"


@pytest.fixture(scope="module")
def opened() -> Nix:
    return nix.open_nix().offline()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> HostSet:
    return hostset.prepare(tmp_path_factory.mktemp("nix"))


@pytest.fixture(scope="module")
def ready(opened: Nix, host: HostSet) -> Nix:
    """Nix as it builds on a machine with a package set of its own."""
    return opened.with_host_tools(host.visible)


def test_nix_is_found_and_new_enough(opened: Nix):
    assert opened.version >= nix.OLDEST


def test_no_nix_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nix, "_USUAL_PLACES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(process.ProgramMissing) as caught:
        nix.open_nix({"PATH": str(tmp_path)})
    assert "nix-bin" in str(caught.value.hint)


def test_the_inputs_are_read_without_fetching_any(opened: Nix, tmp_path: Path):
    directory = tmp_path / 'a "path" with ${odd} signs'
    directory.mkdir()
    (directory / "flake.nix").write_text(FLAKE)
    assert nix.flake_inputs(opened, directory) == FlakeInputs(
        flakes={
            "nixpkgs": "github:NixOS/nixpkgs",
            "local": "path:./sub",
            "parts": "github:hercules-ci/flake-parts",
            "undeclared": "flake:undeclared",
        },
        sources={"tree": "github:some/tree"},
    )


def test_a_flake_that_is_not_nix_is_named_with_its_line(opened: Nix, tmp_path: Path):
    (tmp_path / "flake.nix").write_text("{\n  inputs = [;\n}\n")
    with pytest.raises(ToolchainError, match=r"^flake\.nix:2: Nix: syntax error") as caught:
        nix.flake_inputs(opened, tmp_path)
    assert caught.value.details == ("inputs = [;",)


def test_a_flake_that_git_does_not_track_says_what_to_do(opened: Nix, host: HostSet, tmp_path: Path):
    process.run(["git", "init", "--quiet", str(tmp_path)])
    (tmp_path / "flake.nix").write_text("{ outputs = _: { }; }")
    with pytest.raises(ToolchainError, match="not tracked by git") as caught:
        nix.prime_shell(opened, str(tmp_path), tmp_path / "profile", flake_dir=tmp_path)
    assert caught.value.hint == "run: git add flake.nix flake.lock"


def test_a_flake_without_a_dev_shell_says_so(opened: Nix, tmp_path: Path):
    (tmp_path / "flake.nix").write_text("{ outputs = { self }: { }; }")
    with pytest.raises(ToolchainError, match="the flake has no dev shell"):
        nix.prime_shell(opened, f"path:{tmp_path}", tmp_path / "profile", flake_dir=tmp_path)


def test_a_tree_is_added_under_a_name_and_kept_by_a_root(opened: Nix, tmp_path: Path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text(f"{tmp_path}")
    added = nix.add_tree(opened, tree, "a-name")
    assert added.name.endswith("-a-name")
    assert (added / "file").read_text() == str(tmp_path)
    assert tree.is_dir()
    nix.add_root(opened, tmp_path / "roots/one", added)
    assert (tmp_path / "roots/one").resolve() == added
    assert [member.path for member in nix.closure(opened, [added])] == [added]
    (tmp_path / "roots/one").unlink()
    opened.store("--delete", str(added))


def test_a_path_that_is_not_in_the_store_has_no_closure(opened: Nix):
    with pytest.raises(ToolchainError):
        nix.closure(opened, [Path("/nix/store/00000000000000000000000000000000-none")])


def test_the_binary_caches_are_known_and_asked(opened: Nix, tmp_path: Path):
    assert nixreach.substituters(opened) == ()
    assert not nixreach.binary_cache_reachable(opened)
    (tmp_path / "nix-cache-info").write_text("StoreDir: /nix/store\n")
    local = Nix(opened.executable, opened.version, opened.environment | {"NIX_CONFIG": f"substituters = {tmp_path}"})
    assert nixreach.binary_cache_reachable(local)


def test_a_profile_keeps_only_its_current_environment(ready: Nix, host: HostSet, tmp_path: Path):
    overrides = hostset.overrides({"nixpkgs": "flake:nixpkgs"}, host)
    for number in ("1", "2"):
        (tmp_path / "flake.nix").write_text(shell_flake(f'N = "{number}";'))
        nix.prime_shell(ready, f"path:{tmp_path}", tmp_path / "state/profile", overrides=overrides)
        assert nix.read_environment(tmp_path / "state/profile")["N"] == number
    assert len(list((tmp_path / "state").iterdir())) == 2


def test_the_hook_runs_at_each_step_and_not_when_the_shell_is_made(ready: Nix, host: HostSet, tmp_path: Path):
    (tmp_path / "flake.nix").write_text(shell_flake(f'shellHook = "date >> {tmp_path}/ran";'))
    overrides = hostset.overrides({"nixpkgs": "flake:nixpkgs"}, host)
    nix.prime_shell(ready, f"path:{tmp_path}", tmp_path / "profile", overrides=overrides)
    assert not (tmp_path / "ran").exists()
    process.run(nix.develop_argv(ready, tmp_path / "profile", ["true"]), env={})
    assert (tmp_path / "ran").exists()


HOOKED = """
  GREETING = "it's \\"quoted\\" $HOME";
  multi = "two\\nlines";
  shellHook = ''
    export FROM_HOOK="$# arguments, $PWD, $out"
    helper() { echo "helped $1"; }
    export -f helper
    unset CC
  '';
"""


def test_the_script_of_a_shell_does_what_nix_develop_does(ready: Nix, host: HostSet, tmp_path: Path):
    """Variables, exported functions, the hook, arguments, the umask, the exit code: all are the same."""
    (tmp_path / "flake.nix").write_text(shell_flake(HOOKED))
    profile, script, place = tmp_path / "profile", tmp_path / "shell.sh", tmp_path / "a place"
    place.mkdir()
    nix.prime_shell(ready, f"path:{tmp_path}", profile, overrides=hostset.overrides({"nixpkgs": "flake:nixpkgs"}, host))
    nix.write_shell(ready, profile, script)
    said = ["bash", "-c", 'helper x; printf "%s\\0" "$@"; umask; env -0; exit 7', "bash", "one two", "'$HOME\n", ""]
    environment = {"HOME": "/home/x", "PATH": "/bin", "KEPT": "1"}
    strict = ["/bin/bash", "-c", 'umask 077; exec "$@"', "bash"]
    outcomes = [
        process.run([*strict, *argv, *said], env=environment, cwd=place, check=False)
        for argv in (nix.develop_argv(ready, profile), nix.shell_argv(profile, script))
    ]
    seen = [set(re.sub(r"nix-shell\.\w+", "nix-shell", outcome.stdout).split("\0")) for outcome in outcomes]
    assert seen[0] == seen[1]
    assert f"FROM_HOOK=0 arguments, {place}, {place}/outputs/out" in seen[1]
    assert [outcome.returncode for outcome in outcomes] == [7, 7]
    assert outcomes[1].stdout.startswith("helped x\none two\0'$HOME\n\0\0" + "0022\n")


def test_our_own_flake_runs_from_a_clone_with_an_empty_home(ready: Nix, host: HostSet, tmp_path: Path):
    clone = tmp_path / "elsewhere"
    process.run(["git", "clone", "--quiet", str(REPOSITORY), str(clone)])
    (tmp_path / "home").mkdir()
    environment = ready.environment | {"HOME": str(tmp_path / "home")}

    def nix_run(app: str, *arguments: str) -> str:
        override = ("--override-input", "nixpkgs", f"path:{host.path}")
        features = ("--extra-experimental-features", "nix-command flakes")
        argv = [str(ready.executable), *features, "run", f"{clone}{app}", *override, "--", *arguments]
        return process.run(argv, env=environment).stdout

    assert nix_run("", "--version").startswith("orchestrator ")
    assert "--monorepo" in nix_run("#deploy", "--help")
    assert process.run(["git", "-C", str(clone), "status", "--porcelain"]).stdout == ""
