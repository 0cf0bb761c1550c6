"""Lock files: without one, the same commit would not build the same thing twice."""

from collections.abc import Callable
from pathlib import Path

from orchestrator.build import cargo, golang, node, python
from orchestrator.build.snapshot import Snapshot
from orchestrator.errors import ProjectError
from orchestrator.events import Emit, Note
from orchestrator.files import write_atomically
from orchestrator.plan import BuildPlan

WriteLock = Callable[[BuildPlan, tuple[str, ...]], bytes]
"""Runs a command in the service's workspace, with the network, and gives the lock file it wrote."""


def missing_locks(snapshot: Snapshot, builds: tuple[BuildPlan, ...]) -> tuple[BuildPlan, ...]:
    """The builds whose lock file is not in the snapshot."""
    present = {entry.path for entry in snapshot.entries}
    return tuple(build for build in builds if str(build.lock_file) not in present)


def check_locks(snapshot: Snapshot, builds: tuple[BuildPlan, ...], *, write_lock: bool, emit: Emit) -> None:
    """Raises `ProjectError` for a lock file that is missing, ignored or (unless `write_lock`) not tracked by git."""
    for build in missing_locks(snapshot, builds):
        raise _missing(snapshot, build)
    for build in builds:
        name = str(build.lock_file)
        if name in snapshot.untracked and not write_lock:
            raise ProjectError(
                f"{name} is not tracked by git: another clone would build something else",
                hint=f"git -C {snapshot.root} add {name}",
            )
        if name in snapshot.untracked:
            emit(Note(f"{name} is not tracked by git yet; commit it", level="warning"))


def write_locks(snapshot: Snapshot, builds: tuple[BuildPlan, ...], write: WriteLock, emit: Emit) -> bool:
    """Write each missing lock file into the user's tree, said out loud; whether any was written."""
    missing = {build.lock_file: build for build in missing_locks(snapshot, builds)}
    for build in missing.values():
        path = snapshot.root / build.lock_file
        if path.exists():
            raise _missing(snapshot, build)
        write_atomically(path, write(build, write_command(build)))
        emit(Note(f"wrote {path}; commit it"))
    return bool(missing)


def write_command(build: BuildPlan) -> tuple[str, ...]:
    """What writes the lock file of this build, run in the lock file's directory."""
    commands = {"rust": cargo.WRITE_LOCK, "go": golang.WRITE_LOCK, "python": python.WRITE_LOCK}
    return commands.get(build.framework) or node.write_lock(build.lock_file)


def _missing(snapshot: Snapshot, build: BuildPlan) -> ProjectError:
    path: Path = snapshot.root / build.lock_file
    if path.exists():
        return ProjectError(
            f"{build.lock_file} is there but git ignores it, so builds do not see it",
            hint=f"take it out of .gitignore, then: git -C {snapshot.root} add {build.lock_file}",
        )
    return ProjectError(
        f"{build.service} has no lock file: {build.lock_file} does not exist",
        hint=f"run: {' '.join(write_command(build))} in {path.parent}, or pass --write-lock to have it written",
    )
