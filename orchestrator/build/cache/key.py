"""What a cache entry must agree on before a single file of it is used."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from orchestrator.build.registries import read_toml
from orchestrator.build.snapshot import Snapshot
from orchestrator.build.toolchain import Toolchain
from orchestrator.plan import BuildPlan

FORMAT = 1
"""Part of every key; raised when entries of before must not be used any more."""

_CONFIGS = (".cargo/config.toml", ".cargo/config", "rust-toolchain.toml", "rust-toolchain")


@dataclass(frozen=True, slots=True)
class CacheKey:
    """`digest` names the entries that may be used, `lock` is the lock file's content hash ("" without one).

    `parts` are what the digest was made of, by names people know: two keys differ where their parts do.
    """

    digest: str
    lock: str
    parts: Mapping[str, str]


def cargo_key(
    build: BuildPlan,
    snapshot: Snapshot,
    toolchain: Toolchain,
    *,
    place: PurePosixPath,
    influences: list[str],
    linker: str = "",
) -> CacheKey:
    """The key of a cargo build: all that cargo does not look at itself, and what would only leave rubbish behind.

    Cargo compares sources, features, versions and rustc itself. It knows nothing of C compilers, headers, linkers
    and of variables that build scripts read without saying so: the dev shell and the steps' environments stand for
    them. The dev shell's own store path is a digest of everything in it. `place` is the workspace as the build sees
    it: a target directory that was moved is not sound. `linker` is one that takes the place of the usual one.
    """
    profile = toolchain.home / "profile"
    parts = {
        "format": str(FORMAT),
        "toolchain": toolchain.key,
        "dev shell": str(profile.resolve()) if profile.exists() else "",
        "commands": json.dumps([[*step.argv, str(step.directory)] for step in build.steps]),
        "variables": json.dumps([list(step.environment) for step in build.steps]),
        "registries and sandbox": _digest(influences),
        "linker": linker,
        "place": str(place),
        **({"target": build.platform} if build.platform else {}),
        "cargo configuration": _digest(_configs(snapshot)),
        "profiles": _digest(_profiles(build, snapshot)),
    }
    contents = {entry.path: entry.content for entry in snapshot.entries}
    return CacheKey(_digest(parts)[:32], contents.get(str(build.lock_file), ""), parts)


def changed_parts(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """The names of what two keys differ in."""
    return tuple(sorted(name for name in {*before, *now} if before.get(name) != now.get(name)))


def _configs(snapshot: Snapshot) -> list[tuple[str, str]]:
    return [
        (entry.path, entry.content)
        for entry in snapshot.entries
        if any(entry.path == name or entry.path.endswith(f"/{name}") for name in _CONFIGS)
    ]


def _profiles(build: BuildPlan, snapshot: Snapshot) -> list[Any]:
    levels = (build.directory, *build.directory.parents)
    return [read_toml(snapshot.root / level, "Cargo").get("profile") for level in levels]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
