"""A backend's own part of its image: one executable, or an interpreter's packages and the code it runs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.image.contents import read_application, read_program
from orchestrator.image.layers import Entry, Link

_LIBRARY = re.compile(r"app/lib/[^/]+\.so[^/]*")


@dataclass(frozen=True, slots=True)
class Application:
    """What was built: an executable, or a tree that holds an interpreter and is started by `command`.

    `directory` is where a command starts, `defaults` are variables it has unless a container is given others.
    """

    path: Path
    command: tuple[str, ...] = ()
    directory: str = "/"
    defaults: tuple[tuple[str, str], ...] = ()

    @property
    def entrypoint(self) -> tuple[str, ...]:
        """What starts it in an image."""
        return self.command or (f"/app/bin/{self.path.name}",)


def application_layers(application: Application, store: Path) -> dict[str, Sequence[Entry]]:
    """Its entries: what changes with the lock file below what changes with the sources.

    Raises `ImageError` when it is no executable file, or holds what cannot be in an image.
    """
    if not application.command:
        return {"application": (read_program(application.path, f"app/bin/{application.path.name}"),)}
    packages, own = read_application(application.path, "app", store=store)
    return {"dependencies": packages, "application": own}


def application_environment(
    application: Application, layers: Mapping[str, Sequence[Entry]]
) -> tuple[tuple[str, str], ...]:
    """PATH, the defaults, and where other people's extension modules find the libraries they count on (ld.so(8))."""
    entries = (entry for layer in layers.values() for entry in layer)
    links = any(isinstance(entry, Link) and _LIBRARY.fullmatch(entry.path) for entry in entries)
    return (
        ("PATH", "/app/bin"),
        *application.defaults,
        *((("LD_LIBRARY_PATH", "/app/lib"),) if links else ()),
    )
