"""What dpkg knows about this machine, read from its database without starting a program."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DATABASE = Path("/var/lib/dpkg")
DOCUMENTS = Path("/usr/share/doc")

_FIELD = re.compile(r"^(Package|Status|Version|Architecture): (.*)$", re.MULTILINE)
_COPYRIGHT = re.compile(r"^(Files|License): *(.*)$", re.MULTILINE)
_PROGRAM_DIRECTORIES = ("/bin", "/usr/bin", "/sbin", "/usr/sbin")


@dataclass(frozen=True, slots=True)
class Debian:
    """The installed packages: name → version as dpkg writes it. Empty on a machine without dpkg."""

    database: Path
    versions: Mapping[str, str]

    def has(self, *packages: str) -> bool:
        return all(package in self.versions for package in packages)

    def version(self, package: str) -> str:
        """Upstream's part of the version, "" when the package is not installed."""
        return upstream_version(self.versions.get(package, ""))

    def files(self, package: str) -> tuple[Path, ...]:
        """Every path of an installed package, directories included."""
        lists = (self.database / "info" / f"{package}.list", *self._foreign_lists(package))
        found = next((path for path in lists if path.exists()), None)
        return tuple(Path(line) for line in found.read_text().splitlines()) if found else ()

    def programs(self, package: str) -> dict[str, Path]:
        """The commands of an installed package: name → path."""
        return {
            path.name: path
            for path in self.files(package)
            if str(path.parent) in _PROGRAM_DIRECTORIES and path.is_file()
        }

    def _foreign_lists(self, package: str) -> list[Path]:
        return sorted((self.database / "info").glob(f"{package}:*.list"))


def licences(package: str, documents: Path = DOCUMENTS) -> tuple[str, ...]:
    """The licences of a package's files, sorted, in Debian's names; none where its copyright file is free text.

    Format: "Machine-readable debian/copyright file", 1.0. Those of the packaging itself are left out.
    """
    try:
        text = (documents / package / "copyright").read_text(errors="replace")
    except OSError:
        return ()
    if not text.startswith("Format:"):
        return ()
    stanzas = (dict(_COPYRIGHT.findall(stanza)) for stanza in re.split(r"\n\s*\n", text))
    named = {
        stanza.get("License", "") for stanza in stanzas if not stanza.get("Files", "debian/").startswith("debian/")
    }
    return tuple(sorted(" ".join(name.split()) for name in named if name.strip()))


def read(database: Path = DATABASE) -> Debian:
    """The machine's packages; one pass over dpkg's status file."""
    try:
        status = (database / "status").read_text(errors="replace")
    except OSError:
        status = ""
    return Debian(database=database, versions=installed_versions(status))


def installed_versions(status: str) -> dict[str, str]:
    """Name → version of the packages that are fully installed, from the text of dpkg's status file."""
    versions: dict[str, str] = {}
    for stanza in status.split("\n\n"):
        fields = dict(_FIELD.findall(stanza))
        if fields.get("Status", "").endswith(" ok installed") and "Version" in fields:
            versions.setdefault(fields["Package"], fields["Version"])
    return versions


def upstream_version(version: str) -> str:
    """`1:3.0.19-1~deb12u2` → `3.0.19`: without epoch and Debian revision, with no character Nix refuses."""
    without_epoch = version.partition(":")[2] or version
    upstream = without_epoch.rpartition("-")[0] or without_epoch
    return re.sub(r"[^0-9A-Za-z.+_-]", ".", upstream)
