"""The file tree an image will have, as the checks see it: paths in the image, and where their bytes are now."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_MAX_LINKS = 40
"""Linux gives up after this many symbolic links (path_resolution(7))."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Regular files (image path to host path) and symbolic links (image path to target); paths start with "/"."""

    files: Mapping[str, Path]
    links: Mapping[str, str]

    def resolve(self, path: str) -> str | None:
        """The regular file `path` leads to inside the tree, links followed, or None."""
        pending = path.split("/")[::-1]
        current, followed = "", 0
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                current = current.rpartition("/")[0]
                continue
            step = f"{current}/{part}"
            target = self.links.get(step)
            if target is None:
                current = step
                continue
            followed += 1
            if followed > _MAX_LINKS:
                return None
            pending.extend(target.split("/")[::-1])
            current = "" if target.startswith("/") else current
        return current if current in self.files else None
