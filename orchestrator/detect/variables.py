"""Which variables a monorepo says it needs: the keys without a value in its .env.example files."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

EXAMPLES = (".env.example", ".env.sample", ".env.template")

_EMPTY = re.compile(r"\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?:\"\"|'')?\s*(?P<comment>#.*)?")
_OURS = frozenset({"PORT", "HOST"})
_PUBLIC = ("VITE_", "NEXT_PUBLIC_", "NUXT_PUBLIC_", "REACT_APP_", "PUBLIC_", "EXPO_PUBLIC_")
"""Prefixes of variables a frontend is built with: they never reach a running backend."""


@dataclass(frozen=True, slots=True)
class NeededVariable:
    """A variable that must be given; `path` is relative to the monorepo."""

    name: str
    path: str
    line: int


def needed_variables(root: Path, directory: PurePosixPath) -> tuple[NeededVariable, ...]:
    """The keys without a value in the examples of the monorepo and of the backend in `directory`.

    A key whose line ends in a comment that says "optional" may be left out.
    """
    found: dict[str, NeededVariable] = {}
    for place in dict.fromkeys((PurePosixPath(), directory)):
        for example in EXAMPLES:
            for needed in _read_example(root, (place / example).as_posix()):
                found.setdefault(needed.name, needed)
    return tuple(found.values())


def _read_example(root: Path, path: str) -> tuple[NeededVariable, ...]:
    try:
        lines = (root / path).read_text(errors="replace").splitlines()
    except OSError:
        return ()
    empty = ((number, match) for number, line in enumerate(lines, start=1) if (match := _EMPTY.fullmatch(line)))
    return tuple(
        NeededVariable(match["name"], path, number)
        for number, match in empty
        if "optional" not in (match["comment"] or "").lower()
        and match["name"] not in _OURS
        and not match["name"].startswith(_PUBLIC)
    )
