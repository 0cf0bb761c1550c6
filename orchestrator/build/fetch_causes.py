"""What tools say when they cannot fetch, and what that means: tables for cargo, Go, npm, pnpm and uv."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cause:
    """`pattern` finds the line that tells; `message` and `hint` may use its groups, and cargo's {address}."""

    pattern: re.Pattern[str]
    message: str
    hint: str


def _cause(pattern: str, message: str, hint: str) -> Cause:
    return Cause(re.compile(pattern), message, hint)


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
_NPMRC = (
    "does the token in ~/.npmrc (//HOST/:_authToken=…) allow reading? Registries are set there, or in the monorepo's"
    " .npmrc"
)
_GO_LOGIN = "does ~/.netrc or git's configuration have the login, and GOPRIVATE the module? GOPROXY names the mirrors"
_UNREACHABLE = "check the network, the proxy and the registry's address; what was fetched before builds with --offline"
_IN_ORDER = "is the registry (or the mirror) the right one, and in order? Then run again"
_NOT_THERE = "is it the right name, version and registry? Private packages are hidden without a token; mirrors may lag"
_REFUSALS = "401|403|407"
_BROKEN = (
    "ECONNREFUSED|ECONNRESET|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ERR_SOCKET_TIMEOUT|CERT_|certificate"
    "|error sending request|client error"
)

CARGO = (
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
        _UNREACHABLE,
    ),
)  # fmt: skip

GO = (
    _cause(
        r"verifying (?P<what>\S+): checksum mismatch",
        "{what} is not what go.sum says it is: its checksum differs",
        "find out whether go.sum or the server is wrong: do not build it",
    ),
    _cause(
        rf"reading (?P<where>\S+): (?P<code>{_REFUSALS}) ",
        "{where} refused access (HTTP {code})",
        _GO_LOGIN,
    ),
    _cause(
        r"reading (?P<where>\S+): (?P<code>404|410) ",
        "{where} is not there (HTTP {code})",
        _NOT_THERE,
    ),
    _cause(
        r"reading (?P<where>\S+): (?P<code>\d{3}) ",
        "{where} answered with HTTP {code}",
        _IN_ORDER,
    ),
    _cause(
        r"terminal prompts disabled|could not read Username|Permission denied \(publickey",
        "git was refused access to a module",
        _GO_LOGIN,
    ),
    _cause(
        r'(?:Get|Head) "(?P<where>[^"]+)": (?:dial|read|net/http|x509|tls|context|EOF|remote)',
        "{where} cannot be reached",
        _UNREACHABLE,
    ),
)

NODE = (
    _cause(
        r"EINTEGRITY|ERR_PNPM_TARBALL_INTEGRITY|does not match the integrity",
        "a package is not what the lock file says it is: its checksum differs",
        "find out whether the lock file or the registry is wrong: do not build it",
    ),
    _cause(
        rf"(?P<code>{_REFUSALS}) [A-Z][\w ]* - GET (?P<where>https?://\S+)"
        rf"|GET (?P<there>https?://\S+): [\w ]+ - (?P<number>{_REFUSALS})\b"
        rf"|from (?P<place>https?://\S+): HTTP status client error \((?P<status>{_REFUSALS})\b",
        "{where}{there}{place} refused access (HTTP {code}{number}{status})",
        _NPMRC,
    ),
    _cause(
        r"code E401\b",
        "the registry refused access (HTTP 401)",
        _NPMRC,
    ),
    _cause(
        r"404 Not Found - GET (?P<where>https?://\S+)|GET (?P<there>https?://\S+): Not Found - 404"
        r"|from (?P<place>https?://\S+): HTTP status client error \(404\b",
        "{where}{there}{place} is not there (HTTP 404)",
        _NOT_THERE,
    ),
    _cause(
        r"(?P<code>[45]\d\d) [A-Z][\w ]* - GET (?P<where>https?://\S+)"
        r"|GET (?P<there>https?://\S+): [\w ]+ - (?P<number>[45]\d\d)\b"
        r"|from (?P<place>https?://\S+): HTTP status \w+ error \((?P<status>\d{3})\b",
        "{where}{there}{place} answered with HTTP {code}{number}{status}",
        _IN_ORDER,
    ),
    _cause(
        rf"(?P<where>https?://[^\s,]+?):? (?:failed|error).{{0,120}}?(?:{_BROKEN})",
        "{where} cannot be reached",
        _UNREACHABLE,
    ),
    _cause(
        r"code (?:ECONNREFUSED|ECONNRESET|ENOTFOUND|EAI_AGAIN|ETIMEDOUT)\b",
        "the registry cannot be reached",
        _UNREACHABLE,
    ),
)

UV = (
    _cause(
        r"Hash mismatch for `(?P<what>[^`]+)`",
        "{what} is not what the lock file says it is: its checksum differs",
        "find out whether the lock file or the index is wrong: do not build it",
    ),
    _cause(
        rf"\((?P<where>https?://[^)\s]+)\).*\(?(?P<code>{_REFUSALS}) (?:Unauthorized|Forbidden|Proxy)"
        rf"|HTTP status client error \((?P<status>{_REFUSALS}) [^)]*\) for url \((?P<there>[^)\s]+)\)",
        "{where}{there} refused access (HTTP {code}{status})",
        "the login comes from UV_INDEX_NAME_USERNAME and UV_INDEX_NAME_PASSWORD, or stands in UV_DEFAULT_INDEX",
    ),
    _cause(
        r"HTTP status client error \(404 [^)]*\) for url \((?P<where>[^)\s]+)\)",
        "{where} is not there (HTTP 404)",
        _NOT_THERE,
    ),
    _cause(
        r"HTTP status \w+ error \((?P<code>\d{3}) [^)]*\) for url \((?P<where>[^)\s]+)\)",
        "{where} answered with HTTP {code}",
        _IN_ORDER,
    ),
    _cause(
        r"Because (?P<what>\S+) was not found in the package registry|there is no version of (?P<wish>\S+) and",
        "no index it may come from has {what}{wish}",
        _NOT_THERE,
    ),
    _cause(
        r"error sending request for url \((?P<where>[^)\s]+)\)",
        "{where} cannot be reached",
        _UNREACHABLE,
    ),
)

OFFLINE = re.compile(
    r"disabled by GOPROXY=off|ENOTCACHED|ERR_PNPM_NO_OFFLINE|network (?:was|connectivity is) disabled", re.IGNORECASE
)
"""What Go, npm, pnpm and uv say of what was never fetched; with cargo, whatever fails without the network is that."""
