"""The configuration model and its cascade: defaults < orchestrator.toml < environment < flags.

Everything the user can decide is a field here; the settings reference in docs/ is generated from it.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, SecretStr, ValidationError, field_validator

from orchestrator.errors import UsageError
from orchestrator.tools.platforms import parse_platform

FILE_NAME = "orchestrator.toml"
ENVIRONMENT_PREFIX = "ORCHESTRATOR_"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LISTS = ("domains", "only", "skip", "platforms", "generate_secrets")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DOMAIN = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

Toolchain = Literal["auto", "flake", "host"]
Assembler = Literal["oci", "buildah", "podman"]
Preset = Literal["DEV", "PRO"]
Layout = Literal["pod", "single"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Model):
    """What one container may use."""

    memory: str = Field("256m", pattern=r"^[1-9][0-9]*[bkmg]$", description="memory, swap included")
    cpus: float = Field(1.0, gt=0, description="processor cores")
    pids: int = Field(256, gt=0, description="processes and threads")

    def plus(self, other: "Limits") -> "Limits":
        """What two containers with such limits may use together."""
        memory = _memory_bytes(self.memory) + _memory_bytes(other.memory)
        return Limits(memory=f"{memory}b", cpus=self.cpus + other.cpus, pids=self.pids + other.pids)


def _memory_bytes(limit: str) -> int:
    """Bytes of a memory limit as the engine reads it: powers of 1024."""
    return int(limit[:-1]) * (1 << 10 * "bkmg".index(limit[-1]))


class Health(_Model):
    """How a release is asked whether it is ready to serve, and whether it is alive."""

    path: str | None = Field(None, description="backend path that tells it is alive; found in the source when absent")
    ready_path: str | None = Field(
        None, description="backend path that tells it is ready; found in the source, else the one above"
    )
    interval: float = Field(1.0, gt=0, description="seconds between two tries")
    timeout: float = Field(5.0, gt=0, description="seconds one try may take")
    deadline: float | None = Field(
        None, gt=0, description="seconds a release has to become ready; 60, or 3 times the slowest seen when absent"
    )
    retries: int = Field(3, ge=1, description="failures in a row after which `watch` restarts a service")
    start_period: float | None = Field(
        None, ge=0, description="seconds after a start in which failures do not count; the deadline when absent"
    )


class Required(_Model):
    """What the value of a variable must be like."""

    min_length: int = Field(1, ge=1, description="fewest characters")


class Service(_Model):
    """What one service is given."""

    environment: dict[str, str] = Field({}, description="variables that are no secrets: they are written down here")
    required: dict[str, Required] = Field({}, description="variables without which nothing is deployed")
    replicas: int = Field(1, ge=1, le=32, description="how many containers of it share the requests")

    @field_validator("environment", "required")
    @classmethod
    def _check_variables(cls, variables: dict[str, Any]) -> dict[str, Any]:
        for name in variables:
            if not VARIABLE.fullmatch(name):
                raise ValueError(f"{name!r} cannot name a variable")
        return variables


class Services(_Model):
    """The services that run."""

    backend: Service = Field(Service(), description="the backend")


_SOURCE = re.compile(r"[A-Za-z0-9*._~:/?=&%+@\[\]-]+|'[a-z0-9-]+'")
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]+)?|null")


class Csp(_Model):
    """Sources pages may use beside their own origin."""

    report_only: bool = Field(False, description="report violations to the browser's console, block nothing")
    connect: tuple[str, ...] = Field((), description="for fetch, EventSource and WebSocket")
    img: tuple[str, ...] = Field((), description="for images")
    script: tuple[str, ...] = Field((), description="for scripts")
    style: tuple[str, ...] = Field((), description="for style sheets")
    font: tuple[str, ...] = Field((), description="for fonts")
    frame: tuple[str, ...] = Field((), description="for frames")

    @field_validator("connect", "img", "script", "style", "font", "frame")
    @classmethod
    def _check_sources(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        for source in sources:
            if not _SOURCE.fullmatch(source):
                raise ValueError(f"{source!r} is not a source such as https://tiles.example.org or 'unsafe-inline'")
        return sources


class Web(_Model):
    """How the web servers answer."""

    body_size: str = Field("25m", pattern=r"^(0|[1-9][0-9]*[kmg]?)$", description="largest request body, 0 for any")
    csp: Csp = Field(Csp(), description="sources pages may use beside their own origin")
    cors_origins: tuple[str, ...] = Field((), description="origins of other sites whose pages may call the API")
    hsts_seconds: int = Field(0, ge=0, description="how long browsers insist on TLS; 0 leaves HSTS off")
    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(
        (), description="networks of proxies before the edge, whose forwarded headers are believed"
    )
    flood_limit: int = Field(200, ge=0, description="requests a second from one client, beyond which it gets 429")
    source_maps: bool | None = Field(
        None, description="serve the source maps the build makes; by default with env DEV only"
    )
    edge_snippet: str = Field("", description="nginx directives for the application's server block at the edge")

    @field_validator("edge_snippet")
    @classmethod
    def _check_snippet(cls, snippet: str) -> str:
        """It stays within its server block: another application's is not its business."""
        depth = 0
        for brace in re.findall("[{}]", snippet):
            depth += 1 if brace == "{" else -1
            if depth < 0:
                break
        if depth:
            raise ValueError("its braces do not match")
        return snippet

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is not an origin such as https://shop.example.org")
        return origins


_SIZE = r"^[1-9][0-9]*[kmg]$"


class ImageRules(_Model):
    """What images may hold."""

    allow: tuple[str, ...] = Field((), description="names of store paths and programs that may be in an image")
    budget: dict[str, Annotated[str, Field(pattern=_SIZE)]] = Field(
        {}, description='most bytes of a service\'s image, such as {backend = "40m"}'
    )


class Settings(_Model):
    """Everything one run was asked to do."""

    name: str = Field(description="the application's name: lower-case letters, digits and dashes, at most 63")
    monorepo: Path = Field(Path(), description="the monorepo's directory")
    domains: tuple[str, ...] = Field((), description="names the application is served under")
    layout: Layout = Field("pod", description="a container for each service, or one image and container for all")
    port: int = Field(8080, ge=1, le=65535, description="port on 127.0.0.1 the application is published on")
    frontend_dir: str | None = Field(None, description="the frontend's directory, relative to the monorepo")
    backend_dir: str | None = Field(None, description="the backend's directory, relative to the monorepo")
    backend_port: int | None = Field(None, ge=1, le=65535, description="port the backend listens on")
    backend_bin: str | None = Field(None, description="which of several binaries is the backend")
    frontend_build: str | None = Field(None, description="command that builds the frontend, run in its directory")
    backend_build: str | None = Field(None, description="command that builds the backend, run in its directory")
    api_prefix: str = Field("/api", pattern=r"^/[A-Za-z0-9._~-]+$", description="path prefix that goes to the backend")
    strip_prefix: bool = Field(False, description="take the prefix away before the backend sees the path")
    allow_absolute_urls: bool = Field(False, description="deploy a frontend that asks the visitor's own machine")
    api_base: str | None = Field(
        None, description="value of the frontend's API variable; found in the source when absent"
    )
    only: tuple[str, ...] = Field((), description="services to build; all when empty")
    skip: tuple[str, ...] = Field((), description="services to leave out")
    toolchain: Toolchain = Field("auto", description="the flake's own nixpkgs, or this machine's own tools")
    offline: bool = Field(False, description="never use the network")
    jobs: int = Field(0, ge=0, description="build jobs in parallel over all services; 0 is one per core")
    serial: bool = Field(False, description="build one service after the other")
    keep_going: bool = Field(False, description="let the other builds finish when one fails")
    write_lock: bool = Field(False, description="write a missing lock file into the monorepo")
    ignore_rust_toolchain: bool = Field(False, description="build with the dev shell's Rust whatever is asked for")
    assembler: Assembler = Field("oci", description="what assembles the images")
    platforms: tuple[str, ...] = Field((), description="what images are made for, such as linux/arm64; this machine's")
    keep_releases: int = Field(5, ge=1, description="how many releases are kept")
    keep_bytes: str = Field("5g", pattern=_SIZE, description="bytes of caches and unused images `gc` keeps")
    image: ImageRules = Field(ImageRules(), description="what images may hold")
    web: Web = Field(Web(), description="how the web servers answer")
    env: Preset = Field("PRO", description="DEV or PRO: presets below every explicit setting")
    cert: Path | None = Field(None, description="certificate chain of the domains, PEM")
    key: Path | None = Field(None, description="private key of the certificate, PEM")
    http_port: int | None = Field(
        None, ge=1, le=65535, description="the edge's port; 80, or 8080 where that is not free"
    )
    https_port: int | None = Field(
        None, ge=1, le=65535, description="its TLS port; 443, or 8443 where that is not free"
    )
    env_file: Path | None = Field(None, description="file of the backend's variables, KEY=VALUE on each line")
    variables: tuple[SecretStr, ...] = Field((), description="the backend's variables, KEY=VALUE each; --var only")
    generate_secrets: tuple[str, ...] = Field((), description="variables given a random value once and for all")
    services: Services = Field(Services(), description="what the services are given")
    web_limits: Limits = Field(Limits(memory="128m"), description="limits of the web container")
    backend_limits: Limits = Field(Limits(), description="limits of the backend container")
    health: Health = Field(Health(), description="probes of a new release")
    state_dir: Path = Field(description="where releases are recorded and the engine stores images")
    cache_dir: Path = Field(description="where workspaces and caches are")

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("use 1 to 63 lower-case letters, digits and dashes, not starting or ending with a dash")
        return name

    @field_validator("platforms")
    @classmethod
    def _check_platforms(cls, platforms: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(parse_platform(part) for text in platforms for part in text.split(",")))

    @field_validator("domains")
    @classmethod
    def _check_domains(cls, domains: tuple[str, ...]) -> tuple[str, ...]:
        for domain in domains:
            if not _DOMAIN.fullmatch(domain):
                raise ValueError(f"{domain!r} is not a host name")
        return domains


def parse_bytes(size: str) -> int:
    """Bytes of a size such as "40m"; k, m and g are powers of 1000."""
    return int(size[:-1]) * {"k": 1_000, "m": 1_000_000, "g": 1_000_000_000}[size[-1]]


def keep_bytes_from(given: str | None, environ: Mapping[str, str]) -> int:
    """`keep_bytes` for a command that belongs to no application: given, the variable's, or the default.

    Raises `UsageError` for what is no size.
    """
    default = str(Settings.model_fields["keep_bytes"].default)
    size = given or environ.get(f"{ENVIRONMENT_PREFIX}KEEP_BYTES") or default
    if not re.fullmatch(_SIZE, size):
        raise UsageError(f"{size!r} is not a size", hint="write it as 500m or 5g")
    return parse_bytes(size)


def check_name(name: str) -> str:
    """`name` when it can name an application. Raises `UsageError`: names end up in paths, labels and host names."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name an application",
            hint="use 1 to 63 lower-case letters, digits and dashes, not starting or ending with a dash",
        )
    return name


def load_settings(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Merge the cascade; `flags` holds only what was given on the command line.

    Raises `UsageError` naming the setting, its value and where it came from.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    monorepo = Path(given.get("monorepo") or environ.get(f"{ENVIRONMENT_PREFIX}MONOREPO") or ".").absolute()
    layers = (
        {"state_dir": default_state_dir(environ), "cache_dir": default_cache_dir(environ)},
        _read_file(monorepo / FILE_NAME),
        _read_environment(environ),
        given | {"monorepo": monorepo},
    )
    merged: dict[str, Any] = {}
    for layer in layers:
        merged.update(layer)
    if "name" not in merged:
        raise UsageError("the application has no name", hint="pass --name NAME, or set name in orchestrator.toml")
    return _validated(merged)


def default_state_dir(environ: Mapping[str, str]) -> Path:
    """`/var/lib/orchestrator` for root, else below `$XDG_STATE_HOME`."""
    return _default_dir(environ, "STATE_DIR", Path("/var/lib"), "XDG_STATE_HOME", ".local/state")


def default_cache_dir(environ: Mapping[str, str]) -> Path:
    """`/var/cache/orchestrator` for root, else below `$XDG_CACHE_HOME`."""
    return _default_dir(environ, "CACHE_DIR", Path("/var/cache"), "XDG_CACHE_HOME", ".cache")


def _default_dir(environ: Mapping[str, str], own: str, system: Path, xdg: str, below_home: str) -> Path:
    if chosen := environ.get(ENVIRONMENT_PREFIX + own):
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return system / "orchestrator"
    return Path(environ.get(xdg) or Path.home() / below_home) / "orchestrator"


def _read_file(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except NotADirectoryError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if "variables" in values:
        raise UsageError(
            f"{path}: values of variables do not belong here", hint="pass --var, or name a file with env_file"
        )
    for forbidden in ("monorepo", "state_dir", "cache_dir"):
        if forbidden in values:
            raise UsageError(f"{path}: {forbidden} belongs to the machine", hint="use the flag or the variable instead")
    return values


def _read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    fields = [name for name in Settings.model_fields if name not in ("variables", "services")]
    names = {ENVIRONMENT_PREFIX + name.upper(): name for name in fields}
    values: dict[str, Any] = {}
    for variable, name in names.items():
        if environ.get(variable):
            value = environ[variable]
            values[name] = value.split(",") if name in _LISTS else value
    return values


def _validated(values: Mapping[str, Any]) -> Settings:
    try:
        return Settings(**values)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in problem['loc'])} = {problem['input']!r}: "
            + problem["msg"].removeprefix("Value error, ")
            for problem in error.errors(include_url=False)
        ]
        raise UsageError(
            f"the settings are not right: {problems[0]}",
            details=problems[1:],
            hint="see: orchestrator deploy --help",
        ) from None
