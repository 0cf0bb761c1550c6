"""The generated pages are what the code would generate now."""

import re
import runpy
import shlex
from pathlib import Path

import click
import pytest

from orchestrator.cli import orchestrator_command

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES: dict[str, str] = runpy.run_path(str(DOCS / "generate.py"))["pages"]()


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_page_is_current(name: str):
    assert (DOCS / name).read_text() == PAGES[name], "run: make docs"


def test_every_link_between_pages_leads_somewhere():
    for page in (*DOCS.glob("*.md"), DOCS.parent / "README.md", DOCS.parent / "CHANGELOG.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def documented_commands() -> list[str]:
    """Every command line of ours that a page shows: in a console block, or as inline code."""
    shown = re.compile(r"^\$ (?:\.venv/bin/)?orchestrator ((?:.*\\\n)*.*)$|`orchestrator ([^`]+)`", re.MULTILINE)
    pages = [*DOCS.glob("*.md"), DOCS.parent / "README.md"]
    hits = [hit for page in pages if page.name not in PAGES for hit in shown.finditer(page.read_text())]
    return sorted({(hit[1] or hit[2]).replace("\\\n", " ").partition(" > ")[0].strip() for hit in hits})


@pytest.mark.parametrize("line", documented_commands())
def test_a_documented_command_is_one_the_command_line_takes(line: str):
    words = [word for word in shlex.split(line) if word not in ("…", "|")]
    command: click.Command = orchestrator_command
    context = click.Context(command, info_name="orchestrator")
    while isinstance(command, click.Group):
        words = words[1:] if words[0] == "--debug" else words
        found = command.get_command(context, words[0])
        assert found is not None, f"there is no command {words[0]}"
        command, words = found, words[1:]
        if not words:
            return
    known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    flags = [word.partition("=")[0] for word in words[: words.index("--") if "--" in words else None]]
    assert {flag for flag in flags if flag.startswith("-")} <= known
