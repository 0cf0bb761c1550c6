"""Certificates while the edge shows them: copies in memory, made from where the user keeps them."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from orchestrator.deploy.edge_sites import EdgeStore, Site
from orchestrator.deploy.tls import Pair, check_pair, read_pair
from orchestrator.errors import UsageError
from orchestrator.events import Emit, Note
from orchestrator.tools.podman import Engine


def runtime_dir(engine: Engine) -> Path:
    """Certificates while they are served, in memory: gone after a reboot, readable by the engine's owner only."""
    return engine.dirs.runtime / "edge"


def has_new_certificates(engine: Engine, store: EdgeStore) -> bool:
    """Whether a certificate was renewed where the user keeps it: `start_edge` shows it then, cutting no connection.

    One that is being written, so that its key is not its own yet, does not count.
    """
    return any(_is_new(engine, site.app, site.pair) for site in store.sites() if site.pair is not None)


def load_certificates(engine: Engine, sites: Sequence[Site], *, strictly: str, emit: Emit) -> dict[str, str]:
    """The directory in memory of each application's certificate.

    The one application `strictly` names must have a certificate that will do. Another one's trouble is its own: it
    keeps what it has shown so far, or is left out.
    """
    found: dict[str, str] = {}
    for site in sites:
        try:
            if site.pair is not None and site.app == strictly:
                check_pair(site.pair, site.domains)
            if site.pair is not None:
                found[site.app] = _load_certificate(engine, site.app, site.pair)
        except UsageError as error:
            if site.app == strictly:
                raise
            shown = next((runtime_dir(engine) / "certs").glob(f"{site.app}.*"), None)
            emit(Note(f"{site.app}: {error.message}; {'the former one is shown' if shown else 'left out'}", "warning"))
            if shown is not None:
                found[site.app] = shown.name
    return found


def forget_certificates(engine: Engine, kept: Iterable[str]) -> None:
    """Take the copies away that are shown no more."""
    names = {*kept}
    for directory in (runtime_dir(engine) / "certs").iterdir():
        if directory.name not in names:
            shutil.rmtree(directory, ignore_errors=True)


def _load_certificate(engine: Engine, app: str, pair: Pair) -> str:
    """Copy a certificate and its key into memory, once for each content; the directory's name.

    Raises `UsageError` when they cannot be read or do not belong together.
    """
    cert, key = read_pair(pair)
    directory = _certificate_dir(engine, app, cert, key)
    if not directory.exists():
        scratch = Path(tempfile.mkdtemp(dir=directory.parent, prefix="."))
        for file, content in (("cert.pem", cert), ("key.pem", key)):
            (scratch / file).write_bytes(content)
            # nginx runs as user 10001. Nobody else gets here: the engine's directory is its owner's alone.
            (scratch / file).chmod(0o444)
        scratch.chmod(0o755)
        scratch.rename(directory)
    return directory.name


def _certificate_dir(engine: Engine, app: str, cert: bytes, key: bytes) -> Path:
    return runtime_dir(engine) / "certs" / f"{app}.{hashlib.sha256(cert + key).hexdigest()[:16]}"


def _is_new(engine: Engine, app: str, pair: Pair) -> bool:
    try:
        if _certificate_dir(engine, app, pair.cert.read_bytes(), pair.key.read_bytes()).exists():
            return False
        read_pair(pair)
    except (OSError, UsageError):
        return False
    return True
