"""Deploys onto file systems without room: refused with the numbers, and what runs is left alone."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Machine, ask, commit, free_port

TOWNS = "/api/v1/towns/selection"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system of its own")


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of as many megabytes as the test asks for."""
    base = tmp_path / "disk"
    base.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={request.param}m", "tmpfs", str(base)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount")
    yield base
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in sorted((mount for mount in mounts if mount.startswith(f"{base}")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False)


@pytest.mark.parametrize("disk", [64], indirect=True)
def test_64_megabytes_are_refused_at_once_with_the_numbers(disk: Path, towns: Path):
    machine = Machine(disk)
    (disk / "home").mkdir()
    started = time.monotonic()
    error = machine.json("deploy", "--name", "small", "--monorepo", str(towns), "--port", str(free_port()), code=5)
    assert time.monotonic() - started < 10
    assert "MB are needed, 6" in error["error"]["message"]
    assert any("building backend" in line for line in error["error"]["details"])
    assert any("images" in line for line in error["error"]["details"])


@pytest.mark.parametrize("disk", [700], indirect=True)
def test_a_storage_that_is_full_refuses_what_needs_it_and_nothing_else(disk: Path, machine: Machine, towns: Path):
    small = Machine(disk)
    (disk / "home").mkdir()
    (machine.base / "cache").mkdir(exist_ok=True)
    (disk / "cache").symlink_to(machine.base / "cache")
    port = free_port()
    # The name of another test's application, whose builds are in the cache when both run.
    flags = ("--name", "killed", "--monorepo", str(towns), "--port", str(port))
    page = towns / "frontend/index.html"
    original = page.read_text()
    try:
        small.run("deploy", *flags)
        with (disk / "filler").open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, shutil.disk_usage(disk).free - 2_000_000)
        assert small.json("deploy", *flags)["changed"] is False, "nothing has to be written, nothing is refused"
        page.write_text(original.replace("<title>", "<title>full "))
        refused = small.json("deploy", *flags, code=5)["error"]
        assert "not enough disk space" in refused["message"]
        assert ask(f"http://127.0.0.1:{port}{TOWNS}").status == 200, "what ran still runs"
        (disk / "filler").unlink()
        assert small.json("deploy", *flags)["changed"] is True
        assert "<title>full" in ask(f"http://127.0.0.1:{port}/").body.decode()
    finally:
        page.write_text(original)
        commit(towns)
        small.run("remove", "killed")
