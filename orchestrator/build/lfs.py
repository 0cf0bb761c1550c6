"""Git LFS: files whose content was never fetched, so that builds see a few lines about them in their place.

A pointer begins with its version (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md, "The Pointer").
"""

from orchestrator.build.snapshot import Snapshot
from orchestrator.tools.git import files_with_attribute

_FILTER = "filter=lfs"
_POINTER = b"version https://git-lfs.github.com/spec/"


def find_pointers(snapshot: Snapshot) -> tuple[str, ...]:
    """The files that are pointers still; git is asked only where an attributes file speaks of LFS."""
    attributes = [entry.path for entry in snapshot.entries if entry.path.rpartition("/")[2] == ".gitattributes"]
    if not any(_FILTER.encode() in _head(snapshot, path, size=-1) for path in attributes):
        return ()
    kept = {entry.path for entry in snapshot.entries if entry.kind == "file"}
    found = (path for path in files_with_attribute(snapshot.root, _FILTER) if path in kept)
    return tuple(path for path in found if _head(snapshot, path, size=len(_POINTER)) == _POINTER)


def _head(snapshot: Snapshot, path: str, *, size: int) -> bytes:
    try:
        with (snapshot.root / path).open("rb") as file:
            return file.read(size)
    except OSError:
        return b""
