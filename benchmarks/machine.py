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


def machine_facts(repository: Path) -> Mapping[str, str]:
    """Cores, memory, kernel, load and versions, as short texts."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = {name: _version(argv, repository) for name, argv in _VERSIONS.items()}
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cores": f"{os.cpu_count()} × {_processor()}",
        "memory": f"{memory / 1e9:.0f} GB",
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        "load average before": f"{os.getloadavg()[0]:.1f} (above 0.5, something else was running)",
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
