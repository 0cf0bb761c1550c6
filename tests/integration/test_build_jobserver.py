"""Real make and cargo share the jobserver, through the sandboxes."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pytest

from orchestrator.build.jobserver import Jobserver
from orchestrator.errors import Interrupted
from orchestrator.process import Cancel, require, stream
from orchestrator.tools.sandbox import Sandbox, inner_argv, outer_argv

MAKEFILE = """all: $(patsubst %,j%,1 2 3 4 5 6)
j%:
\t@name=$$(mktemp running.XXXXXXXX); ls | grep -c '^running' >> ../counts; sleep 0.05; rm $$name
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    require("make", reason="test", hint="apt-get install make")
    (tmp_path / "src").mkdir()
    (tmp_path / "src/Makefile").write_text(MAKEFILE)
    return tmp_path


def make(source: Path, jobserver: Jobserver, cancel: Cancel) -> list[str]:
    lines: list[str] = []
    view = Sandbox(((source, PurePosixPath("/build")),), (), (), network=False, nix_writable=False)
    argv = outer_argv(view, inner_argv(["/usr/bin/make"]), directory=PurePosixPath("/build/src"))
    with jobserver.slot(cancel) as slot:
        env = {"PATH": "/usr/bin:/bin", **slot.environment}
        done = stream(argv, on_line=lines.append, env=env, pass_fds=slot.descriptors, cancel=cancel)
    assert done.returncode == 0, lines
    return lines


def test_two_builds_together_use_all_jobs_and_never_more(source: Path):
    jobserver = Jobserver(3)
    with ThreadPoolExecutor() as pool:
        said = list(pool.map(lambda _: make(source, jobserver, Cancel()), range(2)))
    jobserver.close()
    counts = [int(line) for line in (source / "counts").read_text().split()]
    assert len(counts) == 12
    assert max(counts) == 3
    assert not any("jobserver" in line for lines in said for line in lines)


def test_a_killed_build_costs_no_job_in_the_end(source: Path):
    jobserver = Jobserver(2)
    cancel = Cancel()
    slow = MAKEFILE.replace("sleep 0.05", "sleep 30")
    (source / "src/Makefile").write_text(slow)

    def stop_when_two_run() -> None:
        while len(list((source / "src").glob("running*"))) < 2:
            time.sleep(0.01)
        cancel.request()

    thread = threading.Thread(target=stop_when_two_run)
    thread.start()
    with pytest.raises(Interrupted):
        make(source, jobserver, cancel)
    thread.join()
    for left in (source / "src").glob("running*"):
        left.unlink()
    (source / "counts").unlink(missing_ok=True)
    (source / "src/Makefile").write_text(MAKEFILE)
    make(source, jobserver, Cancel())
    jobserver.close()
    assert max(int(line) for line in (source / "counts").read_text().split()) == 2


def test_more_builds_than_jobs_take_turns(source: Path):
    jobserver = Jobserver(1)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: make(source, jobserver, Cancel()), range(3)))
    jobserver.close()
    assert {int(line) for line in (source / "counts").read_text().split()} == {1}
