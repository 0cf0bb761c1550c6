"""The monorepo's own files as they go into the image of a backend that an interpreter runs."""

import os
import re
import shutil
from pathlib import Path

_NOT_RUN = re.compile(
    r"\..*|__pycache__|node_modules|tests?|__tests__|.*\.(test|spec)\.[cm]?[jt]sx?|flake\.(nix|lock)"
    r"|uv\.lock|package-lock\.json|npm-shrinkwrap\.json|pnpm-lock\.yaml|pnpm-workspace\.yaml"
    r"|(Docker|Container)file.*|(docker-)?compose.*\.ya?ml"
)
_MANIFESTS = ("package.json", "pyproject.toml", "Cargo.toml", "go.mod")


def copy_own_code(project: Path, target: Path) -> None:
    """All of a project's files but tests, hidden ones, what only builds read, and other projects below it."""
    for directory, subdirectories, names in os.walk(project):
        here = Path(directory)
        subdirectories[:] = [name for name in subdirectories if _belongs(here / name)]
        links = [name for name in subdirectories if (here / name).is_symlink()]
        for name in (*names, *links):
            if _belongs(here / name):
                copy_file(here / name, target / here.relative_to(project) / name)


def _belongs(path: Path) -> bool:
    if _NOT_RUN.fullmatch(path.name):
        return False
    return path.is_symlink() or not any((path / manifest).is_file() for manifest in _MANIFESTS)


def copy_file(path: Path, target: Path) -> None:
    """A file or a link as it is, with the directories it needs."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target, follow_symlinks=False)
