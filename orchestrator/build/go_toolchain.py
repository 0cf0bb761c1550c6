"""go.mod: the Go it asks for, and whether the dev shell has it.

go would download a newer one by itself; a build has no network, and what it is built with is the dev shell's to say.
Format: https://go.dev/ref/mod#go-mod-file-go
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from orchestrator.build.snapshot import Snapshot
from orchestrator.errors import ToolchainError

_ASKED = re.compile(r"^go\s+(?P<version>\d+(?:\.\d+)*(?:(?:rc|beta)\d+)?)", re.MULTILINE)
_SAID = re.compile(r"go version go(?P<version>\S+)")
_PART = re.compile(r"\d+|rc|beta")


@dataclass(frozen=True, slots=True)
class AskedGo:
    """The oldest Go that will do, and the file that says so, relative to the monorepo."""

    version: str
    file: str


def asked_go(snapshot: Snapshot, directory: PurePosixPath) -> AskedGo | None:
    """What the module in a directory and the workspace around it ask for: the newest of it."""
    present = {entry.path for entry in snapshot.entries}
    files = [directory / "go.mod", *(level / "go.work" for level in (directory, *directory.parents))]
    texts = {str(path): (snapshot.root / path).read_text(errors="replace") for path in files if str(path) in present}
    asked = [AskedGo(found["version"], path) for path, text in texts.items() if (found := _ASKED.search(text))]
    return max(asked, key=lambda item: version_key(item.version), default=None)


def require_go(asked: AskedGo, said: str, *, source: str) -> None:
    """Raises `ToolchainError` when `go version` said an older one than the file asks for."""
    has = go_version(said)
    if not has or version_key(has) < version_key(asked.version):
        raise ToolchainError(
            f"{asked.file} asks for Go {asked.version}, the dev shell has {has or 'none'}",
            hint=f"provide it in the dev shell ({source}), or lower the go line of {asked.file}",
        )


def go_version(said: str) -> str:
    """The number in what `go version` says ("1.26.8"), "" when there is none."""
    found = _SAID.search(said)
    return found["version"] if found else ""


def version_key(version: str) -> tuple[int, ...]:
    """Sorts versions as Go does: "1.21" (the language) before "1.21rc1" before "1.21.0"."""
    parts = _PART.findall(version)
    numbers = {"beta": -2, "rc": -1}
    key = tuple(numbers.get(part, -1) if part in numbers else int(part) for part in parts)
    language = len(parts) <= 2
    return (*key[:2], *((-3,) if language else key[2:]))
