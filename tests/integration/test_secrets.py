"""Values of variables in real containers: only the backend has them, and they go with their release."""

import subprocess
from pathlib import Path

import pytest

from orchestrator.deploy.app import remove_app
from orchestrator.deploy.environment import Environment
from orchestrator.deploy.lock import locked_app
from orchestrator.deploy.release import Release, deploy_release
from orchestrator.deploy.rollback import list_releases, roll_back
from orchestrator.deploy.secretvalues import generated_variables
from orchestrator.deploy.state import AppStore
from orchestrator.errors import DeployError
from orchestrator.process import Cancel
from orchestrator.tools.inspection import list_containers
from orchestrator.tools.secretstore import list_secrets
from tests.integration.release_bench import APP, Bench, make_plan

VALUE = "hunter2-line-one\nhunter2-line-two"


def deploy(bench: Bench, environment: Environment, **changes: object) -> Release:
    with locked_app(bench.state_dir, APP):
        return deploy_release(
            bench.settings(**changes),
            make_plan(APP),
            bench.images,
            environment=environment,
            engine=bench.engine,
            emit=lambda event: None,
            cancel=Cancel(),
        )


def stored(bench: Bench) -> int:
    return len(list_secrets(bench.engine, prefix="orchestrator."))


def test_the_backend_has_the_value_and_nothing_else_shows_it(bench: Bench) -> None:
    release = deploy(bench, Environment({}, {"VERSION": "v1", "TOKEN": VALUE}))
    assert bench.get("/api/version") == (200, "v1")
    web, gate, backend = (
        next(c for c in list_containers(bench.engine, {"io.orchestrator.service": service}) if c.running)
        for service in ("web", "gate", "backend")
    )
    assert _has_value(backend.pid, VALUE)
    for other in (web, gate):
        assert "hunter2" not in bench.engine.run("container", "inspect", other.name).stdout
    created = bench.engine.run("container", "inspect", "--format", "{{.Config.CreateCommand}}", backend.name).stdout
    assert "hunter2" not in created
    for image in bench.images:
        assert "hunter2" not in bench.engine.run("image", "inspect", image.image_id).stdout
    record = AppStore(bench.state_dir, APP).directory / "releases" / release.id / "release.json"
    assert "hunter2" not in record.read_text() and "TOKEN" in record.read_text()
    found = subprocess.run(
        ["grep", "--recursive", "--files-with-matches", "hunter2", bench.state_dir / "apps"],
        capture_output=True,
        check=False,
    )
    assert found.stdout == b""


def _has_value(pid: int, value: str) -> bool:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return any(value.encode() in Path(f"/proc/{child}/environ").read_bytes() for child in (str(pid), *children))


def test_the_way_back_restores_the_values_and_they_go_with_their_release(bench: Bench) -> None:
    first = deploy(bench, Environment({}, {"VERSION": "v1"}))
    assert not deploy(bench, Environment({}, {"VERSION": "v1"})).changed
    second = deploy(bench, Environment({}, {"VERSION": "v2"}))
    hashes = {item.environment_hash for item in list_releases(bench.state_dir, APP, engine=bench.engine)}
    assert len(hashes) == 2 and stored(bench) == 2
    with locked_app(bench.state_dir, APP):
        roll_back(bench.state_dir, APP, to=None, engine=bench.engine, emit=lambda event: None, cancel=Cancel())
    assert bench.get("/api/version") == (200, "v1")
    deploy(bench, Environment({}, {"VERSION": "v3"}), keep_releases=2)
    assert stored(bench) == 2
    assert second.id not in {record.id for record in AppStore(bench.state_dir, APP).releases()}
    remove_app(bench.state_dir, APP, engine=bench.engine)
    assert stored(bench) == 0
    assert first.changed


def test_a_generated_value_is_made_once_and_kept(bench: Bench) -> None:
    deploy(bench, Environment({}, {}, frozenset({"VERSION"})))
    made = bench.get("/api/version")[1]
    assert len(made) == 64
    assert generated_variables(bench.engine, APP) == {"VERSION"}
    deploy(bench, Environment({"OTHER": "1"}, {}))
    assert bench.get("/api/version")[1] == made


def test_a_failed_deploy_leaves_no_value(bench: Bench) -> None:
    with pytest.raises(DeployError):
        deploy(bench, Environment({}, {"MODE": "crash", "TOKEN": "x"}))
    assert stored(bench) == 0
