"""`build --check`: build everything twice from nothing in different places, and compare what came out."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.build.differences import find_difference
from orchestrator.build.runner import BuildResults, run_builds
from orchestrator.errors import NotReproducibleError
from orchestrator.events import Emit
from orchestrator.files import locked, remove_tree, tree_size
from orchestrator.plan import Plan
from orchestrator.process import Cancel
from orchestrator.settings import Settings

_PLACES = (("first", 0o022), ("second/build", 0o077))
"""Where each build is made, below one directory, and under which umask."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A service whose two builds were equal, and the bytes of its artifact."""

    service: str
    size: int


def check_reproducible(
    settings: Settings, root: Path, plan: Plan, *, emit: Emit, cancel: Cancel
) -> tuple[Checked, ...]:
    """The services, each built twice with the same result.

    Raises `NotReproducibleError` with the first difference, in which case both artifacts stay for a closer look,
    and what `run_builds` raises.
    """
    base = settings.cache_dir / "check" / settings.name
    with locked(base.with_name(f"{settings.name}.lock"), holder=f"a check of {settings.name}"):
        remove_tree(base)
        try:
            first, second = (
                _build(settings, root, plan, base / place, umask=umask, emit=emit, cancel=cancel)
                for place, umask in _PLACES
            )
            checked = tuple(_compare(first, second, service) for service in range(len(first.services)))
        except NotReproducibleError:
            _forget_workspaces(base)
            raise
        except BaseException:
            remove_tree(base)
            raise
        remove_tree(base)
    return checked


def _build(
    settings: Settings, root: Path, plan: Plan, place: Path, *, umask: int, emit: Emit, cancel: Cancel
) -> BuildResults:
    with _under(umask):
        return run_builds(settings, root, plan, emit=emit, cancel=cancel, place=place)


@contextmanager
def _under(umask: int) -> Iterator[None]:
    before = os.umask(umask)
    try:
        yield
    finally:
        os.umask(before)


def _compare(first: BuildResults, second: BuildResults, index: int) -> Checked:
    one, two = first.services[index], second.services[index]
    difference = find_difference(one.artifact, two.artifact)
    if difference is None:
        return Checked(one.service, tree_size(one.artifact))
    name = one.artifact.name if difference.path == "." else difference.path
    raise NotReproducibleError(
        f"{one.service}: two builds of the same sources differ, first in {name}: {difference.what}",
        details=difference.lines,
        hint=f"usual causes are times, random numbers and the order of files; both: {one.artifact} {two.artifact}",
    )


def _forget_workspaces(base: Path) -> None:
    """Only the artifacts are worth their room."""
    for place, _ in _PLACES:
        remove_tree(base / place / "workspaces")
