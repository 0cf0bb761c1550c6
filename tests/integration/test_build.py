"""Real cargo and npm builds in real sandboxes; the dev shell is this machine's PATH, so that Nix is not needed."""

import json
import os
import pwd
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from orchestrator.build import dev_shell, runner
from orchestrator.build.runner import BuildResults, run_builds
from orchestrator.build.rust_tools import RustTools, inspect_rust
from orchestrator.build.steps import Bench
from orchestrator.build.toolchain import Toolchain
from orchestrator.errors import BuildError, DiskError, FetchError, Interrupted, ProjectError, ToolchainError
from orchestrator.events import Event, Line, Note, PhaseStarted
from orchestrator.plan import BuildPlan, Plan, WebPlan
from orchestrator.process import Cancel
from orchestrator.recipes import CargoOutput, Step, TreeOutput
from orchestrator.settings import Settings
from orchestrator.tools.nix import Nix

RUSTUP = Path(os.environ.get("RUSTUP_HOME", Path(pwd.getpwuid(os.getuid()).pw_dir, ".rustup")))


def cargo_directory() -> Path:
    """The directory of the real cargo: rustup's own is a shim that wants the user's home."""
    found = sorted(RUSTUP.glob("toolchains/stable-*/bin")) or sorted(RUSTUP.glob("toolchains/*/bin"))
    return found[0] if found else Path(shutil.which("cargo") or pytest.skip("cargo is missing")).parent


def open_host(base: Path) -> Toolchain:
    """A dev shell that is this machine's own PATH."""
    return Toolchain(
        kind="host",
        reason="a test",
        source="flake.nix",
        key="test",
        home=base / "toolchain",
        nix=Nix(Path(shutil.which("nix") or "/usr/bin/nix"), (2, 8), private_store(base)),
        nixpkgs="path:/nowhere",
        develop=("/usr/bin/env", f"PATH={cargo_directory()}:/usr/bin:/bin"),
        visible=(cargo_directory().parent,),
        nix_writable=False,
    )


def private_store(base: Path) -> dict[str, str]:
    """The environment of a Nix with a store of the test's own."""
    names = {"NIX_STORE_DIR": "store", "NIX_STATE_DIR": "var", "NIX_LOG_DIR": "log", "NIX_CONF_DIR": "etc"}
    return {name: str(base / "nix" / directory) for name, directory in names.items()}


@pytest.fixture(autouse=True)
def toolchain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runner, "open_toolchain", lambda *_, **__: open_host(tmp_path))
    monkeypatch.setattr(runner, "web_server", lambda *_, **__: Path("/nix/store/nginx"))
    monkeypatch.setattr(dev_shell, "inspect_rust", lambda bench, _: rust_of_this_machine(bench))


_RUST: list[RustTools] = []


def rust_of_this_machine(bench: Bench) -> RustTools:
    """Asked once for all tests, whose caches are their own."""
    if not _RUST:
        _RUST.append(inspect_rust(bench, bench.workspace.path))
    return _RUST[0]


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    root = tmp_path / "repo mit ü"
    put(root, "Cargo.toml", '[workspace]\nmembers = ["app", "part"]\nresolver = "2"\n')
    put(
        root,
        "app/Cargo.toml",
        '[package]\nname = "app"\nversion = "1.0.0"\nedition = "2021"\n[dependencies]\npart = { path = "../part" }\n',
    )
    put(root, "app/src/main.rs", 'fn main() { println!("{}", part::answer()); }\n')
    put(root, "part/Cargo.toml", '[package]\nname = "part"\nversion = "1.0.0"\nedition = "2021"\n')
    put(root, "part/src/lib.rs", "pub fn answer() -> u32 { 41 }\n")
    put(
        root,
        "Cargo.lock",
        'version = 3\n[[package]]\nname = "app"\nversion = "1.0.0"\ndependencies = ["part"]\n'
        '[[package]]\nname = "part"\nversion = "1.0.0"\n',
    )
    put(root, "web/package.json", json.dumps({"name": "web", "version": "1.0.0", "scripts": {"build": "node build.js"},
                                              "dependencies": {"tiny": "file:./tiny"}}))  # fmt: skip
    put(root, "web/tiny/package.json", json.dumps({"name": "tiny", "version": "1.0.0", "main": "index.js"}))
    put(root, "web/tiny/index.js", "module.exports = 'tiny';\n")
    put(
        root,
        "web/build.js",
        "const fs = require('fs'); fs.mkdirSync('dist', {recursive: true});"
        "fs.writeFileSync('dist/index.html', require('tiny') + ' ' + process.env.VITE_API_URL);"
        "console.log('✓ 7 modules transformed.');\n",
    )
    lock = {
        "name": "web",
        "version": "1.0.0",
        "lockfileVersion": 3,
        "packages": {
            "": {"name": "web", "version": "1.0.0", "dependencies": {"tiny": "file:./tiny"}},
            "node_modules/tiny": {"resolved": "tiny", "link": True},
            "tiny": {"version": "1.0.0"},
        },
    }
    put(root, "web/package-lock.json", json.dumps(lock))
    return root


def put(root: Path, path: str, content: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


def backend(*, build: tuple[str, ...] | None = None, binary: str = "app") -> BuildPlan:
    cargo = ("cargo", "build", "--release", "--locked", "--offline", "-p", "app", "--bin", binary)
    directory = PurePosixPath("app")
    return BuildPlan(
        service="backend",
        kind="backend",
        framework="rust",
        directory=directory,
        lock_file=PurePosixPath("Cargo.lock"),
        steps=(
            Step("fetch", ("cargo", "fetch", "--locked"), directory, network=True),
            Step("build", build or cargo, directory, network=False),
        ),
        output=CargoOutput("app", binary),
    )


def frontend(*, build: tuple[str, ...] = ("npm", "run", "build")) -> BuildPlan:
    directory = PurePosixPath("web")
    return BuildPlan(
        service="frontend",
        kind="frontend",
        framework="vite",
        directory=directory,
        lock_file=PurePosixPath("web/package-lock.json"),
        steps=(
            Step("fetch", ("npm", "ci"), directory, network=True),
            Step("build", build, directory, network=False, environment=(("VITE_API_URL", "/."),)),
        ),
        output=TreeOutput(directory / "dist"),
    )


def build(
    repo: Path, *builds: BuildPlan, events: list[Event] | None = None, cancel: Cancel | None = None,
    trace: Path | None = None, **settings: object,
) -> BuildResults:  # fmt: skip
    places = {"cache_dir": repo.parent / "cache", "state_dir": repo.parent / "state"}
    made = Settings(name="app", monorepo=repo, **(places | settings))
    plan = Plan("app", builds, WebPlan(None, False, None), None)
    emit = (events if events is not None else []).append
    return run_builds(made, repo, plan, emit=emit, cancel=cancel or Cancel(), trace=trace)


def test_both_build_in_parallel_and_the_second_time_nothing_runs(repo: Path):
    trace = repo.parent / "trace.json"
    first = build(repo, frontend(), backend(), trace=trace)
    web, api = first.services
    assert (web.cache, web.compiled_units, (web.artifact / "index.html").read_text()) == ("miss", 7, "tiny /.")
    assert (api.cache, api.compiled_units, api.artifact.name) == ("miss", 2, "app")
    assert subprocess.run([api.artifact], capture_output=True, check=True, text=True).stdout == "41\n"
    assert "Compiling app" in api.log.read_text()
    spans = {(event["cat"], event["name"]): event for event in json.loads(trace.read_text()) if event["ph"] == "X"}
    ours, theirs = spans["frontend", "fetch"], spans["backend", "build"]
    assert ours["ts"] < theirs["ts"] + theirs["dur"]
    again = build(repo, frontend(), backend())
    assert [(service.cache, service.compiled_units) for service in again.services] == [("hit", 0)] * 2
    assert again.services[1].artifact == api.artifact
    assert again.wall_seconds < 1


def test_an_edit_compiles_only_what_depends_on_it(repo: Path):
    build(repo, backend())
    put(repo, "app/src/main.rs", 'fn main() { println!("new {}", part::answer()); }\n')
    second = build(repo, backend()).services[0]
    assert (second.cache, second.compiled_units) == ("partial", 1)
    put(repo, "part/src/lib.rs", "pub fn answer() -> u32 { 42 }\n")
    os.utime(repo / "part/src/lib.rs", (1, 1))
    third = build(repo, backend()).services[0]
    assert third.compiled_units == 2
    assert subprocess.run([third.artifact], capture_output=True, check=True, text=True).stdout == "new 42\n"


def test_a_failing_build_says_why_and_stops_the_other(repo: Path):
    put(repo, "app/src/main.rs", "fn main() { nothing() }\n")
    started = time.monotonic()
    with pytest.raises(BuildError, match="backend: cargo build") as caught:
        build(repo, frontend(build=("sleep", "60")), backend())
    assert time.monotonic() - started < 30
    assert caught.value.details[0].startswith("error[E0425]: cannot find function `nothing`")
    assert "backend.log" in (caught.value.hint or "")


def test_keep_going_lets_the_other_finish(repo: Path):
    put(repo, "app/src/main.rs", "fn main() { nothing() }\n")
    with pytest.raises(BuildError, match="backend"):
        build(repo, frontend(), backend(), keep_going=True)
    assert build(repo, frontend()).services[0].cache == "hit"


def test_a_cancelled_build_leaves_no_process(repo: Path):
    cancel = Cancel()
    events: list[Event] = []

    def stop_when_building() -> None:
        while not any(isinstance(event, Line) and "started" in event.text for event in events):
            time.sleep(0.01)
        cancel.request()

    threading.Thread(target=stop_when_building).start()
    marker = "600.25"
    with pytest.raises(Interrupted):
        build(repo, backend(build=("bash", "-c", f"echo started; sleep {marker} & wait")), events=events, cancel=cancel)
    alive = [path for path in Path("/proc").glob("[0-9]*/cmdline") if marker.encode() in read_bytes(path).split(b"\0")]
    assert alive == []


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_build_cannot_reach_the_network_the_repository_or_the_home(repo: Path):
    (repo / ".env").write_text("SECRET=1\n")
    refused = (
        f"cat '{repo}/.env'",
        f"touch '{repo}/x'",
        "touch /usr/x /build/x /etc/x",
        "ls ~root/.cargo",
        "ls /run/systemd/private",
        "bash -c 'exec 3<>/dev/tcp/192.0.2.1/53'",
        "mount -t tmpfs none /mnt",
    )
    script = "".join(f"if {command}; then exit 9; fi; " for command in refused)
    script += 'test "$HOME" = /build/home; test -z "$SSH_AUTH_SOCK"; cp /bin/true /build/target/release/app'
    prepared = ("bash", "-ec", f"mkdir -p /build/target/release; {script}")
    build(repo, backend(build=prepared))
    assert not (repo / "x").exists()


def test_the_fetch_step_gets_the_users_npmrc_and_the_build_step_does_not(repo: Path, monkeypatch: pytest.MonkeyPatch):
    home = repo.parent / "home"
    put(home, ".npmrc", "//registry.example/:_authToken=s3cret\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NPM_TOKEN", "t0ken")
    show = ("bash", "-c", 'echo "see <$NPM_TOKEN> <$(cat "$NPM_CONFIG_USERCONFIG" 2>&1)>"; mkdir -p dist')
    plan = frontend()
    fetch = Step("fetch", show, plan.directory, network=True)
    events: list[Event] = []
    made = BuildPlan(
        plan.service, plan.kind, plan.framework, plan.directory, plan.lock_file,
        (fetch, Step("build", show, plan.directory, network=False)), plan.output,
    )  # fmt: skip
    result = run_builds(
        Settings(name="app", monorepo=repo, cache_dir=repo.parent / "cache", state_dir=repo.parent / "state"),
        repo,
        Plan("app", (made,), WebPlan(None, False, None), None),
        emit=events.append,
        cancel=Cancel(),
        environ=os.environ,
    )
    assert result.services[0].cache == "miss"
    seen = [event.text for event in events if isinstance(event, Line) and event.text.startswith("see")]
    assert "see <•••>" in seen[0] and "s3cret" in seen[0], "the token is there, and is not shown"
    assert "t0ken" not in seen[1] and "s3cret" not in seen[1]


def test_a_missing_lock_is_refused_before_anything_runs(repo: Path):
    (repo / "Cargo.lock").unlink()
    events: list[Event] = []
    with pytest.raises(ProjectError, match=r"Cargo\.lock does not exist"):
        build(repo, backend(), events=events)
    assert not any(isinstance(event, PhaseStarted) for event in events)


def test_write_lock_writes_it_into_the_users_tree(repo: Path):
    (repo / "Cargo.lock").unlink()
    (repo / "web/package-lock.json").unlink()
    built = build(repo, frontend(), backend(), write_lock=True)
    assert [service.cache for service in built.services] != []
    assert 'name = "part"' in (repo / "Cargo.lock").read_text()
    assert json.loads((repo / "web/package-lock.json").read_text())["name"] == "web"


def test_a_program_the_dev_shell_lacks_is_named(repo: Path):
    with pytest.raises(ToolchainError, match="the dev shell has no cargo-of-tomorrow"):
        build(repo, backend(build=("cargo-of-tomorrow", "build")))


def test_npms_own_message_about_a_lock_that_does_not_match(repo: Path):
    manifest = json.loads((repo / "web/package.json").read_text())
    manifest["dependencies"]["other"] = "file:./other"
    put(repo, "web/package.json", json.dumps(manifest))
    put(repo, "web/other/package.json", json.dumps({"name": "other", "version": "1.0.0"}))
    with pytest.raises(BuildError) as caught:
        build(repo, frontend())
    assert any("Missing: other" in line for line in caught.value.details)


def test_a_full_disk_is_refused_with_the_numbers(repo: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("orchestrator.build.disk.RESERVE", 10**16)
    with pytest.raises(DiskError, match=r"1\d+ MB are needed, \d+ MB are free"):
        build(repo, backend())


def test_a_build_without_its_output_is_an_error(repo: Path):
    with pytest.raises(BuildError, match="did not give web/dist"):
        build(repo, frontend(build=("true",)))


def test_two_clones_give_the_same_binary(repo: Path, tmp_path: Path):
    other = tmp_path / "elsewhere" / "clone"
    shutil.copytree(repo, other)
    first = build(repo, backend()).services[0]
    second = build(other, backend()).services[0]
    assert second.cache == "miss"
    assert first.artifact.read_bytes() == second.artifact.read_bytes()


def test_without_bubblewrap_it_builds_in_a_workspace_of_its_own(repo: Path, monkeypatch: pytest.MonkeyPatch):
    build(repo, frontend(), backend())
    monkeypatch.setattr(runner.sandbox, "probe", lambda: "not here")
    events: list[Event] = []
    web, api = build(repo, frontend(), backend(), events=events).services
    assert (web.cache, api.cache) == ("miss", "miss")
    assert subprocess.run([api.artifact], capture_output=True, check=True, text=True).stdout == "41\n"
    assert any("without a sandbox" in event.text for event in events if isinstance(event, Note))


def test_offline_works_after_one_build_and_says_what_it_lacks_before(repo: Path):
    build(repo, frontend(), backend())
    put(repo, "app/src/main.rs", "fn main() {}\n")
    assert build(repo, backend(), offline=True).services[0].compiled_units == 1
    put(repo, "app/Cargo.toml", (repo / "app/Cargo.toml").read_text() + 'itoa = "1"\n')
    put(
        repo,
        "Cargo.lock",
        (repo / "Cargo.lock").read_text().replace('["part"]', '["itoa", "part"]')
        + '[[package]]\nname = "itoa"\nversion = "1.0.15"\n'
        'source = "registry+https://github.com/rust-lang/crates.io-index"\n'
        'checksum = "4a5f13b858c8d314ee3e8f639011f7ccefe71f97f96e50151fb991f267928e2c"\n',
    )
    with pytest.raises(FetchError, match="not all dependencies were fetched before"):
        build(repo, backend(), offline=True)


def test_a_failed_fetch_is_repeated_even_when_the_lock_is_as_before(repo: Path):
    plan = frontend()
    script = "npm ci && ! grep -q broken package.json"
    steps = (Step("fetch", ("bash", "-c", script), plan.directory, network=True), plan.steps[1])
    checked = replace(plan, steps=steps)

    def fetches() -> int:
        events: list[Event] = []
        with suppress(BuildError):
            build(repo, checked, events=events)
        return sum(isinstance(event, PhaseStarted) and event.phase == "fetch" for event in events)

    manifest = (repo / "web/package.json").read_text()
    assert fetches() == 1
    put(repo, "web/build.js", (repo / "web/build.js").read_text() + "//\n")
    assert fetches() == 0
    put(repo, "web/package.json", manifest.replace('"1.0.0"', '"1.0.0", "description": "broken"', 1))
    assert fetches() == 1
    put(repo, "web/package.json", manifest)
    put(repo, "web/build.js", (repo / "web/build.js").read_text() + "//\n")
    assert fetches() == 1


KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.integration import test_build as t
from orchestrator.build import runner
runner.open_toolchain = lambda *_, **__: t.open_host(Path(sys.argv[3]))
runner.web_server = lambda *_, **__: Path("/nix/store/nginx")
print("ready", flush=True)
t.build(Path(sys.argv[2]), t.frontend(), t.backend())
"""


@pytest.mark.parametrize("seconds", [0.1, 0.3, 0.5, 0.8])
def test_killed_at_any_moment_the_next_build_is_right(repo: Path, tmp_path: Path, seconds: float):
    here = Path(__file__).resolve().parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, here, repo, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with child:
        assert child.stdout is not None
        ready = child.stdout.readline()
        time.sleep(seconds)
        child.kill()
    assert ready == b"ready\n"
    put(repo, "part/src/lib.rs", "pub fn answer() -> u32 { 42 }\n")
    web, api = build(repo, frontend(), backend()).services
    assert (web.artifact / "index.html").read_text() == "tiny /."
    assert subprocess.run([api.artifact], capture_output=True, check=True, text=True).stdout == "42\n"
