"""Where crates come from: registries with tokens, mirrors, vendored sources, private git; and what fails there.

Real cargo, git, sshd and ssh-agent on loopback. What a user has for fetching reaches the fetch step and nothing else.
"""

import logging
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import BuildError, FetchError, ProjectError, ToolchainError
from orchestrator.events import Event
from tests.integration import test_build, test_fetched
from tests.integration.crates import CrateRegistry, crate_file, serving_crates
from tests.integration.git_servers import SshServer, free_port, git, make_repository, serving_git_over_http, serving_ssh
from tests.integration.test_build import backend, build, open_host, put
from tests.integration.test_fetched import forget, made, publish_both, said, write_app

toolchain = test_build.toolchain
home = test_fetched.home
registry = test_fetched.registry

TOKEN = "t0p-s3cret-t0ken"
CRATE = {
    "Cargo.toml": '[package]\nname = "middle"\nversion = "1.0.0"\nedition = "2021"\n',
    "src/lib.rs": "pub fn middle() -> u32 { 41 }\n",
}
OWN = 'middle = { version = "1.0.0", registry = "own" }'


@pytest.fixture
def guarded() -> Iterator[CrateRegistry]:
    """A registry that answers nobody without the token."""
    with serving_crates(TOKEN) as served:
        publish_both(served)
        yield served


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with serving_ssh(tmp_path_factory.mktemp("ssh") / "server") as served:
        yield served


@pytest.fixture
def private(tmp_path: Path, ssh: SshServer) -> str:
    """The address of a private repository with the crate."""
    make_repository(tmp_path / "private" / "middle", CRATE)
    return f"ssh://{ssh.user}@127.0.0.1:{ssh.port}{tmp_path}/private/middle"


def refused(repo: Path, **settings: object) -> FetchError:
    with pytest.raises(FetchError) as caught:
        made(repo, **settings)
    assert caught.value.exit_code == 15 and caught.value.hint
    return caught.value


def texts_below(*roots: Path) -> Iterator[tuple[Path, bytes]]:
    for root in roots:
        for path in root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield path, path.read_bytes()


def with_checks(script: str) -> test_build.BuildPlan:
    """A build whose build step runs a script of checks first."""
    return backend(build=("bash", "-ec", f"{script}; cargo build --release --locked --offline -p app --bin app"))


def test_a_token_reaches_the_fetch_and_nothing_else(
    tmp_path: Path, home: Path, guarded: CrateRegistry, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    put(home, ".cargo/config.toml", f'[registries.own]\nindex = "{guarded.url}"\n')
    put(home, ".cargo/credentials.toml", f'[registries.own]\ntoken = "{TOKEN}"\n')
    repo = write_app(tmp_path / "repo", OWN)
    plan = with_checks(f"if env | grep -q {TOKEN[4:]}; then exit 9; fi; if cat {home}/.cargo/*; then exit 8; fi")
    events: list[Event] = []
    settings = {"events": events, "write_lock": True, "cache_dir": tmp_path / "cache"}
    built = build(repo, plan, **settings).services[0]
    assert (said(built), len(guarded.downloads), guarded.leaks) == ("41", 2, [])
    kept = [
        path for path, content in texts_below(tmp_path / "cache", tmp_path / "nix", repo) if TOKEN.encode() in content
    ]
    assert kept == []
    assert TOKEN not in caplog.text and TOKEN not in repr(events)
    forget(tmp_path)
    (home / ".cargo/credentials.toml").unlink()
    guarded.requests.clear()
    assert (said(build(repo, plan, **settings).services[0]), guarded.requests) == ("41", [])


def test_a_token_that_is_missing_or_refused_is_said(
    tmp_path: Path, home: Path, guarded: CrateRegistry, monkeypatch: pytest.MonkeyPatch
):
    put(home, ".cargo/config.toml", f'[registries.own]\nindex = "{guarded.url}"\n')
    repo = write_app(tmp_path / "repo", OWN)
    variable = "CARGO_REGISTRIES_OWN_TOKEN"
    monkeypatch.setenv(variable, TOKEN)
    made(repo, write_lock=True)
    forget(tmp_path, "cache")
    monkeypatch.delenv(variable)
    error = refused(repo)
    assert error.message == "backend: the registry own needs a token and there is none" and variable in (
        error.hint or ""
    )
    monkeypatch.setenv(variable, "another-token")
    error = refused(repo)
    assert error.message == "backend: the registry own refused the token" and "another-token" not in repr(error.details)
    monkeypatch.setenv(variable, TOKEN)
    guarded.answers["/dl/"] = 403
    error = refused(repo)
    assert error.message.endswith("/dl/leaf/1.0.0 refused access (HTTP 403)") or "/dl/middle" in error.message
    assert any("got 403" in line for line in error.details)


def test_a_registry_that_is_not_there(tmp_path: Path, home: Path, registry: CrateRegistry):
    put(home, ".cargo/config.toml", f'[registries.own]\nindex = "{registry.url}"\n[net]\nretry = 0\n')
    repo = write_app(tmp_path / "repo", OWN)
    made(repo, write_lock=True)
    forget(tmp_path, "cache")
    error = refused(repo, offline=True)
    assert "--offline" in error.message and error.hint == "run once without --offline"
    registry.answers["/index/"] = 500
    assert "answered with HTTP 500" in refused(repo).message
    closed = f"sparse+http://127.0.0.1:{free_port()}/index/"
    put(home, ".cargo/config.toml", f'[registries.own]\nindex = "{closed}"\n[net]\nretry = 0\n')
    put(repo, "Cargo.lock", (repo / "Cargo.lock").read_text().replace(registry.url, closed))
    error = refused(repo)
    assert error.message == f"backend: {closed.removeprefix('sparse+')}config.json cannot be reached"
    assert any("Could not connect" in line for line in error.details)
    (home / ".cargo/config.toml").unlink()
    assert refused(repo).message == "backend: nothing says where the registry own is"


def test_a_crate_with_another_checksum_is_never_built(tmp_path: Path, home: Path, registry: CrateRegistry):
    put(home, ".cargo/config.toml", f'[registries.own]\nindex = "{registry.url}"\n')
    repo = write_app(tmp_path / "repo", OWN)
    made(repo, write_lock=True)
    forget(tmp_path, "cache")
    registry.crates["leaf/1.0.0"] = crate_file("leaf-1.0.0", {"src/lib.rs": "pub fn leaf() -> u32 { 66 }"})
    error = refused(repo)
    assert error.message == "backend: leaf v1.0.0 is not what the registry says it is: its checksum differs"
    registry.index["leaf"].clear()
    registry.publish("leaf", "1.0.0", "pub fn leaf() -> u32 { 66 }")
    forget(tmp_path, "cache")
    assert refused(repo).message == "backend: leaf v1.0.0 is not what Cargo.lock says it is: its checksum differs"


def test_a_mirror_of_the_users_configuration(tmp_path: Path, home: Path, registry: CrateRegistry):
    put(
        home, ".cargo/config.toml",
        f'[source.crates-io]\nreplace-with = "mirror"\n[source.mirror]\nregistry = "{registry.url}"\n',
    )  # fmt: skip
    repo = write_app(tmp_path / "repo", 'middle = "1.0.0"')
    assert said(made(repo, write_lock=True)) == "41"
    assert "registry+https://github.com/rust-lang/crates.io-index" in (repo / "Cargo.lock").read_text()
    forget(tmp_path)
    registry.requests.clear()
    again = made(repo, offline=True)
    assert (said(again), again.compiled_units, registry.requests) == ("41", 0, [])


def test_a_directory_of_the_users_configuration(tmp_path: Path, home: Path, registry: CrateRegistry):
    """The sources stay where they are: nothing of them is kept, and they are there offline."""
    repo = write_app(tmp_path / "repo", 'middle = "1.0.0"')
    settings = vendored(repo, home, tmp_path / "vendored", registry)
    put(home, ".cargo/config.toml", settings)
    registry.requests.clear()
    assert said(made(repo)) == "41"
    forget(tmp_path)
    assert (said(made(repo, offline=True)), registry.requests) == ("41", [])


def test_a_vendored_project(tmp_path: Path, home: Path, registry: CrateRegistry):
    repo = write_app(tmp_path / "repo", 'middle = "1.0.0"')
    settings = vendored(repo, home, repo / "vendor", registry)
    (home / ".cargo/config.toml").unlink()
    put(repo, ".cargo/config.toml", settings.replace(str(repo / "vendor"), "vendor"))
    registry.requests.clear()
    assert said(made(repo, offline=True)) == "41"
    forget(tmp_path)
    clone = shutil.copytree(repo, tmp_path / "clone")
    again = build(clone, backend(), cache_dir=tmp_path / "cache", offline=True).services[0]
    assert (said(again), again.compiled_units, registry.requests) == ("41", 0, [])


def vendored(repo: Path, home: Path, directory: Path, registry: CrateRegistry) -> str:
    """Lock and vendor the application's crates with cargo itself; the configuration that names the directory."""
    mirror = f'[source.crates-io]\nreplace-with = "mirror"\n[source.mirror]\nregistry = "{registry.url}"\n'
    put(home, ".cargo/config.toml", mirror)
    cargo = test_build.cargo_directory()
    env = {"PATH": f"{cargo}:/usr/bin:/bin", "HOME": str(home), "CARGO_HOME": str(home / ".cargo")}
    subprocess.run(
        ["cargo", "vendor", "-q", "--respect-source-config", directory],
        cwd=repo,
        env=env,
        check=True,
        capture_output=True,
    )
    for name in ("registry", ".global-cache", ".package-cache"):
        shutil.rmtree(home / ".cargo" / name, ignore_errors=True)
    return f'[source.crates-io]\nreplace-with = "disk"\n[source.disk]\ndirectory = "{directory}"\n'


@pytest.mark.parametrize("program", ["cargo", "git"])
def test_private_git_over_ssh(
    tmp_path: Path, home: Path, ssh: SshServer, private: str, program: str, monkeypatch: pytest.MonkeyPatch
):
    """The user's agent and known hosts, for cargo's own git and for the git program."""
    monkeypatch.setenv("SSH_AUTH_SOCK", ssh.agent_socket)
    put(home, ".ssh/known_hosts", ssh.known_hosts)
    put(home, ".ssh/id_test", "a private key")
    if program == "git":
        put(home, ".cargo/config.toml", "[net]\ngit-fetch-with-cli = true\n")
    repo = write_app(tmp_path / "repo", f'middle = {{ git = "{private}" }}')
    plan = with_checks(
        'test -z "${SSH_AUTH_SOCK-}"; test $HOME = /build/home; '
        f"if ls {ssh.agent_socket}; then exit 9; fi; if ls {home}/.ssh; then exit 8; fi"
    )
    look = f'test -S "$SSH_AUTH_SOCK"; test -s {home}/.ssh/known_hosts; if cat {home}/.ssh/id_test; then exit 9; fi'
    fetch = replace(plan.steps[0], argv=("bash", "-ec", f"{look}; cargo fetch --locked"))
    plan = replace(plan, steps=(fetch, plan.steps[1]))
    settings = {"write_lock": True, "cache_dir": tmp_path / "cache"}
    assert said(build(repo, plan, **settings).services[0]) == "41"
    forget(tmp_path)
    shutil.rmtree(tmp_path / "private")
    monkeypatch.delenv("SSH_AUTH_SOCK")
    again = build(repo, backend(), offline=True, **settings).services[0]
    assert said(again) == "41"


def test_a_new_commit_of_a_repository_is_fetched_on_top(
    tmp_path: Path, home: Path, ssh: SshServer, private: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SSH_AUTH_SOCK", ssh.agent_socket)
    put(home, ".ssh/known_hosts", ssh.known_hosts)
    repo = write_app(tmp_path / "repo", f'middle = {{ git = "{private}" }}')
    assert said(made(repo, write_lock=True)) == "41"
    source = tmp_path / "private/middle"
    old, new = (
        git(source, "rev-parse", "HEAD"),
        make_repository(source, {"src/lib.rs": "pub fn middle() -> u32 { 42 }"}),
    )
    lock = (repo / "Cargo.lock").read_text()
    put(repo, "Cargo.lock", lock.replace(old, new))
    forget(tmp_path)
    assert said(made(repo)) == "42"
    for text, answer in ((lock, "41"), (lock.replace(old, new), "42")):
        put(repo, "Cargo.lock", text)
        forget(tmp_path)
        assert said(made(repo, offline=True)) == answer


@pytest.mark.parametrize("program", ["cargo", "git"])
def test_what_ssh_refuses_is_said(
    tmp_path: Path, home: Path, ssh: SshServer, private: str, program: str, monkeypatch: pytest.MonkeyPatch
):
    put(home, ".cargo/config.toml", f"[net]\nretry = 0\ngit-fetch-with-cli = {str(program == 'git').lower()}\n")
    put(home, ".ssh/known_hosts", ssh.known_hosts)
    monkeypatch.setenv("SSH_AUTH_SOCK", ssh.agent_socket)
    repo = write_app(tmp_path / "repo", f'middle = {{ git = "{private}" }}')
    made(repo, write_lock=True)
    forget(tmp_path, "cache")
    address = private.replace(f"{ssh.user}@", "")
    put(home, ".ssh/known_hosts", "")
    error = refused(repo)
    assert error.message == f"backend: the ssh host key of {address} is not known"
    assert "ssh-keyscan" in (error.hint or "") and any("ost key" in line for line in error.details)
    put(home, ".ssh/known_hosts", ssh.other_known_hosts)
    assert refused(repo).message == f"backend: the ssh host key of {address} is another than before"
    put(home, ".ssh/known_hosts", ssh.known_hosts)
    monkeypatch.delenv("SSH_AUTH_SOCK")
    error = refused(repo)
    assert error.message == f"backend: {address} refused access over ssh" and "ssh-add" in (error.hint or "")


def test_a_dev_shell_without_the_git_that_was_asked_for(
    tmp_path: Path, home: Path, private: str, monkeypatch: pytest.MonkeyPatch
):
    put(home, ".cargo/config.toml", "[net]\nretry = 0\ngit-fetch-with-cli = true\n")
    repo = write_app(tmp_path / "repo", f'middle = {{ git = "{private}" }}')
    (tmp_path / "bin").mkdir()
    put(repo, "Cargo.lock", 'version = 3\n[[package]]\nname = "app"\nversion = "1.0.0"\ndependencies = ["middle"]\n'
        f'[[package]]\nname = "middle"\nversion = "1.0.0"\nsource = "git+{private}#{"0" * 40}"\n')  # fmt: skip
    shell = replace(open_host(tmp_path), develop=("/usr/bin/env", f"PATH={test_build.cargo_directory()}"))
    monkeypatch.setattr("orchestrator.build.runner.open_toolchain", lambda *_, **__: shell)
    with pytest.raises(ToolchainError, match="the dev shell has no git, which backend needs"):
        made(repo)


def test_private_git_over_http_with_the_users_stored_password(tmp_path: Path, home: Path):
    make_repository(tmp_path / "private" / "middle", CRATE)
    with serving_git_over_http(tmp_path / "private", "me", "pa55-word") as port:
        repo = write_app(tmp_path / "repo", f'middle = {{ git = "http://127.0.0.1:{port}/middle" }}')
        put(home, ".gitconfig", "[credential]\n\thelper = store\n")
        put(home, ".git-credentials", f"http://me:pa55-word@127.0.0.1:{port}\n")
        put(home, ".cargo/config.toml", "[net]\ngit-fetch-with-cli = true\n")
        assert said(made(repo, write_lock=True)) == "41"
        assert not [path for path, content in texts_below(tmp_path / "cache", tmp_path / "nix") if b"pa55" in content]
        forget(tmp_path, "cache")
        put(home, ".git-credentials", f"http://me:wrong-word@127.0.0.1:{port}\n")
        put(home, ".cargo/config.toml", "[net]\ngit-fetch-with-cli = true\nretry = 0\n")
        error = refused(repo)
        assert error.message == f"backend: http://127.0.0.1:{port}/middle refused access"
        assert "wrong-word" in (home / ".git-credentials").read_text(), "the user's files are read-only"


def test_a_repository_on_this_machine(tmp_path: Path, home: Path, bare: Path):
    repo = write_app(tmp_path / "repo", f'middle = {{ git = "file://{bare}" }}')
    assert said(made(repo, write_lock=True)) == "41"
    forget(tmp_path)
    shutil.rmtree(bare)
    assert said(made(repo, offline=True)) == "41"


@pytest.fixture
def bare() -> Iterator[Path]:
    """A repository where builds can see it: not below /tmp, which is theirs alone."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as base:
        make_repository(Path(base) / "middle", CRATE)
        yield Path(base) / "middle"


def test_lock_files_that_are_missing_untracked_or_out_of_date(tmp_path: Path, home: Path, registry: CrateRegistry):
    put(home, ".cargo/config.toml", f'[registries.own]\nindex = "{registry.url}"\n')
    repo = write_app(tmp_path / "repo", OWN)
    git(repo, "init", "-q")
    git(repo, "add", ".")
    with pytest.raises(ProjectError, match=r"Cargo\.lock does not exist") as missing:
        made(repo)
    assert "cargo generate-lockfile" in (missing.value.hint or "") and "--write-lock" in (missing.value.hint or "")
    made(repo, write_lock=True)
    with pytest.raises(ProjectError, match=r"^Cargo\.lock is not tracked by git") as untracked:
        made(repo)
    assert (untracked.value.hint or "").endswith("add Cargo.lock")
    git(repo, "add", ".")
    made(repo)
    registry.publish("other", "2.0.0", "")
    put(repo, "app/Cargo.toml", (repo / "app/Cargo.toml").read_text() + 'other = { version = "2", registry = "own" }\n')
    with pytest.raises(BuildError, match=r"^Cargo\.lock is out of date: other 2$") as outdated:
        made(repo)
    assert any("--locked was passed" in line or "needs to be updated" in line for line in outdated.value.details)
    assert "cargo update --workspace" in (outdated.value.hint or "")
    registry.index.pop("other")
    assert refused(repo).message == "backend: no registry it may come from has other"


def test_a_lock_file_with_the_marks_of_a_merge(tmp_path: Path, home: Path):
    repo = write_app(tmp_path / "repo", "")
    put(repo, "Cargo.lock", "version = 3\n<<<<<<< ours\n=======\n>>>>>>> theirs\n")
    with pytest.raises(BuildError) as caught:
        made(repo)
    assert any("failed to parse lock file" in line for line in caught.value.details)
