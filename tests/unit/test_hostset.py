"""The package set of a machine without a binary cache: what is decided from text and trees alone."""

from pathlib import Path

import pytest

from orchestrator.tools import debian, hostcopies, hostnames, hosttools
from orchestrator.tools.hostcopies import Copy, Needs
from orchestrator.tools.hostscan import Machine
from orchestrator.tools.hostset import HostSet, overrides
from orchestrator.tools.hosttools import Link, Python, Rust, Search

STATUS = """\
Package: libssl3
Status: install ok installed
Architecture: amd64
Version: 3.0.19-1~deb12u2
Description: library
 Package: not a field of this stanza

Package: removed
Status: deinstall ok config-files
Version: 1.0-1

Package: zlib1g
Status: install ok installed
Version: 1:1.2.13.dfsg-1
"""


def test_only_installed_packages_count():
    assert debian.installed_versions(STATUS) == {"libssl3": "3.0.19-1~deb12u2", "zlib1g": "1:1.2.13.dfsg-1"}


@pytest.mark.parametrize(
    ("version", "upstream"),
    [
        ("3.0.19-1~deb12u2", "3.0.19"),
        ("1:1.2.13.dfsg-1", "1.2.13.dfsg"),
        ("20.20.2-1nodesource1+repack1", "20.20.2"),
        ("1.0~rc1-2", "1.0.rc1"),
        ("248+deb12u1", "248+deb12u1"),
        ("", ""),
    ],
)
def test_a_version_is_upstreams_part_and_fits_a_store_name(version: str, upstream: str):
    assert debian.upstream_version(version) == upstream


def test_a_machine_without_dpkg_has_no_packages(tmp_path: Path):
    machine = debian.read(tmp_path)
    assert machine.versions == {}
    assert machine.files("libc6") == ()
    assert not machine.has("libc6")


def test_the_files_of_a_package_with_an_architecture_in_its_list_are_found(tmp_path: Path):
    (tmp_path / "info").mkdir()
    (tmp_path / "info/libc6:amd64.list").write_text("/.\n/lib/x86_64-linux-gnu/libc.so.6\n")
    assert Path("/lib/x86_64-linux-gnu/libc.so.6") in debian.read(tmp_path).files("libc6")


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/usr/lib/x86_64-linux-gnu/libz.so.1.2.13", "lib/libz.so.1.2.13"),
        ("/lib/aarch64-linux-gnu/libc.so.6", "lib/libc.so.6"),
        ("/lib64/ld-linux-x86-64.so.2", "lib/ld-linux-x86-64.so.2"),
        ("/usr/sbin/nginx", "bin/nginx"),
        ("/bin/bash", "bin/bash"),
        ("/usr/lib/x86_64-linux-gnu/pkgconfig/openssl.pc", "lib/pkgconfig/openssl.pc"),
        ("/usr/include/x86_64-linux-gnu/openssl/configuration.h", "include/openssl/configuration.h"),
        ("/usr/include/zlib.h", "include/zlib.h"),
        ("/etc/nginx/mime.types", "conf/mime.types"),
        ("/usr/lib/x86_64-linux-gnu/gconv/UTF-16.so", None),
        ("/usr/lib/x86_64-linux-gnu/engines-3/padlock.so", None),
        ("/usr/lib/x86_64-linux-gnu/libz.a", None),
        ("/usr/share/doc/nginx/copyright", None),
    ],
)
def test_a_debian_file_has_one_place_or_none(path: str, place: str | None):
    assert hostcopies.store_place(path) == place


@pytest.mark.parametrize(
    ("requirement", "name"),
    [
        ("pydantic-core==2.41.5", "pydantic-core"),
        ("MarkupSafe>=2.0", "markupsafe"),
        ("typing_extensions>=4.14.1", "typing-extensions"),
        ('tzdata; python_version >= "3.9" and platform_system == "Windows" and extra == "timezone"', None),
        ('colorama; platform_system == "Windows"', None),
        ('importlib-metadata; python_version < "3.8"', None),
        ("pygments<3.0.0,>=2.13.0", "pygments"),
    ],
)
def test_a_requirement_counts_when_it_holds_here(requirement: str, name: str | None):
    assert hostcopies.required_name(requirement) == name


def test_a_name_that_stands_for_a_neighbour_becomes_a_link(tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "libz.so.1.2").write_bytes(b"library")
    (source / "libz.so").symlink_to("libz.so.1.2")
    tree = {"lib/libz.so": source / "libz.so", "lib/libz.so.1.2": source / "libz.so.1.2", "bin/z": source / "libz.so"}
    hostcopies.stage(tree, tmp_path / "staged")
    assert (tmp_path / "staged/lib/libz.so").readlink() == Path("libz.so.1.2")
    assert not (tmp_path / "staged/lib/libz.so.1.2").is_symlink()
    assert (tmp_path / "staged/bin/z").read_bytes() == b"library"


def test_the_standard_library_is_copied_without_its_tests(tmp_path: Path):
    for name in ("os.py", "test/test_os.py", "json/__init__.py", "json/__pycache__/x.pyc", "lib-dynload/_tkinter.x.so"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    tree = hostcopies.python_tree(Python("3.11", Path("/usr/bin/python3.11"), tmp_path))
    assert {place for place in tree if place.startswith("lib/")} == {
        "lib/python3.11/os.py",
        "lib/python3.11/json/__init__.py",
    }
    assert {"bin/python3.11", "bin/python3", "bin/python"} <= set(tree)


def test_shims_are_not_searched_and_usual_places_are_also_with_an_empty_environment():
    search = hosttools.make_search({"PATH": "/home/me/.pyenv/shims:/opt/bin", "HOME": ""})
    directories = search.path.split(":")
    assert "/opt/bin" in directories
    assert "/usr/bin" in directories
    assert "/home/me/.pyenv/shims" not in directories
    assert Path() not in search.homes


def test_the_package_to_install_is_named_or_how_else_to_get_it():
    assert hosttools.install_hint("ripgrep") == "apt-get install ripgrep"
    assert hosttools.install_hint("gcc g++") == "apt-get install gcc g++"
    assert hosttools.install_hint("pnpm (npm install -g pnpm)") == "npm install -g pnpm"


@pytest.fixture
def toolchains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A rustup home with three toolchains; a toolchain's version is the first part of its directory's name."""
    for name in ("1.80.0", "stable", "nightly"):
        programs = tmp_path / f".rustup/toolchains/{name}-x86_64-unknown-linux-gnu/bin"
        programs.mkdir(parents=True)
        (programs / "rustc").touch()
    (tmp_path / ".rustup/settings.toml").write_text('default_toolchain = "stable-x86_64-unknown-linux-gnu"\n')
    monkeypatch.setattr(hosttools, "_first_version", lambda program: program.parts[-3].partition("-")[0])
    return tmp_path


def search_in(home: Path, **environment: str) -> Search:
    return Search(path="/nonexistent", homes=(home,), environment=environment)


def test_the_default_toolchain_is_rustups(toolchains: Path):
    rust = hosttools.find_rust(search_in(toolchains))
    assert rust.default == "stable"
    assert rust.channels["1.80.0"] == "1.80.0"


def test_a_chosen_toolchain_wins(toolchains: Path):
    assert hosttools.find_rust(search_in(toolchains, RUSTUP_TOOLCHAIN="nightly")).default == "nightly"


def test_a_chosen_toolchain_that_is_absent_falls_back_to_stable(toolchains: Path):
    assert hosttools.find_rust(search_in(toolchains, RUSTUP_TOOLCHAIN="1.50.0")).default == "stable"


def test_a_machine_without_rust_has_none(tmp_path: Path):
    assert hosttools.find_rust(search_in(tmp_path)) == Rust()


def machine(**changes: object) -> Machine:
    """A machine with node 20, git and zlib."""
    parts: dict[str, object] = {
        "links": {"nodejs": Link("20.1.0", {}, "node"), "git": Link("2.39", {}, "git")},
        "copies": {"zlib": Copy("1.2", {})},
        "needs": {"zlib": Needs()},
        "modules": {},
        "seed": {},
        "python": Python("3.11", Path("/usr/bin/python3.11"), Path("/usr/lib/python3.11")),
        "rust": Rust(),
    }
    return Machine(**(parts | changes))  # type: ignore[arg-type]  # the parts are typed where they are made


def test_another_version_is_an_error_and_not_an_alias():
    assert machine().aliases()["nodejs_20"] == "nodejs"
    assert "nodejs_22" not in machine().aliases()
    assert "this machine has nodejs 20" in machine().missing()["nodejs_22"]
    assert "nodejs_20" not in machine().missing()


@pytest.mark.parametrize(("manifest", "version"), [('{"version": "10.1.2"}', "10.1.2"), ("{", "host"), (None, "host")])
def test_pnpm_has_the_version_of_its_npm_package(tmp_path: Path, manifest: str | None, version: str):
    program = tmp_path / "lib/node_modules/pnpm/bin/pnpm.cjs"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    if manifest is not None:
        (program.parent.parent / "package.json").write_text(manifest)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/pnpm").symlink_to(program)
    search = Search(path=str(tmp_path / "bin"), homes=(), environment={})
    links = hosttools.find_links(search, debian.Debian(tmp_path, {}))
    assert links["pnpm"].version == version
    found = machine(links=links)
    assert found.aliases().get("pnpm_10") == ("pnpm" if version != "host" else None)
    assert "pnpm_9" in found.missing()


def test_an_absent_package_says_how_to_get_it():
    missing = machine().missing()
    assert missing["ripgrep"] == "package 'ripgrep' is not on this machine. Add it with: apt-get install ripgrep"
    assert missing["clippy"].endswith("rustup component add clippy")
    assert "git" not in missing
    assert "zlib" not in missing


def test_every_alias_and_version_names_a_package_that_can_exist():
    known = {*hostnames.PACKAGES, *hostnames.RUST_COMPONENTS, *hostcopies.LIBRARIES}
    known |= {"nodejs", "nodejs-slim", "python3", "gcc"}
    assert set(hostnames.ALIASES.values()) <= known
    assert set(hostnames.VERSIONED) <= known | set(hostnames.ALIASES)


def test_a_library_that_another_package_has_is_a_need_and_no_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    loaded = {"lib/libz.so.1": Path("/lib/libz.so.1"), "lib/libodd.so.2": Path("/lib/libodd.so.2")}
    monkeypatch.setattr(hostcopies, "_loaded", lambda paths: loaded if list(paths) else {})
    needs = hostcopies.needs({"bin/program": program}, {"libz.so.1": "zlib"})
    assert needs == Needs(packages=("zlib",), loose={"lib/libodd.so.2": Path("/lib/libodd.so.2")})


@pytest.fixture
def host_set(tmp_path: Path) -> HostSet:
    return HostSet(tmp_path / "hostpkgs/abc", "abc", (), {})


def targets(arguments: tuple[str, ...]) -> dict[str, str]:
    assert arguments[::3] == ("--override-input",) * (len(arguments) // 3)
    return dict(zip(arguments[1::3], arguments[2::3], strict=True))


def test_known_inputs_get_their_stand_ins_under_any_name(host_set: HostSet):
    inputs = {
        "nixpkgs": "github:NixOS/nixpkgs/nixos-unstable",
        "unstable": "github:nixos/nixpkgs",
        "utils": "github:numtide/flake-utils",
        "systems": "github:nix-systems/default",
        "rust": "github:oxalica/rust-overlay",
    }
    assert targets(overrides(inputs, host_set)) == {
        "nixpkgs": f"path:{host_set.path}",
        "unstable": f"path:{host_set.path}",
        "utils": f"path:{host_set.path}/flake-utils",
        "systems": f"path:{host_set.path}/systems",
        "rust": f"path:{host_set.path}/rust-overlay",
    }


def test_an_input_without_a_stand_in_fails_by_name_when_it_is_used(host_set: HostSet):
    target = targets(overrides({"crane": "github:ipetkov/crane"}, host_set))["crane"].removeprefix("path:")
    assert "flake input 'crane' has no stand-in" in (Path(target) / "flake.nix").read_text()


@pytest.mark.parametrize("url", ["path:./sub", "./sub", "/srv/flake", "git+file:///srv/flake"])
def test_a_local_input_stays(url: str, host_set: HostSet):
    assert overrides({"sub": url}, host_set) == ()
