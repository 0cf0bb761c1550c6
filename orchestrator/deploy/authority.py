"""Certificates for machines no public authority knows: self-signed, or from an authority of one's own."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.deploy.tls import Pair, check_pair
from orchestrator.errors import UsageError
from orchestrator.files import locked
from orchestrator.tools.openssl import make_authority, make_certificate

DIRECTORY_VARIABLE = "ORCHESTRATOR_TLS_DIR"


@dataclass(frozen=True, slots=True)
class TlsDir:
    """Where certificates made here are kept, apart from all state. Keys are readable by their owner only."""

    path: Path

    @property
    def authority(self) -> Pair:
        return Pair(self.path / "local-ca.pem", self.path / "local-ca.key")

    def pair(self, domain: str, kind: str) -> Pair:
        name = f"{domain.replace('*', '_')}.{kind}"
        return Pair(self.path / f"{name}.pem", self.path / f"{name}.key")


def default_tls_dir(environ: Mapping[str, str]) -> TlsDir:
    """`$ORCHESTRATOR_TLS_DIR`, `/etc/orchestrator/tls` for root, else below `$XDG_CONFIG_HOME`."""
    if chosen := environ.get(DIRECTORY_VARIABLE):
        return TlsDir(Path(chosen).absolute())
    if os.geteuid() == 0:
        return TlsDir(Path("/etc/orchestrator/tls"))
    return TlsDir(Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "orchestrator/tls")


def ensure_authority(directory: TlsDir) -> tuple[Pair, bool]:
    """The authority of this machine, and whether it was made just now."""
    with _held(directory):
        if directory.authority.cert.exists():
            return directory.authority, False
        return _write(directory, directory.authority, (), authority=None, is_authority=True), True


def self_sign(directory: TlsDir, domains: Sequence[str]) -> Pair:
    """A new self-signed certificate for the domains, in place of an earlier one. Raises `UsageError`."""
    with _held(directory):
        return _write(directory, directory.pair(domains[0], "self-signed"), domains, authority=None)


def sign_locally(directory: TlsDir, domains: Sequence[str]) -> Pair:
    """A certificate for the domains from this machine's authority, made anew only where the present one will not do.

    Raises `UsageError`.
    """
    authority, _ = ensure_authority(directory)
    pair = directory.pair(domains[0], "local")
    with _held(directory):
        try:
            check_pair(pair, domains)
        except UsageError:
            return _write(directory, pair, domains, authority=authority)
        return pair


def trust_advice(directory: TlsDir) -> tuple[str, ...]:
    """How the machines of the household learn to trust the authority."""
    ca = directory.authority.cert
    return (
        f"Debian, Ubuntu:    sudo cp {ca} /usr/local/share/ca-certificates/orchestrator-local.crt "
        "&& sudo update-ca-certificates",
        f"Fedora:            sudo cp {ca} /etc/pki/ca-trust/source/anchors/ && sudo update-ca-trust",
        f"NixOS:             security.pki.certificateFiles = [ {ca} ];",
        f"Chromium, Firefox: certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n orchestrator -i {ca}",
        f"macOS:             sudo security add-trusted-cert -d -k /Library/Keychains/System.keychain {ca}",
        f"one request:       curl --cacert {ca} https://…",
    )


def _held(directory: TlsDir) -> AbstractContextManager[None]:
    directory.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return locked(directory.path / ".lock", holder="the certificates", wait_seconds=30)


def _write(
    directory: TlsDir, pair: Pair, domains: Sequence[str], *, authority: Pair | None, is_authority: bool = False
) -> Pair:
    """Make the pair beside its place, then move it there: key first, so that a certificate never lacks its key."""
    with tempfile.TemporaryDirectory(dir=directory.path) as scratch:
        cert, key = Path(scratch, "cert"), Path(scratch, "key")
        if is_authority:
            make_authority(cert, key, name=f"orchestrator local CA ({os.uname().nodename})"[:64])
        else:
            make_certificate(cert, key, domains, authority=(authority.cert, authority.key) if authority else None)
        key.replace(pair.key)
        cert.replace(pair.cert)
    return pair
