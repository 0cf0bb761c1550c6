"""Base images made of this machine's own Debian packages, for comparisons where no image can be pulled.

An image holds the packages that own the programs asked for, and everything those depend on: what installing them
into an empty Debian would give, documentation left out.
"""

import contextlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.lab import PROGRAM, Orchestrator
from benchmarks.measure import BenchmarkError, run_checked

_TOP_LINKS = ("bin", "sbin", "lib", "lib32", "lib64")
_EMPTY_DIRECTORIES = (("tmp", 0o1777), ("var/tmp", 0o1777), ("root", 0o700), ("proc", 0o755), ("sys", 0o755),
                      ("dev", 0o755), ("run", 0o755))  # fmt: skip
_LEFT_OUT = tuple(Path(f"/usr/share/{name}") for name in ("doc", "man", "info", "locale", "lintian", "bug"))
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nwww-data:x:33:\nadm:x:4:\n",
}


@dataclass(frozen=True, slots=True)
class Package:
    """An installed package. Each dependency is a tuple of alternatives; `provides` are other names it goes by."""

    name: str
    provides: tuple[str, ...]
    depends: tuple[tuple[str, ...], ...]


def import_programs(
    engine: Orchestrator,
    name: str,
    programs: Sequence[str],
    *,
    trees: Sequence[Path] = (),
    environment: Mapping[str, str],
) -> None:
    """Store an image called `name` with the packages of `programs` (names or paths) and the directories `trees`.

    Raises `BenchmarkError` when a program is absent or from no package.
    """
    installed = read_packages(run_checked(("dpkg-query", "--show", "--showformat", PACKAGE_FORMAT)))
    owners = [_owner(program) for program in programs]
    packaged = _package_files(sorted(dependency_closure(owners, installed)))
    files = [path for path in packaged if not any(path.is_relative_to(tree) for tree in trees)]
    changes = [part for item in environment.items() for part in ("--change", "ENV {}={}".format(*item))]
    argv = [str(PROGRAM), "engine", "--", "import", "--quiet", *changes, "-", name]
    with subprocess.Popen(
        argv, env=engine.environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as child:
        assert child.stdin is not None and child.stderr is not None
        try:
            with child.stdin, tarfile.open(fileobj=child.stdin, mode="w|") as archive:
                _write_archive(archive, files, trees)
        except BrokenPipeError:
            pass
        problem = child.stderr.read().decode()
    if child.returncode != 0:
        raise BenchmarkError(f"podman import failed:\n{problem}")


PACKAGE_FORMAT = "${db:Status-Status}\t${Package}\t${Provides}\t${Pre-Depends}, ${Depends}\n"


def read_packages(text: str) -> dict[str, Package]:
    """The installed packages by each of their names, from dpkg-query's answer in `PACKAGE_FORMAT`."""
    packages: dict[str, Package] = {}
    virtual: dict[str, Package] = {}
    for line in text.splitlines():
        status, name, provides, depends = line.split("\t")
        if status != "installed":
            continue
        package = Package(name, tuple(_names(provides, ",")), tuple(_dependencies(depends)))
        packages[name] = package
        virtual.update({other: package for other in package.provides if other not in virtual})
    return virtual | packages


def dependency_closure(roots: Iterable[str], packages: Mapping[str, Package]) -> frozenset[str]:
    """The roots and what they need, the first installed alternative of each dependency; absent names are left out."""
    found: set[str] = set()
    waiting = [packages[root].name for root in roots]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for alternatives in packages[name].depends:
            chosen = next((packages[other].name for other in alternatives if other in packages), None)
            if chosen is not None:
                waiting.append(chosen)
    return frozenset(found)


def _dependencies(text: str) -> Iterator[tuple[str, ...]]:
    for alternatives in text.split(","):
        names = tuple(_names(alternatives, "|"))
        if names:
            yield names


def _names(text: str, separator: str) -> Iterator[str]:
    """Package names in a list of `name:arch (>= version)`."""
    for part in text.split(separator):
        if part.strip():
            yield part.split()[0].partition(":")[0]


def _owner(program: str) -> str:
    """The package a program, or a file given by its path, is from."""
    found = program if program.startswith("/") else shutil.which(program, path=_search_path())
    if found is None:
        raise BenchmarkError(f"{program} is not installed")
    for path in (_real(Path(found)), Path(found).resolve()):
        # A package may know its file by the name it had before /bin became a link to /usr/bin.
        for known in (str(path), str(path).removeprefix("/usr")):
            with contextlib.suppress(BenchmarkError):
                return parse_owner(run_checked(("dpkg-query", "--search", known)))
    raise BenchmarkError(f"{found} is from no Debian package, so no image can be made of it")


def parse_owner(answer: str) -> str:
    """The package in an answer of `dpkg-query --search`; which packages divert the file is said there too."""
    lines = [line for line in answer.splitlines() if not line.startswith("diversion by ")]
    return lines[0].partition(":")[0]


def _search_path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def _package_files(packages: Sequence[str]) -> list[Path]:
    """The files, links and directories of the packages, each under its real parent, parents first."""
    listed = run_checked(("dpkg-query", "--listfiles", *packages)).splitlines()
    named = {_real(Path(line)) for line in listed if line.startswith("/") and line != "/."}
    wanted = {path for path in named if not any(path.is_relative_to(out) for out in _LEFT_OUT)}
    return sorted(path for path in wanted | _alternatives() if os.path.lexists(path))


def _alternatives() -> set[Path]:
    """The links update-alternatives(1) made, which no package lists: /usr/bin/cc and what it points to."""
    chosen = set(Path("/etc/alternatives").iterdir())
    links = (path for path in Path("/usr/bin").iterdir() if path.is_symlink())
    return chosen | {path for path in links if path.readlink() in chosen}


def _real(path: Path) -> Path:
    """`path` with the links among its parents followed: /lib/x is /usr/lib/x where /lib is a link."""
    return _real_directory(path.parent) / path.name


@cache
def _real_directory(path: Path) -> Path:
    return path.resolve()


def _write_archive(archive: tarfile.TarFile, files: Iterable[Path], trees: Iterable[Path]) -> None:
    for name in _TOP_LINKS:
        if Path("/", name).is_symlink():
            archive.add(f"/{name}", arcname=name, recursive=False)
    for name, mode in _EMPTY_DIRECTORIES:
        _add_directory(archive, name, mode)
    for name, text in _FILES.items():
        _add_file(archive, name, text.encode())
    made = {*_TOP_LINKS, *_FILES, *(name for name, _ in _EMPTY_DIRECTORIES)}
    for path in files:
        name = str(path).lstrip("/")
        if name not in made:
            archive.add(path, arcname=name, recursive=False)
    for tree in trees:
        archive.add(tree, arcname=str(tree).lstrip("/"), filter=_without_documentation)


def _without_documentation(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if member.name.endswith(("/share/doc", "/share/man")) else member


def _add_directory(archive: tarfile.TarFile, name: str, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, mode
    archive.addfile(member)


def _add_file(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    archive.addfile(member, io.BytesIO(content))
