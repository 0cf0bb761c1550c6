"""The values of an application's variables, in the engine's secret store under names that tell equal ones apart.

A name ends in a keyed hash of the value: the same value is stored once and used by every release that has it, and
a record that names it gives nothing away without the key beside it. Generated values end in "generated" instead.
"""

import hashlib
import hmac
import secrets
from pathlib import Path

from orchestrator.deploy.environment import Environment
from orchestrator.deploy.names import APP
from orchestrator.deploy.state import AppStore
from orchestrator.files import write_atomically
from orchestrator.tools.podman import Engine
from orchestrator.tools.secretstore import create_secret, list_secrets, remove_secret

GENERATED_BYTES = 48
"""Random bytes of a generated secret: 64 characters."""

_GENERATED = "generated"


def generated_variables(engine: Engine, app: str) -> frozenset[str]:
    """The variables for which a secret was generated before."""
    names = (name.rsplit(".", 2) for name in list_secrets(engine, prefix=_prefix(app)))
    return frozenset(parts[1] for parts in names if parts[2] == _GENERATED)


def store_values(engine: Engine, store: AppStore, environment: Environment) -> dict[str, str]:
    """Have every secret value of the environment in the store. Returns variable → name of its secret.

    A variable generated once keeps its value, and is given as long as nothing else is said about it.
    """
    if not environment.secret and not environment.generated and not _key_file(store).exists():
        return {}
    _key(store)
    present = list_secrets(engine, prefix=_prefix(store.app))
    values = {_name(store, variable, value): value for variable, value in environment.secret.items()}
    said = environment.secret.keys() | environment.plain.keys()
    for variable in environment.generated | (generated_variables(engine, store.app) - said):
        values[f"{_prefix(store.app)}{variable}.{_GENERATED}"] = secrets.token_urlsafe(GENERATED_BYTES)
    for name in values.keys() - present:
        create_secret(engine, name, values[name], {APP: store.app})
    return {name.rsplit(".", 2)[1]: name for name in sorted(values)}


def sweep_values(engine: Engine, store: AppStore) -> None:
    """Forget values no recorded release has; generated ones stay until the application is removed."""
    if not _key_file(store).exists():
        return
    records = store.releases()
    used = {name for record in records if record.backend for name in record.backend.secrets.values()}
    for name in list_secrets(engine, prefix=_prefix(store.app)) - used:
        if not name.endswith(f".{_GENERATED}"):
            remove_secret(engine, name)


def remove_values(engine: Engine, store: AppStore) -> None:
    """Forget every value of the application."""
    if _key_file(store).exists():
        for name in list_secrets(engine, prefix=_prefix(store.app)):
            remove_secret(engine, name)


def _prefix(app: str) -> str:
    return f"orchestrator.{app}."


def _name(store: AppStore, variable: str, value: str) -> str:
    digest = hmac.digest(_key(store), f"{variable}\0{value}".encode(), hashlib.sha256).hex()[:32]
    return f"{_prefix(store.app)}{variable}.{digest}"


def _key(store: AppStore) -> bytes:
    path = _key_file(store)
    if not path.exists():
        write_atomically(path, secrets.token_bytes(32), mode=0o600)
    return path.read_bytes()


def _key_file(store: AppStore) -> Path:
    return store.directory / "environment.key"
