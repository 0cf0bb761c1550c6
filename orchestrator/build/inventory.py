"""What other people's code is in a build product: the crates linked into a binary, the packages a bundle is made of."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

_SEPARATOR = "\t"
_CRATE = re.compile(r"(?P<name>\S+) v(?P<version>\S+)(?P<rest>.*)")
_PLACE = re.compile(r"\((?P<place>/[^)]*|\w+(?:\+\w+)?:[^)]*)\)")


@dataclass(frozen=True, slots=True)
class Component:
    """A package in a product. `licence` is what the package says, an SPDX expression as a rule, "" when unknown.

    `source` is "" for the ecosystem's own registry, "local" for the monorepo's own code, else an address.
    """

    ecosystem: Literal["cargo", "golang", "npm", "pypi"]
    name: str
    version: str
    licence: str
    source: str


def cargo_tree_argv(package: str, target: str = "") -> tuple[str, ...]:
    """The command that lists what is linked into a package's binary: no macros, build scripts, tests, other targets.

    `target` is what it is built for, "" for this machine.
    """
    return (
        *("cargo", "tree", "--locked", "--offline", "--package", package),
        *(("--target", target) if target else ()),
        *("--edges", "normal,no-proc-macro", "--prefix", "none", "--format", f"{{p}}{_SEPARATOR}{{l}}"),
    )


def parse_cargo_tree(lines: Iterable[str]) -> tuple[Component, ...]:
    """The crates in the output of `cargo_tree_argv`, each once, by name and version."""
    found = {component for line in lines if (component := _crate(line))}
    return tuple(sorted(found, key=lambda crate: (crate.name, crate.version, crate.source)))


def _crate(line: str) -> Component | None:
    package, separator, licence = line.partition(_SEPARATOR)
    match = _CRATE.fullmatch(package.strip())
    if not separator or match is None:
        return None
    place = _PLACE.search(match["rest"])
    source = "" if place is None else "local" if place["place"].startswith("/") else place["place"]
    licence = licence.removesuffix("(*)").strip().replace("/", " OR ")
    return Component("cargo", match["name"], match["version"], " ".join(licence.split()), source)


def go_module(path: str, version: str, replacement: tuple[str, str] | None = None) -> Component:
    """A module that is linked; what replaces it is what it is: another module, or a directory of the monorepo."""
    name, version = replacement or (path, version)
    local = not version
    return Component("golang", path if local else name, version, "", "local" if local else "")


def go_library(version: str) -> Component:
    """Go's standard library, which every program of Go has in it, under the name vulnerability databases use."""
    return Component("golang", "stdlib", version, "BSD-3-Clause", "")


def to_json(components: Sequence[Component]) -> list[list[str]]:
    """As kept beside an artifact."""
    return [[item.ecosystem, item.name, item.version, item.licence, item.source] for item in components]


def from_json(value: object) -> tuple[Component, ...] | None:
    """What `to_json` gave; None when there was nothing or it is damaged."""
    if not isinstance(value, list):
        return None
    try:
        return tuple(Component(*item) for item in value)
    except TypeError:
        return None
