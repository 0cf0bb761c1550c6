"""The monorepo's own files as they go into the image of a backend that an interpreter runs."""

import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from orchestrator.build.snapshot import Snapshot

_NOT_RUN = re.compile(
    r"\..*|__pycache__|node_modules|tests?|__tests__|.*\.(test|spec)\.[cm]?[jt]sx?|flake\.(nix|lock)"
    r"|uv\.lock|package-lock\.json|npm-shrinkwrap\.json|pnpm-lock\.yaml|pnpm-workspace\.yaml"
    r"|(Docker|Container)file.*|(docker-)?compose.*\.ya?ml"
)
_MANIFESTS = ("package.json", "pyproject.toml", "Cargo.toml", "go.mod")


def project_directories(snapshot: Snapshot, root: Path) -> frozenset[Path]:
    """Where the monorepo, laid out at `root`, has projects. A manifest that a build wrote makes no directory one."""
    paths = (PurePosixPath(entry.path) for entry in snapshot.entries)
    return frozenset(root / path.parent for path in paths if path.name in _MANIFESTS)


def copy_own_code(project: Path, target: Path, projects: Collection[Path]) -> None:
    """All of a project's files but tests, hidden ones, what only builds read, and other `projects` below it."""
    for directory, subdirectories, names in os.walk(project):
        here = Path(directory)
        subdirectories[:] = [
            name for name in subdirectories if not _NOT_RUN.fullmatch(name) and here / name not in projects
        ]
        links = [name for name in subdirectories if (here / name).is_symlink()]
        for name in (*names, *links):
            if not _NOT_RUN.fullmatch(name):
                copy_file(here / name, target / here.relative_to(project) / name)


def copy_file(path: Path, target: Path) -> None:
    """A file or a link as it is, with the directories it needs."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target, follow_symlinks=False)
