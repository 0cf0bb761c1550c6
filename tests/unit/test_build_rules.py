"""Small decisions of the build room: lock files, environments, artifacts, which lines of a failure are shown."""

import os
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from orchestrator.build import artifacts
from orchestrator.build.environment import fetch_access, step_environment
from orchestrator.build.locks import check_locks, write_locks
from orchestrator.build.snapshot import Entry, Snapshot
from orchestrator.build.steps import telling_lines
from orchestrator.build.workspace import Workspace
from orchestrator.errors import ProjectError
from orchestrator.events import Event, Note
from orchestrator.plan import BuildPlan
from orchestrator.recipes import CargoOutput, TreeOutput

API = BuildPlan(
    "api", "backend", "rust", PurePosixPath("api"), PurePosixPath("api/Cargo.lock"), (), CargoOutput("api", "serve")
)  # fmt: skip
WEB = BuildPlan(
    "web", "frontend", "vite", PurePosixPath("web"), PurePosixPath("web/package-lock.json"), (),
    TreeOutput(PurePosixPath("web/dist")),
)  # fmt: skip


def snapshot(root: Path, *paths: str, untracked: tuple[str, ...] = (), digest: str = "d") -> Snapshot:
    entries = tuple(Entry(path, "file", False, "") for path in (*paths, *untracked))
    return Snapshot(root, entries, frozenset(untracked), digest)


def test_a_missing_lock_names_the_command_that_writes_it(tmp_path: Path):
    with pytest.raises(ProjectError, match=r"api/Cargo\.lock does not exist") as caught:
        check_locks(snapshot(tmp_path), (API,), write_lock=False, emit=lambda event: None)
    assert (
        caught.value.hint == f"run: cargo generate-lockfile in {tmp_path}/api, or pass --write-lock to have it written"
    )
    with pytest.raises(ProjectError) as caught:
        check_locks(snapshot(tmp_path), (WEB,), write_lock=False, emit=lambda event: None)
    assert "npm install --package-lock-only" in (caught.value.hint or "")
    pnpm = replace(WEB, lock_file=PurePosixPath("pnpm-lock.yaml"))
    with pytest.raises(ProjectError) as caught:
        check_locks(snapshot(tmp_path), (pnpm,), write_lock=False, emit=lambda event: None)
    assert f"pnpm install --lockfile-only --ignore-scripts in {tmp_path}, or" in (caught.value.hint or "")


def test_an_untracked_lock_is_refused_and_an_ignored_one_too(tmp_path: Path):
    with pytest.raises(ProjectError, match="not tracked by git") as caught:
        check_locks(
            snapshot(tmp_path, untracked=("api/Cargo.lock",)), (API,), write_lock=False, emit=lambda event: None
        )
    assert caught.value.hint == f"git -C {tmp_path} add api/Cargo.lock"
    (tmp_path / "api").mkdir()
    (tmp_path / "api/Cargo.lock").touch()
    with pytest.raises(ProjectError, match="git ignores it"):
        check_locks(snapshot(tmp_path), (API,), write_lock=False, emit=lambda event: None)


def test_with_write_lock_an_untracked_lock_is_only_mentioned(tmp_path: Path):
    events: list[Event] = []
    check_locks(snapshot(tmp_path, untracked=("api/Cargo.lock",)), (API,), write_lock=True, emit=events.append)
    assert events == [Note("api/Cargo.lock is not tracked by git yet; commit it", level="warning")]


def test_missing_locks_are_written_and_present_ones_left(tmp_path: Path):
    asked: list[tuple[str, tuple[str, ...]]] = []

    def write(build: BuildPlan, command: tuple[str, ...]) -> bytes:
        asked.append((build.service, command))
        return b"locked"

    events: list[Event] = []
    assert write_locks(snapshot(tmp_path, "web/package-lock.json"), (API, WEB), write, events.append)
    assert asked == [("api", ("cargo", "generate-lockfile"))]
    assert (tmp_path / "api/Cargo.lock").read_bytes() == b"locked"
    assert events == [Note(f"wrote {tmp_path}/api/Cargo.lock; commit it")]
    assert not write_locks(snapshot(tmp_path, "api/Cargo.lock"), (API,), write, events.append)


def test_a_lock_file_of_two_services_is_written_once(tmp_path: Path):
    other = replace(API, service="other")
    events: list[Event] = []
    assert write_locks(snapshot(tmp_path), (API, other), lambda *_: b"locked", events.append)
    assert events == [Note(f"wrote {tmp_path}/api/Cargo.lock; commit it")]


def test_a_step_sees_none_of_the_users_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RUSTFLAGS", "-Cuser")
    made = step_environment(Workspace(tmp_path, inside=True))
    assert made["HOME"] == "/build/home" and made["PATH"] == "/build/home/bin" and made["TMPDIR"] == "/build/tmp"
    assert "RUSTFLAGS" not in made
    assert step_environment(Workspace(tmp_path, inside=False))["HOME"] == f"{tmp_path}/home"


def test_a_fetch_gets_registries_certificates_and_proxies(tmp_path: Path):
    for name in (".npmrc", ".gitconfig", ".ssh/known_hosts", "ca.pem"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    environ = {
        "NPM_CONFIG_REGISTRY": "https://npm/",
        "npm_config_//npm/:_authToken": "t",
        "https_proxy": "http://proxy",
        "GOPROXY": "https://go/",
        "NODE_EXTRA_CA_CERTS": str(tmp_path / "ca.pem"),
        "SSL_CERT_FILE": str(tmp_path / "gone.pem"),
        "AWS_SECRET_ACCESS_KEY": "no",
        "RUSTFLAGS": "no",
    }
    access = fetch_access(environ, tmp_path)
    assert "no" not in access.environment.values()
    assert (
        access.environment.items()
        >= {
            "NPM_CONFIG_REGISTRY": "https://npm/",
            "pnpm_config_registry": "https://npm/",
            "pnpm_config_userconfig": str(tmp_path / ".npmrc"),
            "npm_config_//npm/:_authToken": "t",
            "pnpm_config_//npm/:_authToken": "t",
            "https_proxy": "http://proxy",
            "GOPROXY": "https://go/",
            "NPM_CONFIG_USERCONFIG": str(tmp_path / ".npmrc"),
            "GIT_CONFIG_GLOBAL": str(tmp_path / ".gitconfig"),
        }.items()
    )
    assert set(access.visible) >= {tmp_path / ".npmrc", tmp_path / ".ssh/known_hosts", tmp_path / "ca.pem"}
    assert tmp_path / "gone.pem" not in access.visible


def test_artifacts_are_found_by_what_went_into_them(tmp_path: Path):
    product = tmp_path / "serve"
    product.write_text("binary")
    key = artifacts.artifact_key(API, snapshot(tmp_path), "shell")
    assert artifacts.find_artifact(tmp_path, "app", API, key) is None
    saved = artifacts.save_artifact(tmp_path, "app", API, key, product)
    assert (saved.path.name, saved.size, saved.path.stat().st_mode & 0o777) == ("serve", 6, 0o755)
    assert artifacts.find_artifact(tmp_path, "app", API, key) == saved
    others = {
        artifacts.artifact_key(API, snapshot(tmp_path, digest="e"), "shell"),
        artifacts.artifact_key(API, snapshot(tmp_path), "other shell"),
        artifacts.artifact_key(WEB, snapshot(tmp_path), "shell"),
        artifacts.artifact_key(API, snapshot(tmp_path), "shell", ["mirror"]),
    }
    assert len(others | {key}) == 5


def test_a_damaged_artifact_is_no_artifact(tmp_path: Path):
    (tmp_path / "serve").write_text("binary")
    saved = artifacts.save_artifact(tmp_path, "app", API, "k", tmp_path / "serve")
    saved.path.write_text("bin")
    assert artifacts.find_artifact(tmp_path, "app", API, "k") is None


def test_a_tree_keeps_links_and_gets_plain_modes(tmp_path: Path):
    tree = tmp_path / "dist"
    (tree / "assets").mkdir(parents=True)
    (tree / "assets/a.js").write_text("a")
    (tree / "assets/a.js").chmod(0o600)
    (tree / "link").symlink_to("assets/a.js")
    saved = artifacts.save_artifact(tmp_path, "app", WEB, "k", tree)
    assert (saved.path / "assets/a.js").stat().st_mode & 0o777 == 0o644
    assert str((saved.path / "link").readlink()) == "assets/a.js"


def test_only_the_last_artifacts_are_kept(tmp_path: Path):
    (tmp_path / "serve").write_text("binary")
    for number in range(7):
        saved = artifacts.save_artifact(tmp_path, "app", API, f"key{number}", tmp_path / "serve")
        os.utime(saved.path.parent, (number + 1, number + 1))
    kept = {path.name for path in (tmp_path / "artifacts/app/api").iterdir()}
    assert kept == {f"key{number}" for number in (2, 3, 4, 5, 6)}


def test_cargos_first_error_comes_first():
    lines = ["shell: hello", *["   Compiling x"] * 50, "error[E0425]: cannot find", " --> a.rs:1", "error: could not"]
    assert telling_lines(lines) == ["error[E0425]: cannot find", " --> a.rs:1", "error: could not"]


def test_npms_ornaments_are_left_out():
    lines = [
        "npm error code EUSAGE",
        "npm error",
        "npm error `npm ci` can only install packages when …",
        "npm error Missing: other@1.0.0 from lock file",
        "npm error Clean install a project",
        "npm error Usage:",
    ]
    assert telling_lines(lines) == [
        "`npm ci` can only install packages when …",
        "Missing: other@1.0.0 from lock file",
    ]


def test_without_an_error_the_last_lines_are_shown():
    assert telling_lines([str(number) for number in range(100)]) == [str(number) for number in range(80, 100)]
    assert telling_lines([]) == []
