"""Why something was compiled: what changed since the state the build started from, and cargo's reason for each unit."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.build.cache.key import changed_parts
from orchestrator.build.registries import read_toml
from orchestrator.files import write_atomically

SHOWN_PATHS = 100
"""How many changed sources a report names."""

_DIRTY = re.compile(r"^\s*Dirty (?P<name>\S+) v(?P<version>\S+)(?: \([^)]*\))?: (?P<reason>.*?)(?: \(\d+\.\d+s, .*)?$")
_COMPILING = re.compile(r"^\s*Compiling (?P<name>\S+) v(?P<version>\S+)")
_VERBOSE = re.compile(r"^\s*(Dirty|Fresh|Running) ")

Start = Literal["nothing", "workspace", "entry"]


class Unit(BaseModel):
    """A package that was compiled, and cargo's own reason."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    reason: str


class Report(BaseModel):
    """What a build compiled and why. `start` is what it began with; `changed_key` are the parts of the key that
    differ from the build before; `changed_packages` are lines such as "tokio 1.43.0 → 1.44.0"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    app: str
    service: str
    when: float
    seconds: float
    start: Start
    entry: str
    compiled: int
    total: int
    parts: Mapping[str, str]
    changed_key: tuple[str, ...]
    changed_packages: tuple[str, ...]
    changed_sources: tuple[str, ...]
    units: tuple[Unit, ...]

    @property
    def summary(self) -> str:
        """The report in one line."""
        if not self.compiled:
            return f"{self.total} units, nothing to compile"
        return f"recompiled {self.compiled} of {self.total}: {self._cause()}"

    def _cause(self) -> str:
        if self.start == "nothing":
            return f"{_listed(self.changed_key)} changed" if self.changed_key else "nothing usable in the cache"
        if self.changed_packages:
            return f"{_listed(self.changed_packages)} and what depends on it"
        if self.changed_sources:
            return f"{_listed(self.changed_sources)} changed"
        return self.units[0].reason if self.units else "see cache explain"


def _listed(items: Sequence[str], shown: int = 2) -> str:
    rest = len(items) - shown
    return ", ".join(items[:shown]) + (f" and {rest} more" if rest > 0 else "")


class Reasons:
    """Collects what cargo says about each unit while it builds with --verbose."""

    def __init__(self) -> None:
        self._units: dict[tuple[str, str], str] = {}

    def read(self, line: str) -> bool:
        """Take in a line; whether it is only there because cargo was asked to be verbose."""
        if found := _DIRTY.match(line):
            self._units[found["name"], found["version"]] = found["reason"]
        elif found := _COMPILING.match(line):
            self._units.setdefault((found["name"], found["version"]), "it was not in the cache")
        return _VERBOSE.match(line) is not None

    @property
    def units(self) -> tuple[Unit, ...]:
        """The packages compiled so far, in cargo's order."""
        return tuple(Unit(name=name, version=version, reason=why) for (name, version), why in self._units.items())


def read_packages(lock: Path) -> tuple[str, ...]:
    """The packages of a Cargo.lock as "name version", sorted."""
    rows = read_toml(lock.parent, lock.name).get("package", [])
    return tuple(sorted(f"{row.get('name')} {row.get('version')}" for row in rows if isinstance(row, dict)))


def changed_packages(before: Sequence[str], now: Sequence[str]) -> tuple[str, ...]:
    """What happened to the lock file: "tokio 1.43.0 → 1.44.0", "+ itoa 1.0.1", "- rand 0.8.0"."""
    gone, new = _by_name(set(before) - set(now)), _by_name(set(now) - set(before))
    lines = []
    for name in sorted({*gone, *new}):
        if name in gone and name in new:
            lines.append(f"{name} {', '.join(gone[name])} → {', '.join(new[name])}")
        else:
            sign, versions = ("-", gone[name]) if name in gone else ("+", new[name])
            lines.append(f"{sign} {name} {', '.join(versions)}")
    return tuple(lines)


def _by_name(packages: set[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for package in sorted(packages):
        name, _, version = package.partition(" ")
        found.setdefault(name, []).append(version)
    return found


@dataclass(frozen=True, slots=True)
class Reports:
    """The last report of each service, below `directory`."""

    directory: Path

    def read(self, app: str, service: str) -> Report | None:
        """The last build's report; None when there is none."""
        try:
            return Report.model_validate_json(self._path(app, service).read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, report: Report) -> None:
        write_atomically(self._path(report.app, report.service), report.model_dump_json(indent=1) + "\n")

    def changed_key(self, app: str, service: str, parts: Mapping[str, str]) -> tuple[str, ...]:
        """What of the key differs from the build before."""
        before = self.read(app, service)
        return changed_parts(before.parts, parts) if before else ()

    def all(self, app: str) -> list[Report]:
        """The last report of every service of an application, by name."""
        names = sorted(path.stem for path in (self.directory / app).glob("*.json"))
        return [report for name in names if (report := self.read(app, name)) is not None]

    def _path(self, app: str, service: str) -> Path:
        return self.directory / app / f"{service}.json"


def open_reports(cache_dir: Path) -> Reports:
    """The reports beside the build cache's records."""
    return Reports(cache_dir / "cache" / "reports")
