"""What will be done, decided without I/O: same settings and project, same plan."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

Kind = Literal["frontend", "backend"]


@dataclass(frozen=True, slots=True)
class Step:
    """One program run inside the build workspace, in the dev shell.

    `directory` is relative to the monorepo's root. Only a step with `network` can reach the network and the
    user's registry credentials.
    """

    name: Literal["fetch", "build"]
    argv: tuple[str, ...]
    directory: PurePosixPath
    network: bool
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class CargoOutput:
    """The artifact is the executable cargo names for this package's binary target."""

    package: str
    binary: str


@dataclass(frozen=True, slots=True)
class TreeOutput:
    """The artifact is a directory, relative to the monorepo's root."""

    directory: PurePosixPath


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """How one service is built. `framework` is "vite" or "rust"; `lock_file` is relative to the monorepo."""

    service: str
    kind: Kind
    framework: str
    directory: PurePosixPath
    lock_file: PurePosixPath
    steps: tuple[Step, ...]
    output: CargoOutput | TreeOutput


@dataclass(frozen=True, slots=True)
class Proxy:
    """What the web server hands to a backend listening on the pod's loopback.

    `prefix` is kept ("/api" goes to "/api"); "/" hands over everything; `exact` paths (health endpoints) too.
    """

    backend: str
    port: int
    prefix: str
    exact: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WebPlan:
    """The nginx of a release: a directory of files, an API, or both.

    `spa` serves index.html for unknown paths without a file extension.
    """

    static: str | None
    spa: bool
    proxy: Proxy | None


@dataclass(frozen=True, slots=True)
class BackendPlan:
    """How a backend container runs: given PORT=`port` and HOST=0.0.0.0.

    `health_path` is asked until it answers 2xx; without one, "/" must answer below 500. `api_path` is asked once
    through nginx before success is printed; None asks `health_path` through nginx.
    """

    service: str
    port: int
    health_path: str | None
    api_path: str | None
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """One application: what is built, what is served, what runs."""

    app: str
    builds: tuple[BuildPlan, ...]
    web: WebPlan
    backend: BackendPlan | None
