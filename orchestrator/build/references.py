"""Which store paths the files of a build product name."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from orchestrator.files import read_json, write_json

STORE = Path("/nix/store")
KEPT_RECORDS = 200
"""Products whose references are remembered; a record is a few hundred bytes."""

_CHUNK = 1 << 20
_LONGEST_REFERENCE = 4096
"""Bytes kept from one chunk to the next: more than any store path has (a name has at most 211 characters)."""


@dataclass(frozen=True, slots=True)
class RememberedReferences:
    """`scan_references`, once for each product: what an artifact holds never changes while it is there.

    An answer holds as long as the file or directory is the very one it was (inode and ctime).
    """

    directory: Path

    def __call__(self, path: Path, *, store: Path = STORE) -> frozenset[str]:
        record = self.directory / f"{hashlib.sha256(os.fsencode(path)).hexdigest()}.json"
        status = path.stat()
        identity = [status.st_ino, status.st_ctime_ns, str(store)]
        known = read_json(record)
        if isinstance(known, dict) and known.get("identity") == identity:
            return frozenset(known["references"])
        found = scan_references(path, store=store)
        write_json(record, {"identity": identity, "references": sorted(found)})
        for old in sorted(self.directory.glob("*.json"), key=lambda path: path.stat().st_mtime)[:-KEPT_RECORDS]:
            old.unlink(missing_ok=True)
        return found


def scan_references(path: Path, *, store: Path = STORE) -> frozenset[str]:
    """Every store path named in a file, or in the files and links of a tree, as `<store>/<32 characters>-<name>`.

    Memory use does not depend on the size of the files. A name may run on into the text after it: strings in a
    Rust binary are not terminated.
    """
    pattern = re.compile(re.escape(os.fsencode(store)) + rb"/[0-9a-df-np-sv-z]{32}-[0-9A-Za-z+._?=-]{1,211}")
    found = {name for target in _link_targets(path) for name in pattern.findall(target)}
    for file in _regular_files(path):
        with file.open("rb") as source:
            found |= _matches(source, pattern)
    return frozenset(os.fsdecode(match) for match in found)


def _regular_files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for directory, _, names in os.walk(path):
        for name in names:
            file = Path(directory, name)
            if file.is_file() and not file.is_symlink():
                yield file


def _link_targets(path: Path) -> Iterator[bytes]:
    for directory, subdirectories, names in os.walk(path):
        links = (Path(directory, name) for name in (*subdirectories, *names))
        yield from (os.fsencode(link.readlink()) for link in links if link.is_symlink())


def _matches(source: BinaryIO, pattern: re.Pattern[bytes]) -> set[bytes]:
    found: set[bytes] = set()
    kept = b""
    while chunk := source.read(_CHUNK):
        buffer = kept + chunk
        keep_from = max(0, len(buffer) - _LONGEST_REFERENCE)
        for match in pattern.finditer(buffer):
            if match.end() < len(buffer):
                found.add(match.group())
            else:
                keep_from = min(keep_from, match.start())
        kept = buffer[keep_from:]
    return found | set(pattern.findall(kept))
