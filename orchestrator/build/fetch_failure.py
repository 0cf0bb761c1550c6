"""Why dependencies could not be fetched, in one message: what was refused or not reached, by whom, and what to do."""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from orchestrator.build.fetch_causes import CARGO, GO, NODE, OFFLINE, UV, Cause
from orchestrator.errors import FetchError, OrchestratorError, ToolchainError

Tool = Literal["cargo", "go", "node", "uv"]

_CAUSES: Mapping[Tool, tuple[Cause, ...]] = {"cargo": CARGO, "go": GO, "node": NODE, "uv": UV}
_ADDRESS = re.compile(r"(?:unable to update|failed to download from|Updating git repository) `?(\S+://[^`#\s]+)")
_USER = re.compile(r"//[^/@]*@")
_ONLINE = "run once without --offline"


def explain_fetch(
    error: OrchestratorError, said: Sequence[str], *, tool: Tool, service: str, source: str, offline: bool
) -> OrchestratorError:
    """The error for a fetch that ended with `error` after the tool had `said` so many lines.

    `source` is the dev shell's flake. What no cause is known for stays as it is; of cargo, whose fetch does nothing
    else, it becomes a `FetchError`, while an install also runs scripts and compares lock files.
    """
    if tool == "cargo" and any("could not execute process `git " in line for line in said):
        return ToolchainError(
            f"the dev shell has no git, which {service} needs: cargo's net.git-fetch-with-cli is set",
            hint=f"add git to the packages of the dev shell ({source})",
        )
    if offline and (tool == "cargo" or any(OFFLINE.search(line) for line in said)):
        message = f"{service}: not all dependencies were fetched before, and --offline forbids it now"
        return FetchError(message, details=error.details, hint=_ONLINE)
    for cause in _CAUSES[tool]:
        for line in _statements(said, tool):
            if found := cause.pattern.search(line):
                return _error(cause, found, error, said, service)
    return FetchError(error.message, details=error.details, hint=error.hint) if tool == "cargo" else error


def _statements(said: Sequence[str], tool: Tool) -> Sequence[str]:
    """What patterns are looked for in: lines, or with Node all of them as one, since pnpm wraps what it says.

    What was tried again is left out: it need not be what failed in the end.
    """
    final = [line for line in said if "Will retry" not in line]
    return (" ".join(" ".join(final).split()),) if tool == "node" else final


def _error(
    cause: Cause, found: re.Match[str], error: OrchestratorError, said: Sequence[str], service: str
) -> FetchError:
    words = {"address": _address(said), **{name: _USER.sub("//", text) for name, text in found.groupdict("").items()}}
    name = words.get("name", "")
    words["variable"] = f"CARGO_REGISTRIES_{name.upper().replace('-', '_')}_TOKEN"
    telling = [line.strip() for line in said if line == found.string]
    missing = [line for line in telling[:1] if all(line not in shown for shown in error.details)]
    return FetchError(
        f"{service}: {cause.message.format_map(words)}",
        details=[*missing, *error.details],
        hint=cause.hint.format_map(words),
    )


def _address(said: Sequence[str]) -> str:
    """What cargo was last asking, without anybody's name or password."""
    found = [match[1] for line in said if (match := _ADDRESS.search(line))]
    return _USER.sub("//", found[-1]) if found else "the registry"
