"""Nix's own messages: read from its internal JSON log, freed of noise, and turned into errors a user can act on."""

import json
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.errors import ToolchainError

LOG_LINES = 30
"""How many of a failed derivation's last lines are kept."""

_PREFIX = "@nix "
_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_BUILD_LINE = 101
_ERROR, _PROGRESS = 0, 3
_SHOWN_ACTIVITIES = (100, 105)
"""Nix's numbers of the activities "copying a path" and "building"."""

_CONSEQUENCE = re.compile(r"dependenc(y|ies) (of derivation .* )?failed|dependency failed")
_AT = re.compile(r"at (?:«[^»]*»/?|/nix/store/[^/\s]+/)([^\s:]+):(\d+)(?::(\d+))?")
_IN_STORE = re.compile(r"^(?:«[^»]*»/?|/nix/store/[^/]+/)")
_NOISE = re.compile(
    r"^(error \(ignored\):|warning: (Git tree .* is dirty|not writing modified lock file|ignoring the client-specified"
    r"|unknown (experimental feature|setting)|input .* has an override for a non-existent input))"
)


@dataclass(frozen=True, slots=True)
class Message:
    """An error of Nix: its text without traces, and the place Nix gives, the file relative to its flake."""

    text: str
    file: str | None = None
    line: int | None = None

    @property
    def place(self) -> str | None:
        return f"{self.file}:{self.line}" if self.file and self.line else None


@dataclass(slots=True)
class NixLog:
    """Collects what a Nix command with `--log-format internal-json` says, line by line."""

    on_line: Callable[[str], None] | None = None
    errors: list[Message] = field(default_factory=list)
    build_lines: deque[str] = field(default_factory=lambda: deque(maxlen=LOG_LINES))
    other_lines: deque[str] = field(default_factory=lambda: deque(maxlen=LOG_LINES))

    def feed(self, line: str) -> None:
        """Take one line of output; what a user would want to see goes to `on_line`."""
        record = _parse(line)
        if record is None:
            if not is_noise(line):
                self.other_lines.append(line)
            return
        match record.get("action"), record.get("type"):
            case "msg", _ if record.get("level") == _ERROR:
                self._take_error(record)
            case "result", nix_result if nix_result == _BUILD_LINE:
                self._show(str(record["fields"][0]), self.build_lines)
            case "start", kind if kind in _SHOWN_ACTIVITIES and record.get("level", 9) <= _PROGRESS:
                self._show(str(record.get("text", "")))

    def cause(self) -> Message | None:
        """The first error that is not the consequence of another."""
        causes = [error for error in self.errors if not _CONSEQUENCE.search(error.text)]
        return next(iter(causes or self.errors), None)

    def _take_error(self, record: dict[str, Any]) -> None:
        text = str(record.get("raw_msg") or record.get("msg") or "")
        if not text.startswith("error (ignored)"):
            self.errors.append(make_message(text, record.get("file"), record.get("line")))

    def _show(self, text: str, kept: deque[str] | None = None) -> None:
        clean = plain(text)
        if kept is not None:
            kept.append(clean)
        if clean and self.on_line is not None:
            self.on_line(clean)


def make_message(text: str, file: str | None, line: int | None) -> Message:
    """An error from a log record. Nix ends the file's name with line and column, or not, as its version has it."""
    clean = plain(text).strip().removeprefix("error:").strip()
    if file and line:
        return Message(clean, re.sub(r":\d+:\d+$", "", _IN_STORE.sub("", file)), line)
    return Message(clean)


def plain(text: str) -> str:
    """`text` without terminal escapes."""
    return _ESCAPE.sub("", text)


def is_noise(line: str) -> bool:
    """Lines Nix prints that say nothing about the user's work: registry look-ups, dirty trees, ignored settings."""
    return bool(_NOISE.match(plain(line)))


def parse_plain(stderr: str) -> Message | None:
    """The last error in Nix's ordinary output, without its traces."""
    text = plain(stderr)
    found = list(re.finditer(r"^\s*error: *(\S.*)$", text, re.MULTILINE))
    if not found:
        return None
    place = _AT.search(text, found[-1].end())
    return Message(found[-1][1].strip(), *((place[1], int(place[2])) if place else (None, None)))


def explain(message: Message, *, flake: Path | None, log: Sequence[str] = ()) -> ToolchainError:
    """The error to show for Nix's `message`. `flake` is the flake's directory, `log` a failed build's last lines."""
    message = _without_foreign_place(message, flake)
    for pattern, make in _TRANSLATIONS:
        if found := re.search(pattern, message.text, re.DOTALL):
            text, hint = make(found)
            name = found.groupdict().get("name")
            place = message.place or (_find_word(flake, name) if flake and name else None)
            return ToolchainError(_with_place(text, place), hint=hint, details=[*_source_line(flake, place), *log])
    first, *rest = message.text.splitlines() or ["failed without a message"]
    return ToolchainError(
        _with_place(f"Nix: {first}", message.place),
        details=[*_source_line(flake, message.place), *(line for line in rest if line.strip()), *log],
        hint="run: orchestrator nix -- flake check" if flake is None else f"try it by hand: nix develop path:{flake}",
    )


def _parse(line: str) -> dict[str, Any] | None:
    if not line.startswith(_PREFIX):
        return None
    try:
        record = json.loads(line[len(_PREFIX) :])
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _without_foreign_place(message: Message, flake: Path | None) -> Message:
    """A place in someone else's files (nixpkgs, our stand-in) tells the user nothing."""
    if flake is None or message.file is None or (flake / message.file).exists():
        return message
    return Message(message.text)


def _with_place(text: str, place: str | None) -> str:
    return f"{place}: {text}" if place else text


def _find_word(flake: Path, word: str) -> str | None:
    """The first place in flake.nix that names `word`, for errors Nix gives no place for."""
    try:
        lines = (flake / "flake.nix").read_text().splitlines()
    except OSError:
        return None
    pattern = re.compile(rf"(?<![\w-]){re.escape(word)}(?![\w-])")
    number = next((index for index, line in enumerate(lines, 1) if pattern.search(line.partition("#")[0])), None)
    return f"flake.nix:{number}" if number else None


def _source_line(flake: Path | None, place: str | None) -> list[str]:
    """The line of the user's file that `place` ("flake.nix:4") names."""
    if flake is None or place is None:
        return []
    file, _, number = place.rpartition(":")
    try:
        return [(flake / file).read_text().splitlines()[int(number) - 1].strip()]
    except (OSError, IndexError):
        return []


_Made = tuple[str, str]


def _unknown(found: re.Match[str]) -> _Made:
    return (
        f"package '{found['name']}' is unknown to the dev shell",
        "check its spelling; when this machine's own tools stand in for nixpkgs, install it (apt-get install "
        f"{found['name']}) if the machine can offer it, or use the real nixpkgs with --toolchain flake",
    )


def _not_here(found: re.Match[str]) -> _Made:
    text, _, hint = found["text"].partition(" Add it with: ")
    if not hint:
        text, _, hint = found["text"].partition(". ")
    return text.rstrip("."), hint or "install it, or use the real nixpkgs with --toolchain flake"


def _no_stand_in(found: re.Match[str]) -> _Made:
    return (
        f"the flake input '{found['name']}' has no stand-in on this machine",
        "build once where the network is reachable (--toolchain flake), or do without that input in the dev shell",
    )


def _not_fetched(found: re.Match[str]) -> _Made:
    return (
        f"Nix cannot fetch {found['url']}: {found['why'].splitlines()[0].strip()}",
        "check the network, or use this machine's own tools: --toolchain host",
    )


def _not_tracked(_: re.Match[str]) -> _Made:
    return "flake.nix is not tracked by git, so Nix does not see it", "run: git add flake.nix flake.lock"


def _failed_build(found: re.Match[str]) -> _Made:
    return (
        f"Nix could not build {found['drv']}, which the flake asks for",
        f"see its whole log: nix log {found['path']}",
    )


def _no_shell(found: re.Match[str]) -> _Made:
    return (
        f"the flake has no dev shell: {found['what']} is missing",
        "add devShells.<system>.default to flake.nix",
    )


_TRANSLATIONS: tuple[tuple[str, Callable[[re.Match[str]], _Made]], ...] = (
    (r"hostpkgs: the flake input '(?P<name>[^']+)' has no stand-in", _no_stand_in),
    (r"hostpkgs: (?P<text>package '(?P<name>[^']+)'.*)", _not_here),
    (r"hostpkgs: (?P<text>Rust (?P<name>\S+) .*)", _not_here),
    (r"hostpkgs: (?P<text>.*)", _not_here),
    (r"undefined variable '(?P<name>[^']+)'", _unknown),
    (r"attribute '(?P<name>[^']+)' missing", _unknown),
    (r"unable to download '(?P<url>[^']+)': (?P<why>.*)", _not_fetched),
    (r"-source/flake\.nix': No such file|is not tracked by Git|git -C \S+ add \S*flake\.nix", _not_tracked),
    (r"(builder for|Cannot build) '(?P<path>/nix/store/[a-z0-9]{32}-(?P<drv>[^']+)\.drv)'", _failed_build),
    (r"does not provide attribute (?P<what>'devShells[^']+')", _no_shell),
)
