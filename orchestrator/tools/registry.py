"""skopeo as it talks to registries: which repository is meant, how it is reached, and copying a layout into it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from orchestrator.errors import RegistryError, UsageError
from orchestrator.process import Cancel, require, stream
from orchestrator.tools.oci import PACKAGES

CREDENTIAL_VARIABLES = ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR", "HOME")
"""Where skopeo and the other engines find the logins `podman login` and `docker login` wrote."""

_HINT = f"install it: apt-get install --no-install-recommends {PACKAGES}"
_HOST = re.compile(r"(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9a-fA-F:]+\])(?P<port>:[0-9]{1,5})?")
_PATH = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
_LOOPBACK = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|\[::1\]")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_TRANSIENT = re.compile(
    r"connection reset|broken pipe|unexpected EOF|: EOF|timeout|timed out|connection refused|closed network connection"
    r"|server closed|TLS handshake|status(?: code)?:? (?:429|5[0-9]{2})|too ?many ?requests",
    re.IGNORECASE,
)
_DEBUG = "level=debug"
_SKIPPED = re.compile(r"Skipping blob (?P<digest>sha256:[0-9a-f]{64}) \(already present\)")
_ASKED = re.compile(r"HEAD \S+/blobs/(?P<digest>sha256:[0-9a-f]{64})")
_NO_LOGIN = re.compile(
    r"unauthorized|authentication required|(?<!permission )denied|invalid username/password", re.IGNORECASE
)


class ConnectionDropped(RegistryError):
    """The registry could not be reached, or broke off; the same push may work a moment later."""


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository in a registry: `registry` is HOST or HOST:PORT, `path` what follows the first slash."""

    registry: str
    path: str

    @property
    def name(self) -> str:
        return f"{self.registry}/{self.path}"

    @property
    def is_local(self) -> bool:
        """Whether the registry is on this machine's loopback, where plain http is no risk."""
        found = _HOST.fullmatch(self.registry)
        return found is not None and _LOOPBACK.fullmatch(found["host"]) is not None


@dataclass(frozen=True, slots=True)
class Access:
    """How registries are reached: `cert_dir` holds a private CA (*.crt), `plain_http` allows http for any host."""

    environment: Mapping[str, str]
    cert_dir: Path | None = None
    plain_http: bool = False
    cancel: Cancel | None = None

    def trusts_all(self, repository: Repository) -> bool:
        """Whether http and unknown certificates will do: where that was asked for, and on loopback."""
        return self.plain_http or (repository.is_local and self.cert_dir is None)


def parse_repository(text: str) -> Repository:
    """`REGISTRY/REPO`. Raises `UsageError` when it is not one, or has a tag."""
    registry, _, path = text.partition("/")
    explicit = "." in registry or ":" in registry or registry == "localhost"
    if not explicit or not _HOST.fullmatch(registry) or not _PATH.fullmatch(path):
        raise UsageError(
            f"{text!r} does not name a repository in a registry",
            hint="write REGISTRY/REPO in lower case without a tag, such as registry.example.org/team/app",
        )
    return Repository(registry, path)


def check_tag(tag: str) -> str:
    """`tag` when it can be one. Raises `UsageError`."""
    if not _TAG.fullmatch(tag):
        raise UsageError(
            f"{tag!r} cannot be a tag", hint="use at most 128 letters, digits, underscores, dots and dashes"
        )
    return tag


def push_layout(layout: Path, destination: str, repository: Repository, access: Access) -> frozenset[str]:
    """Copy the one image of a layout to `docker://DESTINATION`, byte for byte; digests of blobs that were there.

    skopeo asks for each blob (HEAD) before it sends it. Raises `ConnectionDropped` when trying again may help,
    `RegistryError` else.
    """
    skopeo = require("skopeo", reason="push images", hint=_HINT)
    argv = [
        *(str(skopeo), "--debug", "--tmpdir", str(layout.parent), "--insecure-policy", "copy", "--preserve-digests"),
        *_destination_flags(repository, access),
        *(f"oci:{layout.name}", f"docker://{destination}"),
    ]
    lines: list[str] = []
    completed = stream(argv, on_line=lines.append, env=access.environment, cwd=layout.parent, cancel=access.cancel)
    if completed.returncode != 0:
        raise _refusal(f"push to {destination}", [line for line in lines if _DEBUG not in line])
    return blobs_found(lines)


def blobs_found(lines: list[str]) -> frozenset[str]:
    """From skopeo's debug output: the digests the registry had. Only --debug tells; what it does not tell was sent."""
    found = {match["digest"] for line in lines if (match := _SKIPPED.search(line))}
    for line, answer in pairwise(lines):
        # Layers are asked for side by side, the config alone: what follows its request is its answer.
        if (asked := _ASKED.search(line)) and "... already exists" in answer:
            found.add(asked["digest"])
    return frozenset(found)


def _destination_flags(repository: Repository, access: Access) -> list[str]:
    """What skopeo must be told about the way to the registry."""
    flags = [f"--dest-cert-dir={access.cert_dir}"] if access.cert_dir else []
    if access.trusts_all(repository):
        flags.append("--dest-tls-verify=false")
    return flags


def _refusal(purpose: str, lines: list[str]) -> RegistryError:
    """The error for what skopeo said last."""
    said = [line for line in lines if line.strip()][-8:]
    text = "\n".join(said)
    if _NO_LOGIN.search(text):
        return RegistryError(
            f"the registry did not let us {purpose}", details=said, hint="log in first: podman login REGISTRY"
        )
    if _TRANSIENT.search(text):
        return ConnectionDropped(f"the connection broke: could not {purpose}", details=said, hint="run it again")
    hint = "is the address right? A private CA goes into --cert-dir DIR; plain http needs --plain-http"
    return RegistryError(f"could not {purpose}", details=said, hint=hint)
