"""Unit tests start no program: the subprocess door is shut."""

import subprocess

import pytest


@pytest.fixture(autouse=True)
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **_: object) -> None:
        raise AssertionError(f"a unit test tried to run {arguments}")

    monkeypatch.setattr(subprocess, "Popen", refuse)
