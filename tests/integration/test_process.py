"""The subprocess door, with real programs."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from orchestrator.errors import Interrupted, OrchestratorError
from orchestrator.process import (
    Cancel,
    ProcessError,
    ProgramMissing,
    base_environment,
    interact,
    redacted,
    require,
    run,
    stream,
)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def wait_gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def test_both_streams_and_the_input_are_handed_through():
    done = run(["sh", "-c", "cat; echo error >&2"], stdin=b"hello")
    assert (done.stdout, done.stderr, done.returncode) == ("hello", "error\n", 0)


def test_standard_input_is_closed_unless_given():
    assert run(["cat"], timeout=5).stdout == ""


def test_the_environment_is_what_was_given(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert "AWS_SECRET_ACCESS_KEY" not in run(["env"]).stdout
    assert run(["/usr/bin/env"], env={"ONLY": "this"}).stdout == "ONLY=this\n"
    assert base_environment({"PATH": "/bin", "OTHER": "x"}) == {"PATH": "/bin"}


def test_a_failure_says_what_failed_and_shows_the_last_lines():
    with pytest.raises(ProcessError) as caught:
        run(["sh", "-c", "echo broken >&2; exit 3"])
    assert "exit code 3" in caught.value.message
    assert caught.value.details == ("broken",)


def test_a_missing_program_is_a_typed_error():
    with pytest.raises(ProgramMissing, match="no-such-program is not installed"):
        run(["no-such-program"])
    with pytest.raises(ProgramMissing, match="needed to test") as caught:
        require("no-such-program", reason="test", hint="install it")
    assert caught.value.hint == "install it"


def test_a_time_limit_ends_grandchildren_too(tmp_path: Path):
    with pytest.raises(OrchestratorError, match="did not finish within"):
        run(["sh", "-c", f"sleep 100 & echo $! > {tmp_path}/pid; wait"], timeout=0.5)
    assert wait_gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("trap", ["", "trap '' TERM;"])
def test_a_cancel_ends_grandchildren_that_ignore_it_too(tmp_path: Path, trap: str):
    cancel = Cancel()
    threading.Timer(0.3, cancel.request).start()
    script = f"{trap} (sleep 100; true) & echo $! > {tmp_path}/pid; wait; sleep 100"
    started = time.monotonic()
    with pytest.raises(Interrupted):
        stream(["sh", "-c", script], on_line=lambda _: None, cancel=cancel)
    assert time.monotonic() - started < 8
    assert wait_gone(int((tmp_path / "pid").read_text()))


def test_lines_come_as_they_are_printed_and_all_of_them_reach_the_log(tmp_path: Path):
    seen: list[tuple[str, float]] = []
    done = stream(
        ["sh", "-c", "echo one; sleep 0.4; echo two >&2; printf 'three\\rfour'; exit 5"],
        on_line=lambda line: seen.append((line, time.monotonic())),
        log_file=tmp_path / "log",
    )
    assert [line for line, _ in seen] == ["one", "two", "four"]
    assert seen[1][1] - seen[0][1] > 0.2
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\nthree\rfour"
    assert done.returncode == 5


def test_descriptors_pass_only_when_named():
    reading, writing = os.pipe()
    try:
        stream(["bash", "-c", f"echo x >&{writing}"], on_line=lambda _: None, pass_fds=(writing,))
        assert os.read(reading, 10) == b"x\n"
        assert run(["bash", "-c", f"echo x 2>/dev/null >&{writing}"], check=False).returncode != 0
    finally:
        os.close(reading)
        os.close(writing)


def test_a_program_with_the_terminal_gets_our_termination_and_its_code_comes_back():
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert interact(["sh", "-c", "trap 'exit 7' TERM; for i in $(seq 60); do sleep 0.05; done"]) == 7
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_secrets_do_not_reach_the_log():
    assert redacted("login --password hunter2", ["hunter2", ""]) == "login --password •••"


def test_children_are_in_a_group_of_their_own():
    assert int(run(["sh", "-c", "ps -o pgid= -p $$"]).stdout) != os.getpgrp()
