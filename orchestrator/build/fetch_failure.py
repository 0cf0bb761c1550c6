"""Why cargo could not fetch, in one message: what was refused or not reached, by whom, and what to do."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import FetchError, OrchestratorError, ToolchainError

_ADDRESS = re.compile(r"(?:unable to update|failed to download from|Updating git repository) `?(\S+://[^`#\s]+)")
_USER = re.compile(r"//[^/@]*@")


@dataclass(frozen=True, slots=True)
class _Cause:
    """`pattern` finds the line that tells; `message` and `hint` may use its groups, and {address}."""

    pattern: re.Pattern[str]
    message: str
    hint: str


_TOKEN = "put it into ~/.cargo/credentials.toml (cargo login --registry {name}) or into the variable {variable}"
_KNOWN_HOSTS = (
    "compare the key with what the server's owner says, then add it: ssh-keyscan -p PORT HOST >> ~/.ssh/known_hosts"
)
_AGENT = (
    "builds get the keys of your ssh agent, never key files: eval $(ssh-agent); ssh-add, then try ssh -T there. What"
    " stands in ~/.ssh/config counts with net.git-fetch-with-cli = true in ~/.cargo/config.toml"
)
_PASSWORD = (
    "git has to find the password without asking: credential.helper = store in ~/.gitconfig, or a token in the address"
    " through url.<base>.insteadOf"
)
_OFFLINE = "run once without --offline"


def _cause(pattern: str, message: str, hint: str) -> _Cause:
    return _Cause(re.compile(pattern), message, hint)


_CAUSES = (
    _cause(
        r"failed to verify the checksum of `(?P<what>\S+ v[^\s`]+)",
        "{what} is not what the registry says it is: its checksum differs",
        "try again; if it stays so the registry or a mirror gives a damaged or another crate: do not build it",
    ),
    _cause(
        r"checksum for `(?P<what>\S+ v[^\s`]+).* changed between lock files",
        "{what} is not what Cargo.lock says it is: its checksum differs",
        "find out whether the lock file or the registry is wrong; if the crate was published anew: cargo update NAME",
    ),
    _cause(
        r"SSH host key has changed for|REMOTE HOST IDENTIFICATION HAS CHANGED",
        "the ssh host key of {address} is another than before",
        "ask the server's owner; if the new key is right put it into ~/.ssh/known_hosts in place of the old one",
    ),
    _cause(
        r"unknown SSH host key|Host key verification failed|host key .* (?:revoked|not permitted)",
        "the ssh host key of {address} is not known",
        _KNOWN_HOSTS,
    ),
    _cause(
        r"no token found for `(?P<name>[^`]+)`",
        "the registry {name} needs a token and there is none",
        _TOKEN,
    ),
    _cause(
        r"token rejected for `(?P<name>[^`]+)`",
        "the registry {name} refused the token",
        _TOKEN,
    ),
    _cause(
        r"registry index was not found in any configuration: `(?P<name>[^`]+)`",
        "nothing says where the registry {name} is",
        "add [registries.{name}] with its index to .cargo/config.toml in the monorepo or to ~/.cargo/config.toml",
    ),
    _cause(
        r"no matching package named `(?P<what>[^`]+)` found|select a version for the requirement `(?P<wish>[^`]+)`",
        "no registry it may come from has {what}{wish}",
        "is it the right name, version and registry? A mirror in ~/.cargo/config.toml may lag behind",
    ),
    _cause(
        r"response from `(?P<where>[^`]+)`.* got (?P<code>401|403|407)",
        "{where} refused access (HTTP {code})",
        "does the user's token allow reading? A registry in ~/.cargo/config.toml is given the token that stands in"
        " ~/.cargo/credentials.toml or in CARGO_REGISTRIES_NAME_TOKEN",
    ),
    _cause(
        r"response from `(?P<where>[^`]+)`.* got (?P<code>\d+)",
        "{where} answered with HTTP {code}",
        "is the registry (or the mirror in ~/.cargo/config.toml) the right one, and in order? Then run again",
    ),
    _cause(
        r"Permission denied \(|no usernames succeeded",
        "{address} refused access over ssh",
        _AGENT,
    ),
    _cause(
        r"could not read (?:Username|Password) for|Authentication failed for|failed to authenticate|"
        r"no authentication methods succeeded|failed to acquire username/password",
        "{address} refused access",
        _PASSWORD,
    ),
    _cause(
        r"(?:Could not|Couldn't) (?:resolve|connect)|[Ff]ailed to (?:connect|resolve)"
        r"|Connection (?:refused|reset|timed)|Network is unreachable|Operation timed out"
        r"|[Tt]imeout was reached|SSL (?:peer|connect)|certificate",
        "{address} cannot be reached",
        "check the network, the proxy and the registry's address; what was fetched before builds with --offline",
    ),
)  # fmt: skip


def explain_fetch(
    error: OrchestratorError, said: Sequence[str], *, service: str, source: str, offline: bool
) -> OrchestratorError:
    """The error for a fetch that ended with `error` after cargo had `said` so many lines.

    `source` is the dev shell's flake. What no cause is known for stays as it is, but for the exit code.
    """
    if any("could not execute process `git " in line for line in said):
        return ToolchainError(
            f"the dev shell has no git, which {service} needs: cargo's net.git-fetch-with-cli is set",
            hint=f"add git to the packages of the dev shell ({source})",
        )
    if offline:
        message = f"{service}: not all dependencies were fetched before, and --offline forbids it now"
        return FetchError(message, details=error.details, hint=_OFFLINE)
    for cause in _CAUSES:
        for line in said:
            if found := cause.pattern.search(line):
                return _error(cause, found, error, said, service)
    return FetchError(error.message, details=error.details, hint=error.hint)


def _error(
    cause: _Cause, found: re.Match[str], error: OrchestratorError, said: Sequence[str], service: str
) -> FetchError:
    words = {"address": _address(said), **found.groupdict("")}
    name = words.get("name", "")
    words["variable"] = f"CARGO_REGISTRIES_{name.upper().replace('-', '_')}_TOKEN"
    telling = found.string.strip()
    missing = [telling] if all(telling not in line for line in error.details) else []
    return FetchError(
        f"{service}: {cause.message.format_map(words)}",
        details=[*missing, *error.details],
        hint=cause.hint.format_map(words),
    )


def _address(said: Sequence[str]) -> str:
    """What cargo was last asking, without anybody's name or password."""
    found = [match[1] for line in said if (match := _ADDRESS.search(line))]
    return _USER.sub("//", found[-1]) if found else "the registry"
