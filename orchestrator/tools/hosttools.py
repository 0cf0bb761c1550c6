"""Finds this machine's compilers and command-line tools, and where they really live.

A version manager's shim (rustup's `cargo`, pyenv's `python3`) works only for the user who installed it, with their
HOME; the package set must work without either, so the real programs are looked up.
"""

import os
import pwd
import re
import shutil
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator import process
from orchestrator.errors import OrchestratorError
from orchestrator.files import read_json
from orchestrator.tools.debian import Debian
from orchestrator.tools.hostnames import BEHIND_LIBRARIES, PACKAGES, RUST_COMPONENTS

_USUAL_PATH = "/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Link:
    """A package made of symlinks: place in the package → program on this machine.

    `stored` names packages of the set that are linked whole.
    """

    version: str
    files: Mapping[str, Path]
    main: str
    stored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rust:
    """The toolchains on this machine: version → directory, channel → version."""

    toolchains: Mapping[str, Path] = field(default_factory=dict)
    channels: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None

    def targets(self, version: str) -> tuple[str, ...]:
        libraries = (self.toolchains[version] / "lib/rustlib").glob("*/lib")
        return tuple(sorted(path.parent.name for path in libraries))


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter with its standard library. `version` is "3.11"."""

    version: str
    program: Path
    library: Path


@dataclass(frozen=True, slots=True)
class Search:
    """Where to look: directories of programs, home directories of the user."""

    path: str
    homes: tuple[Path, ...]
    environment: Mapping[str, str]

    def program(self, name: str) -> Path | None:
        """Where `name` is, with `/bin` and other links to directories followed."""
        found = shutil.which(name, path=self.path)
        return Path(found).parent.resolve() / name if found else None

    def programs(self, names: Iterable[str]) -> dict[str, Path]:
        found = {name: self.program(name) for name in names}
        return {name: path for name, path in found.items() if path}


def make_search(environment: Mapping[str, str]) -> Search:
    """Search the user's PATH (shim directories left out), then the usual places, also when PATH or HOME is empty."""
    given = [part for part in environment.get("PATH", "").split(":") if part and not part.endswith("/shims")]
    directories = dict.fromkeys([*given, *_USUAL_PATH.split(":")])
    homes = [environment.get("HOME", ""), pwd.getpwuid(os.getuid()).pw_dir]
    return Search(
        path=":".join(directories),
        homes=tuple(Path(home) for home in dict.fromkeys(homes) if home and Path(home).is_dir()),
        environment=environment,
    )


def find_links(search: Search, debian: Debian) -> dict[str, Link]:
    """Every ordinary package of the tables that is on this machine."""
    found = {attr: _link(attr, *row, search, debian) for attr, row in {**PACKAGES, **BEHIND_LIBRARIES}.items()}
    links = {attr: link for attr, link in found.items() if link}
    if go := links.get("go"):
        links["go"] = replace(go, version=_go_version(go.files["bin/go"].resolve()) or go.version)
    if pnpm := links.get("pnpm"):
        links["pnpm"] = replace(pnpm, version=_npm_version(pnpm.files["bin/pnpm"].resolve()) or pnpm.version)
    if "gawk" not in links and (awk := search.program("awk")):
        links["gawk"] = Link(version=debian.version("mawk") or "host", files={"bin/awk": awk}, main="awk")
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    if certificates.exists():
        links["cacert"] = Link(
            version=debian.version("ca-certificates") or "host",
            files={"etc/ssl/certs/ca-bundle.crt": certificates},
            main="",
        )
    return links


def _link(attr: str, package: str, names: str, search: Search, debian: Debian) -> Link | None:
    first = package.split()[0]
    programs = search.programs(names.split()) if names else debian.programs(first)
    if not programs or (names and names.split()[0] not in programs and len(programs) < 2):
        return None
    main = names.split()[0] if names else attr
    files = {f"bin/{name}": path for name, path in programs.items()}
    return Link(version=debian.version(first) or "host", files=files, main=main)


def _go_version(program: Path) -> str | None:
    """The version in the file beside Go's directory of programs: "go1.22.1", then other lines."""
    try:
        said = (program.parent.parent / "VERSION").read_text()
    except OSError:
        return None
    return said.split()[0].removeprefix("go")


def _npm_version(program: Path) -> str | None:
    """The version in the package.json of the npm package whose bin/ has the program."""
    manifest = read_json(program.parent.parent / "package.json")
    version = manifest.get("version") if isinstance(manifest, dict) else None
    return version if isinstance(version, str) else None


def install_hint(package: str) -> str:
    """What to type to get `package`, a row's first column."""
    name, _, how = package.partition(" (")
    return how.rstrip(")").replace("see ", "get it from ") if how else f"apt-get install {name}"


def rust_links(rust: Rust) -> dict[str, Link]:
    """The default toolchain's components under nixpkgs' names, and every toolchain as a whole."""
    links = {
        f"rust-toolchain-{version}": Link(version, _programs_in(root / "bin", "*"), main="rustc")
        for version, root in rust.toolchains.items()
    }
    if rust.default is not None:
        root = rust.toolchains[rust.default]
        for attr, names in RUST_COMPONENTS.items():
            if found := _programs_in(root / "bin", *names.split()):
                links[attr] = Link(rust.default, found, main=names.split()[0])
    return links


def node_links(version: str, program: Path) -> dict[str, Link]:
    """Node with npm and its companions: node itself is the copied one, so that an image can contain it."""
    companions = _programs_in(program.parent, "npm", "npx", "corepack")
    return {"nodejs": Link(version, companions, main="node", stored=("nodejs-slim",))}


def _programs_in(directory: Path, *patterns: str) -> dict[str, Path]:
    found = sorted(path for pattern in patterns for path in directory.glob(pattern) if path.exists())
    return {f"bin/{path.name}": path for path in found}


def find_rust(search: Search) -> Rust:
    """rustup's toolchains, or the distribution's compiler when there is no rustup."""
    home = _rustup_home(search)
    if home is None:
        return _plain_rust(search)
    directories = sorted(path.resolve() for path in (home / "toolchains").iterdir() if (path / "bin/rustc").exists())
    default = _default_toolchain(search, home, directories)
    ordered = sorted(directories, key=lambda directory: directory != default)
    versions = {directory: _first_version(directory / "bin/rustc") for directory in ordered}
    toolchains: dict[str, Path] = {}
    for directory, version in versions.items():
        toolchains.setdefault(version, directory)
    return Rust(
        toolchains=toolchains,
        channels={_channel(directory): version for directory, version in versions.items()},
        default=versions[default] if default else None,
    )


def _rustup_home(search: Search) -> Path | None:
    return next((path for path in _rustup_homes(search) if (path / "toolchains").is_dir()), None)


def _rustup_homes(search: Search) -> list[Path]:
    """Where rustup may keep its toolchains: as configured, in the user's home, beside the program on PATH."""
    configured = search.environment.get("RUSTUP_HOME")
    shim = search.program("rustup")
    return [
        *([Path(configured)] if configured else []),
        *(home / ".rustup" for home in search.homes),
        *([shim.parent.parent.parent / ".rustup"] if shim else []),
    ]


def _default_toolchain(search: Search, home: Path, directories: list[Path]) -> Path | None:
    """RUSTUP_TOOLCHAIN, else rustup's default, else the first stable one."""
    try:
        configured = tomllib.loads((home / "settings.toml").read_text()).get("default_toolchain", "")
    except (OSError, tomllib.TOMLDecodeError):
        configured = ""
    wanted = search.environment.get("RUSTUP_TOOLCHAIN") or configured
    for prefix in (wanted, "stable", ""):
        for directory in directories:
            if (prefix or wanted == prefix) and directory.name.startswith(prefix):
                return directory
    return directories[0] if directories else None


def _channel(directory: Path) -> str:
    """`stable-x86_64-unknown-linux-gnu` → `stable`."""
    return re.sub(r"-[a-z0-9_]+-unknown-linux-\w+$", "", directory.name)


def _plain_rust(search: Search) -> Rust:
    compiler = search.program("rustc")
    if compiler is None:
        return Rust()
    root = compiler.resolve().parent.parent
    version = _first_version(compiler)
    return Rust(toolchains={version: root}, channels={"stable": version}, default=version)


def find_node(search: Search) -> tuple[str, Path] | None:
    """Version and real path of node: on PATH, else the newest of nvm's."""
    program = search.program("node")
    if program is None:
        installed = [path for home in search.homes for path in home.glob(".nvm/versions/node/*/bin/node")]
        program = max(installed, key=lambda path: _numbers(path.parent.parent.name), default=None)
    return (_first_version(program), program.resolve()) if program else None


def find_python(search: Search) -> Python:
    """The interpreter for dev shells and for our own package: compiled modules must fit, so the running version.

    The distribution's is preferred, because two machines with the same packages then have the same Python; an
    interpreter of a virtual environment or of the Nix store is never a model.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [Path("/usr"), Path(sys.base_prefix)]
    candidates += [path.resolve().parent.parent for path in [search.program(f"python{version}")] if path]
    usable = [
        prefix
        for prefix in candidates
        if (prefix / f"bin/python{version}").exists() and (prefix / f"lib/python{version}/os.py").exists()
    ]
    outside = [prefix for prefix in usable if not prefix.is_relative_to("/nix/store")]
    prefix = next(iter([*outside, *usable]))
    return Python(version, program=prefix / f"bin/python{version}", library=prefix / f"lib/python{version}")


def watched(search: Search) -> tuple[Path, ...]:
    """Places outside PATH where version managers write when they install or choose a version."""
    places = [directory / name for directory in _rustup_homes(search) for name in ("settings.toml", "toolchains")]
    return (*places, *(home / ".nvm/versions/node" for home in search.homes))


def witness(path: Path) -> tuple[str, str, int, int]:
    """A path, what it really is, its size and the time it was changed."""
    try:
        real = path.resolve()
        status = real.stat()
    except OSError:
        return (str(path), "", 0, 0)
    return (str(path), str(real), status.st_size, status.st_mtime_ns)


def visible_directories(targets: Iterable[Path]) -> tuple[Path, ...]:
    """The directories below users' homes that `targets` really live in, no deeper than their version's root."""
    homes = {Path(user.pw_dir) for user in pwd.getpwall() if user.pw_dir.startswith(("/home/", "/root"))}
    found = set()
    for target in targets:
        real = target.resolve()
        if any(real.is_relative_to(home) for home in homes):
            root = real.parent.parent if real.parent.name == "bin" else real.parent
            found.add(real.parent if root in homes or root.name.startswith(".") else root)
    return tuple(sorted(found))


def _first_version(program: Path) -> str:
    """The first version number that `program --version` prints, "host" when it prints none."""
    try:
        said = process.run([str(program), "--version"], timeout=20).stdout
    except OrchestratorError:
        return "host"
    found = re.search(r"\d+(\.\d+)+(-nightly|-beta(\.\d+)?)?", said)
    return found[0] if found else "host"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
