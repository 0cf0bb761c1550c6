"""What an image can be made for, and what each program that has a word in it calls that.

Names of platforms are those of the OCI Image Format Specification ("linux/arm64"), which took them from Go.
"""

import platform as machine
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Architecture:
    """One processor architecture. `variant` is what OCI adds to its name; `elf` the e_machine of its programs."""

    name: str
    kernel: str
    rust: str
    debian: str
    elf: int
    variant: str = ""

    @property
    def platform(self) -> str:
        """As OCI and our options name it."""
        return f"linux/{self.name}"

    @property
    def nix(self) -> str:
        """The name of the system in Nix."""
        return f"{'powerpc64le' if self.kernel == 'ppc64le' else self.kernel}-linux"


_KNOWN = (
    Architecture("amd64", "x86_64", "x86_64-unknown-linux-gnu", "amd64", 62),
    Architecture("arm64", "aarch64", "aarch64-unknown-linux-gnu", "arm64", 183, variant="v8"),
    Architecture("riscv64", "riscv64", "riscv64gc-unknown-linux-gnu", "riscv64", 243),
    Architecture("ppc64le", "ppc64le", "powerpc64le-unknown-linux-gnu", "ppc64el", 21),
)

PLATFORMS = {architecture.platform: architecture for architecture in _KNOWN}
"""Every platform images can be asked for."""


def host_platform() -> str:
    """What programs made on this machine run on when nothing else is asked for."""
    kernel = machine.machine()
    return next((known.platform for known in _KNOWN if known.kernel == kernel), f"linux/{kernel}")


def parse_platform(text: str) -> str:
    """A platform by its usual names ("linux/arm64/v8" is "linux/arm64"). Raises `ValueError` for an unknown one."""
    os, _, rest = text.strip().partition("/")
    for known in _KNOWN:
        names = (known.name, f"{known.name}/{known.variant}", known.kernel)
        if os == "linux" and rest in names:
            return known.platform
    raise ValueError(f"{text!r} is not a platform images can be made for: {', '.join(PLATFORMS)}")


def architecture_name(platform: str) -> str:
    """The part after the system: "arm64"."""
    return platform.partition("/")[2]


def platform_name(machine: tuple[int, int, int]) -> str:
    """The platform of an ELF file's (class, byte order, e_machine), or its number where it is none of ours."""
    known = next((item.platform for item in _KNOWN if machine == (2, 1, item.elf)), None)
    return known or f"machine {machine[2]} ({'64' if machine[0] == 2 else '32'} bits)"
