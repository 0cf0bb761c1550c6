"""rust-toolchain.toml: what it asks for, and whether the dev shell has it.

rustup reads this file; the cargo of a dev shell does not. Format:
https://rust-lang.github.io/rustup/overrides.html#the-toolchain-file
"""

import re
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import PurePosixPath

from orchestrator.build.registries import read_toml, table
from orchestrator.build.snapshot import Snapshot
from orchestrator.errors import ToolchainError

_NAMES = ("rust-toolchain.toml", "rust-toolchain")
_RUSTC = re.compile(
    r"^rustc (?P<version>(?P<number>\d+\.\d+\.\d+)(?:-(?P<channel>[a-z]+)\S*)?) ?(?:\(\S+ (?P<date>\S+)\))?"
)
_CHANNEL = re.compile(r"(?P<name>stable|beta|nightly|\d+\.\d+(?:\.\d+)?)(?:-(?P<date>\d{4}-\d{2}-\d{2}))?(?:-.*)?")


@dataclass(frozen=True, slots=True)
class Asked:
    """The channel a toolchain file asks for, and the file, relative to the monorepo."""

    channel: str
    file: str


def asked_toolchain(snapshot: Snapshot, directory: PurePosixPath) -> Asked | None:
    """What the nearest toolchain file at or above the directory asks for; None without one, or for a path."""
    present = {entry.path for entry in snapshot.entries}
    for level in (directory, *directory.parents):
        for name in _NAMES:
            path = str(level / name)
            if path in present:
                channel = _channel(snapshot, level, name)
                return Asked(channel, path) if channel else None
    return None


def _channel(snapshot: Snapshot, level: PurePosixPath, name: str) -> str:
    """Of the two formats, the older one is a line with nothing but the channel."""
    found = table(read_toml(snapshot.root / level, name), "toolchain").get("channel")
    if isinstance(found, str) or name.endswith(".toml"):
        return str(found or "")
    lines = (snapshot.root / level / name).read_text(errors="replace").split()
    return lines[0] if len(lines) == 1 else ""


def require_rust(asked: Asked, rustc: str, *, source: str) -> None:
    """Raises `ToolchainError` when `rustc --version` said something else than the file asks for."""
    if not provides(rustc, asked.channel):
        raise ToolchainError(
            f"{asked.file} asks for Rust {asked.channel}, the dev shell has {rustc.strip() or 'none'}",
            hint=f"provide it in the dev shell ({source}), or build with what is there: --ignore-rust-toolchain",
        )


def provides(rustc: str, channel: str) -> bool:
    """Whether the compiler that says this is of the channel; a channel of an unknown form is provided by none.

    A dated stable or beta cannot be told from its version and counts by its name.
    """
    has, wanted = _RUSTC.match(rustc), _CHANNEL.fullmatch(channel)
    if has is None or wanted is None:
        return False
    kind = has["channel"] or "stable"
    if wanted["name"][0].isdigit():
        return kind == "stable" and f"{has['number']}.".startswith(f"{wanted['name']}.")
    same_day = wanted["date"] is None or wanted["name"] != "nightly" or _day_before(wanted["date"]) == has["date"]
    return kind == wanted["name"] and same_day


def _day_before(day: str) -> str:
    """A nightly is named for the day it appears and says the day of its last commit, the one before."""
    return (date.fromisoformat(day) - timedelta(days=1)).isoformat()
