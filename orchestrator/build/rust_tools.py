"""What a dev shell offers to Rust: its compiler, and a linker quicker than the usual one. Asked once for each shell."""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from orchestrator.build.elf import Elf, ElfError, read_elf
from orchestrator.build.environment import step_environment
from orchestrator.build.steps import Bench, Command, run_command
from orchestrator.errors import BuildError, ToolchainError
from orchestrator.files import read_json, write_json

_PROBE = """\
cd "$1" || exit
echo "variables ${!RUSTFLAGS*} ${!CARGO_*} ${!CFLAGS*} ${!CXXFLAGS*}"
rustc --version || exit
echo 'fn main() { println!("{:?}", std::env::args()); }' >probe.rs
for name in mold lld; do
  type -P "ld.$name" >/dev/null || continue
  [ -e usual ] || rustc probe.rs -o usual || exit
  rustc "-Clink-arg=-fuse-ld=$name" probe.rs -o "$name" && IFS= read -r version < <("ld.$name" --version) &&
    echo "linker $name $version"
done
exit 0
"""
"""The quickest first. What is compiled needs the C library and the compiler's, as every program in Rust does."""


_FORMAT = 1
_LINKING = re.compile(r"RUSTFLAGS|CARGO_(ENCODED|BUILD)_RUSTFLAGS|CARGO_TARGET_\w+_(LINKER|RUSTFLAGS)")
"""Variables that say how to link, or that take the place of the flags we give (The Cargo Book, "build.rustflags")."""


@dataclass(frozen=True, slots=True)
class Linker:
    """A linker the shell has. `fit` when programs it links find what those of the usual one find."""

    name: str
    version: str
    fit: bool


@dataclass(frozen=True, slots=True)
class RustTools:
    """`rustc` is what `rustc --version` says, "" when there is none; `linkers` beside the usual one, quickest first.

    `variables` are names of what the shell itself sets of cargo's variables and of flags.
    """

    rustc: str = ""
    linkers: tuple[Linker, ...] = ()
    variables: frozenset[str] = frozenset()

    @property
    def linker(self) -> Linker | None:
        """The one to link with; None for the usual one, or for what the shell's own variables say."""
        if any(_LINKING.fullmatch(name) for name in self.variables):
            return None
        return next((linker for linker in self.linkers if linker.fit), None)


NO_RUST = RustTools()
"""Nothing is known of the dev shell."""


def inspect_rust(bench: Bench, cache_dir: Path) -> RustTools:
    """What the dev shell of `bench` has, as found before, else found now. Raises `Interrupted`."""
    record = cache_dir / "rustc" / f"{bench.toolchain.key[:32]}.json"
    known = read_json(record)
    if isinstance(known, dict) and known.get("format") == _FORMAT:
        linkers = tuple(Linker(**row) for row in known["linkers"])
        return RustTools(known["rustc"], linkers, frozenset(known["variables"]))
    found = _ask(bench)
    if found.rustc:
        write_json(record, {**asdict(found), "variables": sorted(found.variables), "format": _FORMAT})
    return found


def _ask(bench: Bench) -> RustTools:
    said: list[str] = []
    place = bench.workspace.seen("tmp")
    probe = Command(("bash", "-c", _PROBE, "probe", str(place)), PurePosixPath(), step_environment(bench.workspace))
    hear: Callable[[str], None] = said.append
    with suppress(BuildError, ToolchainError):  # what the build needs and the shell lacks is the build's to tell
        run_command(bench, probe, read=hear)
    directory = bench.workspace.path / "tmp"
    rustc = next((line for line in said if line.startswith("rustc ")), "")
    rows = [line.split(" ", 2)[1:] for line in said if line.startswith("linker ")]
    linkers = tuple(Linker(name, version, _is_fit(directory, name)) for name, version in rows)
    variables = next((line for line in said if line.startswith("variables ")), "").split()[1:]
    return RustTools(rustc, linkers, frozenset(variables))


def _is_fit(directory: Path, name: str) -> bool:
    """Whether the linker gives programs the same dynamic loader and search path as the usual one does.

    nixpkgs' usual linker is wrapped: it adds the directories of what is linked. A linker that is not wrapped
    (nixpkgs' `lld`, its `mold` before 26.05) makes programs that do not find their libraries.
    """
    try:
        usual, other = read_elf(directory / "usual"), read_elf(directory / name)
    except (OSError, ElfError):
        return False
    return usual is not None and other is not None and _search(usual) == _search(other)


def _search(elf: Elf) -> tuple[object, ...]:
    return elf.interpreter, frozenset((*elf.rpath, *elf.runpath)), frozenset(elf.needed)
