"""What a script of package.json runs, where that is one command: a program, or Node with its options and a file."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

WITH_VALUE = frozenset(
    {
        "-r", "--require", "--import", "--loader", "--experimental-loader", "-C", "--conditions", "--env-file",
        "--env-file-if-exists", "--title", "--input-type", "--disable-warning", "--dns-result-order",
        "--unhandled-rejections", "--max-http-header-size", "--icu-data-dir", "--openssl-config", "--redirect-warnings",
        "--diagnostic-dir", "--report-dir", "--report-directory", "--watch-path", "--inspect-port", "--debug-port",
    }
)  # fmt: skip
"""Options of Node whose value is the next word. https://nodejs.org/api/cli.html"""

_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
_NEEDS_SHELL = re.compile(r"[$`\n]")
_OPERATOR = re.compile(r"[();<>|&]+")
_LEFT_OUT = re.compile(r"--(?:watch|inspect|debug-port|env-file)(?:$|[-=])")
_PASSED_OVER = frozenset({"cross-env", "env", "exec", "npx"})
"""Programs that only run the one after them."""


@dataclass(frozen=True, slots=True)
class Command:
    """`program` without its directory; `variables` are the names of those set for it."""

    program: str
    arguments: tuple[str, ...]
    variables: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodeCommand:
    """What Node is told: `options` with their values, the `file` ("" when there is none) and its own `arguments`.

    `dropped` are options that are of use to a developer only, or name a file of variables, which no image has.
    """

    options: tuple[tuple[str, ...], ...]
    file: str
    arguments: tuple[str, ...]
    dropped: tuple[str, ...]


def parse_command(script: str) -> Command | None:
    """The one command a script is; None when it takes a shell to run it."""
    words = _words(script)
    if words is None:
        return None
    variables = []
    while words and (words[0] in _PASSED_OVER or _ASSIGNMENT.fullmatch(words[0])):
        name, assigned, _ = words.pop(0).partition("=")
        variables.extend([name] if assigned else [])
    if not words:
        return None
    return Command(words[0].rpartition("/")[2], tuple(words[1:]), tuple(variables))


def parse_node(arguments: tuple[str, ...]) -> NodeCommand:
    """The arguments of Node, sorted."""
    options = tuple(_options(arguments))
    rest = arguments[sum(len(option) for option in options) :]
    kept = tuple(option for option in options if not _LEFT_OUT.match(option[0]) and option != ("--",))
    dropped = tuple(" ".join(option) for option in options if _LEFT_OUT.match(option[0]))
    return NodeCommand(kept, rest[0] if rest else "", rest[1:], dropped)


def _words(script: str) -> list[str] | None:
    if _NEEDS_SHELL.search(script):
        return None
    lexer = shlex.shlex(script, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        words = list(lexer)
    except ValueError:
        return None
    return None if any(_OPERATOR.fullmatch(word) for word in words) else words


def _options(arguments: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    waiting = list(arguments)
    while waiting and waiting[0].startswith("-"):
        length = 2 if waiting[0] in WITH_VALUE else 1
        yield tuple(waiting[:length])
        if waiting[0] == "--":
            return
        del waiting[:length]
