"""What the measurements were made on."""

import os
import platform
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.measure import BenchmarkError, run_checked

_VERSIONS = {
    "cargo": ("cargo", "--version"),
    "node": ("node", "--version"),
    "nix": ("nix", "--version"),
    "podman": ("podman", "--version"),
    "skopeo": ("skopeo", "--version"),
    "orchestrator": ("git", "describe", "--always", "--dirty", "--tags"),
}


class Neighbours:
    """How much processor time others took since this was made: the machine's, less ours and our children's."""

    def __init__(self) -> None:
        self._start = self._read()

    def share(self) -> float:
        """Others' part of the machine's processor time, 0 to 1."""
        now = self._read()
        total, busy, own = (after - before for after, before in zip(now, self._start, strict=True))
        return min(max((busy - own) / total, 0.0), 1.0) if total else 0.0

    @staticmethod
    def _read() -> tuple[float, float, float]:
        total, busy = parse_processor_times(Path("/proc/stat").read_text())
        times = os.times()
        own = times.user + times.system + times.children_user + times.children_system
        ticks = os.sysconf("SC_CLK_TCK")
        return total / ticks, busy / ticks, own


def parse_processor_times(text: str) -> tuple[int, int]:
    """All ticks of all cores and those that were not idle, in the text of /proc/stat (proc(5))."""
    user, nice, system, idle, iowait, irq, softirq, steal = (int(field) for field in text.split()[1:9])
    busy = user + nice + system + irq + softirq + steal
    return busy + idle + iowait, busy


def machine_facts(repository: Path) -> Mapping[str, str]:
    """Cores, memory, kernel and versions, as short texts."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = {name: _version(argv, repository) for name, argv in _VERSIONS.items()}
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cores": f"{os.cpu_count()} × {_processor()}",
        "memory": f"{memory / 1e9:.0f} GB",
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        "python": platform.python_version(),
        **versions,
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _version(argv: tuple[str, ...], directory: Path) -> str:
    """What the program says of itself, its name left out; "absent" without it."""
    if shutil.which(argv[0]) is None:
        return "absent"
    try:
        said = run_checked(argv, cwd=directory).strip().splitlines()[0]
    except (BenchmarkError, IndexError):
        return "unknown"
    return said.removeprefix(f"{argv[0]} ").removeprefix("version ").removeprefix("(Nix) ")
