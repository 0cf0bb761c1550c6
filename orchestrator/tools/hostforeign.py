"""nginx for another architecture on a machine without a binary cache, out of that architecture's Debian packages.

apt itself fetches them, from the machine's own sources and checked by its keys, into directories of ours: neither
dpkg nor apt of this machine knows the other architecture afterwards. They are unpacked and pointed at the store like
the machine's own libraries; nothing of them is run.
"""

import json
import os
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from orchestrator import files, process
from orchestrator.errors import OrchestratorError, ToolchainError
from orchestrator.process import Cancel, base_environment
from orchestrator.tools import hoststore
from orchestrator.tools.debian import upstream_version
from orchestrator.tools.hostcopies import LIBRARIES, Library, Tree, is_elf, store_place
from orchestrator.tools.platforms import Architecture

ATTRIBUTES = ("glibc", "zlib", "openssl", "pcre2", "libxcrypt", "nginx")
"""What nginx is made of, each before what needs it."""

LOCK_SECONDS = 300.0

_DEB = re.compile(r"(?P<name>[^_]+)_(?P<version>[^_]+)_[^_]+\.deb")
_APT = """\
#clear APT::Architectures;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "{user}";
Acquire::Languages "none";
Dir::State "{place}";
Dir::State::lists "{place}/lists";
Dir::State::status "{place}/status";
Dir::Cache "{place}";
Dir::Cache::archives "{place}/archives";
"""
"""apt.conf(5): nothing of the machine's apt is used but its sources, keys and network configuration."""


def foreign_set(host_set: Path, architecture: Architecture, *, offline: bool, cancel: Cancel | None = None) -> Path:
    """The host package set in a directory that has nginx for another architecture too; made once for each set.

    Raises `ToolchainError` when the packages cannot be fetched or unpacked, `DiskError` when there is no room.
    """
    home = host_set.parent / "foreign" / architecture.debian / host_set.name
    target = home / "set"
    if (target / "host.json").exists() and all(map(os.path.lexists, files.read_json(home / "trees") or [""])):
        return target
    with files.locked(home / "lock", holder="packages for another architecture", wait_seconds=LOCK_SECONDS):
        debs = _fetched(home, architecture, offline=offline, cancel=cancel)
        trees, needs = _unpacked(home, debs, cancel)
        imported = hoststore.import_trees(trees, cache=home / "imported.json", cancel=cancel)
        hoststore.keep([tree.path for tree in imported.values()], roots=home / "roots", cancel=cancel)
        copies = {
            attr: {"version": _version(debs, attr), "out": imported[_name(debs, attr)].json(), "deps": needs[attr]}
            for attr in ATTRIBUTES
        }
        _write_set(host_set, target, architecture, copies, trees)
        files.write_json(home / "trees", [tree.path for tree in imported.values()])
    return target


def _fetched(home: Path, architecture: Architecture, *, offline: bool, cancel: Cancel | None) -> dict[str, Path]:
    """The packages' files, by package."""
    archives = home / "debs"
    if not archives.is_dir():
        if offline:
            raise ToolchainError(
                f"Debian's packages for {architecture.debian} were never fetched", hint="run it once without --offline"
            )
        fresh = home / ".debs"
        files.remove_tree(fresh)
        with files.no_space_is_an_error(home):
            fresh.mkdir(parents=True)
            _download(home / "apt", fresh, architecture, cancel)
        fresh.rename(archives)
    return {found["name"]: path for path in sorted(archives.iterdir()) if (found := _DEB.fullmatch(path.name))}


def _download(place: Path, into: Path, architecture: Architecture, cancel: Cancel | None) -> None:
    for part in ("lists/partial", "archives/partial"):
        (place / part).mkdir(parents=True, exist_ok=True)
    (place / "status").touch()
    user = "root" if os.geteuid() == 0 else "_apt"
    configuration = _APT.format(architecture=architecture.debian, user=user, place=place)
    files.write_atomically(place / "apt.conf", configuration)
    apt = process.require("apt-get", reason="fetch Debian's packages for another architecture", hint="a Debian has it")
    environment = {**base_environment(os.environ), "APT_CONFIG": str(place / "apt.conf")}
    try:
        for arguments in (["update"], ["download", *_packages()]):
            process.run([str(apt), "--quiet", *arguments], env=environment, cwd=into, cancel=cancel)
    except process.ProcessError as error:
        raise ToolchainError(
            f"Debian's packages for {architecture.debian} could not be fetched", details=error.details, hint=error.hint
        ) from error
    finally:
        files.remove_tree(place)


def _packages() -> list[str]:
    return [name for attr in ATTRIBUTES for name in LIBRARIES[attr].packages.split()]


def _unpacked(
    home: Path, debs: Mapping[str, Path], cancel: Cancel | None
) -> tuple[dict[str, Tree], dict[str, list[str]]]:
    """The tree of each package of the set, by its name in the store, and the others it needs."""
    unpack = process.require("dpkg-deb", reason="unpack Debian's packages", hint="apt-get install dpkg")
    root = home / "unpacked"
    files.remove_tree(root)
    trees: dict[str, Tree] = {}
    needs: dict[str, list[str]] = {}
    provided: dict[str, str] = {}
    for attr in ATTRIBUTES:
        for package in LIBRARIES[attr].packages.split():
            place = root / attr
            place.mkdir(parents=True, exist_ok=True)
            process.run([str(unpack), "--extract", str(_deb(debs, package)), str(place)], cancel=cancel)
        tree = _placed(LIBRARIES[attr], root / attr)
        needs[attr] = sorted({provided[name] for name in _needed(tree, cancel) if name in provided})
        provided |= {Path(name).name: attr for name in tree if name.startswith("lib/")}
        trees[_name(debs, attr)] = tree
    return trees, needs


def _placed(library: Library, root: Path) -> dict[str, Path]:
    """The files that belong into the store package: place → file."""
    found = ((path, store_place(f"/{path.relative_to(root)}")) for path in sorted(root.rglob("*")) if path.is_file())
    return {place: path for path, place in found if place and any(fnmatchcase(place, kept) for kept in library.keep)}


def _needed(tree: Tree, cancel: Cancel | None) -> set[str]:
    """The libraries the programs and libraries of a tree name."""
    patchelf = process.require("patchelf", reason="read what programs need", hint="apt-get install patchelf")
    programs = [str(path) for path in tree.values() if is_elf(path)]
    said = (process.run([str(patchelf), "--print-needed", path], cancel=cancel).stdout for path in programs)
    return {name for names in said for name in names.split()}


def _deb(debs: Mapping[str, Path], package: str) -> Path:
    if package not in debs:
        raise ToolchainError(f"Debian has no package {package} for that architecture")
    return debs[package]


def _version(debs: Mapping[str, Path], attr: str) -> str:
    found = _DEB.fullmatch(_deb(debs, LIBRARIES[attr].packages.split()[0]).name)
    return upstream_version(found["version"].replace("%3a", ":")) if found else ""


def _name(debs: Mapping[str, Path], attr: str) -> str:
    return f"{attr}-{_version(debs, attr)}-host"


def _write_set(
    host_set: Path, target: Path, architecture: Architecture, copies: Mapping[str, object], trees: Mapping[str, Tree]
) -> None:
    """The set's files with one more part of host.json, and the same times everywhere, as Nix wants them."""
    description = files.read_json(host_set / "host.json")
    if not isinstance(description, dict):
        raise OrchestratorError(f"{host_set} is damaged", hint="remove it, and run the command again")
    loader = next(Path(place).name for tree in trees.values() for place in tree if place.startswith("lib/ld-linux"))
    foreign = {architecture.nix: {"loader": loader, "copies": copies}}
    files.remove_tree(target)
    for path in sorted(path for path in host_set.rglob("*") if path.is_file()):
        copy = target / path.relative_to(host_set)
        copy.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_text()
        if copy == target / "host.json":
            content = json.dumps({**description, "foreign": foreign}, indent=1, sort_keys=True)
        copy.write_text(content)
    for path in (target, *target.rglob("*")):
        os.utime(path, (1, 1))
