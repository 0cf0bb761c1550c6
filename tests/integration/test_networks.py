"""One application's containers cannot reach another's."""

import subprocess

from orchestrator.deploy.release import deploy_release
from orchestrator.process import Cancel
from orchestrator.tools.inspection import Container, list_containers
from tests.integration.release_bench import Bench, free_port, make_plan

REACH = "import socket; socket.create_connection(('{address}', 3000), timeout=2).close(); print('reached')"


def reaches(container: Container, address: str) -> bool:
    """Whether a program in the container's network gets a connection to the backend at `address`."""
    command = ["nsenter", f"--net=/proc/{container.pid}/ns/net", "python3", "-c", REACH.format(address=address)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout == "reached\n"


def test_an_application_reaches_itself_and_no_other(bench: Bench) -> None:
    from orchestrator.deploy.app import remove_app

    bench.deploy()
    other = bench.settings(name="other", port=free_port())
    deploy_release(
        other, make_plan("other"), bench.images, engine=bench.engine, emit=lambda event: None, cancel=Cancel()
    )
    try:
        (one,) = list_containers(bench.engine, {"io.orchestrator.app": "bench", "io.orchestrator.service": "backend"})
        (two,) = list_containers(bench.engine, {"io.orchestrator.app": "other", "io.orchestrator.service": "backend"})
        addresses = {name: address_of(container) for name, container in (("one", one), ("two", two))}
        assert addresses["one"] != addresses["two"]
        assert reaches(two, addresses["two"]), "the test can tell when something is reached"
        assert not reaches(one, addresses["two"])
        assert not reaches(two, addresses["one"])
    finally:
        remove_app(bench.state_dir, "other", engine=bench.engine)
    assert not list((bench.state_dir / "containers/networks").glob("*-other.json"))


def address_of(container: Container) -> str:
    command = ["nsenter", f"--net=/proc/{container.pid}/ns/net", "hostname", "-I"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
