"""A synchronisation killed with SIGKILL at any moment is put right by the next one."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.build.snapshot import take_snapshot
from orchestrator.build.workspace import open_workspace, sync_sources

FILES = 400
SCRIPT = """
import sys
from pathlib import Path
from orchestrator.build.snapshot import take_snapshot
from orchestrator.build.workspace import open_workspace, sync_sources
root, cache = Path(sys.argv[1]), Path(sys.argv[2])
with open_workspace(cache, "app", "api", inside=True) as workspace:
    taken = take_snapshot(root, cache_dir=cache, emit=lambda event: None)
    print("ready", flush=True)
    sync_sources(workspace, taken)
"""


def content(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_any_moment(tmp_path: Path, seed: int):
    chance = random.Random(seed)
    root, cache = tmp_path / "repo", tmp_path / "cache"
    for number in range(FILES):
        path = root / f"d{number % 7}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"first {number}")
    with open_workspace(cache, "app", "api", inside=True) as workspace:
        sync_sources(workspace, take_snapshot(root, cache_dir=cache, emit=lambda event: None))
    for path in chance.sample(sorted(root.rglob("f*")), FILES // 2):
        path.unlink() if chance.random() < 0.3 else path.write_text("second")
    child = subprocess.Popen([sys.executable, "-c", SCRIPT, root, cache], stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout is not None
        ready = child.stdout.readline()
        time.sleep(chance.random() * 0.03)
        child.kill()
    assert ready == "ready\n"
    for path in chance.sample(sorted(root.rglob("f*")), 20):
        path.unlink()
    with open_workspace(cache, "app", "api", inside=True) as workspace:
        sync_sources(workspace, take_snapshot(root, cache_dir=cache, emit=lambda event: None))
        assert content(workspace.path / "src") == content(root)
