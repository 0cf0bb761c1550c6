"""What the edge serves, on disk: `edge/sites/<app>.json` for each application, `edge/edge.json` for the edge itself."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, IPvAnyNetwork, ValidationError

from orchestrator.deploy.tls import Pair
from orchestrator.errors import UsageError
from orchestrator.files import remove_tree, write_atomically


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Site(_Model):
    """An application at the edge. `cert` and `key` are where the user keeps them; they are never copied to here."""

    app: str
    domains: tuple[str, ...]
    cert: Path | None = None
    key: Path | None = None
    hsts_seconds: int = 0
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    flood_limit: int = 0
    snippet: str = ""

    @property
    def pair(self) -> Pair | None:
        return Pair(self.cert, self.key) if self.cert and self.key else None


class EdgeRecord(_Model):
    """The edge itself: the image it runs and the ports it holds."""

    image_id: str
    http_port: int
    https_port: int


@dataclass(frozen=True, slots=True)
class EdgeStore:
    """The edge's records and the directories its container sees."""

    state_dir: Path

    @property
    def directory(self) -> Path:
        return self.state_dir / "edge"

    @property
    def config(self) -> Path:
        """The directory mounted for the live configuration."""
        return self.directory / "config"

    @property
    def challenges(self) -> Path:
        """The web root of ACME clients (`certbot certonly --webroot --webroot-path`)."""
        return self.directory / "acme"

    def record(self) -> EdgeRecord | None:
        try:
            return EdgeRecord.model_validate_json((self.directory / "edge.json").read_bytes())
        except (OSError, ValidationError):
            return None

    def save(self, record: EdgeRecord) -> None:
        write_atomically(self.directory / "edge.json", record.model_dump_json(indent=2) + "\n")

    def sites(self) -> tuple[Site, ...]:
        """Every readable site, by application."""
        found = (_load(path) for path in sorted((self.directory / "sites").glob("*.json")))
        return tuple(site for site in found if site is not None)

    def put(self, site: Site) -> None:
        write_atomically(self._path(site.app), site.model_dump_json(indent=2) + "\n")

    def drop(self, app: str) -> None:
        remove_tree(self._path(app))

    def _path(self, app: str) -> Path:
        return self.directory / "sites" / f"{app}.json"


def check_claims(sites: tuple[Site, ...], app: str, domains: tuple[str, ...]) -> None:
    """Raises `UsageError` naming the application that already holds one of the domains."""
    for site in sites:
        taken = sorted({*site.domains} & {*domains})
        if site.app != app and taken:
            raise UsageError(
                f"{', '.join(taken)} belongs to the application {site.app}",
                hint=f"deploy {site.app} without that --domain, or run: orchestrator remove {site.app}",
            )


def with_site(sites: tuple[Site, ...], site: Site) -> tuple[Site, ...]:
    """The sites with this one in the place of its application's."""
    return tuple(sorted((*(other for other in sites if other.app != site.app), site), key=lambda one: one.app))


def _load(path: Path) -> Site | None:
    try:
        return Site.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
