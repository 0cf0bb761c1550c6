"""Whom a changed file may be read by without cargo's knowing: build scripts and procedural macros read what they like.

Cargo sees the files rustc names and those build scripts declare, by their times. Everything else is in doubt, and in
doubt a package is compiled: when a file of its own changes that is no Rust source, when a file of its own comes or
goes, and when its sources name, in a string, the way to a changed file outside.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import PurePosixPath
from posixpath import normpath
from typing import Any

from orchestrator.build.registries import read_toml, table
from orchestrator.build.snapshot import Snapshot

_BOUNDARIES = ("Cargo.toml", "package.json", "go.mod", "pyproject.toml")
"""What makes a directory a package of some ecosystem: a file belongs to the nearest."""

_UNNAMED = frozenset({".sqlx", "sqlx-data.json"})
"""What a macro of a dependency looks for above the package that uses it, without the package's naming it (sqlx)."""


class CargoReaders:
    """Which Rust sources must be compiled again because of changed paths."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._root = snapshot.root
        self._entries = {entry.path: entry for entry in snapshot.entries}
        self._owners: dict[str, str | None] = {}
        self._texts: dict[str, str] = {}

    def __call__(self, changed: frozenset[str], before: frozenset[str]) -> list[str]:
        """The Rust sources of every package in doubt; `before` are the paths that were there earlier."""
        reached = changed | frozenset(self._through_links(changed))
        seen = frozenset(path for path in reached if path in before and self._is_rust_file(path))
        doubtful = [home for home in self._packages if self._is_doubtful(home, reached, seen)]
        return [path for home in doubtful for path in self._rust_files.get(home, ())]

    def _is_rust_file(self, path: str) -> bool:
        entry = self._entries.get(path)
        return path.endswith(".rs") and entry is not None and entry.kind == "file"

    def _is_doubtful(self, home: str, changed: frozenset[str], seen: frozenset[str]) -> bool:
        """Whether a package may have read something that cargo did not see; `seen` are files rustc names itself."""
        if any(path not in seen and self._owner(path) == home for path in changed):
            return True
        outside = {first_step(home, path) for path in changed if self._owner(path) != home}
        return not _UNNAMED.isdisjoint(outside) or self._names_any(home, outside)

    def _names_any(self, home: str, names: Iterable[str]) -> bool:
        wanted = "|".join(re.escape(name) for name in sorted(names))
        if not wanted:
            return False
        named = re.compile(rf'"[^"\n]*(?<![\w.-])(?:{wanted})(?![\w.-])')
        metadata = json.dumps(table(self._packages[home], "package", "metadata"), default=str)
        texts = (self._text(path) for path in self._rust_files.get(home, ()))
        return bool(named.search(metadata)) or any(named.search(text) for text in texts)

    def _text(self, path: str) -> str:
        if path not in self._texts:
            try:
                self._texts[path] = (self._root / path).read_text(errors="replace")
            except OSError:
                self._texts[path] = ""
        return self._texts[path]

    def _through_links(self, changed: frozenset[str]) -> Iterator[str]:
        """The other names that links of the tree give the changed paths."""
        for entry in self._entries.values():
            if entry.kind == "link":
                target = normpath(f"{PurePosixPath(entry.path).parent}/{entry.content}")
                for path in changed:
                    if path == target or path.startswith(f"{target}/"):
                        yield entry.path + path.removeprefix(target)

    @cached_property
    def _packages(self) -> dict[str, dict[str, Any]]:
        """Directory → manifest, of every cargo package in the tree."""
        directories = [path.rpartition("/")[0] for path in self._entries if path.rpartition("/")[2] == "Cargo.toml"]
        manifests = {directory: read_toml(self._root / directory, "Cargo") for directory in directories}
        return {directory: manifest for directory, manifest in manifests.items() if "package" in manifest}

    @cached_property
    def _rust_files(self) -> Mapping[str | None, list[str]]:
        """Directory of a package → its Rust sources."""
        found: defaultdict[str | None, list[str]] = defaultdict(list)
        for path in self._entries:
            if path.endswith(".rs"):
                found[self._owner(path)].append(path)
        return found

    def _owner(self, path: str) -> str | None:
        """The directory of the nearest package of any ecosystem above `path`."""
        if not path:
            return None
        directory = path.rpartition("/")[0]
        if directory not in self._owners:
            here = any(f"{directory}/{name}".lstrip("/") in self._entries for name in _BOUNDARIES)
            self._owners[directory] = directory if here else self._owner(directory)
        return self._owners[directory]


def first_step(home: str, path: str) -> str:
    """The name that every way from the directory `home` to `path` has to say first, ".." aside."""
    ours, theirs = home.split("/") if home else [], path.split("/")
    common = 0
    while common < min(len(ours), len(theirs) - 1) and ours[common] == theirs[common]:
        common += 1
    return theirs[common]
