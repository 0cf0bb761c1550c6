"""What cargo is told, what it says, and what of the user's cargo configuration a workspace gets."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.build.cargo import Cargo
from orchestrator.build.registries import UserConfig, read_user_config, to_toml
from orchestrator.build.rust_tools import Linker, RustTools
from orchestrator.build.snapshot import Snapshot
from orchestrator.build.workspace import Workspace
from orchestrator.plan import BuildPlan
from orchestrator.recipes import CargoOutput, Step

NOTHING = UserConfig({}, {}, {}, ())


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws", inside=True)


def make(root: Path, config: UserConfig = NOTHING) -> Cargo:
    directory, lock = PurePosixPath("backend/api"), PurePosixPath("Cargo.lock")
    plan = BuildPlan("api", "backend", "rust", directory, lock, (), CargoOutput("api", "serve"))
    return Cargo(plan, Snapshot(root, (), frozenset(), ""), config)


def put(root: Path, path: str, content: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)


def artifact(name: str, kind: str, *, fresh: bool, executable: str | None = None) -> str:
    target = {"name": name, "kind": [kind]}
    return json.dumps(
        {"reason": "compiler-artifact", "target": target, "fresh": fresh, "executable": executable}
    ).replace('{"reason": ', '{"reason":', 1)


def test_units_and_the_wanted_binary_are_read_from_cargos_messages(tmp_path: Path, workspace: Workspace):
    cargo = make(tmp_path)
    lines = [
        artifact("serde", "lib", fresh=True),
        artifact("api", "lib", fresh=False),
        artifact("serve", "test", fresh=False, executable="/build/target/release/deps/serve-1"),
        artifact("serve", "bin", fresh=False, executable="/build/target/release/serve"),
        artifact("other", "bin", fresh=True, executable="/build/target/release/other"),
        '{"reason":"build-finished","success":true}',
    ]
    assert [cargo.read(line) for line in lines] == [None] * 6
    assert (cargo.compiled, cargo.reused) == (3, 2)
    assert cargo.product(workspace) == workspace.path / "target/release/serve"


def test_other_lines_are_shown(tmp_path: Path):
    cargo = make(tmp_path)
    assert cargo.read("   Compiling api v1") == "   Compiling api v1"
    assert cargo.read('{"reason": half') == '{"reason": half'
    assert cargo.read('{"reason":half') == '{"reason":half'


def test_without_messages_the_usual_place_is_taken(tmp_path: Path, workspace: Workspace):
    assert make(tmp_path).product(workspace) == workspace.path / "target/release/serve"


def test_only_cargo_build_is_asked_for_messages_and_reasons(tmp_path: Path):
    cargo = make(tmp_path)
    wanted = "--message-format=json-render-diagnostics"
    assert cargo.arguments(("cargo", "build", "-p", "x")) == ("cargo", "build", wanted, "--verbose", "-p", "x")
    assert cargo.arguments(("cargo", "build", wanted)) == ("cargo", "build", "--verbose", wanted)
    assert cargo.arguments(("cargo", "build", wanted, "-vv")) == ("cargo", "build", wanted, "-vv")
    assert cargo.arguments(("bash", "-c", "cargo build")) == ("bash", "-c", "cargo build")


def test_cargos_reasons_are_kept_and_not_shown(tmp_path: Path):
    cargo = make(tmp_path)
    dirty = (
        "       Dirty api v1.0.0 (/build/src/api): the file `api/src/main.rs` has changed (1.5s, 2s after last build)"
    )
    assert [cargo.read(line) for line in (dirty, "       Fresh serde v1.0.1", "     Running `rustc x`")] == [None] * 3
    assert cargo.read("   Compiling api v1.0.0 (/build/src/api)") is not None
    assert cargo.read("   Compiling itoa v1.0.2") is not None
    found = [(unit.name, unit.version, unit.reason) for unit in cargo.reasons.units]
    assert found[0][:2] == ("api", "1.0.0") and found[0][2].startswith("the file `api/src/main.rs` has changed")
    assert found[1:] == [("itoa", "1.0.2", "it was not in the cache")]


def test_the_projects_own_strip_and_target_flags_are_left_alone(tmp_path: Path, workspace: Workspace):
    variables = make(tmp_path).variables(workspace)
    assert variables["CARGO_PROFILE_RELEASE_STRIP"] == "symbols"
    named = [f"/build/{name}=/{name}" for name in ("src", "target", "cargo")]
    assert variables["CARGO_BUILD_RUSTFLAGS"].split() == [f"--remap-path-prefix={name}" for name in named]
    flags = [value for name, value in variables.items() if name.startswith(("CFLAGS_", "CXXFLAGS_"))]
    assert [value.split() for value in flags] == [[f"-ffile-prefix-map={name}" for name in named]] * 2
    put(tmp_path, "Cargo.toml", "[profile.release]\nstrip = false\n")
    put(tmp_path, "backend/.cargo/config.toml", "[target.x86_64-unknown-linux-gnu]\nrustflags = ['-Cx']\n")
    variables = make(tmp_path).variables(workspace)
    assert variables.keys().isdisjoint({"CARGO_PROFILE_RELEASE_STRIP", "CARGO_BUILD_RUSTFLAGS"})


def test_each_registry_directory_gets_the_same_name(tmp_path: Path, workspace: Workspace):
    for name in ("mirror-2", "index.crates.io-1"):
        (workspace.path / "cargo/registry/src" / name).mkdir(parents=True)
    assert make(tmp_path).variables(workspace)["CARGO_BUILD_RUSTFLAGS"].split()[3:] == [
        "--remap-path-prefix=/build/cargo/registry/src/index.crates.io-1=/registry",
        "--remap-path-prefix=/build/cargo/registry/src/mirror-2=/registry",
    ]


def test_what_decides_a_fetch(tmp_path: Path):
    cargo = make(tmp_path)
    assert all(cargo.decides_fetch(path) for path in ("Cargo.toml", "a/Cargo.lock", "a/.cargo/config.toml"))
    assert not any(cargo.decides_fetch(path) for path in ("src/main.rs", "a/config.toml", "MyCargo.toml"))


def test_mirrors_reach_the_workspace_and_secrets_only_the_fetch(tmp_path: Path):
    put(
        tmp_path,
        ".cargo/config.toml",
        '[source.crates-io]\nreplace-with = "mirror"\n[source.mirror]\nregistry = "sparse+https://mirror/"\n'
        '[source.disk]\nlocal-registry = "crates"\n[registries.my-own]\nindex = "https://own/"\ntoken = "s3cret"\n'
        '[registries.proxy]\nindex = "https://proxy/"\n'
        '[http]\nproxy = "http://me:s3cret4@proxy:3128"\nmultiplexing = false\n'
        '[build]\nrustc-wrapper = "sccache"\nrustflags = ["-Cx"]\n',
    )
    put(tmp_path, ".cargo/credentials.toml", '[registry]\ntoken = "s3cret2"\n')
    (tmp_path / "crates").mkdir()
    environ = {"CARGO_REGISTRIES_OTHER_INDEX": "https://other/", "CARGO_REGISTRIES_OTHER_TOKEN": "s3cret3"}
    config = read_user_config(environ, tmp_path)
    text = to_toml(config.tables)
    assert "s3cret" not in text and "sccache" not in text and "rustflags" not in text
    assert tomllib.loads(text)["source"]["crates-io"] == {"replace-with": "mirror"}
    assert tomllib.loads(text)["source"]["disk"] == {"local-registry": str(tmp_path / "crates")}
    assert config.visible == (tmp_path / "crates",)
    assert tomllib.loads(text)["registries"]["proxy"] == {"index": "https://proxy/"}
    assert tomllib.loads(text)["http"] == {"multiplexing": False}
    assert config.secrets == {
        "CARGO_REGISTRIES_MY_OWN_TOKEN": "s3cret",
        "CARGO_REGISTRY_TOKEN": "s3cret2",
        "CARGO_HTTP_PROXY": "http://me:s3cret4@proxy:3128",
    }
    assert config.variables == {"CARGO_REGISTRIES_OTHER_INDEX": "https://other/"}
    provider = {"CARGO_REGISTRY_GLOBAL_CREDENTIAL_PROVIDERS": "cargo:token"}
    assert make(tmp_path, config).fetch_variables(offline=False) == provider | config.secrets
    assert make(tmp_path, config).fetch_variables(offline=True) == provider | {"CARGO_NET_OFFLINE": "true"}


def test_the_workspaces_configuration_is_rewritten_only_when_it_changed(tmp_path: Path, workspace: Workspace):
    config = UserConfig({"net": {"retry": 3}}, {}, {}, ())
    make(tmp_path, config).prepare(workspace)
    path = workspace.path / "cargo/config.toml"
    assert tomllib.loads(path.read_text()) == {"net": {"retry": 3}}
    before = path.stat().st_ino
    make(tmp_path, config).prepare(workspace)
    assert path.stat().st_ino == before


def test_a_damaged_configuration_is_no_configuration(tmp_path: Path):
    put(tmp_path, ".cargo/config.toml", "[[[")
    assert read_user_config({}, tmp_path).tables == {}


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.booleans() | st.integers(-(2**62), 2**62) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(text, values, max_size=4))
def test_toml_is_read_back_as_it_was_written(tables: dict[str, Any]):
    assert tomllib.loads(to_toml(tables)) == tables


MOLD = RustTools("rustc 1.95.0", (Linker("mold", "mold 2.4", fit=True), Linker("lld", "LLD 14", fit=True)))


@pytest.mark.parametrize(
    ("tools", "config", "build", "linker"),
    [
        (MOLD, "", "cargo build --release", "mold"),
        (replace(MOLD, linkers=(replace(MOLD.linkers[0], fit=False), MOLD.linkers[1])), "", "cargo build", "lld"),
        (RustTools("rustc 1.95.0"), "", "cargo build", None),
        (MOLD, "[build]\nrustflags = ['-Copt-level=1']\n", "cargo build", "mold"),
        (MOLD, "[build]\nrustflags = ['-Clink-arg=-fuse-ld=gold']\n", "cargo build", None),
        (MOLD, "[build]\nrustflags = '-Clinker=clang'\n", "cargo build", None),
        (MOLD, "[build]\ntarget = 'wasm32-unknown-unknown'\n", "cargo build", None),
        (MOLD, "[target.x86_64-unknown-linux-gnu]\nlinker = 'clang'\n", "cargo build", None),
        (MOLD, "[target.'cfg(unix)']\nrustflags = ['-Cx']\n", "cargo build", None),
        (MOLD, "", "cargo build --target=wasm32-unknown-unknown", None),
        (MOLD, "", "cargo leptos build", None),
        (replace(MOLD, variables=frozenset({"RUSTFLAGS"})), "", "cargo build", None),
        (replace(MOLD, variables=frozenset({"CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER"})), "", "cargo build", None),
        (replace(MOLD, variables=frozenset({"CARGO_TERM_COLOR"})), "", "cargo build", "mold"),
    ],
)
def test_the_dev_shells_linker_is_used_unless_the_project_chose(
    tmp_path: Path, workspace: Workspace, tools: RustTools, config: str, build: str, linker: str | None
):
    put(tmp_path, ".cargo/config.toml", config)
    cargo = make(tmp_path)
    step = Step("build", tuple(build.split()), PurePosixPath(), network=False)
    cargo = replace(cargo, tools=tools, build=replace(cargo.build, steps=(step,)))
    assert (cargo.linker.name if cargo.linker else None) == linker
    flags = cargo.variables(workspace).get("CARGO_BUILD_RUSTFLAGS", "").split()
    assert ("-Clink-arg=-fuse-ld=mold" in flags, "-Clink-arg=-fuse-ld=lld" in flags) == (
        linker == "mold",
        linker == "lld",
    )


def test_c_flags_of_the_dev_shell_are_left_alone(tmp_path: Path, workspace: Workspace):
    """The older `cc` crates read one variable only: ours would hide the shell's."""
    cargo = replace(make(tmp_path), tools=RustTools("rustc 1.95.0", variables=frozenset({"CFLAGS"})))
    assert not any(name.startswith(("CFLAGS", "CXXFLAGS")) for name in cargo.variables(workspace))
