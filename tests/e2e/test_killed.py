"""Killed at any moment, the next run repairs what is there and ends in a working deployment."""

import os
import signal
import time
from pathlib import Path

from tests.e2e.conftest import Machine, ask, commit, free_port

TOWNS = "/api/v1/towns/selection"
MOMENTS = 10


def test_sigkill_at_ten_moments_always_ends_in_a_working_deployment(machine: Machine, towns: Path):
    port = free_port()
    flags = ("--name", "killed", "--monorepo", str(towns), "--port", str(port))
    machine.run("deploy", *flags)
    page = towns / "frontend/index.html"
    original = page.read_text()
    try:
        duration = timed_deploy(machine, flags, page, original, "timed")
        for moment in range(MOMENTS):
            write_title(page, original, f"moment {moment}")
            child = machine.start("deploy", *flags)
            time.sleep(duration * (moment + 0.5) / MOMENTS)
            os.kill(child.pid, signal.SIGKILL)
            child.communicate()
            assert ask(f"http://127.0.0.1:{port}{TOWNS}").status == 200, f"moment {moment}: something still serves"
            machine.run("deploy", *flags)
            assert f"<title>moment {moment}" in ask(f"http://127.0.0.1:{port}/").body.decode()
            assert ask(f"http://127.0.0.1:{port}{TOWNS}").status == 200
        pods = machine.engine("pod", "ps", "--filter", "label=io.orchestrator.app=killed", "--quiet").split()
        assert len(pods) == 2, "the live release and the one before it, kept warm; none of a killed run"
    finally:
        page.write_text(original)
        commit(towns)
        machine.run("remove", "killed")


def test_ctrl_c_leaves_no_process_and_no_mount(machine: Machine, towns: Path):
    mounts = mounts_of(machine.base)
    page = towns / "frontend/index.html"
    original = page.read_text()
    for delay in (1.0, 2.5):
        write_title(page, original, f"interrupted after {delay}")
        child = machine.start("build", "--name", "interrupted", "--monorepo", str(towns))
        time.sleep(delay)
        os.killpg(child.pid, signal.SIGINT)
        _, stderr = child.communicate(timeout=30)
        page.write_text(original)
        assert child.returncode == 130, stderr
        assert "Traceback" not in stderr
        assert processes_of(machine.base / "cache") == []
        assert mounts_of(machine.base) == mounts


def timed_deploy(machine: Machine, flags: tuple[str, ...], page: Path, original: str, title: str) -> float:
    write_title(page, original, title)
    started = time.monotonic()
    machine.run("deploy", *flags)
    return time.monotonic() - started


def write_title(page: Path, original: str, title: str) -> None:
    page.write_text(original.replace("<title>", f"<title>{title} "))


def mounts_of(directory: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(directory) in line]


def processes_of(directory: Path) -> list[str]:
    """Command lines of processes that work with `directory`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(directory) in command:
            found.append(command)
    return found
