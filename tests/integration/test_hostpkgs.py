"""The package set made of this machine's tools, with real Nix: dev shells, builds, closures, messages."""

import json
import os
import re
import shutil
import threading
import time
from pathlib import Path

import pytest

from orchestrator import process
from orchestrator.errors import ToolchainError
from orchestrator.tools import hostset, nix
from orchestrator.tools.hostset import HostSet
from orchestrator.tools.nix import Nix

NGINX_CLOSURE_BYTES = 14_000_000

TOWNS = """
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
  inputs.flake-utils.url = "github:numtide/flake-utils";

  outputs = { self, nixpkgs, flake-utils }:
    flake-utils.lib.eachDefaultSystem (system:
      let
        greeting = final: previous: { greet = previous.writeShellScriptBin "greet" "echo hello from an overlay"; };
        pkgs = import nixpkgs { inherit system; overlays = [ greeting ]; };
        base = pkgs.mkShell { packages = [ pkgs.greet ]; shellHook = "export BASE_HOOK=1"; };
      in
      {
        devShells.default = pkgs.mkShell {
          inputsFrom = [ base ];
          buildInputs = with pkgs; [ openssl zlib ];
          nativeBuildInputs = with pkgs; [ pkg-config PACKAGES ];
          RUST_LOG = "debug";
          shellHook = ''
            export HOOKED="$RUST_LOG"
          '';
        };
        packages.default = pkgs.stdenv.mkDerivation {
          pname = "versions";
          version = "1";
          src = ./src;
          nativeBuildInputs = [ pkgs.pkg-config ];
          buildInputs = [ pkgs.openssl pkgs.zlib ];
          buildPhase = "gcc main.c -o versions $(pkg-config --cflags --libs libcrypto) -lz";
          installPhase = "install -Dm755 versions $out/bin/versions";
        };
        packages.script = pkgs.writeShellApplication {
          name = "script";
          runtimeInputs = [ pkgs.greet ];
          text = "greet";
        };
        packages.joined = pkgs.symlinkJoin { name = "joined"; paths = [ pkgs.greet self.packages.${system}.script ]; };
      });
}
"""

PROGRAM = """
#include <openssl/crypto.h>
#include <stdio.h>
#include <zlib.h>
int main(void) { return printf("%s, zlib %s\\n", OpenSSL_version(0), zlibVersion()) < 0; }
"""


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostpkgs")


@pytest.fixture(scope="session")
def host(cache: Path) -> HostSet:
    return hostset.prepare(cache)


@pytest.fixture(scope="session")
def opened(host: HostSet) -> Nix:
    return nix.open_nix().offline().with_host_tools(host.visible)


def knowing_copies(cache: Path, directory: Path) -> Path:
    """A cache that has made no set yet but knows which trees are in the store already."""
    (directory / "hostpkgs").mkdir(parents=True)
    shutil.copy(cache / "hostpkgs/trees.json", directory / "hostpkgs")
    return directory


def make_flake(directory: Path, text: str = TOWNS, packages: str = "cargo rustc nodejs") -> Path:
    (directory / "src").mkdir(parents=True)
    (directory / "flake.nix").write_text(text.replace("PACKAGES", packages))
    (directory / "src/main.c").write_text(PROGRAM)
    return directory


def overridden(opened: Nix, host: HostSet, flake: Path) -> tuple[str, ...]:
    return hostset.overrides(nix.flake_inputs(opened, flake).flakes, host)


def prime(opened: Nix, host: HostSet, flake: Path, shell: str = "default") -> Path:
    profile = flake.parent / f"{flake.name}-profile"
    reference = f"path:{flake}#{shell}"
    nix.prime_shell(opened, reference, profile, overrides=overridden(opened, host, flake), flake_dir=flake)
    return profile


def in_shell(opened: Nix, profile: Path, script: str) -> str:
    """What bash prints in the shell, in an environment without HOME."""
    return process.run(nix.develop_argv(opened, profile, ["bash", "-euc", script]), env={}).stdout


def bare(opened: Nix, program: Path, *arguments: str) -> process.Completed:
    """The program run in a root directory that holds its closure and nothing else."""
    members = [member.path for member in nix.closure(opened, [program.parent.parent])]
    binds = [part for path in members for part in ("--ro-bind", str(path), str(path))]
    sandbox = ["bwrap", "--unshare-all", "--clearenv", *binds, "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]
    return process.run([*sandbox, "--", str(program), *arguments], check=False)


def test_an_ordinary_dev_shell_works_unmodified(opened: Nix, host: HostSet, tmp_path: Path):
    profile = prime(opened, host, make_flake(tmp_path / "towns"))
    said = in_shell(
        opened,
        profile,
        "cargo --version; rustc --version; node --version; npm --version; greet; pkg-config --libs openssl;"
        'echo "$RUST_LOG $HOOKED $BASE_HOOK"',
    ).splitlines()
    assert said[0].startswith("cargo 1.")
    assert said[1].startswith("rustc 1.")
    assert re.fullmatch(r"v\d+\.\d+\.\d+", said[2])
    assert said[4] == "hello from an overlay"
    assert "-lssl" in said[5]
    assert "/nix/store/" in said[5]
    assert said[6] == "debug debug 1"


def test_nothing_of_the_machine_leaks_into_the_search_path(opened: Nix, host: HostSet, tmp_path: Path):
    profile = prime(opened, host, make_flake(tmp_path / "towns"))
    directories = in_shell(opened, profile, 'echo "$PATH"').strip().split(":")
    assert all(directory.startswith("/nix/store/") for directory in directories)


def test_a_shell_without_a_compiler_has_none(opened: Nix, host: HostSet, tmp_path: Path):
    text = TOWNS.replace("devShells.default = pkgs.mkShell {", "devShells.default = pkgs.mkShellNoCC {")
    profile = prime(opened, host, make_flake(tmp_path / "towns", text.replace("inputsFrom = [ base ];", ""), ""))
    assert in_shell(opened, profile, "type -P gcc || echo none") == "none\n"


def test_a_build_links_to_the_store_and_runs_with_its_closure_alone(opened: Nix, host: HostSet, tmp_path: Path):
    flake = make_flake(tmp_path / "towns")
    built = nix.build(opened, f"path:{flake}", overrides=overridden(opened, host, flake), flake_dir=flake)
    said = bare(opened, built / "bin/versions")
    assert said.stdout.startswith("OpenSSL 3."), said.stderr
    closure = {re.sub(r"^.{33}|-\d.*", "", member.path.name) for member in nix.closure(opened, [built])}
    assert closure == {"versions", "glibc", "libgcc", "openssl", "zlib"}


def test_a_library_that_is_not_linked_is_not_in_the_closure(opened: Nix, host: HostSet, tmp_path: Path):
    text = TOWNS.replace("$(pkg-config --cflags --libs libcrypto) -lz", "-lz")
    flake = make_flake(tmp_path / "towns", text)
    (flake / "src/main.c").write_text("#include <zlib.h>\nint main(void) { return zlibVersion() == 0; }\n")
    built = nix.build(opened, f"path:{flake}", overrides=overridden(opened, host, flake), flake_dir=flake)
    assert not any("openssl" in member.path.name for member in nix.closure(opened, [built]))


def test_scripts_and_joined_packages_run(opened: Nix, host: HostSet, tmp_path: Path):
    flake = make_flake(tmp_path / "towns")
    arguments = ["--extra-experimental-features", "nix-command flakes", "run", f"path:{flake}#script"]
    done = process.run([str(opened.executable), *arguments, *overridden(opened, host, flake)], env=opened.environment)
    assert done.stdout == "hello from an overlay\n"
    joined = nix.build(opened, f"path:{flake}#joined", overrides=overridden(opened, host, flake))
    assert sorted(path.name for path in (joined / "bin").iterdir()) == ["greet", "script"]


@pytest.mark.parametrize("program", ["nginx", "nodejs-slim", "python3", "bash"])
def test_what_reaches_an_image_needs_nothing_outside_its_closure(program: str, opened: Nix, host: HostSet):
    built = nix.build(opened, f"path:{host.path}#{program}")
    name, arguments = {
        "nginx": ("nginx", ["-V"]),
        "nodejs-slim": ("node", ["-e", "console.log(require('zlib').crc32 === undefined, 'ready')"]),
        "python3": ("python3", ["-c", "import asyncio, bz2, ctypes, lzma, sqlite3, ssl, zlib; print('ready')"]),
        "bash": ("bash", ["-c", "echo ready"]),
    }[program]
    done = bare(opened, built / "bin" / name, *arguments)
    assert done.returncode == 0, done.stderr
    assert "ready" in done.stdout or "TLS SNI support enabled" in done.stderr


def test_the_web_servers_closure_is_small(opened: Nix, host: HostSet):
    built = nix.build(opened, f"path:{host.path}#nginx")
    assert (built / "conf/mime.types").is_file()
    sizes = {member.path.name[33:]: member.nar_size for member in nix.closure(opened, [built])}
    assert sum(sizes.values()) <= NGINX_CLOSURE_BYTES, sizes


def failure(opened: Nix, host: HostSet, flake: Path) -> ToolchainError:
    with pytest.raises(ToolchainError) as caught:
        prime(opened, host, flake)
    return caught.value


def test_a_package_the_machine_lacks_says_where_and_what_to_install(opened: Nix, host: HostSet, tmp_path: Path):
    name, text = next((name, text) for name, text in sorted(host.missing.items()) if "apt-get" in text)
    error = failure(opened, host, make_flake(tmp_path / "towns", packages=name))
    line = TOWNS.splitlines().index("          nativeBuildInputs = with pkgs; [ pkg-config PACKAGES ];") + 1
    assert error.message == f"flake.nix:{line}: package '{name}' is not on this machine"
    assert error.hint == text.partition("Add it with: ")[2]


def test_an_unknown_package_is_named_with_its_line(opened: Nix, host: HostSet, tmp_path: Path):
    error = failure(opened, host, make_flake(tmp_path / "towns", packages="no-such-thing"))
    assert re.match(r"flake\.nix:\d+: package 'no-such-thing' is unknown to the dev shell", error.message)


def test_a_syntax_error_is_named_with_its_line(opened: Nix, host: HostSet, tmp_path: Path):
    error = failure(opened, host, make_flake(tmp_path / "towns", packages="; ]"))
    assert re.match(r"flake\.nix:\d+: Nix: syntax error, unexpected ';'", error.message)


def test_an_input_without_a_stand_in_is_named_only_when_it_is_used(opened: Nix, host: HostSet, tmp_path: Path):
    text = TOWNS.replace("outputs = { self,", 'inputs.crane.url = "github:ipetkov/crane";\n  outputs = { self, crane,')
    prime(opened, host, make_flake(tmp_path / "unused", text))
    error = failure(opened, host, make_flake(tmp_path / "used", text, packages="(crane.mkLib pkgs).cargo"))
    assert "the flake input 'crane' has no stand-in on this machine" in error.message


def test_a_failing_dependency_shows_its_last_lines(opened: Nix, host: HostSet, tmp_path: Path):
    broken = '(pkgs.runCommand "broken" { } "echo the reason; false")'
    error = failure(opened, host, make_flake(tmp_path / "towns", packages=broken))
    assert "could not build broken" in error.message
    assert "the reason" in error.details


def test_rust_overlay_gives_the_machines_toolchain_and_refuses_another(opened: Nix, host: HostSet, tmp_path: Path):
    declared = 'inputs.rust-overlay.url = "github:oxalica/rust-overlay";'
    text = TOWNS.replace("outputs = { self,", f"{declared}\n  outputs = {{ self, rust-overlay,")
    text = text.replace("[ greeting ]", "[ greeting (import rust-overlay) rust-overlay.overlays.default ]")
    chosen = make_flake(tmp_path / "chosen", text, packages="rust-bin.stable.latest.default")
    assert in_shell(opened, prime(opened, host, chosen), "rustc --version").startswith("rustc 1.")
    other = make_flake(tmp_path / "other", text, packages='rust-bin.stable."1.50.0".default')
    error = failure(opened, host, other)
    assert "Rust 1.50.0 is not on this machine (it has" in error.message
    assert error.hint == "rustup toolchain install 1.50.0"


def test_looking_again_is_quick_and_changes_nothing(cache: Path, host: HostSet):
    started = time.monotonic()
    again = hostset.prepare(cache)
    assert again == host
    assert time.monotonic() - started < 0.3


def test_two_at_once_make_one_set(cache: Path, tmp_path: Path, host: HostSet):
    knowing_copies(cache, tmp_path)
    found: list[HostSet] = []
    threads = [threading.Thread(target=lambda: found.append(hostset.prepare(tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [made.fingerprint for made in found] == [host.fingerprint] * 3
    assert not list((tmp_path / "hostpkgs").glob(".*"))


@pytest.mark.usefixtures("host")
def test_a_damaged_cache_and_vanished_copies_are_made_again(cache: Path, tmp_path: Path):
    first = hostset.prepare(knowing_copies(cache, tmp_path))
    record = next((tmp_path / "hostpkgs/scans").iterdir())
    content = json.loads(record.read_text())
    record.write_text(json.dumps(content | {"sources": ["/nix/store/gone"]}))
    (tmp_path / "hostpkgs/.stage-of-a-killed-run").mkdir()
    (tmp_path / "hostpkgs/trees.json").write_text("{")
    assert hostset.prepare(tmp_path) == first
    assert json.loads(record.read_text())["sources"] == content["sources"]
    assert not list((tmp_path / "hostpkgs").glob(".*"))


@pytest.mark.usefixtures("host")
def test_a_new_program_on_path_is_noticed(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    before = hostset.prepare(knowing_copies(cache, tmp_path / "cache"))
    (programs / "trunk").write_text("#!/bin/sh\n")
    (programs / "trunk").chmod(0o755)
    after = hostset.prepare(tmp_path / "cache")
    assert "trunk" in before.missing
    assert "trunk" not in after.missing
    assert after.fingerprint != before.fingerprint


def test_the_copies_are_kept_from_the_collector(host: HostSet, opened: Nix):
    roots = host.path.parent / "roots" / host.fingerprint
    links = [path for path in roots.iterdir() if path.is_symlink()]
    assert len(links) > 10
    known = opened.store("--query", "--roots", str(links[0].readlink()))
    assert any(str(roots) in line for line in known)


def test_the_scan_works_without_home_and_path(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: HostSet
):
    monkeypatch.setenv("HOME", "")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    without = hostset.prepare(knowing_copies(cache, tmp_path))
    rust = {name for name in ("cargo", "rustc") if name not in host.missing}
    assert not rust & set(without.missing)
