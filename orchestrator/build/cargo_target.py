"""Rust for another platform: what the dev shell must have for it, and what cargo must be told.

A target needs its standard library, a linker, and the libc programs are linked with. From nixpkgs all three come as a
toolchain with that target and `pkgsCross`; from Debian the libc is not in the Nix store, so it is linked statically.
"""

from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import ToolchainError
from orchestrator.tools.platforms import Architecture

_STORE = Path("/nix/store")
_PKGS_CROSS = {"amd64": "gnu64", "arm64": "aarch64-multiplatform", "ppc64le": "powernv"}
"""nixpkgs' names for the package sets of architectures, where they are others (`lib/systems/examples.nix`)."""


@dataclass(slots=True)
class Target:
    """What the dev shell said it has for one target: the library's directory, the C compiler, the libc's start file."""

    architecture: Architecture
    said: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The target's triple."""
        return self.architecture.rust

    def read(self, line: str) -> bool:
        """Take in a line of the probe's; whether it was one."""
        what, _, value = line.partition(" ")
        if what not in ("std", "compiler", "start"):
            return False
        self.said[what] = value
        return True

    def require(self, service: str) -> None:
        """Raises `ToolchainError` naming all that is missing, and how to get it."""
        if missing := self._missing():
            platform = self.architecture.platform
            cross = _PKGS_CROSS.get(self.architecture.name, self.architecture.name)
            raise ToolchainError(
                f"{service} cannot be built for {platform}: the dev shell has no {', no '.join(missing)}",
                hint=f"with nixpkgs add pkgsCross.{cross}.stdenv.cc and a Rust toolchain with the target {self.name};"
                f" with this machine's tools: rustup target add {self.name}, and"
                f" apt-get install gcc-{self._gnu} libc6-dev-{self.architecture.debian}-cross",
            )

    def variables(self) -> dict[str, str]:
        """The target for every cargo command, and the compiler for it, for C code too (the cc crate's variables)."""
        compiler, upper, lower = self.said.get("compiler", ""), self.name.upper(), self.name.replace("-", "_")
        chosen = {"CARGO_BUILD_TARGET": self.name}
        if compiler:
            chosen |= {f"CARGO_TARGET_{upper.replace('-', '_')}_LINKER": compiler, f"CC_{lower}": compiler}
        return chosen

    def flags(self) -> tuple[str, ...]:
        """A libc that no image could have is linked into the program."""
        start = self.said.get("start", "")
        return ("-Ctarget-feature=+crt-static",) if start and not Path(start).is_relative_to(_STORE) else ()

    def _missing(self) -> list[str]:
        library, compiler, start = (self.said.get(what, "") for what in ("std", "compiler", "start"))
        missing = []
        if not library or not any(Path(library).glob("libstd-*")):
            missing.append(f"Rust standard library for {self.name}")
        if not compiler:
            missing.append(f"C compiler to link with ({self.name}-gcc or {self._gnu}-gcc)")
        elif not start.startswith("/"):
            missing.append(f"libc for it (its {compiler} finds no crt1.o)")
        return missing

    @property
    def _gnu(self) -> str:
        """As Debian calls its compilers."""
        kernel = "powerpc64le" if self.architecture.kernel == "ppc64le" else self.architecture.kernel
        return f"{kernel}-linux-gnu"
