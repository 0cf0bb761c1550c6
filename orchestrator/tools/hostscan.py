"""One look at the machine, and its description as the package set reads it (host.json)."""

import hashlib
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.tools import debian, hostcopies, hostnames, hosttools
from orchestrator.tools.hostcopies import Copy, Module, Needs, Tree
from orchestrator.tools.hoststore import Imported
from orchestrator.tools.hosttools import Link, Python, Rust, Search

OUR_REQUIREMENTS = ("click", "jinja2", "pydantic", "rich", "filelock")
"""The Python distributions our own package needs, copied from the environment that runs us."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the scan found."""

    links: Mapping[str, Link]
    copies: Mapping[str, Copy]
    needs: Mapping[str, Needs]
    modules: Mapping[str, Module]
    seed: Tree
    python: Python
    rust: Rust

    def trees(self) -> dict[str, Tree]:
        """Every tree to be imported, by the name it has in the store."""
        trees: dict[str, Tree] = {"hostpkgs-seed": self.seed}
        for attr, copy in self.copies.items():
            trees[_tree_name(attr, copy.version)] = {**copy.tree, **self.needs[attr].loose}
            if copy.headers is not None:
                trees[_tree_name(f"{attr}-dev", copy.version)] = copy.headers
        for name, module in self.modules.items():
            trees[_tree_name(f"python-{name}", module.version)] = module.tree
        return trees

    def describe(self, imported: Mapping[str, Imported]) -> dict[str, object]:
        """The content of host.json; `nix/hostpkgs/packages.nix` says what becomes of it."""
        return {
            "system": f"{platform.machine()}-linux",
            "loader": next(Path(place).name for place in self.seed if place.startswith("lib/ld-linux")),
            "seed": imported["hostpkgs-seed"].json(),
            "links": {attr: _describe_link(link) for attr, link in self.links.items()},
            "copies": {attr: self._describe_copy(attr, copy, imported) for attr, copy in self.copies.items()},
            "missing": self.missing(),
            "aliases": self.aliases(),
            "python": self._describe_python(imported),
            "rust": self._describe_rust(),
        }

    def _describe_copy(self, attr: str, copy: Copy, imported: Mapping[str, Imported]) -> dict[str, object]:
        headers = imported.get(_tree_name(f"{attr}-dev", copy.version))
        return {
            "version": copy.version,
            "out": imported[_tree_name(attr, copy.version)].json(),
            "dev": headers.json() if headers else None,
            "devDebs": copy.headers_package,
            "deps": self.needs[attr].packages,
            "programs": copy.programs if copy.programs in self.links else None,
            "main": copy.main or attr,
        }

    def _describe_python(self, imported: Mapping[str, Imported]) -> dict[str, object]:
        packages = {
            name: {
                "version": module.version,
                "tree": imported[_tree_name(f"python-{name}", module.version)].json(),
                "requires": module.requires,
            }
            for name, module in self.modules.items()
        }
        return {"version": self.python.version, "packages": packages}

    def _describe_rust(self) -> dict[str, object]:
        return {
            "default": self.rust.default,
            "channels": dict(self.rust.channels),
            "toolchains": {version: f"rust-toolchain-{version}" for version in self.rust.toolchains},
            "targets": {version: self.rust.targets(version) for version in self.rust.toolchains},
        }

    def aliases(self) -> dict[str, str]:
        """Other names of what is here, versioned ones (`nodejs_20`) only for the machine's version."""
        aliases = {name: attr for name, attr in hostnames.ALIASES.items() if self._has(attr)}
        for attr, (form, _) in hostnames.VERSIONED.items():
            if version := self._series(attr):
                aliases[form.format(version)] = attr
        return aliases

    def missing(self) -> dict[str, str]:
        """For each name that is known but not here, what to tell the user."""
        rows = {**hostnames.PACKAGES, **hostnames.BEHIND_LIBRARIES}
        absent = {attr: _how_to_add(attr, hosttools.install_hint(package)) for attr, (package, _) in rows.items()}
        absent |= {attr: _how_to_add(attr, f"rustup component add {attr}") for attr in hostnames.RUST_COMPONENTS}
        absent |= {
            attr: _how_to_add(attr, f"apt-get install {library.packages}")
            for attr, library in hostcopies.LIBRARIES.items()
        }
        absent["nodejs"] = absent["nodejs-slim"] = _how_to_add("nodejs", "apt-get install nodejs npm")
        absent["postgresql"] = _how_to_add("postgresql", "apt-get install libpq5 libpq-dev postgresql-client")
        return {attr: text for attr, text in {**absent, **self._other_versions()}.items() if not self._has(attr)}

    def _other_versions(self) -> dict[str, str]:
        texts = {}
        for attr, (form, versions) in hostnames.VERSIONED.items():
            have = self._series(attr)
            for version in versions:
                if version != have:
                    texts[form.format(version)] = _wrong_version(form.format(version), attr, have)
        return texts

    def _has(self, attr: str) -> bool:
        real = hostnames.ALIASES.get(attr, attr)
        return real in self.links or real in self.copies or real == "python3"

    def _series(self, attr: str) -> str | None:
        """The part of the machine's version that is part of names: node 20.1 → "20", python 3.11 → "11"."""
        real = {"python3": "python3-unwrapped", "gcc": "gcc-unwrapped", "postgresql": "libpq"}.get(attr, attr)
        package = self.links.get(real) or self.copies.get(real)
        if package is None or package.version == "host":
            return None
        parts = package.version.split(".")
        return parts[1] if attr in ("python3", "go") and len(parts) > 1 else parts[0]

    def visible(self) -> tuple[Path, ...]:
        """The directories below users' homes that linked tools live in."""
        return hosttools.visible_directories(path for link in self.links.values() for path in link.files.values())

    def witnesses(self) -> list[Path]:
        """Files whose change would change the set."""
        paths = {path for link in self.links.values() for path in link.files.values()}
        for copy in self.copies.values():
            paths |= {path for path in copy.tree.values() if not path.is_relative_to(self.python.library)}
        for module in self.modules.values():
            paths |= {path for path in module.tree.values() if path.name == "METADATA"}
        return sorted(paths)


def scan(search: Search) -> Machine:
    """Look at the machine. Changes nothing. Raises `ProgramMissing` when a program every set needs is absent."""
    packages = debian.read()
    python = hosttools.find_python(search)
    node = hosttools.find_node(search)
    rust = hosttools.find_rust(search)
    copies = hostcopies.find_copies(packages, python, node)
    links = hosttools.find_links(search, packages) | hosttools.rust_links(rust)
    return Machine(
        links=links | (hosttools.node_links(*node) if node else {}),
        copies=copies,
        needs=find_needs(copies),
        modules=hostcopies.find_modules(OUR_REQUIREMENTS, python),
        seed=hostcopies.seed_tree(),
        python=python,
        rust=rust,
    )


def find_needs(copies: Mapping[str, Copy]) -> dict[str, Needs]:
    """Which copied packages need which; what no package provides is put into the one that needs it."""
    provided: dict[str, str] = {}
    found: dict[str, Needs] = {}
    for attr, copy in copies.items():
        found[attr] = hostcopies.needs(copy.tree, provided)
        provided |= {Path(place).name: attr for place in copy.tree if place.startswith("lib/lib")}
        provided |= {Path(place).name: attr for place in copy.tree if place.startswith("lib/ld-linux")}
    return found


def sources() -> tuple[str, ...]:
    """The files of the code that scans: a new version of it looks again."""
    return (*(str(module.__file__) for module in (debian, hostcopies, hostnames, hosttools)), __file__)


def _describe_link(link: Link) -> dict[str, object]:
    return {
        "version": link.version,
        "files": {place: str(path) for place, path in link.files.items()},
        "stored": link.stored,
        "main": link.main,
        "key": _identity(link.files.values()),
    }


def _identity(paths: Iterable[Path]) -> str:
    """Changes when one of the programs does, so that what was built with it is not mistaken for current."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{hosttools.witness(path)}\n".encode())
    return digest.hexdigest()[:32]


def _tree_name(attr: str, version: str) -> str:
    return f"{attr}-{version}-host"


def _how_to_add(attr: str, command: str) -> str:
    how = command if command.startswith("get it") else f"Add it with: {command}"
    name = attr.removesuffix("-unwrapped").removesuffix("-programs")
    return f"package '{name}' is not on this machine. {how[0].upper()}{how[1:]}"


def _wrong_version(name: str, attr: str, have: str | None) -> str:
    here = f"this machine has {attr} {have}" if have else f"this machine has no {attr}"
    return f"package '{name}' is not on this machine: {here}. Install that version, or ask the flake for `{attr}`"
