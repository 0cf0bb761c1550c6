"""What a program in the sandbox sees and can do."""

import os
import subprocess
import sys
import time
from pathlib import Path, PurePosixPath

import pytest

from orchestrator.process import find, run
from orchestrator.tools.sandbox import Sandbox, inner_argv, outer_argv, probe

SOURCE = PurePosixPath("/build/src")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    assert probe() is None
    (tmp_path / "src").mkdir()
    (tmp_path / "home/tools").mkdir(parents=True)
    (tmp_path / "home/secret").write_text("secret")
    (tmp_path / "home/tools/tool").write_text("tool")
    return tmp_path


def sandboxed(outside: Path, script: str, *, network: bool = False, inner: bool = True) -> str:
    view = Sandbox(
        binds=((outside / "src", SOURCE),),
        hidden=(outside / "home", Path("/root"), Path("/home")),
        visible=(outside / "home/tools",),
        network=network,
        nix_writable=os.access("/nix/var/nix/db", os.W_OK),
    )
    command = ["/bin/bash", "-c", script]
    argv = outer_argv(view, inner_argv(command) if inner else command, directory=SOURCE)
    return run(argv, env={"PATH": "/usr/bin:/bin"}, check=False).stdout


def test_the_workspace_is_at_its_fixed_path_and_writable(outside: Path):
    assert sandboxed(outside, "pwd; echo made > file") == "/build/src\n"
    assert (outside / "src/file").read_text() == "made\n"


def test_everything_else_is_read_only(outside: Path):
    places = f"/ /usr /etc /build /root /home /run {outside}/home /nix /nix/store"
    said = sandboxed(outside, f"for d in {places}; do [ -d $d ] && touch $d/x-test 2>/dev/null && echo $d; done")
    assert said == ""


def test_homes_are_hidden_but_for_the_tools(outside: Path):
    said = sandboxed(outside, f"cat {outside}/home/secret; cat {outside}/home/tools/tool; ls -A /root /home | wc -w")
    assert said.startswith("tool")


def test_processes_of_the_machine_are_not_seen(outside: Path):
    assert int(sandboxed(outside, "ls -d /proc/[0-9]* | wc -l")) < 10


def test_without_network_only_the_loopback_is_up(outside: Path):
    count = "grep -c : /proc/net/dev; (exec 3<>/dev/tcp/127.0.0.1/9) 2>&1 | grep -o -m 1 'Connection refused$'"
    assert sandboxed(outside, count).splitlines() == ["1", "Connection refused"]
    ours = str(Path("/proc/self/ns/net").readlink())
    assert sandboxed(outside, "readlink /proc/self/ns/net", network=True).split() == [ours]


def test_the_step_has_no_capabilities(outside: Path):
    assert sandboxed(outside, "grep CapEff /proc/self/status").split() == ["CapEff:", "0" * 16]


def test_temporary_files_are_private(outside: Path):
    sandboxed(outside, "touch /tmp/orchestrator-sandbox-test")
    assert not Path("/tmp/orchestrator-sandbox-test").exists()


def test_inherited_descriptors_reach_the_program(outside: Path):
    read, write = os.pipe()
    os.write(write, b"token")
    view = Sandbox(((outside / "src", SOURCE),), (), (), network=False, nix_writable=False)
    argv = outer_argv(view, inner_argv(["/bin/head", "-c", "5", f"/dev/fd/{read}"]), directory=SOURCE)
    done = subprocess.run(argv, pass_fds=[read], capture_output=True, check=False)
    assert done.stdout == b"token", done.stderr
    os.close(read)
    os.close(write)


def test_killing_whoever_started_it_ends_everything_in_it(outside: Path):
    """SIGKILL cannot be handled: the kernel has to do it."""
    marker = "987.125"
    view = Sandbox(((outside / "src", SOURCE),), (), (), network=False, nix_writable=False)
    script = f"touch started; sleep {marker} & setsid sleep {marker} & wait"
    argv = outer_argv(view, inner_argv(["/bin/bash", "-c", script]), directory=SOURCE)
    starter = subprocess.Popen([sys.executable, "-c", f"import subprocess; subprocess.run({argv!r})"])
    wait_until(lambda: (outside / "src/started").exists() and len(processes(marker)) == 2)
    starter.kill()
    starter.wait()
    wait_until(lambda: not processes(marker))


def processes(marker: str) -> list[Path]:
    return [path for path in Path("/proc").glob("[0-9]*/cmdline") if command(path)[:2] == ["sleep", marker]]


def command(path: Path) -> list[str]:
    try:
        return path.read_text().split("\0")
    except OSError:
        return []


def wait_until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(("refusals", "problem"), [(1, None), (100, "bubblewrap cannot create namespaces here (busy)")])
def test_a_namespace_refused_for_a_moment_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusals: int, problem: str | None
):
    real, tries, fake = find("bwrap"), tmp_path / "tries", tmp_path / "bwrap"
    enough = f'[ "$(wc -l <{tries})" -gt {refusals} ]'
    fake.write_text(f'#!/bin/sh\necho >>{tries}\n{enough} && exec {real} "$@"\necho busy >&2\nexit 1\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert probe() == problem
