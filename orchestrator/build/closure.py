"""What a build product needs from the Nix store at run time, and what must not come along."""

import hashlib
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from orchestrator.build.references import STORE, scan_references
from orchestrator.files import read_json, write_json

KEPT_CLOSURES = 200
"""Closures remembered in the cache; a record is a few kilobytes."""

_PROGRAMS = (
    "sh bash dash ash zsh ksh mksh fish csh tcsh busybox toybox",
    "gcc cc g++ c++ cpp cc1 cc1plus collect2 clang clang++ tcc as ld ld.bfd ld.gold ld.lld lld rust-lld mold",
    "rustc rustdoc cargo rustup go ghc javac tsc make cmake ninja",
    "node npm npx yarn pnpm bun deno corepack python perl ruby pip",
    "apt apt-get aptitude dpkg rpm dnf yum apk pacman nix nix-env nix-store nix-build nix-shell nix-daemon",
)
_FORBIDDEN = re.compile(
    r"(?:[a-z0-9_]+-(?:[a-z0-9]+-)?linux-[a-z0-9]+-)?"
    f"(?P<name>{'|'.join(map(re.escape, ' '.join(_PROGRAMS).split()))})"
    r"(?:-?[0-9][0-9.]*)?"
)


class StorePath(Protocol):
    """One member of a closure, as `orchestrator.tools.nix` reports it."""

    @property
    def path(self) -> Path: ...
    @property
    def references(self) -> tuple[Path, ...]: ...


class ClosureQuery(Protocol):
    """`Nix.closure`: the store paths given and all they refer to, directly or not."""

    def __call__(self, paths: Sequence[Path], /) -> Sequence[StorePath]: ...


class Scan(Protocol):
    """`scan_references`, or one that remembers."""

    def __call__(self, path: Path, /, *, store: Path) -> frozenset[str]: ...


@dataclass(frozen=True, slots=True)
class Member:
    """A `StorePath` that was remembered."""

    path: Path
    references: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class RememberedClosures:
    """A query that asks once: what a store path refers to never changes while it is there.

    An answer holds as long as every member is the very directory or file it was (inode and ctime): one that was
    collected and made again is asked for again.
    """

    directory: Path
    query: ClosureQuery

    def __call__(self, paths: Sequence[Path]) -> Sequence[StorePath]:
        record = self.directory / f"{hashlib.sha256(' '.join(map(str, sorted(paths))).encode()).hexdigest()}.json"
        return _recalled(read_json(record)) or self._ask(paths, record)

    def _ask(self, paths: Sequence[Path], record: Path) -> Sequence[StorePath]:
        members = self.query(paths)
        write_json(
            record,
            [[str(member.path), _identity(member.path), [*map(str, member.references)]] for member in members],
        )
        for old in sorted(self.directory.glob("*.json"), key=lambda path: path.stat().st_mtime)[:-KEPT_CLOSURES]:
            old.unlink(missing_ok=True)
        return members


def _recalled(record: Any) -> tuple[Member, ...]:
    """The members on record; none when it is absent or damaged, or a member is not what it was."""
    try:
        if any(_identity(path) != identity for path, identity, _ in record):
            return ()
        return tuple(Member(Path(path), tuple(map(Path, references))) for path, _, references in record)
    except (OSError, TypeError, ValueError):
        return ()


def _identity(path: Path | str) -> list[int]:
    status = os.lstat(path)
    return [status.st_ino, status.st_ctime_ns]


@dataclass(frozen=True)
class Closure:
    """The store paths one product needs: `roots` are those it names itself, `references` maps each to its own."""

    product: str
    roots: tuple[Path, ...]
    references: Mapping[Path, tuple[Path, ...]]
    store: Path = STORE

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """All members, sorted."""
        return tuple(sorted(self.references))

    def chain(self, member: Path) -> tuple[Path, ...]:
        """The shortest way from a root to `member`, both included; empty when there is none."""
        came_from: dict[Path, Path | None] = dict.fromkeys(self.roots)
        queue = deque(self.roots)
        while queue and member not in came_from:
            current = queue.popleft()
            for reference in self.references.get(current, ()):
                if reference not in came_from:
                    came_from[reference] = current
                    queue.append(reference)
        return tuple(_backwards(came_from, member))[::-1]


def _backwards(came_from: Mapping[Path, Path | None], member: Path) -> Iterator[Path]:
    step: Path | None = member if member in came_from else None
    while step is not None:
        yield step
        step = came_from[step]


def runtime_closure(
    product: str,
    paths: Iterable[Path],
    closure: ClosureQuery,
    *,
    store: Path = STORE,
    without: re.Pattern[str] | None = None,
    scan: Scan = scan_references,
) -> Closure:
    """The closure of `product`, made of `paths`: store paths stand for themselves, other files for what they name.

    A path that is named but no longer in the store is left out, and so is one whose name (without the hash) matches
    `without`, with all that only it refers to; `check_elf` finds what is needed to start. `scan` tells what is named.
    """
    roots: set[Path] = set()
    for path in paths:
        if store in path.parents:
            roots.add(store / path.relative_to(store).parts[0])
        else:
            roots |= _existing(scan(path, store=store), store)
    ordered = tuple(sorted(roots))
    members = closure(ordered) if ordered else ()
    references = {member.path: tuple(member.references) for member in members}
    if without is not None:
        references = _reachable(ordered, references, without)
    return Closure(product, ordered, references, store)


def _reachable(
    roots: Iterable[Path], references: Mapping[Path, tuple[Path, ...]], without: re.Pattern[str]
) -> dict[Path, tuple[Path, ...]]:
    """The part of the references that is reached from the roots past what `without` matches."""
    reached: dict[Path, tuple[Path, ...]] = {}
    waiting = list(roots)
    while waiting:
        member = waiting.pop()
        if member in references and member not in reached:
            reached[member] = tuple(to for to in references[member] if not without.fullmatch(to.name.partition("-")[2]))
            waiting += reached[member]
    return reached


def _existing(references: Iterable[str], store: Path) -> set[Path]:
    """The store paths meant: of the names in the store, those the text after the 32 characters begins with."""
    texts: dict[str, list[str]] = {}
    for reference in references:
        name = Path(reference).name
        texts.setdefault(name[:32], []).append(name)
    if not texts or not store.is_dir():
        return set()
    return {
        path
        for path in store.iterdir()
        if path.suffix != ".drv" and any(text.startswith(path.name) for text in texts.get(path.name[:32], ()))
    }


def find_programs(programs: Iterable[str], closure: Closure) -> Iterator[tuple[str, Path | None]]:
    """Shells, compilers, interpreters and package managers among `programs`, the executable paths of an image.

    Each with the store path it is in, None for one outside of the store.
    """
    for path in sorted(programs):
        if _FORBIDDEN.fullmatch(path.rpartition("/")[2]):
            yield path, _member(path, closure.store)


def _member(path: str, store: Path) -> Path | None:
    inside = Path(path)
    return store / inside.relative_to(store).parts[0] if store in inside.parents else None
