"""The dev shell's interpreter, which the image of a Python or Node backend has too."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.build.references import STORE
from orchestrator.errors import ToolchainError

_SAID = re.compile(r"interpreter v?(?P<version>\d+\.\S+) (?P<path>/.*)")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """`path` is the program itself, behind wrappers and links."""

    version: str
    path: Path


def parse_interpreter(line: str) -> Interpreter | None:
    """What a probe of the plan printed; None for any other line."""
    found = _SAID.fullmatch(line)
    return Interpreter(found["version"], Path(found["path"])) if found else None


def require_in_store(interpreter: Interpreter | None, *, service: str, package: str) -> Interpreter:
    """Raises `ToolchainError` for one that an image cannot have: it does not come from the dev shell's `package`."""
    if interpreter is None or not interpreter.path.is_relative_to(STORE):
        where = interpreter.path if interpreter else "what the dev shell does not tell"
        raise ToolchainError(
            f"{service} would be run by {where}, which is not from {STORE}",
            hint=f"add {package} to the packages of the dev shell",
        )
    return interpreter


def slim_node(interpreter: Interpreter, provide: Callable[[str], Path]) -> Path:
    """The same Node without the package manager that nixpkgs' `nodejs` has beside it.

    `provide` gives the store path of a package of nixpkgs.
    """
    if not (interpreter.path.parent.parent / "lib" / "node_modules").exists():
        return interpreter.path
    return provide(f"nodejs-slim_{interpreter.version.partition('.')[0]}") / "bin" / "node"
