"""The package set of a machine that reaches no binary cache: its own tools behind nixpkgs' interface.

`prepare` looks at the machine, copies into the Nix store what can reach an image, and writes a flake directory
(`nix/hostpkgs` and a description, host.json) that stands in for the flake input `nixpkgs`. When nothing changed
since the last call it only looks.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator import files
from orchestrator.process import Cancel
from orchestrator.tools import debian, hostscan, hoststore, hosttools
from orchestrator.tools.hosttools import Search

KEPT_SETS = 3
"""How many package sets (and their copies in the store) are kept: this one and the latest before it."""

LOCK_SECONDS = 300.0

STAND_INS = ("flake-utils", "systems", "rust-overlay")
"""Flakes besides nixpkgs that the set has a stand-in for, each in the directory of its name."""


@dataclass(frozen=True, slots=True)
class HostSet:
    """A package set in a directory usable as `path:` flake.

    `visible` are real directories below users' homes in which linked tools live: a sandbox that hides the home
    directories must show them. `missing` gives, for each package known but absent, what to tell the user.
    """

    path: Path
    fingerprint: str
    visible: tuple[Path, ...]
    missing: Mapping[str, str]


def prepare(cache_dir: Path, *, cancel: Cancel | None = None) -> HostSet:
    """The package set of this machine as it is now, made when it is new or changed.

    `cache_dir` holds the sets and their GC roots. Raises `ProgramMissing` when the machine lacks what every set
    needs, `ToolchainError` when the store refuses a copy.
    """
    home = cache_dir / "hostpkgs"
    search = hosttools.make_search(os.environ)
    probe = _probe(search)
    if known := _unchanged(home, probe):
        return known
    with files.locked(home / "lock", holder="the package set of this machine", wait_seconds=LOCK_SECONDS):
        return _unchanged(home, probe) or _make(home, search, probe, cancel)


def overrides(inputs: Mapping[str, str], host_set: HostSet) -> tuple[str, ...]:
    """The arguments that put the set in the place of a flake's inputs (name → url).

    An input that has no stand-in is replaced by a flake that fails, naming it, when it is used; an input that is
    a path stays.
    """
    arguments: list[str] = []
    for name, url in sorted(inputs.items()):
        target = _stand_in(name, url, host_set)
        if target is not None:
            arguments += ["--override-input", name, f"path:{target}"]
    return tuple(arguments)


def _stand_in(name: str, url: str, host_set: HostSet) -> Path | None:
    if url.startswith(("path:", "/", "./", "../", "git+file:")):
        return None
    if name == "nixpkgs" or "nixpkgs" in url.lower():
        return host_set.path
    for known in STAND_INS:
        if name == known or f"/{known}" in url or (known == "systems" and "nix-systems/" in url):
            return host_set.path / known
    return _absent_input(name, host_set)


def _absent_input(name: str, host_set: HostSet) -> Path:
    """A flake that fails when something of it is used."""
    directory = host_set.path.parent / "absent" / name
    message = f"hostpkgs: the flake input '{name}' has no stand-in on this machine; it needs the network"
    text = f"{{ outputs = _: throw {json.dumps(message)}; }}\n"
    if not (directory / "flake.nix").exists():
        files.write_atomically(directory / "flake.nix", text)
    return directory


def _make(home: Path, search: Search, probe: str, cancel: Cancel | None) -> HostSet:
    """Scan, import, write the set and remember for which state of the machine it was made."""
    for unfinished in home.glob(".*"):
        files.remove_tree(unfinished)  # of a run that was killed: we hold the lock
    machine = hostscan.scan(search)
    imported = hoststore.import_trees(machine.trees(), cache=home / "trees.json", cancel=cancel)
    description = machine.describe(imported)
    host_set = _write_set(home, description, machine)
    hoststore.keep(
        [tree.path for tree in imported.values()], roots=home / "roots" / host_set.fingerprint, cancel=cancel
    )
    _remember(home, probe, host_set, [tree.path for tree in imported.values()], machine.witnesses())
    _forget_old_sets(home)
    return host_set


def _write_set(home: Path, description: Mapping[str, object], machine: hostscan.Machine) -> HostSet:
    """The flake directory, complete or not there. Its name is the hash of all it contains."""
    source = files.resource("nix") / "hostpkgs"
    content = json.dumps(description, indent=1, sort_keys=True)
    parts = [content, *(path.read_text() for path in _set_files(source))]
    fingerprint = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    target = home / fingerprint
    if not (target / "host.json").exists():
        unfinished = home / f".{fingerprint}.{os.getpid()}"
        _copy_set(source, unfinished, content)
        files.remove_tree(target)
        unfinished.rename(target)
    return HostSet(target, fingerprint, machine.visible(), machine.missing())


def _copy_set(source: Path, target: Path, description: str) -> None:
    """Every time stamp is the same: Nix makes the newest one part of what it calls the flake."""
    files.remove_tree(target)
    for path in _set_files(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (target / "host.json").write_text(description)
    for path in (target, *target.rglob("*")):
        os.utime(path, (1, 1))


def _set_files(source: Path) -> list[Path]:
    return sorted(path for path in source.rglob("*") if path.is_file())


def _probe(search: Search) -> str:
    """What can be seen without reading much: where we look, what stands there, and which code looks."""
    environment = search.environment
    seen = [search.path, *map(str, search.homes)]
    seen += [environment.get(name, "") for name in ("RUSTUP_HOME", "RUSTUP_TOOLCHAIN")]
    watched = [Path(part) for part in search.path.split(":")]
    watched += [debian.DATABASE / "status", *hosttools.watched(search), *_set_files(files.resource("nix") / "hostpkgs")]
    watched += [Path(module) for module in hostscan.sources()]
    seen += [str(witness) for path in watched for witness in hosttools.witness(path)]
    return hashlib.sha256("\0".join(seen).encode()).hexdigest()


def _remember(home: Path, probe: str, host_set: HostSet, sources: Sequence[str], watched: Sequence[Path]) -> None:
    record = {
        "fingerprint": host_set.fingerprint,
        "sources": sorted(sources),
        "visible": [str(path) for path in host_set.visible],
        "missing": dict(host_set.missing),
        "witnesses": [hosttools.witness(path) for path in watched],
    }
    files.write_json(home / "scans" / f"{probe[:32]}.json", record)


def _unchanged(home: Path, probe: str) -> HostSet | None:
    """The set made for this state of the machine, if it, its copies and the linked tools are still as they were."""
    record = files.read_json(home / "scans" / f"{probe[:32]}.json")
    if not isinstance(record, dict):
        return None
    path = home / record["fingerprint"]
    roots = home / "roots" / path.name
    standing = (path / "host.json").exists() and roots.is_dir()
    if not standing or not all(os.path.lexists(source) for source in record["sources"]):
        return None
    if any(list(hosttools.witness(Path(seen[0]))) != seen for seen in record["witnesses"]):
        return None
    roots.touch()
    return HostSet(path, record["fingerprint"], tuple(map(Path, record["visible"])), record["missing"])


def _forget_old_sets(home: Path) -> None:
    """Keep the sets used last; without their roots, Nix may collect the copies of the others."""
    roots = sorted((home / "roots").iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for root in roots[KEPT_SETS:]:
        files.remove_tree(home / root.name)
        files.remove_tree(root)
    for record in sorted((home / "scans").iterdir(), key=lambda path: path.stat().st_mtime)[:-20]:
        record.unlink(missing_ok=True)
