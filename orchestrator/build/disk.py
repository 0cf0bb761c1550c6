"""Refuse before the build when the disk cannot hold it: a build that fails after ten minutes helps nobody."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.build.snapshot import Snapshot
from orchestrator.build.workspace import SOURCES
from orchestrator.errors import DiskError
from orchestrator.files import free_bytes, read_json, write_json
from orchestrator.plan import BuildPlan

MB = 1_000_000
RESERVE = 100 * MB
"""Left free on each file system, whatever happens."""

_RUST_BYTES = (60 * MB, 3 * MB)
_NODE_BYTES = (30 * MB, 1 * MB)
"""A first build's base and bytes per locked package. Measured on examples/towns: 72 crates 247 MB, 119 locked
npm packages 92 MB, caches included."""

_GO_BYTES = (120 * MB, 2 * MB)
"""The same for each line of go.sum. Measured: 89 MB for what net/http needs of the standard library."""

_PYTHON_BYTES = (40 * MB, 4 * MB)
_PYTHON_PACKAGE = re.compile(r"^\[\[package\]\]|^[A-Za-z0-9][\w.-]* *==", re.MULTILINE)
"""The same for each locked package. Measured: 15 packages of FastAPI with uvicorn 51 MB, the cache included."""

_TOOLCHAIN_BYTES = 300 * MB
_IMAGE_BYTES = 60 * MB
"""Measured: towns 27 MB with all it shares, in a temporary file and in the storage."""

_IMAGES = ".images"
"""Name of the record of an application's images; no service's name begins with a dot."""


@dataclass(frozen=True, slots=True)
class Need:
    """`size` bytes will be written to the file system of `path`, for `purpose`."""

    path: Path
    size: int
    purpose: str


def predict_build(cache_dir: Path, app: str, build: BuildPlan, snapshot: Snapshot) -> Need:
    """What one build will write: what its workspace last measured lacks now, or an estimate from its lock file."""
    workspace = cache_dir / "workspaces" / app / build.service
    measured = read_json(_record(cache_dir, app, build.service))
    purpose = f"building {build.service}"
    if isinstance(measured, int):
        present = (workspace / SOURCES).exists()
        return Need(cache_dir, measured // 10 if present else measured, purpose)
    sources = sum((snapshot.root / entry.path).stat().st_size for entry in snapshot.entries if entry.kind == "file")
    return Need(cache_dir, sources + _estimate(build, snapshot.root / build.lock_file), f"{purpose} (estimated)")


def predict_toolchain(cache_dir: Path) -> list[Need]:
    """What a first dev shell adds to the Nix store; nothing once there is one."""
    if (cache_dir / "toolchains").is_dir():
        return []
    return [Need(Path("/nix/store"), _TOOLCHAIN_BYTES, "the dev shell (estimated)")]


def predict_images(state_dir: Path, cache_dir: Path, app: str) -> Need:
    """What new images need in the engine's storage: twice what the last run's own layers were, or an estimate.

    A new layer is in a temporary file and in the storage at once. Libraries and servers stay from before.
    """
    measured = read_json(_record(cache_dir, app, _IMAGES))
    if isinstance(measured, int):
        return Need(state_dir, 2 * measured, "images")
    return Need(state_dir, _IMAGE_BYTES, "images (estimated)")


def remember_build(cache_dir: Path, app: str, build: BuildPlan, size: int) -> None:
    """Keep what a build's workspace measured, in bytes, for the next prediction."""
    write_json(_record(cache_dir, app, build.service), size)


def remember_images(cache_dir: Path, app: str, size: int) -> None:
    """Keep the bytes of the image layers that a build of the application can change, for the next prediction."""
    path = _record(cache_dir, app, _IMAGES)
    if read_json(path) != size:
        write_json(path, size)


def check_space(needs: list[Need], *, free: Callable[[Path], int] = free_bytes) -> None:
    """Raises `DiskError` with the numbers when a file system has less than all needs on it and a reserve.

    Where nothing will be written no reserve is asked for.
    """
    grouped: Mapping[int, list[Need]] = _by_file_system([need for need in needs if need.size])
    for found in grouped.values():
        wanted = sum(need.size for need in found)
        available = free(found[0].path)
        if available < wanted + RESERVE:
            raise DiskError(
                f"not enough disk space at {found[0].path}: {_mb(wanted + RESERVE)} are needed,"
                f" {_mb(available)} are free",
                details=[f"{_mb(need.size)} for {need.purpose}" for need in found] + [f"{_mb(RESERVE)} in reserve"],
                hint="free some space (see: orchestrator gc --dry-run), or use another disk with"
                " ORCHESTRATOR_CACHE_DIR and ORCHESTRATOR_STATE_DIR",
            )


def _by_file_system(needs: list[Need]) -> dict[int, list[Need]]:
    grouped: defaultdict[int, list[Need]] = defaultdict(list)
    for need in needs:
        grouped[_device(need.path)].append(need)
    return dict(grouped)


def _device(path: Path) -> int:
    while not path.exists():
        path = path.parent
    return path.stat().st_dev


def _estimate(build: BuildPlan, lock: Path) -> int:
    try:
        text = lock.read_text(errors="replace")
    except OSError:
        text = ""
    if build.framework == "rust":
        base, each = _RUST_BYTES
        return base + each * text.count("[[package]]")
    if build.framework == "go":
        base, each = _GO_BYTES
        return base + each * text.count("/go.mod h1:")
    if build.framework == "python":
        base, each = _PYTHON_BYTES
        return base + each * len(_PYTHON_PACKAGE.findall(text))
    base, each = _NODE_BYTES
    return base + each * text.count('"node_modules/')


def _record(cache_dir: Path, app: str, service: str) -> Path:
    return cache_dir / "measured" / app / f"{service}.json"


def _mb(size: int) -> str:
    return f"{size / MB:.0f} MB"
