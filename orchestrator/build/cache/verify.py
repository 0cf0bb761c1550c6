"""Building once more from nothing, to compare with what came from the cache."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.build.runner import run_builds
from orchestrator.errors import BuildError
from orchestrator.events import Emit
from orchestrator.files import locked, remove_tree, sha256
from orchestrator.plan import Plan
from orchestrator.process import Cancel
from orchestrator.recipes import CargoOutput
from orchestrator.settings import Settings


@dataclass(frozen=True, slots=True)
class Comparison:
    """One service's binary from the cache and from a clean build, as hex SHA-256."""

    service: str
    cached: str
    clean: str

    @property
    def same(self) -> bool:
        return self.cached == self.clean


def verify_builds(settings: Settings, root: Path, plan: Plan, *, emit: Emit, cancel: Cancel) -> tuple[Comparison, ...]:
    """Build every cargo service of the plan as always, then clean beside it.

    Raises `BuildError` without one, and what builds raise.
    """
    builds = tuple(build for build in plan.builds if isinstance(build.output, CargoOutput))
    if not builds:
        raise BuildError("there is no cargo build to verify")
    part = replace(plan, builds=builds)
    cached = run_builds(settings, root, part, emit=emit, cancel=cancel).services
    with _clean_place(settings.cache_dir, plan.app) as place:
        clean = run_builds(settings, root, part, emit=emit, cancel=cancel, place=place).services
        return tuple(
            Comparison(ours.service, sha256(ours.artifact), sha256(theirs.artifact))
            for ours, theirs in zip(cached, clean, strict=True)
        )


@contextmanager
def _clean_place(cache_dir: Path, app: str) -> Iterator[Path]:
    """A place for workspaces of the comparison's own, empty; what was fetched comes from the store."""
    place = cache_dir / "verify" / app
    with locked(place.with_name(f"{app}.lock"), holder=f"the verification of {app}"):
        remove_tree(place)
        try:
            yield place
        finally:
            remove_tree(place)


def require_same(compared: Sequence[Comparison]) -> None:
    """Raises `BuildError` naming the services whose binaries differ."""
    different = [one.service for one in compared if not one.same]
    if different:
        raise BuildError(
            f"a clean build gives another binary: {', '.join(different)}",
            hint="report it with the output of: orchestrator cache explain APP; a build that is not reproducible by"
            " itself (dates, random numbers) differs as well",
        )
