"""Letting go of what saves least: entries go by the seconds they save for each byte."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.build.cache.index import CacheEntry, Index
from orchestrator.errors import ToolchainError
from orchestrator.files import tree_size

KEEP = 20
"""How many entries of one key are kept: one after an edit takes few bytes, and the nearest is nearly the exact one."""

MAX_TIMES = 4
"""How many times the bytes of its newest entry all entries of one key may take together."""

MAX_BYTES = 10_000_000_000
"""What all entries together may take in the store unless told otherwise."""

_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Evicted:
    """What was let go of: entries, and the bytes Nix freed (none while something else holds them)."""

    entries: tuple[CacheEntry, ...]
    freed: int


def prune_key(index: Index, key: str, *, keep: int = KEEP) -> None:
    """After a save: the newest entries of one key stay, `keep` at most and as many as fit `MAX_TIMES`.

    Those Nix collected go as well, those being laid out stay.
    """
    with index.lock():
        entries = sorted(index.entries(key), key=lambda entry: entry.created, reverse=True)
        present = [entry for entry in entries if entry.present][:keep]
        while len(present) > 1 and sum(layers_of(present).values()) > MAX_TIMES * present[0].size:
            present.pop()
        for entry in entries:
            if entry not in present and not index.is_used(entry):
                index.remove(entry)
        index.drop_roots()


def prune_all(index: Index, *, max_bytes: int, keep: int, now: float) -> Evicted:
    """Evict until no key has more than `keep` and all fit into `max_bytes`, then let Nix delete what only they had.

    Entries being laid out at the moment stay. `now` is in seconds since the epoch.
    """
    with index.lock():
        entries = list(index.entries())
        gone = [entry for entry in choose(entries, max_bytes=max_bytes, keep=keep, now=now) if not index.is_used(entry)]
        before = set(layers_of(entries))
        for entry in gone:
            index.remove(entry)
        index.drop_roots()
        left = set(layers_of(list(index.entries())))
    return Evicted(tuple(gone), _delete(index, sorted(before - left)))


def choose(entries: Sequence[CacheEntry], *, max_bytes: int, keep: int, now: float) -> list[CacheEntry]:
    """The entries to evict: those Nix collected, those beyond `keep` of a key, and the least useful until it fits."""
    gone = [entry for entry in entries if not entry.present]
    left = [entry for entry in entries if entry.present]
    for key in {entry.key for entry in left}:
        same = sorted((entry for entry in left if entry.key == key), key=lambda entry: value(entry, now))
        gone += same[: max(0, len(same) - keep)]
    left = sorted((entry for entry in left if entry not in gone), key=lambda entry: value(entry, now))
    while left and sum(layers_of(left).values()) > max_bytes:
        gone.append(left.pop(0))
    return gone


def value(entry: CacheEntry, now: float) -> float:
    """Seconds an entry saves for each of its bytes; what was not used for long is expected to save less."""
    idle_days = max(0.0, now - entry.last_used) / _DAY
    return (entry.worth + entry.saved) / (1 + idle_days) / max(1, entry.size)


def layers_of(entries: Sequence[CacheEntry]) -> dict[str, int]:
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
