"""How builds run side by side; the builds themselves are replaced by functions."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from orchestrator.build import runner
from orchestrator.build.runner import BuildResults, run_builds
from orchestrator.build.service import ServiceBuild
from orchestrator.build.site import Site, phase
from orchestrator.build.toolchain import Toolchain
from orchestrator.errors import BuildError, Interrupted, ProjectError, ToolchainError
from orchestrator.events import Event, Note, PhaseFinished
from orchestrator.plan import BuildPlan, Plan, WebPlan
from orchestrator.process import Cancel
from orchestrator.recipes import CargoOutput
from orchestrator.settings import Settings
from orchestrator.tools.nix import Nix

Build = Callable[[Site, BuildPlan], ServiceBuild]


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "repo"
    root.mkdir()
    (root / "Cargo.lock").touch()
    opened = Toolchain(
        kind="host", reason="a test", source="flake.nix", key="k", home=tmp_path, nix=Nix(Path("nix"), (2, 8), {}),
        nixpkgs="path:/x", develop=(), visible=(), nix_writable=False,
    )  # fmt: skip
    monkeypatch.setattr(runner, "open_toolchain", lambda *_, **__: opened)
    monkeypatch.setattr(runner, "web_server", lambda *_, **__: Path("/nix/store/nginx"))
    monkeypatch.setattr(runner.sandbox, "probe", lambda: None)
    return root


def run(
    repo: Path, monkeypatch: pytest.MonkeyPatch, build: Build, *, events: list[Event] | None = None,
    cancel: Cancel | None = None, trace: Path | None = None, **flags: object,
) -> BuildResults:  # fmt: skip
    monkeypatch.setattr(runner, "build_service", build)
    settings = Settings(name="app", monorepo=repo, cache_dir=repo.parent / "c", state_dir=repo.parent / "s", **flags)
    plans = tuple(
        BuildPlan(
            name, "backend", "rust", PurePosixPath(), PurePosixPath("Cargo.lock"), (), CargoOutput(name, name)
        )
        for name in ("web", "api")
    )  # fmt: skip
    emit = (events if events is not None else []).append
    plan = Plan("app", plans, WebPlan(None, False, None), None)
    return run_builds(settings, repo, plan, emit=emit, cancel=cancel or Cancel(), trace=trace)


def done(build: BuildPlan) -> ServiceBuild:
    return ServiceBuild(build.service, "backend", "rust", 0.1, "miss", 1, Path("/a"), Path("/l"))


def test_builds_overlap(repo: Path, monkeypatch: pytest.MonkeyPatch):
    together = threading.Barrier(2, timeout=5)

    def build(site: Site, plan: BuildPlan) -> ServiceBuild:
        together.wait()
        return done(plan)

    results = run(repo, monkeypatch, build)
    assert [service.service for service in results.services] == ["web", "api"]
    assert (results.toolchain, results.web_server) == ("host", Path("/nix/store/nginx"))


def test_serial_builds_do_not(repo: Path, monkeypatch: pytest.MonkeyPatch):
    order: list[str] = []

    def build(site: Site, plan: BuildPlan) -> ServiceBuild:
        order.append(f"+{plan.service}")
        time.sleep(0.02)
        order.append(f"-{plan.service}")
        return done(plan)

    run(repo, monkeypatch, build, serial=True)
    assert order == ["+web", "-web", "+api", "-api"]


def test_the_first_failure_stops_the_other_and_is_the_one_raised(repo: Path, monkeypatch: pytest.MonkeyPatch):
    cancel = Cancel()

    def build(site: Site, plan: BuildPlan) -> ServiceBuild:
        if plan.service == "api":
            raise BuildError("api: cargo failed")
        assert site.cancel.wait(5), "the other build was not stopped"
        raise Interrupted

    with pytest.raises(BuildError, match="api: cargo failed"):
        run(repo, monkeypatch, build, cancel=cancel)
    assert not cancel.requested


def test_keep_going_lets_the_other_finish(repo: Path, monkeypatch: pytest.MonkeyPatch):
    finished: list[str] = []

    def build(site: Site, plan: BuildPlan) -> ServiceBuild:
        if plan.service == "web":
            raise BuildError("web failed")
        stopped = site.cancel.wait(0.2)
        finished.append(f"{plan.service} {stopped}")
        return done(plan)

    with pytest.raises(BuildError, match="web failed"):
        run(repo, monkeypatch, build, keep_going=True)
    assert finished == ["api False"]


def test_two_failures_are_both_told(repo: Path, monkeypatch: pytest.MonkeyPatch):
    def build(site: Site, plan: BuildPlan) -> ServiceBuild:
        raise BuildError(f"{plan.service} failed", details=["line"], hint="the log")

    with pytest.raises(BuildError, match="2 builds failed") as caught:
        run(repo, monkeypatch, build, keep_going=True)
    assert caught.value.details == ("web failed:", "line", "the log", "api failed:", "line", "the log")


def test_ctrl_c_ends_in_interrupted(repo: Path, monkeypatch: pytest.MonkeyPatch):
    cancel = Cancel()

    def build(site: Site, plan: BuildPlan) -> ServiceBuild:
        cancel.request()
        assert site.cancel.wait(5), "the request did not reach the build"
        raise BuildError("killed")

    with pytest.raises(Interrupted):
        run(repo, monkeypatch, build, cancel=cancel)


def test_a_missing_web_server_stops_the_builds(repo: Path, monkeypatch: pytest.MonkeyPatch):
    def no_server(*_: object, **__: object) -> Path:
        raise ToolchainError("no nginx here")

    monkeypatch.setattr(runner, "web_server", no_server)

    def build(site: Site, plan: BuildPlan) -> ServiceBuild:
        assert site.cancel.wait(5)
        raise Interrupted

    with pytest.raises(ToolchainError, match="no nginx here"):
        run(repo, monkeypatch, build)


def test_the_trace_is_written_also_when_a_build_fails(repo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def build(site: Site, plan: BuildPlan) -> ServiceBuild:
        with phase(site, plan.service, "build"):
            raise BuildError("no")

    events: list[Event] = []
    with pytest.raises(BuildError):
        run(repo, monkeypatch, build, trace=tmp_path / "t.json", events=events)
    names = {event["name"] for event in json.loads((tmp_path / "t.json").read_text())}
    assert {"snapshot", "toolchain", "build", "web server"} <= names
    failed = [event for event in events if isinstance(event, PhaseFinished) and event.phase == "build"]
    assert [event.ok for event in failed] == [False] * len(failed) != []


def test_no_sandbox_is_said_out_loud(repo: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runner.sandbox, "probe", lambda: "no namespaces")
    events: list[Event] = []
    seen: list[bool] = []

    def build(site: Site, plan: BuildPlan) -> ServiceBuild:
        seen.append(site.sandboxed)
        return done(plan)

    run(repo, monkeypatch, build, events=events)
    assert seen == [False, False]
    assert [event for event in events if isinstance(event, Note) and event.level == "warning"] == [
        Note(
            "builds run without a sandbox, with the network and your files in reach: no namespaces", level="warning"
        )
    ]  # fmt: skip


def test_a_missing_lock_is_refused_before_the_toolchain_is_opened(repo: Path, monkeypatch: pytest.MonkeyPatch):
    (repo / "Cargo.lock").unlink()
    monkeypatch.setattr(runner, "open_toolchain", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(ProjectError, match="no lock file"):
        run(repo, monkeypatch, lambda site, plan: done(plan))
