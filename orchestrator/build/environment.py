"""The environment of a step, made from nothing; and what of the user's configuration a fetch may use.

A build step sees none of the user's variables. A fetch step gets the ways to reach registries: mirrors, proxies,
certificates and credentials, always through the environment or read-only files, never through arguments.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.build.workspace import Workspace
from orchestrator.process import find

SOURCE_DATE_EPOCH = "315532800"
"""1 January 1980, what nixpkgs' own stdenv uses: the same for every commit and machine."""

_FETCH_PREFIXES = ("npm_config_", "NPM_CONFIG_", "pnpm_config_", "PNPM_CONFIG_", "PIP_", "UV_", "GOPROXY",
                   "GONOPROXY", "GOPRIVATE", "GOSUMDB", "GONOSUMDB", "GONOSUMCHECK", "GOINSECURE", "GOAUTH",
                   "CARGO_REGISTRIES_", "CARGO_REGISTRY_", "CARGO_NET_", "CARGO_HTTP_", "GIT_SSH",
                   "GIT_CONFIG_")  # fmt: skip
_FETCH_NAMES = frozenset((
    "SSL_CERT_FILE", "SSL_CERT_DIR", "NIX_SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO",
    "REQUESTS_CA_BUNDLE", "SSH_AUTH_SOCK", "NPM_TOKEN", "NODE_AUTH_TOKEN", "http_proxy", "https_proxy", "ftp_proxy",
    "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY",
))  # fmt: skip
_HOME_FILES = {
    "NPM_CONFIG_USERCONFIG": (".npmrc",),
    "PIP_CONFIG_FILE": (".config/pip/pip.conf", ".pip/pip.conf"),
    "GIT_CONFIG_GLOBAL": (".gitconfig", ".config/git/config"),
    "GOENV": (".config/go/env",),
}
_HOME_READ = (".ssh/known_hosts", ".ssh/config", ".ssh/config.d", ".git-credentials", ".config/git/credentials")
_PUBLIC_KEYS = ".ssh/*.pub"
"""What `IdentitiesOnly` in ~/.ssh/config picks the agent's key by."""
_SECRET_NAME = re.compile(r"token|passw|secret|auth", re.IGNORECASE)
_USER_IN_ADDRESS = re.compile(r"://([^/@\s]+)@")
_SHORTEST_SECRET = 4
_SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True, slots=True)
class FetchAccess:
    """How a fetch step reaches registries: variables, and the user's files it must be able to read."""

    environment: Mapping[str, str]
    visible: tuple[Path, ...]


def step_environment(workspace: Workspace) -> dict[str, str]:
    """What every step gets. PATH names a directory that does not exist: programs come from the dev shell alone."""
    return {
        "PATH": str(workspace.seen("home") / "bin"),
        "HOME": str(workspace.seen("home")),
        "USER": "build",
        "LOGNAME": "build",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "NO_COLOR": "1",
        "TZ": "UTC",
        "CI": "true",
        "TMPDIR": str(workspace.seen("tmp")),
        "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH,
    }


def fetch_access(environ: Mapping[str, str], home: Path) -> FetchAccess:
    """The user's registries, mirrors, proxies and certificates, from the environment and the home directory."""
    wanted = {name: value for name, value in environ.items() if _is_fetch_variable(name)}
    for variable, candidates in _HOME_FILES.items():
        found = [home / name for name in candidates if (home / name).is_file()]
        if found and variable not in wanted:
            wanted[variable] = str(found[0])
    for name, value in list(wanted.items()):  # pnpm reads them under other names since its version 11
        if name.startswith(("npm_config_", "NPM_CONFIG_")):
            wanted.setdefault(f"p{name}" if name.startswith("n") else f"p{name.lower()}", value)
    if "SSL_CERT_FILE" not in wanted and _SYSTEM_CERTIFICATES.is_file():
        wanted["SSL_CERT_FILE"] = str(_SYSTEM_CERTIFICATES)
    if "SSL_CERT_FILE" in wanted:  # node brings authorities of its own and knows no other way to add the machine's
        wanted.setdefault("NODE_EXTRA_CA_CERTS", wanted["SSL_CERT_FILE"])
    named = [Path(value) for value in wanted.values() if value.startswith("/")]
    read = [*(home / name for name in _HOME_READ), *home.glob(_PUBLIC_KEYS)]
    if "GIT_SSH" not in wanted:
        wanted.setdefault("GIT_SSH_COMMAND", _ssh_command(home))
    return FetchAccess(wanted, tuple(path for path in (*named, *read) if path.exists()))


def _ssh_command(home: Path) -> str:
    """ssh as git is to call it: never asking, with the user's own configuration and known hosts.

    The machine's own ssh, because a dev shell rarely has one. Its system-wide configuration is left out: in a user
    namespace its files seem to belong to nobody, and ssh refuses them.
    """
    config = home / ".ssh" / "config"
    return shlex.join(
        (
            *(str(find("ssh") or "ssh"), "-F", str(config) if config.is_file() else "none"),
            *("-o", f'UserKnownHostsFile="{home / ".ssh" / "known_hosts"}"', "-o", "BatchMode=yes"),
        )
    )


def secret_values(environment: Mapping[str, str]) -> tuple[str, ...]:
    """What in these variables must not be seen: tokens and passwords, also those in addresses."""
    found = dict.fromkeys(value for name, value in environment.items() for value in _secrets_in(name, value))
    return tuple(found)


def _secrets_in(name: str, value: str) -> Iterator[str]:
    named = _SECRET_NAME.search(name) or "authorization:" in value.lower()
    if named and len(value) >= _SHORTEST_SECRET and not value.startswith("/"):
        yield value
        yield value.split()[-1]  # of "Bearer abc", which tools may show without its first word
    yield from (user.rpartition(":")[2] for user in _USER_IN_ADDRESS.findall(value) if len(user) >= _SHORTEST_SECRET)


def _is_fetch_variable(name: str) -> bool:
    return name in _FETCH_NAMES or name.startswith(_FETCH_PREFIXES)


def home_directory(environ: Mapping[str, str]) -> Path:
    """The user's home directory: HOME, else the password database's; tools keep their configuration there."""
    return Path(environ.get("HOME") or Path.home())
