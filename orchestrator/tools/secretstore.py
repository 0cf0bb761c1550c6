"""podman's secret store: values go in through standard input, and only containers get them out."""

from collections.abc import Mapping

from orchestrator.tools.podman import Engine


def list_secrets(engine: Engine, *, prefix: str) -> frozenset[str]:
    """The names of all secrets that begin with `prefix`."""
    names = engine.run("secret", "ls", "--format", "{{.Name}}").stdout.split()
    return frozenset(name for name in names if name.startswith(prefix))


def create_secret(engine: Engine, name: str, value: str, labels: Mapping[str, str]) -> None:
    """Store a value of 1 to 512,000 bytes under a new name. Raises `EngineError` when there is one of that name."""
    marks = (part for key, text in labels.items() for part in ("--label", f"{key}={text}"))
    engine.run("secret", "create", *marks, name, "-", stdin=value.encode())


def remove_secret(engine: Engine, name: str) -> None:
    """Forget a secret; an absent one is fine. A container that has it cannot be started again."""
    engine.ask("secret", "rm", name)
