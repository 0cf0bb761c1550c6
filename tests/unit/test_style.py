"""The linters, the type checker and the import contracts are tests like any other."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MODULES = sorted((REPOSITORY / "orchestrator").rglob("*.py"))
MAX_LINES = 500


@pytest.fixture(autouse=True)
def no_processes() -> None:
    """These tests are about programs: the door stays open."""


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy",),
        ("lint-imports", "--no-cache"),
    ],
    ids=lambda command: "-".join(command[:2]),
)
def test_it_passes(command: tuple[str, ...]):
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run([program, *command[1:]], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_module_is_one_sitting_long(module: Path):
    assert len(module.read_text().splitlines()) <= MAX_LINES
