"""A Cargo.lock that does not fit its manifests: which crates cargo would have to lock anew."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.build.registries import read_toml, table
from orchestrator.build.snapshot import Snapshot
from orchestrator.errors import BuildError, OrchestratorError
from orchestrator.plan import BuildPlan

_REFUSED = re.compile(r"because --locked was passed|needs to be updated but --locked|lock file .* needs to be updated")
_TABLES = ("dependencies", "dev-dependencies", "build-dependencies")
_PLAIN = re.compile(r"\^?(\d+)(?:\.(\d+))?(?:\.(\d+))?")


def is_lock_refused(error: OrchestratorError) -> bool:
    """Whether cargo failed because the lock file is out of date."""
    return any(_REFUSED.search(line) for line in error.details)


def explain_refusal(error: OrchestratorError, build: BuildPlan, snapshot: Snapshot) -> OrchestratorError:
    """The error of a lock file that is out of date, naming the crates and the command to run."""
    lock = snapshot.root / build.lock_file
    crates = unlocked_crates(snapshot, build)
    named = f": {', '.join(crates)}" if crates else ""
    return BuildError(
        f"{build.lock_file} is out of date{named}",
        details=error.details,
        hint=f"run: cargo update --workspace in {lock.parent}, and commit {build.lock_file}",
    )


def unlocked_crates(snapshot: Snapshot, build: BuildPlan) -> tuple[str, ...]:
    """What the manifests beside and below the lock file ask for and it does not have, such as "serde 2"."""
    locked = _locked(snapshot.root / build.lock_file)
    directory = build.lock_file.parent
    manifests = [entry.path for entry in snapshot.entries if entry.path.rpartition("/")[2] == "Cargo.toml"]
    wanted: dict[str, None] = {}
    for path in manifests:
        parent = path.rpartition("/")[0]
        if directory.as_posix() in (".", parent) or parent.startswith(f"{directory}/"):
            wanted |= dict.fromkeys(_missing(read_toml(snapshot.root / parent, "Cargo"), locked))
    return tuple(wanted)


def _locked(lock: Path) -> Mapping[str, set[str]]:
    """Name → versions."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for row in read_toml(lock.parent, lock.name).get("package", []):
        found[str(row.get("name"))].add(str(row.get("version")))
    return found


def _missing(manifest: Mapping[str, Any], locked: Mapping[str, set[str]]) -> Iterator[str]:
    package = table(manifest, "package")
    name, version = package.get("name"), package.get("version")
    if isinstance(name, str) and isinstance(version, str) and version not in locked.get(name, set()):
        yield f"{name} {version}"
    inherited = table(manifest, "workspace", "dependencies")
    tables = [table(manifest, kind) for kind in _TABLES]
    tables += [{name: value for name, value in inherited.items() if name in locked}]
    tables += [table(target, kind) for target in table(manifest, "target").values() for kind in _TABLES]
    for alias, value in (row for found in tables for row in found.items()):
        wanted = value if isinstance(value, Mapping) else {"version": value}
        crate, requirement = str(wanted.get("package", alias)), str(wanted.get("version", ""))
        used = not wanted.get("workspace") and "path" not in wanted
        if used and not any(satisfies(version, requirement) for version in locked.get(crate, ())):
            yield f"{crate} {requirement}".strip()


def satisfies(version: str, requirement: str) -> bool:
    """Whether a locked version can meet a requirement; in doubt (anything but "1.2.3" and "^1.2.3") it can.

    A caret lets everything change right of the first part that is not 0:
    https://doc.rust-lang.org/cargo/reference/specifying-dependencies.html#default-requirements
    """
    asked, has = _PLAIN.fullmatch(requirement.strip()), _PLAIN.match(version)
    if asked is None or has is None:
        return True
    given = [int(part) for part in asked.groups() if part is not None]
    actual = [int(part or 0) for part in has.groups()]
    fixed = next((place for place, part in enumerate(given) if part), len(given) - 1) + 1
    return actual[:fixed] == given[:fixed] and actual >= given
