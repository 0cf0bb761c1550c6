"""What tools say when they cannot fetch, in a user's words.

The lines are those of cargo 1.95, OpenSSH 9.2, Go 1.26, npm 10, pnpm 10 and 12, uv 0.13.
"""

from pathlib import Path

import pytest

from orchestrator.build.environment import fetch_access, secret_values
from orchestrator.build.fetch_failure import Tool, explain_fetch
from orchestrator.errors import BuildError, FetchError, OrchestratorError, ToolchainError

UPDATING = "    Updating git repository `ssh://git@forge.example/team/lib`"
DOWNLOADING = "error: failed to download from `https://own.example/config.json`"


def explained(*lines: str, offline: bool = False) -> OrchestratorError:
    error = BuildError("api: cargo fetch --locked failed with exit code 101", details=lines[-1:], hint="see the log")
    return explain_fetch(error, lines, tool="cargo", service="api", source="flake.nix", offline=offline)


@pytest.mark.parametrize(
    ("lines", "message", "hint"),
    [
        (
            (UPDATING, "Host key verification failed."),
            "the ssh host key of ssh://forge.example/team/lib is not known", "ssh-keyscan",
        ),
        (
            (UPDATING, "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", "Host key verification failed."),
            "the ssh host key of ssh://forge.example/team/lib is another than before", "known_hosts",
        ),
        (
            (UPDATING, "git@forge.example: Permission denied (publickey)."),
            "ssh://forge.example/team/lib refused access over ssh", "ssh-add",
        ),
        (
            ("    Updating git repository `https://me:s3cret@forge.example/lib`", "fatal: Authentication failed for x"),
            "https://forge.example/lib refused access", "credential.helper",
        ),
        (
            ("  no token found for `my-own`, please run `cargo login --registry my-own`",),
            "the registry my-own needs a token and there is none", "CARGO_REGISTRIES_MY_OWN_TOKEN",
        ),
        (
            ("  failed to get successful HTTP response from `https://own.example/a` (192.0.2.1), got 403",),
            "https://own.example/a refused access (HTTP 403)", "credentials.toml",
        ),
        (
            ("  failed to get successful HTTP response from `https://own.example/a` (192.0.2.1), got 503",),
            "https://own.example/a answered with HTTP 503", "run again",
        ),
        (
            (DOWNLOADING, "  [6] Could not resolve hostname (Could not resolve host: own.example)"),
            "https://own.example/config.json cannot be reached", "--offline",
        ),
        (
            ("error: failed to verify the checksum of `leaf v1.0.0`",),
            "leaf v1.0.0 is not what the registry says it is: its checksum differs", "do not build it",
        ),
    ],
)  # fmt: skip
def test_one_message_with_what_to_do(lines: tuple[str, ...], message: str, hint: str):
    error = explained(*lines)
    assert isinstance(error, FetchError) and error.exit_code == 15
    assert error.message == f"api: {message}" and hint in (error.hint or "")
    assert any(line.strip() in lines[-1] or line == lines[-1] for line in error.details)


def test_the_line_that_tells_is_shown_though_cargo_said_it_early():
    error = explained(UPDATING, "Host key verification failed.", "error: failed to get `lib` as a dependency")
    assert error.details == ("Host key verification failed.", "error: failed to get `lib` as a dependency")


def test_what_is_not_known_stays_in_cargos_words():
    error = explained("error: failed to parse lock file at: /build/src/Cargo.lock")
    assert isinstance(error, FetchError) and error.message == "api: cargo fetch --locked failed with exit code 101"


def test_without_the_network_nothing_else_is_blamed():
    error = explained("  no token found for `own`, please run", offline=True)
    assert "--offline forbids it" in error.message and error.hint == "run once without --offline"


def test_a_git_that_is_missing_is_the_dev_shells():
    error = explained("  could not execute process `git fetch --no-tags` (never executed)")
    assert isinstance(error, ToolchainError) and "flake.nix" in (error.hint or "")


def test_tokens_and_passwords_are_found_wherever_they_are():
    found = secret_values(
        {
            "CARGO_REGISTRIES_OWN_TOKEN": "Bearer abcdef",
            "HTTPS_PROXY": "http://me:pass-word@proxy.example:3128",
            "GIT_CONFIG_VALUE_0": "Authorization: Basic bWU6eA==",
            "SSH_AUTH_SOCK": "/run/user/1000/agent",
            "CARGO_NET_RETRY": "3",
            "NPM_TOKEN": "1",
        }
    )
    assert found == (
        "Bearer abcdef", "abcdef", "pass-word", "Authorization: Basic bWU6eA==", "bWU6eA==",
    )  # fmt: skip


def test_ssh_gets_the_users_own_files_and_never_asks(tmp_path: Path):
    home = tmp_path / "a home"
    (home / ".ssh").mkdir(parents=True)
    for name in ("known_hosts", "config", "id_ed25519", "id_ed25519.pub"):
        (home / ".ssh" / name).touch()
    access = fetch_access({"SSH_AUTH_SOCK": str(tmp_path)}, home)
    command = access.environment["GIT_SSH_COMMAND"]
    assert f"-F '{home}/.ssh/config'" in command and f'UserKnownHostsFile="{home}/.ssh/known_hosts"' in command
    assert command.endswith("-o BatchMode=yes")
    assert {path.name for path in access.visible if path.parent.name == ".ssh"} == {
        "known_hosts", "config", "id_ed25519.pub",
    }  # fmt: skip
    assert tmp_path in access.visible
    own = fetch_access({"GIT_SSH_COMMAND": "ssh -v"}, home)
    assert own.environment["GIT_SSH_COMMAND"] == "ssh -v"
    assert "GIT_SSH_COMMAND" not in fetch_access({"GIT_SSH": "/bin/myssh"}, home).environment


def explained_by(tool: Tool, *lines: str, offline: bool = False) -> OrchestratorError:
    error = BuildError("web: the fetch failed with exit code 1", details=lines[-1:], hint="see the log")
    return explain_fetch(error, lines, tool=tool, service="web", source="flake.nix", offline=offline)


PNPM_12 = ("Error: ERR_PNPM_META_FETCH_FAIL", "", "  × installing dependencies")


@pytest.mark.parametrize(
    ("tool", "lines", "message", "hint"),
    [
        ("node", ("npm error code E401", "npm error Incorrect or missing password."),
         "the registry refused access (HTTP 401)", "~/.npmrc"),
        ("node", ("npm error code E403", "npm error 403 403 Forbidden - GET https://me:s3cret@own.example/ms"),
         "https://own.example/ms refused access (HTTP 403)", "_authToken"),
        ("node", ("npm error code E404", "npm error 404 Not Found - GET https://own.example/ms"),
         "https://own.example/ms is not there (HTTP 404)", "right name"),
        ("node", ("npm error code E500", "npm error 500 Internal Server Error - GET https://own.example/ms"),
         "https://own.example/ms answered with HTTP 500", "run again"),
        ("node", ("npm error code ECONNREFUSED",
                  "npm error FetchError: request to https://own.example/ms failed, reason: connect ECONNREFUSED ::1"),
         "https://own.example/ms cannot be reached", "proxy"),
        ("node", ("npm error code EINTEGRITY", "npm error Integrity checksum failed when using sha512: wanted a"),
         "a package is not what the lock file says it is", "do not build it"),
        ("node", (" ERR_PNPM_FETCH_401  GET https://own.example/ms/-/ms-2.1.3.tgz: Unauthorized - 401",),
         "https://own.example/ms/-/ms-2.1.3.tgz refused access (HTTP 401)", "_authToken"),
        ("node", (" ERR_PNPM_FETCH_404  GET https://own.example/ms/-/ms-2.1.3.tgz: Not Found - 404",),
         "https://own.example/ms/-/ms-2.1.3.tgz is not there (HTTP 404)", "right name"),
        ("node", (" ECONNREFUSED  request to https://own.example/ms.tgz failed, reason: connect ECONNREFUSED ::1",),
         "https://own.example/ms.tgz cannot be reached", "--offline"),
        ("node", (*PNPM_12, "  ╰─▶ ERR_PNPM_RESOLVING_NPM_RESOLVER_NETWORK_ERROR: Failed to fetch metadata",
                  "      from https://own.example/ms: HTTP status client error (401", "      Unauthorized)"),
         "https://own.example/ms refused access (HTTP 401)", "_authToken"),
        ("node", (*PNPM_12, "      from https://own.example/ms: HTTP status server error (500 Internal",),
         "https://own.example/ms answered with HTTP 500", "run again"),
        ("node", (*PNPM_12, "      from https://own.example/ms: error sending request: client error",
                  "      (Connect): tcp connect error: Connection refused (os error 111)"),
         "https://own.example/ms cannot be reached", "proxy"),
        ("go", ("go: example.org/x@v1.6.0: reading https://proxy.example/x/@v/v1.6.0.mod: 401 Unauthorized",),
         "https://proxy.example/x/@v/v1.6.0.mod refused access (HTTP 401)", ".netrc"),
        ("go", ("go: example.org/x@v1.6.0: reading https://proxy.example/x/@v/v1.6.0.mod: 404 Not Found",),
         "https://proxy.example/x/@v/v1.6.0.mod is not there (HTTP 404)", "right name"),
        ("go", ('go: x@v1: Get "https://proxy.example/x/@v/v1.mod": dial tcp [::1]:9: connect: connection refused',),
         "https://proxy.example/x/@v/v1.mod cannot be reached", "proxy"),
        ("go", ("verifying example.org/x@v1.6.0: checksum mismatch", "\tdownloaded: h1:a", "SECURITY ERROR"),
         "example.org/x@v1.6.0 is not what go.sum says it is", "do not build it"),
        ("uv", ("error: Failed to download `anyio==4.16.0`",
                "  cause: HTTP status client error (401 Unauthorized) for url (https://u:s3cret@own.example/a.whl)"),
         "https://own.example/a.whl refused access (HTTP 401)", "UV_INDEX_"),
        ("uv", ("  cause: Because a was not found in the package registry and you require a==1, we can conclude that",
                "hint: An index URL (https://own.example/simple) could not be queried due to a lack of valid"
                " authentication credentials (401 Unauthorized)",),
         "https://own.example/simple refused access (HTTP 401)", "UV_INDEX_"),
        ("uv", ("hint: An index (https://own.example/simple) returned a 403 Forbidden error. Check that the index",),
         "https://own.example/simple refused access (HTTP 403)", "UV_INDEX_"),
        ("uv", ("  cause: HTTP status client error (404 Not Found) for url (https://own.example/a.whl)",),
         "https://own.example/a.whl is not there (HTTP 404)", "right name"),
        ("uv", ("  cause: HTTP status server error (502 Bad Gateway) for url (https://own.example/a.whl)",),
         "https://own.example/a.whl answered with HTTP 502", "run again"),
        ("uv", ("  cause: Because there is no version of a==9 and you require a==9, we can conclude that",),
         "no index it may come from has a==9", "right name"),
        ("uv", ("  cause: error sending request for url (https://own.example/a.whl)", "  cause: client error (Connect)",
                "  cause: tcp connect error", "  cause: Connection refused (os error 111)"),
         "https://own.example/a.whl cannot be reached", "proxy"),
        ("uv", ("  cause: Hash mismatch for `a==0.8.0`", "         Expected:"),
         "a==0.8.0 is not what the lock file says it is", "do not build it"),
    ],
)  # fmt: skip
def test_other_tools_are_understood_too(tool: Tool, lines: tuple[str, ...], message: str, hint: str):
    error = explained_by(tool, *lines)
    assert isinstance(error, FetchError)
    assert error.message.startswith(f"web: {message}")
    assert hint in (error.hint or "")
    assert "s3cret" not in error.message
    assert error.details[-1] == lines[-1]


@pytest.mark.parametrize(
    ("tool", "line"),
    [
        ("node", "npm error code ENOTCACHED"),
        ("node", " ERR_PNPM_NO_OFFLINE_TARBALL  A package is missing from the store"),
        ("node", "  ╰─▶ ERR_PNPM_NO_OFFLINE_META: Failed to resolve ms in package mirror"),
        ("go", "go: example.org/x@v1.6.0: module lookup disabled by GOPROXY=off"),
        (
            "uv",
            "  cause: Network connectivity is disabled, but the requested data wasn't found in the cache",
        ),
        ("uv", "hint: Packages were unavailable because the network was disabled. When the network is disabled,"),
    ],
)
def test_what_was_never_fetched_is_said_offline(tool: Tool, line: str):
    error = explained_by(tool, line, offline=True)
    assert isinstance(error, FetchError)
    assert "--offline forbids it" in error.message


@pytest.mark.parametrize(
    "line",
    [
        "npm error `npm ci` can only install packages when your package.json and package-lock.json are in sync",
        ' ERR_PNPM_OUTDATED_LOCKFILE  Cannot install with "frozen-lockfile" because pnpm-lock.yaml is not up to date',
        "npm error command sh -c node install.js",
        " WARN  GET https://own.example/ms error (ECONNRESET). Will retry in 10 seconds. 2 retries left.",
    ],
)
@pytest.mark.parametrize("offline", [False, True])
def test_what_is_no_matter_of_fetching_stays_what_it_is(line: str, offline: bool):
    error = explained_by("node", line, offline=offline)
    assert isinstance(error, BuildError) and error.message == "web: the fetch failed with exit code 1"
