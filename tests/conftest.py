"""What every test has: a home and state of its own, never the user's."""

from pathlib import Path

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """How long an example of a property takes is no matter of a test: other workers have the processor, too."""
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def private_directories(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """State and cache below a temporary directory, whatever the user's environment says."""
    base = tmp_path_factory.mktemp("orchestrator")
    monkeypatch.setenv("ORCHESTRATOR_STATE_DIR", str(base / "state"))
    monkeypatch.setenv("ORCHESTRATOR_CACHE_DIR", str(base / "cache"))
    return base
