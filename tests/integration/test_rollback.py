"""Going back to an earlier release, in real containers and under load."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from shlex import quote
from typing import Any

import jsonschema
import pytest

from orchestrator.deploy.lock import locked_app
from orchestrator.deploy.pod import discard_pod
from orchestrator.deploy.release import Release
from orchestrator.deploy.rollback import list_releases, roll_back
from orchestrator.deploy.state import AppStore
from orchestrator.errors import DeployError, UnknownAppError, UsageError
from orchestrator.process import Cancel
from orchestrator.tools.inspection import list_containers, list_pods
from tests.integration.release_bench import APP, Bench, Load

COLD_SECONDS = 10.0
PROGRAM = Path(sys.executable).with_name("orchestrator")
SCHEMAS = Path(__file__).parents[2] / "docs" / "json-schema"


def back(bench: Bench, to: str | None = None) -> Release:
    with locked_app(bench.state_dir, APP):
        return roll_back(bench.state_dir, APP, to=to, engine=bench.engine, emit=lambda event: None, cancel=Cancel())


def roles(bench: Bench) -> dict[str, str]:
    return {found.id: found.role for found in list_releases(bench.state_dir, APP, engine=bench.engine)}


def test_back_and_forth_under_load_drops_nothing(bench: Bench) -> None:
    first = bench.deploy({"VERSION": "v1"})
    second = bench.deploy({"VERSION": "v2"})
    with Load(bench.port) as load:
        restored = back(bench)
        assert bench.get("/api/version") == (200, "v1")
        again = back(bench)
        assert bench.get("/api/version") == (200, "v2")
    assert set(load.answers) == {"200", "v1", "v2"}, load.answers
    assert (restored.id, restored.changed, again.id) == (first.id, True, second.id)
    assert roles(bench) == {second.id: "live", first.id: "warm"}


def test_the_way_back_restores_images_configuration_and_environment(bench: Bench) -> None:
    first = bench.deploy({"VERSION": "v1"}, web_limits={"memory": "96m"})
    before = AppStore(bench.state_dir, APP).current()
    bench.deploy({"VERSION": "v2"}, web_limits={"memory": "128m"})
    bench.deploy({"VERSION": "v3"}, web_limits={"memory": "128m"})
    assert roles(bench)[first.id] == "cold"
    started = time.monotonic()
    back(bench, first.id)
    assert time.monotonic() - started < COLD_SECONDS
    assert bench.get("/api/version") == (200, "v1")
    assert AppStore(bench.state_dir, APP).current() == before
    web = next(c for c in list_containers(bench.engine, {"io.orchestrator.service": "web"}) if first.id in c.name)
    limit = bench.engine.run("container", "inspect", "--format", "{{.HostConfig.Memory}}", web.name).stdout
    assert int(limit) == 96 * 2**20


def test_only_the_live_and_the_warm_pod_are_kept(bench: Bench) -> None:
    ids = [bench.deploy({"VERSION": f"v{number}"}).id for number in range(3)]
    kept = {f"orchestrator-{APP}-{release}" for release in ids[1:]}
    assert set(list_pods(bench.engine, {"io.orchestrator.app": APP})) == kept
    running = [c.name for c in list_containers(bench.engine, {"io.orchestrator.app": APP}) if c.running]
    assert all(ids[2] in name or name.endswith("-gate") for name in running)


def test_without_a_way_back_it_is_said(bench: Bench) -> None:
    with pytest.raises(UnknownAppError):
        back(bench)
    only = bench.deploy({"VERSION": "v1"}, keep_releases=1)
    with pytest.raises(UsageError, match="no release before"):
        back(bench)
    with pytest.raises(UsageError, match="has no release 20200101-000000"):
        back(bench, "20200101-000000")
    assert not back(bench, only.id).changed
    newer = bench.deploy({"VERSION": "v2"}, keep_releases=1)
    assert list_pods(bench.engine, {"io.orchestrator.app": APP}) == (f"orchestrator-{APP}-{newer.id}",)
    with pytest.raises(UsageError, match="no release before"):
        back(bench)


def test_a_release_that_no_longer_works_never_takes_traffic(bench: Bench) -> None:
    first = bench.deploy({"VERSION": "v1"})
    second = bench.deploy({"VERSION": "v2"})
    store = AppStore(bench.state_dir, APP)
    record = store.release(first.id)
    assert record.backend is not None
    broken = record.model_copy(update={"backend": record.backend.model_copy(update={"environment": {"MODE": "crash"}})})
    path = store.directory / "releases" / first.id / "release.json"
    path.write_text(broken.model_dump_json())
    discard_pod(bench.engine, record)
    with Load(bench.port, clients=2) as load, pytest.raises(DeployError, match="exit code 3"):
        back(bench)
    assert set(load.answers) == {"200", "v2"}
    images = {service: image.model_copy(update={"image_id": "0" * 64}) for service, image in record.images.items()}
    path.write_text(record.model_copy(update={"images": images}).model_dump_json())
    with pytest.raises(DeployError, match=f"of release {first.id} is gone"):
        back(bench)
    current = store.current()
    assert current is not None and current.id == second.id


def test_the_commands_say_what_they_did_and_as_their_schemas_say(bench: Bench) -> None:
    first, second = bench.deploy({"VERSION": "v1"}).id, bench.deploy({"VERSION": "v2"}).id
    assert run_json(bench, "releases")["releases"][0]["id"] == second
    assert run_json(bench, "rollback")["release"] == first
    assert not run_json(bench, "rollback", "--to", first)["changed"]
    assert run_json(bench, "rollback", "--to", second)["changed"]
    unknown = run(bench, "rollback", APP, "--to", "20200101-000000", code=2)
    assert first in unknown.stderr and second in unknown.stderr
    version = run(bench, "exec", APP, "--service", "web", "--", "/usr/sbin/nginx", "-v")
    assert "nginx version" in version.stderr
    shell = run(bench, "exec", APP, "--", "sh", "-c", "true", code=None)
    assert shell.returncode != 0 and "no shell" in shell.stderr
    assert "server starting" in run(bench, "logs", APP, "--service", "backend", "--since", "1h").stderr
    assert f"ExecStart={quote(str(PROGRAM))} watch {APP}" in run(bench, "watch", APP, "--print-unit").stdout


def run_json(bench: Bench, command: str, *arguments: str) -> dict[str, Any]:
    answer = json.loads(run(bench, command, APP, "--json", *arguments).stdout)
    jsonschema.validate(answer, json.loads((SCHEMAS / f"{command}.json").read_text()))
    assert isinstance(answer, dict)
    return answer


def run(bench: Bench, *arguments: str, code: int | None = 0) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [PROGRAM, *arguments],
        env={**os.environ, "ORCHESTRATOR_STATE_DIR": str(bench.state_dir)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert code is None or done.returncode == code, done.stderr
    return done
