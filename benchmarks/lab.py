"""A place of our own to measure in: a file system nobody else writes to, and no trace of it afterwards."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from benchmarks.measure import BenchmarkError, Measured, kill_orphans, run_checked, run_measured
from orchestrator.tools.engine_config import engine_dirs

REPOSITORY = Path(__file__).resolve().parent.parent
PROGRAM = Path(sys.executable).with_name("orchestrator")

DISK_BYTES = 24_000_000_000
"""Size of the private file system. Its image is a sparse file: only what is written takes space."""

NEEDED_BYTES = 8_000_000_000
"""What must be free for it."""

_SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Lab:
    """`base` is the directory everything is below; `private` tells whether its file system is ours alone."""

    base: Path
    private: bool

    def orchestrator(self, name: str) -> "Orchestrator":
        """An orchestrator with empty state and cache of its own, called `name` for people."""
        made = Orchestrator(Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.base)))
        made.temporary.mkdir()
        return made

    def clean(self) -> None:
        """Remove every application, container and mount below `base`."""
        made = [Orchestrator(path) for path in self.base.iterdir() if (path / "state").is_dir()]
        for orchestrator in made:
            orchestrator.clean()
        kill_orphans()


@dataclass(frozen=True, slots=True)
class Orchestrator:
    """The installed command with state, cache and temporary files below `base`."""

    base: Path

    @property
    def state(self) -> Path:
        return self.base / "state"

    @property
    def cache(self) -> Path:
        return self.base / "cache"

    @property
    def temporary(self) -> Path:
        return self.base / "tmp"

    @property
    def environment(self) -> dict[str, str]:
        """The user's environment and the directories of this one."""
        return user_environment() | {
            "ORCHESTRATOR_STATE_DIR": str(self.state),
            "ORCHESTRATOR_CACHE_DIR": str(self.cache),
            "TMPDIR": str(self.temporary),
            "NO_COLOR": "1",
        }

    def measure(self, *arguments: str) -> Measured:
        """Run the command and account for it. Raises `BenchmarkError` when it fails."""
        return run_measured([str(PROGRAM), *arguments], env=self.environment, cwd=self.base, disk=self.base)

    def run(self, *arguments: str, stdin: int | None = None) -> str:
        """Run the command; its standard output. Raises `BenchmarkError` when it fails."""
        return run_checked([str(PROGRAM), *arguments], env=self.environment, cwd=self.base, stdin=stdin)

    def engine(self, *arguments: str, stdin: int | None = None) -> str:
        """Run the container engine as the orchestrator does."""
        return self.run("engine", "--", *arguments, stdin=stdin)

    def clean(self) -> None:
        """Remove what runs and what is mounted; each step whatever became of the one before."""
        steps = [
            ("engine", "--", "pod", "rm", "--all", "--force", "--time", "0"),
            ("engine", "--", "rm", "--all", "--force", "--time", "0"),
        ]
        if (self.state / "towns").exists():
            steps.insert(0, ("remove", "towns"))
        for step in steps:
            with contextlib.suppress(BenchmarkError):
                self.run(*step)
        runtime = engine_dirs(self.state, self.environment).runtime
        for directory in (self.base, runtime):
            _unmount_below(directory)
        shutil.rmtree(runtime, ignore_errors=True)

    def discard(self) -> None:
        """Remove all it made, its directories too."""
        self.clean()
        shutil.rmtree(self.base, ignore_errors=True)


def user_environment() -> dict[str, str]:
    """The user's environment, because their registries are in it, without their settings for us.

    Python may keep what it compiled, as it does for every user: a variable against it is left out.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ORCHESTRATOR_") and name != "PYTHONDONTWRITEBYTECODE"
    }


@contextmanager
def open_lab() -> Iterator[Lab]:
    """A lab that is taken down whatever happens; SIGTERM and SIGHUP count as Ctrl-C.

    Raises `BenchmarkError` when the disk has no room for it.
    """
    with ExitStack() as stack:
        stack.enter_context(_signals_interrupt())
        base = Path(tempfile.mkdtemp(prefix="orchestrator-bench-"))
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        _require_room(base)
        private = _mount_disk(base, stack)
        lab = Lab(base / "disk", private)
        lab.base.mkdir(exist_ok=True)
        stack.callback(lab.clean)
        yield lab


def _require_room(base: Path) -> None:
    free = shutil.disk_usage(base).free
    if free < NEEDED_BYTES:
        raise BenchmarkError(
            f"{base.parent} has {free / 1e9:.1f} GB free, the benchmarks need {NEEDED_BYTES / 1e9:.0f} GB; "
            "choose another place with TMPDIR"
        )


def _mount_disk(base: Path, stack: ExitStack) -> bool:
    """A file system in a file, at `base`/disk, where root can have one; peaks are exact on it."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4", path=_SYSTEM_PATH) is None:
        return False
    image, target = base / "disk.img", base / "disk"
    target.mkdir()
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    try:
        _system("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
        _system("mount", "-o", "loop", str(image), str(target))
    except BenchmarkError:
        image.unlink()
        return False
    stack.callback(_unmount_below, target)
    return True


def _system(*argv: str) -> None:
    run_checked(argv, env={"PATH": _SYSTEM_PATH})


def _unmount_below(directory: Path) -> None:
    """Unmount what is mounted at and below `directory`, the latest first, lazily where it is busy."""
    for target in reversed(mounts_below(Path("/proc/self/mounts").read_text(), directory)):
        subprocess.run(["umount", target], check=False, capture_output=True)
    for target in reversed(mounts_below(Path("/proc/self/mounts").read_text(), directory)):
        subprocess.run(["umount", "--lazy", target], check=False, capture_output=True)


def mounts_below(mounts: str, directory: Path) -> list[str]:
    """The mount points at or below `directory` in the text of /proc/self/mounts, in the order they were made."""
    targets = [line.split()[1].encode().decode("unicode_escape") for line in mounts.splitlines()]
    return [target for target in targets if Path(target).is_relative_to(directory)]


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
