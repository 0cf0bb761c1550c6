"""The logins `podman login` and `docker login` keep: containers-auth.json(5), and Docker's credential helpers."""

import base64
import binascii
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import OrchestratorError
from orchestrator.process import run


@dataclass(frozen=True, slots=True)
class Login:
    """What a registry is told; `refresh_token` stands in the place of both where a login gave one."""

    user: str
    password: str
    refresh_token: str = ""

    @property
    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def find_login(registry: str, path: str, environment: Mapping[str, str]) -> Login | None:
    """The login for a repository: the most specific entry of the first file that has one."""
    for file in auth_files(environment):
        try:
            config = json.loads(file.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(config, dict) and (login := _from_config(config, registry, path, environment)):
            return login
    return None


def auth_files(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Where engines keep logins, in the order skopeo reads them."""
    if chosen := environment.get("REGISTRY_AUTH_FILE"):
        return (Path(chosen),)
    runtime = Path(environment.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.geteuid()}")
    home = Path(environment.get("HOME", "/nonexistent"))
    configuration = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    docker = Path(environment.get("DOCKER_CONFIG") or home / ".docker")
    first = runtime / "containers" if environment.get("XDG_RUNTIME_DIR") else runtime
    return (first / "auth.json", configuration / "containers" / "auth.json", docker / "config.json")


def _from_config(config: dict[str, Any], registry: str, path: str, environment: Mapping[str, str]) -> Login | None:
    entries = config.get("auths", {})
    for name in _names(registry, path):
        entry = entries.get(name, {})
        if entry.get("auth") or entry.get("identitytoken"):
            return _from_entry(entry)
    helper = config.get("credHelpers", {}).get(registry) or config.get("credsStore")
    return _ask_helper(helper, registry, environment) if helper else None


def _names(registry: str, path: str) -> Iterator[str]:
    """From `host/team/app` up to `host`, then the forms older Dockers wrote."""
    parts = path.split("/")
    for length in range(len(parts), -1, -1):
        yield "/".join((registry, *parts[:length]))
    yield from (f"https://{registry}", f"https://{registry}/v1/", f"https://{registry}/v2/")


def _from_entry(entry: dict[str, Any]) -> Login | None:
    try:
        user, _, password = base64.b64decode(entry.get("auth", "")).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return Login(user, password.rstrip("\0"), entry.get("identitytoken", ""))


def _ask_helper(helper: str, registry: str, environment: Mapping[str, str]) -> Login | None:
    """What `docker-credential-HELPER get` answers; None when it knows nothing or is not installed."""
    try:
        said = run([f"docker-credential-{helper}", "get"], env=environment, stdin=registry.encode(), check=False)
        answer = json.loads(said.stdout)
    except (OrchestratorError, ValueError):
        return None
    token = answer.get("Secret", "") if answer.get("Username") == "<token>" else ""
    return Login(answer.get("Username", ""), answer.get("Secret", ""), token)
