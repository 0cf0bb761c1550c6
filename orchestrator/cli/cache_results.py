"""The JSON the `cache` commands print with --json. docs/json-schema/ is generated from these models."""

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.build.cache.explain import Report
    from orchestrator.build.cache.index import StoredEntry
    from orchestrator.build.cache.prune import Evicted
    from orchestrator.build.cache.verify import Comparison


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EntryResult(_Model):
    """One entry: a "target" directory, or what was "fetched" (which has no units). Bytes and seconds; `created` and
    `last_used` since the epoch. `present` is false when Nix collected it; `own_size` is what it alone added."""

    id: str
    kind: Literal["target", "fetched"]
    app: str
    service: str
    created: float
    last_used: float
    size: int
    own_size: int
    units: int
    uses: int
    worth_seconds: float
    saved_seconds: float
    present: bool
    layers: tuple[str, ...]


class CacheListResult(_Model):
    """`cache list --json`. `size` is what all entries take in the store together."""

    entries: tuple[EntryResult, ...]
    size: int


class UnitResult(_Model):
    name: str
    version: str
    reason: str


class ExplainedBuildResult(_Model):
    """The last build of one service: what it began with, what differed, what was compiled and cargo's reasons."""

    service: str
    when: float
    seconds: float
    start: Literal["nothing", "workspace", "entry"]
    entry: str
    compiled: int
    total: int
    changed_key: tuple[str, ...]
    changed_packages: tuple[str, ...]
    changed_sources: tuple[str, ...]
    units: tuple[UnitResult, ...]
    summary: str


class CacheExplainResult(_Model):
    """`cache explain --json`."""

    app: str
    services: tuple[ExplainedBuildResult, ...]


class ComparedResult(_Model):
    service: str
    same: bool
    cached_sha256: str
    clean_sha256: str


class CacheVerifyResult(_Model):
    """`cache verify --json`."""

    app: str
    services: tuple[ComparedResult, ...]


class CacheGcResult(_Model):
    """`cache gc --json`. Bytes; `freed` counts what Nix deleted at once."""

    evicted: tuple[str, ...]
    freed: int
    size: int


class CacheRootResult(_Model):
    """`cache root --json`. Where the records are, and the GC roots: link → store path."""

    directory: str
    roots: dict[str, str]


CACHE_PUBLISHED: dict[str, type[BaseModel]] = {
    "cache-list": CacheListResult,
    "cache-explain": CacheExplainResult,
    "cache-verify": CacheVerifyResult,
    "cache-gc": CacheGcResult,
    "cache-root": CacheRootResult,
}


def list_result(entries: "Sequence[StoredEntry]", size: int) -> CacheListResult:
    return CacheListResult(entries=tuple(_entry_result(entry) for entry in entries), size=size)


def _entry_result(entry: "StoredEntry") -> EntryResult:
    from orchestrator.build.cache.index import TargetEntry

    return EntryResult(
        id=entry.id,
        kind="target" if isinstance(entry, TargetEntry) else "fetched",
        app=entry.app,
        service=entry.service,
        created=entry.created,
        last_used=entry.last_used,
        size=entry.size,
        own_size=entry.own_size,
        units=entry.units if isinstance(entry, TargetEntry) else 0,
        uses=entry.uses,
        worth_seconds=round(entry.worth, 1),
        saved_seconds=round(entry.saved, 1),
        present=entry.present,
        layers=entry.layers,
    )


def explain_result(app: str, reports: "Sequence[Report]") -> CacheExplainResult:
    def build(report: "Report") -> ExplainedBuildResult:
        fields = report.model_dump(exclude={"app", "parts"}) | {"summary": report.summary}
        return ExplainedBuildResult.model_validate(fields)

    return CacheExplainResult(app=app, services=tuple(build(report) for report in reports))


def verify_result(app: str, compared: "Sequence[Comparison]") -> CacheVerifyResult:
    return CacheVerifyResult(
        app=app,
        services=tuple(
            ComparedResult(service=one.service, same=one.same, cached_sha256=one.cached, clean_sha256=one.clean)
            for one in compared
        ),
    )


def gc_result(evicted: "Evicted", size: int) -> CacheGcResult:
    return CacheGcResult(evicted=tuple(entry.id for entry in evicted.entries), freed=evicted.freed, size=size)
