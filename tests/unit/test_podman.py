"""The engine's configuration and the commands podman is given."""

import ipaddress
import json
import tomllib
from pathlib import Path

import pytest

from orchestrator.errors import MachineError
from orchestrator.process import Completed
from orchestrator.tools import containers, engine_config, inspection
from orchestrator.tools.containers import ContainerSpec, Mount, run_container
from orchestrator.tools.engine_config import (
    EngineDirs,
    Facts,
    engine_dirs,
    ensure_network,
    gather_facts,
    render_containers_conf,
    render_socket_hook,
    write_if_changed,
)
from orchestrator.tools.inspection import inspect_containers
from orchestrator.tools.podman import Engine

FACTS = Facts(
    runtime=Path("/usr/sbin/runc"),
    conmon=Path("/usr/bin/conmon"),
    init=Path("/usr/libexec/podman/catatonit"),
    helper_dirs=("/usr/lib/podman",),
    cgroup_manager="cgroupfs",
    open_files=1024,
    processes=500,
)


@pytest.fixture
def dirs(tmp_path: Path) -> EngineDirs:
    return EngineDirs(base=tmp_path / 'a "quoted" place', runtime=tmp_path / "0badcafe")


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(
        executable=Path("/usr/bin/podman"),
        root=tmp_path / "storage",
        runroot=tmp_path / "run",
        driver="overlay",
        network="net",
        sockets=tmp_path / "sockets",
        environment={},
    )


def test_the_configuration_is_valid_and_private(dirs: EngineDirs) -> None:
    parsed = tomllib.loads(render_containers_conf(dirs, FACTS, "net"))
    assert parsed["containers"]["default_ulimits"] == ["nofile=1024:1024", "nproc=500:500"]
    assert parsed["engine"]["runtime"] == "runc"
    assert parsed["engine"]["runtimes"] == {"runc": ["/usr/sbin/runc"]}
    assert parsed["engine"]["lock_type"] == "file"
    for value in (parsed["engine"]["tmp_dir"], parsed["network"]["network_config_dir"]):
        assert Path(value).is_relative_to(dirs.base) or Path(value).is_relative_to(dirs.runtime)


def test_state_directories_have_engines_of_their_own() -> None:
    one, two = (engine_dirs(Path(path), {"XDG_RUNTIME_DIR": "/run/user/7"}) for path in ("/var/one", "/var/two"))
    assert one.runtime != two.runtime
    assert len(str(one.runtime)) < 60


def test_a_file_is_written_only_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_if_changed(path, "one")
    before = path.stat().st_ino
    write_if_changed(path, "one")
    assert path.stat().st_ino == before
    write_if_changed(path, "two")
    assert path.read_text() == "two"


def test_the_network_keeps_out_of_the_machines_routes(dirs: EngineDirs) -> None:
    def free(routes: str) -> ipaddress.IPv4Network:
        table = f"Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n{routes}"
        return engine_config._choose_subnet("00000000", table, ())

    everything = free("")
    little_endian = int.from_bytes(everything.network_address.packed, "little")
    taken = f"eth0 {little_endian:08X} 00000000 0001 0 0 0 00FFFFFF 0 0 0\n"
    assert not free(taken).overlaps(everything)
    assert free(taken.replace("eth0", "orch00000000")) == everything, "the bridge a killed run left"
    with pytest.raises(MachineError):
        free("eth0 0000000A 00000000 0001 0 0 0 000000FF 0 0 0\n")
    assert free("eth0 00000000 0100A8C0 0003 0 0 0 00000000 0 0 0\n") == everything


def test_each_application_has_a_network_of_its_own(dirs: EngineDirs) -> None:
    names = [ensure_network(dirs, app) for app in ("", "one", "two", "one")]
    assert names[1] == names[3] and len(set(names)) == 3
    described = [json.loads((dirs.networks / f"{name}.json").read_text()) for name in names[:3]]
    subnets = [ipaddress.ip_network(item["subnets"][0]["subnet"]) for item in described]
    assert not any(one.overlaps(two) for one in subnets for two in subnets if one is not two)
    assert len({item["network_interface"] for item in described}) == 3
    assert all(item["options"] == {"isolate": "true"} for item in described)


def test_the_network_is_described_once(dirs: EngineDirs) -> None:
    name = ensure_network(dirs)
    described = json.loads((dirs.networks / f"{name}.json").read_text())
    subnet = ipaddress.ip_network(described["subnets"][0]["subnet"])
    assert ipaddress.ip_address(described["subnets"][0]["gateway"]) in subnet
    assert len(described["network_interface"]) <= 15
    (dirs.networks / f"{name}.json").write_text("{}")
    assert ensure_network(dirs) == name
    assert (dirs.networks / f"{name}.json").read_text() == "{}"


def test_missing_helpers_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_config, "find", lambda program, path=None: None)
    with pytest.raises(MachineError, match=r"conmon.*netavark.*catatonit") as failure:
        gather_facts(Path("/usr/bin/podman"))
    assert failure.value.hint is not None and "apt-get install" in failure.value.hint


def test_the_hook_is_for_annotated_containers_only() -> None:
    hook = json.loads(render_socket_hook())
    assert hook["when"]["annotations"] == {r"^io\.orchestrator\.socket$": "."}
    assert hook["stages"] == ["prestart"]


def test_storage_is_named_as_skopeo_wants_it(engine: Engine, tmp_path: Path) -> None:
    assert engine.storage_reference("a:b") == f"containers-storage:[overlay@{tmp_path}/storage+{tmp_path}/run]a:b"


def recorded(monkeypatch: pytest.MonkeyPatch, stdout: str = "") -> list[dict[str, object]]:
    calls: list[dict[str, object]] = []

    def run(argv: tuple[str, ...], **options: object) -> Completed:
        calls.append({"argv": argv, **options})
        return Completed(argv, 0, stdout, "")

    monkeypatch.setattr("orchestrator.tools.podman.run", run)
    return calls


def test_a_container_is_hardened_and_its_variables_are_no_arguments(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = recorded(monkeypatch)
    spec = ContainerSpec(
        name="c",
        image_id="abc",
        labels={"l": "v"},
        memory="64m",
        cpus=0.5,
        pids=9,
        pod="p",
        environment=(("TOKEN", "s3cret"), ("KEY", "two\nlines")),
        mounts=(Mount(Path("/host"), "/inside"), Mount(Path("/w"), "/x", writable=True)),
        socket=Path("/run/a.sock"),
        init=True,
    )
    run_container(engine, spec)
    argv = " ".join(map(str, calls[0]["argv"]))  # type: ignore[arg-type]
    for words in (
        "--read-only --read-only-tmpfs=false --cap-drop all --security-opt no-new-privileges --user 10001:10001",
        "--tmpfs /tmp:rw,noexec,nosuid,nodev,size=64m,mode=1777",
        "--memory 64m --memory-swap 64m --cpus 0.5 --pids-limit 9",
        "--pull never --name c --pod p --label l=v",
        "--restart on-failure:10",
        "--volume /host:/inside:ro --volume /w:/x:rw",
        "--annotation io.orchestrator.socket=/run/a.sock",
        "--env KEY abc",
        "--init",
    ):
        assert words in argv
    assert "s3cret" not in argv and "two" not in argv
    assert calls[0]["stdin"] == b"TOKEN=s3cret\n"
    assert calls[0]["env"] == {"KEY": "two\nlines"}


def test_inspection_is_parsed_and_infrastructure_left_out(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def item(name: str, status: str, *, infra: bool = False) -> dict[str, object]:
        state = {"Status": status, "ExitCode": 3, "Pid": 0, "OOMKilled": False}
        never = "0001-01-01T00:00:00Z"
        times = {"StartedAt": "2026-01-02T03:04:05.678901234Z" if status == "running" else never}
        return {
            "Id": name,
            "Name": name,
            "Image": "i",
            "RestartCount": 2,
            "IsInfra": infra,
            "State": state | times,
            "Config": {"Labels": None},
        }

    found = [item("b", "stopped"), item("a", "running"), item("x", "running", infra=True), item("c", "paused")]
    recorded(monkeypatch, json.dumps(found))
    parsed = inspect_containers(engine, ["a", "b", "c"])
    assert [(c.name, c.state) for c in parsed] == [("a", "running"), ("b", "exited"), ("c", "other")]
    assert parsed[0].started is not None and parsed[0].started.year == 2026
    assert parsed[1].started is None
    assert (parsed[1].exit_code, parsed[1].restarts, parsed[1].labels) == (3, 2, {})


@pytest.mark.parametrize(("text", "size"), [("1.5KiB", 1536), ("2MiB", 2 * 2**20), ("3B", 3), ("--", 0), ("1Q", 0)])
def test_sizes_are_read(text: str, size: int) -> None:
    assert inspection._bytes(text) == size


def test_a_pod_that_is_restarting_is_removed_in_a_later_try(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [125, 125, 0]
    pauses: list[float] = []

    def run(argv: tuple[str, ...], **options: object) -> Completed:
        return Completed(argv, answers.pop(0), "", "")

    monkeypatch.setattr("orchestrator.tools.podman.run", run)
    containers.remove_pod(engine, "p", sleep=pauses.append)
    assert answers == [] and len(pauses) == 2


def test_an_image_is_looked_up_in_the_storage_and_the_engine_asked_only_where_that_tells_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def ask(_self: Engine, *args: str) -> Completed:
        asked.append(args)
        return Completed(args, 0, "", "")

    monkeypatch.setattr(Engine, "ask", ask)
    listed = engine.root / "overlay-images" / "images.json"
    listed.parent.mkdir(parents=True)
    listed.write_text(json.dumps([{"id": "a" * 64, "names": ["localhost/x:1"]}]))
    assert engine.image_exists("a" * 64)
    assert not engine.image_exists("b" * 64)
    assert not asked
    assert engine.image_exists("localhost/x:1"), "names are the engine's to understand"
    for damaged in ("", "{", '[{"name": "x"}]', "{}x", "[1]"):
        listed.write_text(damaged)
        assert engine.image_exists("b" * 64)
    listed.unlink()
    assert engine.image_exists("b" * 64)
    assert len(asked) == 7
    (listed.parent / "images.lock").touch()
    assert not engine.image_exists("b" * 64), "a storage without any image"
    assert len(asked) == 7


def test_layers_count_with_all_below_them(engine: Engine) -> None:
    listed = engine.root / "overlay-layers" / "layers.json"
    assert engine.missing_layers(["sha256:a"]) == (True,), "a storage without any layer"
    listed.parent.mkdir(parents=True)
    layers = [
        {"id": "1", "diff-digest": "sha256:a"},
        {"id": "2", "parent": "1", "diff-digest": "sha256:b"},
        {"id": "3", "diff-digest": "sha256:c"},
        {"id": "container", "parent": "2"},
    ]
    listed.write_text(json.dumps(layers))
    assert engine.missing_layers(["sha256:a", "sha256:b"]) == (False, False)
    assert engine.missing_layers(["sha256:a", "sha256:c"]) == (False, True), "it is there, but not above a"
    assert engine.missing_layers(["sha256:x", "sha256:a"]) == (True, True)
    for damaged in ("", "{", "{}", "[1]", '[{"diff-digest": "sha256:a"}]'):
        listed.write_text(damaged)
        assert engine.missing_layers(["sha256:a"]) == (True,)
