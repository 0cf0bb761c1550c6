"""The pool of tokens. (Real make and cargo are in tests/integration/test_build_jobserver.py.)"""

import fcntl
import os
import struct
import termios
import threading
import time

import pytest

from orchestrator.build.jobserver import Jobserver
from orchestrator.errors import Interrupted
from orchestrator.process import Cancel


@pytest.fixture
def jobserver():
    made = Jobserver(3)
    yield made
    made.close()


def tokens(descriptor: int) -> int:
    """Bytes waiting in the pipe."""
    return struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4))[0]


def test_each_running_build_holds_one_token(jobserver: Jobserver):
    with jobserver.slot(Cancel()) as first:
        read, write = first.descriptors
        assert tokens(read) == 2
        with jobserver.slot(Cancel()):
            assert tokens(read) == 1
        assert tokens(read) == 2
    assert tokens(read) == 3
    assert first.environment["CARGO_MAKEFLAGS"] == f"-j3 --jobserver-auth={read},{write}"


def test_no_more_builds_run_than_jobs(jobserver: Jobserver):
    running = most = 0
    lock = threading.Lock()

    def build() -> None:
        nonlocal running, most
        with jobserver.slot(Cancel()):
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.02)
            with lock:
                running -= 1

    threads = [threading.Thread(target=build) for _ in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 3


def test_tokens_a_killed_build_took_along_come_back_with_the_last_to_end(jobserver: Jobserver):
    with jobserver.slot(Cancel()) as slot:
        os.read(slot.descriptors[0], 2)
        assert tokens(slot.descriptors[0]) == 0
    assert tokens(slot.descriptors[0]) == 3


def test_a_build_that_waits_goes_on_although_another_lost_its_tokens(jobserver: Jobserver):
    done = threading.Event()

    def second() -> None:
        with jobserver.slot(Cancel()):
            done.set()

    with jobserver.slot(Cancel()) as slot:
        os.read(slot.descriptors[0], 2)
        thread = threading.Thread(target=second)
        thread.start()
        assert not done.wait(0.1)
    assert done.wait(2)
    thread.join()


def test_waiting_ends_when_a_stop_is_asked_for():
    jobserver = Jobserver(1)
    cancel = Cancel()
    threading.Timer(0.1, cancel.request).start()
    with jobserver.slot(Cancel()), pytest.raises(Interrupted), jobserver.slot(cancel):
        pass
    jobserver.close()


def test_the_builds_end_of_the_pipe_stays_blocking(jobserver: Jobserver):
    """make 4.3 takes EAGAIN for a broken jobserver."""
    with jobserver.slot(Cancel()) as slot:
        assert os.get_blocking(slot.descriptors[0])
