"""Makes what is /app in the image of a Python backend. Run in the dev shell, by the interpreter the image will have.

Usage: python3 arrange.py ENVIRONMENT TREE

ENVIRONMENT is where the packages were installed, TREE what is made: a virtual environment
(https://docs.python.org/3/library/site.html) of other people's packages, with what was installed of the monorepo's
own in src/, beside what is there already.

Nothing in TREE depends on where or when it was made. Prints a line for each package that is in it.
"""

import compileall
import csv
import json
import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from py_compile import PycInvalidationMode

NOTES = {"INSTALLER", "REQUESTED", "direct_url.json", "uv_build.json", "uv_cache.json"}
"""What an installer notes of how, when and from where it installed a package: no business of what runs."""

BUILT_FROM = {"WHEEL", "RECORD"}
"""Of our own packages nothing is needed that depends on the build system's version."""


def main(environment: Path, tree: Path) -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    installed = environment / "lib" / version / "site-packages"
    packages, sources = tree / "lib" / version / "site-packages", tree / "src"
    packages.mkdir(parents=True)
    sources.mkdir(exist_ok=True)
    make_environment(tree, Path(os.path.realpath("/proc/self/exe")))
    for distribution in sorted(metadata.distributions(path=[str(installed)]), key=lambda found: found.metadata["Name"]):
        name, source = distribution.metadata["Name"], source_of(distribution)
        if source == "local":
            copy_installed(distribution, installed, sources, unwanted=NOTES | BUILT_FROM)
        else:
            copy_installed(distribution, environment, tree, unwanted=NOTES)
        print("component", name, distribution.version, licence_of(distribution), source, sep="\t")  # noqa: T201 (read by who runs it)
    for directory in (packages, sources):
        precompile(directory, tree)


def make_environment(tree: Path, interpreter: Path) -> None:
    (tree / "bin").mkdir()
    (tree / "bin" / "python").symlink_to(interpreter)
    (tree / "pyvenv.cfg").write_text(
        f"home = {interpreter.parent}\ninclude-system-site-packages = false\nversion = {platform.python_version()}\n"
    )


def source_of(distribution: metadata.Distribution) -> str:
    """Nothing for an index, "local" for the monorepo's own, else an address (https://peps.python.org/pep-0610/)."""
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if "dir_info" in origin or str(origin.get("url", "")).startswith("file:"):
        return "local"
    version_control = origin.get("vcs_info", {})
    if version_control:
        return f"{version_control['vcs']}+{origin['url']}@{version_control['commit_id']}"
    return str(origin.get("url", ""))


def licence_of(distribution: metadata.Distribution) -> str:
    """The SPDX expression, else what the package says in a line of its own or with a classifier."""
    described = distribution.metadata
    said = described["License-Expression"] or described["License"] or ""
    classified = [name.rpartition(" :: ")[2] for name in described.get_all("Classifier", []) if name[:7] == "License"]
    short = "" if "\n" in said or said.upper() == "UNKNOWN" else said
    return " ".join((short or " AND ".join(sorted(classified))).split())


def copy_installed(distribution: metadata.Distribution, below: Path, target: Path, *, unwanted: set[str]) -> None:
    """A package's files below a directory, and its record of them.

    Scripts are left out: they name an interpreter by its absolute path.
    """
    kept = {}
    for row in csv.reader((distribution.read_text("RECORD") or "").splitlines()):
        path = Path(os.path.normpath(str(distribution.locate_file(row[0]))))
        if path.is_relative_to(below) and is_wanted(path, path.relative_to(below), unwanted):
            copy(path, target / path.relative_to(below))
            kept[path] = row
    for path in kept:
        if is_noted(path, {"RECORD"}):
            with (target / path.relative_to(below)).open("w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(sorted(kept.values()))


def is_wanted(path: Path, place: Path, unwanted: set[str]) -> bool:
    return (
        path.is_file() and place.parts[0] != "bin" and "__pycache__" not in place.parts and not is_noted(path, unwanted)
    )


def is_noted(path: Path, names: set[str]) -> bool:
    return path.parent.suffix == ".dist-info" and path.name in names


def copy(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target, follow_symlinks=False)


def precompile(directory: Path, tree: Path) -> None:
    """Bytecode that is valid by its path alone: in an image times say nothing (https://peps.python.org/pep-0552/).

    In one process and in order, since what was compiled before decides which objects a file shares. What is no
    Python of this version is left as it is.
    """
    compileall.compile_dir(
        directory,
        maxlevels=100,
        quiet=2,
        invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
        stripdir=str(tree),
        prependdir="/app",
    )


if __name__ == "__main__":
    main(*(Path(place).resolve() for place in sys.argv[1:]))
