"""Letting go of what saves least: entries go by the seconds they save for each byte."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.build.cache.index import Index, StoredEntry
from orchestrator.errors import ToolchainError
from orchestrator.files import tree_size

KEEP = 20
"""How many entries of one group are kept: a change adds few bytes, and the nearest is nearly the exact one."""

MAX_TIMES = 4
"""How many times the bytes of its newest entry all entries of one group may take together."""

MAX_BYTES = 10_000_000_000
"""What all entries together may take in the store unless told otherwise."""

_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Evicted:
    """What was let go of: entries, and the bytes Nix freed (none while something else holds them)."""

    entries: tuple[StoredEntry, ...]
    freed: int


def prune_group(index: Index, kind: type[StoredEntry], group: str, *, keep: int = KEEP) -> None:
    """After a save: the newest entries of a group stay, `keep` at most and as many as fit `MAX_TIMES`.

    Those Nix collected go as well, those being laid out stay.
    """
    with index.lock():
        entries = sorted(index.entries(kind, group), key=lambda entry: entry.created, reverse=True)
        present = [entry for entry in entries if entry.present][:keep]
        while len(present) > 1 and sum(layers_of(present).values()) > MAX_TIMES * present[0].size:
            present.pop()
        for entry in entries:
            if entry not in present and not index.is_used(entry):
                index.remove(entry)
        index.drop_roots()


def prune_all(index: Index, *, max_bytes: int, keep: int, now: float) -> Evicted:
    """Evict until no group has more than `keep` and all fit into `max_bytes`, then let Nix delete what only they had.

    Entries being laid out at the moment stay. `now` is in seconds since the epoch.
    """
    with index.lock():
        entries = index.all()
        gone = [entry for entry in choose(entries, max_bytes=max_bytes, keep=keep, now=now) if not index.is_used(entry)]
        before = set(layers_of(entries))
        for entry in gone:
            index.remove(entry)
        index.drop_roots()
        left = set(layers_of(index.all()))
    return Evicted(tuple(gone), _delete(index, sorted(before - left)))


def discard(index: Index, entry: StoredEntry) -> None:
    """Let go of a damaged entry, and of all that share a layer with it: the store takes the same files for the same
    path, so what is damaged has to go before it can be saved again."""
    with index.lock():
        gone = [other for other in index.entries(type(entry)) if not set(entry.layers).isdisjoint(other.layers)]
        for other in gone:
            index.remove(other)
        index.drop_roots()
        left = {layer for other in index.all() for layer in other.layers}
    _delete(index, sorted({layer for other in gone for layer in other.layers} - left))


def choose(entries: Sequence[StoredEntry], *, max_bytes: int, keep: int, now: float) -> list[StoredEntry]:
    """The entries to evict: those Nix collected, those beyond `keep` of a group, and the least useful until it fits."""
    gone = [entry for entry in entries if not entry.present]
    left = [entry for entry in entries if entry.present]
    for group in {(entry.directory, entry.group) for entry in left}:
        members = (entry for entry in left if (entry.directory, entry.group) == group)
        same = sorted(members, key=lambda entry: value(entry, now))
        gone += same[: max(0, len(same) - keep)]
    left = sorted((entry for entry in left if entry not in gone), key=lambda entry: value(entry, now))
    while left and sum(layers_of(left).values()) > max_bytes:
        gone.append(left.pop(0))
    return gone


def value(entry: StoredEntry, now: float) -> float:
    """Seconds an entry saves for each of its bytes; what was not used for long is expected to save less."""
    idle_days = max(0.0, now - entry.last_used) / _DAY
    return (entry.worth + entry.saved) / (1 + idle_days) / max(1, entry.size)


def layers_of(entries: Sequence[StoredEntry]) -> dict[str, int]:
    """Layer → an estimate of its bytes: its own entry's where there is one, else what is left of those that use it."""
    own = {entry.layers[-1]: entry.own_size for entry in entries}
    sizes = dict(own)
    for entry in entries:
        unknown = [layer for layer in entry.layers if layer not in own]
        rest = entry.size - sum(own.get(layer, 0) for layer in entry.layers)
        for layer in unknown:
            sizes[layer] = max(sizes.get(layer, 0), rest // len(unknown))
    return sizes


def _delete(index: Index, layers: Sequence[str]) -> int:
    """Let Nix delete layers nobody needs; the bytes that were freed."""
    present = [Path(layer) for layer in layers if Path(layer).is_dir()]
    sizes = {layer: tree_size(layer) for layer in present}
    for layer in present:
        with suppress(ToolchainError):
            index.nix.store("--delete", str(layer))
    return sum(size for layer, size in sizes.items() if not layer.exists())
