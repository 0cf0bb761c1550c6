"""Where the user's crates come from: their own cargo configuration, taken apart into what a workspace may have.

Mirrors and registries go into the workspace, because a crate's identity depends on them, in the offline build too.
Secrets go into the variables of the fetch step only. Flags and wrappers go nowhere: builds are the same for everybody.
"""

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.build.workspace import Workspace
from orchestrator.files import write_atomically

_SHARED_TABLES = ("source", "registries", "registry", "net", "http", "patch")
_SECRET_KEYS = frozenset({"token", "secret-key", "credential-provider", "global-credential-providers", "proxy"})
_INDEX = re.compile(r"CARGO_REGISTRIES_[A-Z0-9_]+_INDEX")
_PATH_KEYS = frozenset({"directory", "local-registry", "cainfo"})


@dataclass(frozen=True, slots=True)
class UserConfig:
    """The user's own cargo configuration.

    `tables` and `variables` say where crates come from and hold no secret; `secrets` are the tokens, as the
    variables cargo reads them from; `visible` are files and directories the tables name.
    """

    tables: Mapping[str, Any]
    variables: Mapping[str, str]
    secrets: Mapping[str, str]
    visible: tuple[Path, ...]


def read_user_config(environ: Mapping[str, str], home: Path) -> UserConfig:
    """The user's registries and mirrors, from CARGO_HOME and the environment."""
    cargo_home = Path(environ.get("CARGO_HOME") or home / ".cargo")
    config = read_toml(cargo_home, "config")
    credentials = read_toml(cargo_home, "credentials")
    tables = {name: config[name] for name in _SHARED_TABLES if name in config}
    found: list[Path] = []
    cleaned = _cleaned(tables, cargo_home.parent, found)
    return UserConfig(
        tables=cleaned,
        variables={name: value for name, value in environ.items() if _INDEX.fullmatch(name)},
        secrets=_tokens(config) | _tokens(credentials),
        visible=tuple(path for path in found if path.exists()),
    )


def write_config(workspace: Workspace, config: UserConfig) -> None:
    """Give the workspace's CARGO_HOME the user's registries, for the offline build too: crate ids depend on them."""
    path = workspace.path / "cargo" / "config.toml"
    content = to_toml(config.tables)
    if not path.is_file() or path.read_text() != content:
        write_atomically(path, content)


def read_toml(directory: Path, name: str) -> dict[str, Any]:
    """A TOML file of cargo's, with or without its extension; {} when absent or damaged (cargo says it better)."""
    for path in (directory / name, directory / f"{name}.toml"):
        try:
            return tomllib.loads(path.read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
            continue
    return {}


def _cleaned(table: Mapping[str, Any], base: Path, found: list[Path]) -> dict[str, Any]:
    """`table` without secrets, its relative paths made whole (they count from `base`) and noted in `found`."""
    cleaned: dict[str, Any] = {}
    for key, value in table.items():
        if key in _SECRET_KEYS and not isinstance(value, dict):  # a registry may be called "proxy"
            continue
        if isinstance(value, dict):
            cleaned[key] = _cleaned(value, base, found)
        elif key in _PATH_KEYS and isinstance(value, str):
            path = Path(os.path.normpath(base / value))
            found.append(path)
            cleaned[key] = str(path)
        else:
            cleaned[key] = value
    return cleaned


def _tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Registry tokens, and the proxy's address with its password, as the variables cargo reads them from."""
    tokens = {}
    if proxy := table(config, "http").get("proxy"):
        tokens["CARGO_HTTP_PROXY"] = str(proxy)
    if token := table(config, "registry").get("token"):
        tokens["CARGO_REGISTRY_TOKEN"] = str(token)
    for name, registry in table(config, "registries").items():
        if isinstance(registry, dict) and registry.get("token"):
            tokens[f"CARGO_REGISTRIES_{name.upper().replace('-', '_')}_TOKEN"] = str(registry["token"])
    return tokens


def table(config: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The table at a path of keys; {} when there is none."""
    found: Any = config
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, dict) else {}


def to_toml(tables: Mapping[str, Any], prefix: str = "") -> str:
    """TOML text of nested tables. JSON's strings (DEL aside), numbers, booleans and arrays are TOML's as well."""
    plain = [(key, value) for key, value in tables.items() if not isinstance(value, dict)]
    text = "".join(f"{_toml_value(key)} = {_toml_value(value)}\n" for key, value in plain)
    for key, value in tables.items():
        if isinstance(value, dict):
            name = f"{prefix}{_toml_value(key)}"
            text += f"\n[{name}]\n" + to_toml(value, f"{name}.")
    return text


def _toml_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_toml_value(item) for item in value)}]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_toml_value(key)} = {_toml_value(item)}" for key, item in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
