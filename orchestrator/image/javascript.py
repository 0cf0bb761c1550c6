"""The string literals of JavaScript, told apart from comments, regular expressions and the code around them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
    (?P<comment> /\*.*?(?:\*/|\Z) | //[^\n]* | <!--[^\n]* )
  | (?P<string> "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*' )
  | (?P<template> ` )
  | (?P<word> [\w$]+ )
  | (?P<space> \s+ )
  | (?P<other> . )
    """,
    re.DOTALL | re.VERBOSE,
)
_REGULAR_EXPRESSION = re.compile(r"/(?:[^/\\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+/\w*")
_TEMPLATE_PART = re.compile(r"((?:[^`\\$]|\\.|\$(?!\{))*)(`|\$\{|\\?\Z)", re.DOTALL)
_BEFORE_AN_OPERAND = frozenset(
    ("return", "typeof", "case", "in", "of", "delete", "void", "throw", "new", "else", "do", "yield", "await")
)


@dataclass(frozen=True, slots=True)
class Literal:
    """A string, or a part of a template between its expressions. `start` is the offset of the text's first letter.

    `open_ended` says that an expression of a template follows.
    """

    start: int
    text: str
    open_ended: bool = False


def string_literals(source: str) -> Iterator[Literal]:
    """Every string of the program in order. Source that is not JavaScript gives strings as far as they can be told."""
    position, previous = 0, ""
    open_braces: list[int] = []  # of each template being read: the braces open in its current expression
    while token := _TOKEN.match(source, position):
        kind, text, position = token.lastgroup, token[0], token.end()
        if kind in ("comment", "space"):
            continue
        if text == "/" and not _ends_operand(previous) and (found := _REGULAR_EXPRESSION.match(source, token.start())):
            position = found.end()
        elif kind == "string":
            yield Literal(token.start() + 1, text[1:-1])
        elif kind == "template" or (text == "}" and open_braces and open_braces[-1] == 0):
            if text == "}":
                open_braces.pop()
            part = _TEMPLATE_PART.match(source, position)
            assert part is not None  # it matches the empty text too
            yield Literal(position, part[1], open_ended=part[2] == "${")
            position = part.end()
            if part[2] == "${":
                open_braces.append(0)
                text = "("
        elif open_braces and text in "{}":
            open_braces[-1] += 1 if text == "{" else -1
        previous = text


def _ends_operand(token: str) -> bool:
    """Whether a value ends here, so that a slash after it divides."""
    if not token:
        return False
    last = token[-1]
    return last in ")]}\"'`/" or ((last.isalnum() or last in "_$") and token not in _BEFORE_AN_OPERAND)
