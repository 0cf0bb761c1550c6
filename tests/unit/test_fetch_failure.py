"""What cargo says when it cannot fetch, in a user's words. The lines are those of cargo 1.95 and OpenSSH 9.2."""

from pathlib import Path

import pytest

from orchestrator.build.environment import fetch_access, secret_values
from orchestrator.build.fetch_failure import explain_fetch
from orchestrator.errors import BuildError, FetchError, OrchestratorError, ToolchainError

UPDATING = "    Updating git repository `ssh://git@forge.example/team/lib`"
DOWNLOADING = "error: failed to download from `https://own.example/config.json`"


def explained(*lines: str, offline: bool = False) -> OrchestratorError:
    error = BuildError("api: cargo fetch --locked failed with exit code 101", details=lines[-1:], hint="see the log")
    return explain_fetch(error, lines, service="api", source="flake.nix", offline=offline)


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
