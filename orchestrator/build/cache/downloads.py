"""What a fetch leaves to be kept, and how it comes back: directories in which a tool keeps what it downloaded.

cargo's is a case of its own (see `cargo_home`): it has parts that are made of others.
"""

import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from posixpath import normpath
from typing import Protocol

from orchestrator.build.cache.layers import lay_out
from orchestrator.build.cache.manifest import File, Manifest, UnusableManifest, walk
from orchestrator.files import no_space_is_an_error, remove_tree, sha256
from orchestrator.process import Cancel

MTIME = 315_532_800 * 10**9
"""Every file has the same time, so that the same files make the same entry."""

_LARGE = 1 << 20
_PACKED = (".crate", ".pack", ".idx", ".rev", ".zip")
_INTEGRITY = re.compile(r"sha(?:1|256|512)-[A-Za-z0-9+/=]{27,}|h1:[A-Za-z0-9+/=]{44}|sha256:[0-9a-f]{64}")


class Downloads(Protocol):
    """What is kept of a workspace after a fetch.

    `name` is that of the store paths, `packages` are what the lock file asks for, to tell which entry is nearest.
    `read` raises `UnusableManifest` when a file has one of the `secrets` in it. `restore` puts what is not there into
    the workspace, and tells whether there was any; an `exact` entry may also replace what differs. Killed at any
    moment, each part is there whole or not. It raises `UnusableManifest`, `DiskError` and `Interrupted`.
    """

    @property
    def name(self) -> str: ...
    @property
    def packages(self) -> tuple[str, ...]: ...

    def is_empty(self, root: Path) -> bool: ...
    def read(self, root: Path, secrets: Sequence[str]) -> Manifest: ...
    def restore(self, root: Path, manifest: Manifest, *, exact: bool, cancel: Cancel) -> bool: ...


@dataclass(frozen=True, slots=True)
class DownloadDirectories:
    """Directories of a workspace (`parts`) that hold nothing but downloads; a part comes back as a whole or not at all.

    What `left_out` finds in a path is not kept: what the tool made of downloads, and its locks.
    """

    name: str
    parts: tuple[str, ...]
    packages: tuple[str, ...]
    left_out: re.Pattern[str]

    def is_empty(self, root: Path) -> bool:
        """Whether none of the directories is there."""
        return not any((root / part).is_dir() for part in self.parts)

    def read(self, root: Path, secrets: Sequence[str]) -> Manifest:
        """All files, and the links that stay within their part."""
        files: dict[str, File] = {}
        links: dict[str, str] = {}
        directories: dict[str, tuple[int, str]] = {}
        for part in (part for part in self.parts if (root / part).is_dir()):
            for path, status in walk(root, part):
                if self.left_out.search(path):
                    continue
                if stat.S_ISDIR(status.st_mode):
                    directories[path] = (MTIME, "")
                elif stat.S_ISREG(status.st_mode):
                    require_no_secret(root / path, status.st_size, secrets)
                    executable = bool(status.st_mode & 0o100)
                    files[path] = File(0, status.st_size, MTIME, executable, sha256(root / path))
                elif stat.S_ISLNK(status.st_mode) and _stays_within(
                    path, target := str((root / path).readlink()), part
                ):
                    links[path] = target
        return Manifest(("",), files, {}, links, directories, {})

    def restore(self, root: Path, manifest: Manifest, *, exact: bool, cancel: Cancel) -> bool:  # noqa: ARG002 (see below)
        """Each of the directories that is not there; what is there is the tool's own, whatever the entry."""
        missing = tuple(part for part in self.parts if part in manifest.directories and not (root / part).exists())
        if not missing:
            return False
        staging = root / "restoring"
        remove_tree(staging)
        try:
            with no_space_is_an_error(staging):
                for path in sorted(_below(manifest.directories, missing)):
                    (staging / path).mkdir(parents=True, exist_ok=True)
                chosen = {path: manifest.files[path] for path in _below(manifest.files, missing)}
                lay_out(staging, Manifest(manifest.layers, chosen, {}, {}, {}, {}), cancel)
                for path in _below(manifest.links, missing):
                    (staging / path).symlink_to(manifest.links[path])
                for part in missing:
                    (root / part).parent.mkdir(parents=True, exist_ok=True)
                    (staging / part).rename(root / part)
        finally:
            remove_tree(staging)
        return True


def read_integrities(lock: Path) -> tuple[str, ...]:
    """The digests a lock file of npm, pnpm, Go or uv lists: each stands for a download. None when it cannot be read."""
    try:
        text = lock.read_text(errors="replace")
    except OSError:
        return ()
    return tuple(sorted(set(_INTEGRITY.findall(text))))


def require_no_secret(path: Path, size: int, secrets: Sequence[str]) -> None:
    """Raise `UnusableManifest` for a file with a secret in it.

    Compressed files cannot be searched, and have nothing in them but what was published.
    """
    if secrets and size < _LARGE and path.suffix not in _PACKED:
        content = path.read_bytes()
        if any(secret.encode() in content for secret in secrets):
            raise UnusableManifest(f"{path} has one of your tokens in it")


def _stays_within(path: str, target: str, part: str) -> bool:
    place = normpath(f"{path.rpartition('/')[0]}/{target}")
    return not target.startswith("/") and place.startswith(f"{part}/")


def _below(paths: Iterable[str], parts: Sequence[str]) -> Iterator[str]:
    return (path for path in paths if any(f"{path}/".startswith(f"{part}/") for part in parts))
