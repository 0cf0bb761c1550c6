"""Scanners, played by small programs on PATH."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli import orchestrator_command
from orchestrator.cli.errors import run_command
from orchestrator.deploy.scan import Finding, at_least, scan_sbom
from orchestrator.errors import OrchestratorError
from orchestrator.process import ProgramMissing

GRYPE = {
    "matches": [
        {
            "vulnerability": {"id": "CVE-1", "severity": "Medium", "fix": {"versions": ["3.0.20"]}},
            "artifact": {"name": "libssl3", "version": "3.0.19"},
        },
        {
            "vulnerability": {"id": "CVE-2", "severity": "Critical", "fix": {"versions": []}},
            "artifact": {"name": "axum", "version": "0.8.9"},
        },
    ]
}
TRIVY = {
    "Results": [
        {"Target": "x"},
        {
            "Vulnerabilities": [
                {"PkgName": "react", "InstalledVersion": "1", "VulnerabilityID": "CVE-3", "Severity": "HIGH"},
                {"PkgName": "react", "InstalledVersion": "1", "VulnerabilityID": "CVE-4", "Severity": "WHATEVER"},
            ]
        },
    ]
}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty PATH but for what the test puts there."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def install(directory: Path, name: str, answer: object, *, code: int = 0) -> Path:
    """A scanner that gives `answer`; the file of its arguments."""
    seen = directory / f"{name}.seen"
    program = directory / name
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$*\" >> {seen}\nprintf '%s' '{json.dumps(answer)}'\nexit {code}\n")
    program.chmod(0o755)
    return seen


def test_grype_is_asked_about_the_sbom_and_the_worst_comes_first(programs: Path, tmp_path: Path):
    seen = install(programs, "grype", GRYPE)
    install(programs, "trivy", TRIVY)
    found = scan_sbom("backend", tmp_path / "b.cdx.json")
    assert found == (
        Finding("backend", "axum", "0.8.9", "CVE-2", "critical", ""),
        Finding("backend", "libssl3", "3.0.19", "CVE-1", "medium", "3.0.20"),
    )
    assert seen.read_text() == f"sbom:{tmp_path}/b.cdx.json --output json --quiet\n"
    assert [finding.identifier for finding in at_least(found, "high")] == ["CVE-2"]


def test_trivy_is_asked_where_there_is_no_grype(programs: Path, tmp_path: Path):
    seen = install(programs, "trivy", TRIVY)
    found = scan_sbom("web", tmp_path / "w.cdx.json")
    assert [(item.identifier, item.severity) for item in found] == [("CVE-3", "high"), ("CVE-4", "unknown")]
    assert seen.read_text() == f"sbom --format json --quiet {tmp_path}/w.cdx.json\n"


def test_without_a_scanner_nothing_is_said_to_be_clean(programs: Path, tmp_path: Path):
    with pytest.raises(ProgramMissing, match="nothing was scanned"):
        scan_sbom("web", tmp_path / "w.cdx.json")


@pytest.mark.parametrize(("answer", "code"), [({"matches": [{}]}, 0), ({}, 0), ({"matches": []}, 3)])
def test_a_scanner_that_fails_is_no_clean_result(programs: Path, tmp_path: Path, answer: object, code: int):
    install(programs, "grype", answer, code=code)
    with pytest.raises(OrchestratorError, match="grype"):
        scan_sbom("web", tmp_path / "w.cdx.json")


@pytest.fixture
def release(private_directories: Path) -> Path:
    """A recorded release of `towns` with SBOMs, without anything running."""
    directory = private_directories / "state" / "apps" / "towns" / "releases" / "20260101-000000"
    directory.mkdir(parents=True)
    image = {"image_id": "ab" * 32, "manifest_digest": "sha256:" + "cd" * 32, "reference": "r", "size": 1}
    record = {
        "version": 1,
        "id": directory.name,
        "app": "towns",
        "created": "2026-01-01T00:00:00Z",
        "port": 1,
        "domains": [],
        "page": True,
        "api_prefix": None,
        "images": {"web": image, "gate": image},
        "web_limits": {},
        "backend": None,
        "health": {},
    }
    (directory / "release.json").write_text(json.dumps(record))
    for service in ("web", "gate"):
        (directory / f"{service}.cdx.json").write_text('{"bomFormat":"CycloneDX"}')
        (directory / f"{service}.intoto.json").write_text('{"_type":"statement"}')
    (directory.parent.parent / "current").symlink_to("releases/20260101-000000")
    return directory


@pytest.mark.parametrize(("fail_on", "code"), [((), 0), (("--fail-on", "critical"), 13), (("--fail-on", "low"), 13)])
@pytest.mark.parametrize("output", [(), ("--json",)])
def test_the_exit_code_follows_the_gate(
    programs: Path, release: Path, fail_on: tuple[str, ...], code: int, output: tuple[str, ...]
):
    install(programs, "grype", GRYPE)
    assert run_command(orchestrator_command, ["scan", "towns", *fail_on, *output]) == code


def test_a_gate_nothing_reaches_lets_pass(programs: Path, release: Path):
    install(programs, "grype", {"matches": GRYPE["matches"][:1]})
    assert run_command(orchestrator_command, ["scan", "towns", "--fail-on", "high"]) == 0
    assert run_command(orchestrator_command, ["scan", "towns", "--fail-on", "medium"]) == 13


def test_a_missing_scanner_or_sbom_has_its_exit_code(programs: Path, release: Path):
    assert run_command(orchestrator_command, ["scan", "towns"]) == 4
    install(programs, "grype", GRYPE)
    (release / "web.cdx.json").unlink()
    assert run_command(orchestrator_command, ["scan", "towns"]) == 2


def test_the_documents_of_a_release_are_printed(release: Path):
    def said(*arguments: str) -> str:
        return CliRunner().invoke(orchestrator_command, ["sbom", "towns", *arguments]).stdout

    assert said() == '{"bomFormat":"CycloneDX"}\n'
    assert said("web", "--provenance") == '{"_type":"statement"}\n'
    assert run_command(orchestrator_command, ["sbom", "towns", "backend"]) == 2
    assert run_command(orchestrator_command, ["sbom", "towns", "--release", "20250101-000000"]) == 2
