"""A scanner that is on this machine, asked about an image's SBOM."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from orchestrator.errors import OrchestratorError
from orchestrator.process import Cancel, ProcessError, ProgramMissing, find, run

Severity = Literal["unknown", "negligible", "low", "medium", "high", "critical"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""From the least to the worst."""

_ANSWER_SECONDS = 900
"""A scanner's first run may have to fetch its database."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A known vulnerability of a package in an image; `fixed` names versions without it, "" when there is none."""

    service: str
    package: str
    version: str
    identifier: str
    severity: Severity
    fixed: str


@dataclass(frozen=True, slots=True)
class Scanner:
    """How one scanner is called, and how its answer is read."""

    name: str
    arguments: Callable[[Path], tuple[str, ...]]
    read: Callable[[Mapping[str, Any]], Iterator[tuple[str, str, str, str, str]]]


def find_scanner() -> tuple[Path, Scanner]:
    """The first scanner on PATH. Raises `ProgramMissing` when there is none."""
    for scanner in SCANNERS:
        if program := find(scanner.name):
            return program, scanner
    raise ProgramMissing(
        "no scanner is installed; nothing was scanned",
        hint="install grype or trivy, or hand `orchestrator sbom NAME SERVICE` to another scanner",
    )


def scan_sbom(service: str, sbom: Path, *, cancel: Cancel | None = None) -> tuple[Finding, ...]:
    """What the scanner knows about the packages of an image, the worst first.

    Raises `ProgramMissing` without a scanner, `OrchestratorError` when it fails or its answer makes no sense.
    """
    program, scanner = find_scanner()
    try:
        answer = run([str(program), *scanner.arguments(sbom)], timeout=_ANSWER_SECONDS, cancel=cancel).stdout
        rows = list(scanner.read(json.loads(answer)))
    except ProcessError as error:
        raise OrchestratorError(f"{scanner.name} failed", details=error.details, hint=error.hint) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OrchestratorError(f"the answer of {scanner.name} is not understood: {error!r}") from error
    found = {
        Finding(service, package, version, name, _severity(word), fixed) for package, version, name, word, fixed in rows
    }
    return tuple(sorted(found, key=lambda finding: (-SEVERITIES.index(finding.severity), finding)))


def at_least(findings: tuple[Finding, ...], severity: Severity) -> tuple[Finding, ...]:
    """Those as bad as `severity` or worse."""
    return tuple(item for item in findings if SEVERITIES.index(item.severity) >= SEVERITIES.index(severity))


def _severity(word: str) -> Severity:
    return next((known for known in SEVERITIES if known == word.lower()), "unknown")


def _read_grype(answer: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    for match in answer["matches"]:
        vulnerability, package = match["vulnerability"], match["artifact"]
        fixed = ", ".join(vulnerability.get("fix", {}).get("versions") or ())
        yield package["name"], package["version"], vulnerability["id"], vulnerability.get("severity", ""), fixed


def _read_trivy(answer: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    for result in answer.get("Results") or ():
        for item in result.get("Vulnerabilities") or ():
            fixed, severity = item.get("FixedVersion", ""), item.get("Severity", "")
            yield item["PkgName"], item["InstalledVersion"], item["VulnerabilityID"], severity, fixed


SCANNERS = (
    Scanner("grype", lambda sbom: (f"sbom:{sbom}", "--output", "json", "--quiet"), _read_grype),
    Scanner("trivy", lambda sbom: ("sbom", "--format", "json", "--quiet", str(sbom)), _read_trivy),
)
"""In the order they are looked for."""
