"""What the log of a container with several services tells, and what such a container may use."""

import pytest

from orchestrator.deploy.app import Logs
from orchestrator.deploy.diagnosis import explain_exit
from orchestrator.deploy.single import End, find_end, lines_of
from orchestrator.settings import Limits

LOG = (
    "backend | starting",
    "backend | thread 'main' panicked",
    "web | {}",
    "init | backend ended with exit code 101, unasked",
    "init | web ended with exit code 0",
    "backend | starting",
)


def test_the_service_that_ended_is_the_one_nobody_asked_to() -> None:
    assert find_end(LOG) == End("backend", 101)
    assert find_end(
        (*LOG, "init | web was ended by signal 9, unasked", "init | backend ended with exit code 0")
    ) == End("web", 137)
    assert find_end(("init | web ended with exit code 0", "init | backend was ended by signal 15")) is None
    assert find_end(("backend | init | web ended with exit code 3, unasked",)) is None, "a backend may say anything"


def test_an_end_is_told_in_words() -> None:
    assert (str(End("web", 137)), str(End("backend", 1))) == (
        "web was ended by signal 9",
        "backend ended with exit code 1",
    )


def test_the_lines_of_one_service_lose_its_name() -> None:
    assert lines_of(LOG, "web") == ("{}",)
    assert lines_of(("backend | a | b", "backend + c", "back | d", "none"), "backend") == ("a | b", "c")


def test_a_program_that_cannot_be_executed_is_explained() -> None:
    said = ("/app/bin/server cannot be executed: exec format error",)
    assert explain_exit("backend", 126, said, oom_killed=False).message == "backend is built for another processor"


@pytest.mark.parametrize(
    ("prefix", "line", "meant"),
    [
        ("", "backend | x", True),
        ("", "web | x", False),
        ("app-single ", "app-single backend | x", True),
        ("app-single ", "app-single web | x", False),
        ("app-single ", "app-gate web | x", True),
    ],
)
def test_only_what_was_asked_for_is_shown(prefix: str, line: str, meant: bool) -> None:
    assert Logs((), prefix, frozenset({"backend"})).means(line) is meant


def test_one_container_may_use_what_two_may() -> None:
    both = Limits(memory="128m", cpus=0.5, pids=10).plus(Limits(memory="1g", cpus=1.0, pids=20))
    assert both == Limits(memory=f"{(128 + 1024) * 1024**2}b", cpus=1.5, pids=30)
