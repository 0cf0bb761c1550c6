"""Certificates: looked at before anything is built, and read again whenever the edge is brought up to date."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.process import ProcessError
from orchestrator.tools.openssl import Certificate, is_signed_by, public_key, read_certificate, split_chain

SOON = timedelta(days=14)
"""A certificate that ends within this time is worth a word."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate chain and its private key, where the user keeps them."""

    cert: Path
    key: Path


def check_pair(
    pair: Pair, domains: Sequence[str], *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Certificate:
    """The pair's certificate, when browsers would take it for each of the domains.

    Raises `UsageError` when a file cannot be read, the key is another one's, the chain is out of order, a date has
    passed or is to come, or a domain is not covered.
    """
    pem = _read(pair.cert)
    _read(pair.key)
    certificate = _certificate(pair.cert, pem)
    _check_key(pair, certificate)
    _check_chain(pair.cert, pem)
    _check_dates(pair.cert, certificate, clock())
    uncovered = [domain for domain in domains if not any(covers(name, domain) for name in certificate.names)]
    if uncovered:
        raise UsageError(
            f"the certificate {pair.cert} is not for {', '.join(uncovered)}",
            hint=f"it is for: {', '.join(certificate.names) or 'no name at all'}",
        )
    return certificate


def read_pair(pair: Pair) -> tuple[bytes, bytes]:
    """The bytes of certificate and key. Raises `UsageError` when they cannot be read or do not belong together."""
    pem, key = _read(pair.cert), _read(pair.key)
    _check_key(pair, _certificate(pair.cert, pem))
    return pem.encode(), key.encode()


def covers(name: str, domain: str) -> bool:
    """Whether a certificate's name holds for a domain: `*` stands for one whole label (RFC 6125, section 6.4.3)."""
    name, domain = name.lower().rstrip("."), domain.lower()
    if name.startswith("*."):
        return domain.partition(".")[2] == name[2:] and "." in name[2:]
    return name == domain


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not PEM"
        raise UsageError(f"{path} cannot be read: {reason}", hint="--cert and --key take PEM files") from error


def _certificate(path: Path, pem: str) -> Certificate:
    try:
        return read_certificate(pem)
    except (ProcessError, KeyError, ValueError) as error:
        raise UsageError(f"{path} does not begin with a PEM certificate") from error


def _check_key(pair: Pair, certificate: Certificate) -> None:
    try:
        belongs = public_key(pair.key) == certificate.public_key
    except (ProcessError, ValueError) as error:
        raise UsageError(
            f"{pair.key} is not a PEM private key without a passphrase",
            hint="a passphrase is taken away with: openssl pkey -in KEY -out NEW",
        ) from error
    if not belongs:
        raise UsageError(f"the key {pair.key} does not belong to the certificate {pair.cert}")


def _check_chain(path: Path, pem: str) -> None:
    chain = split_chain(pem)
    with tempfile.TemporaryDirectory() as scratch:
        for number, (certificate, signer) in enumerate(pairwise(chain), start=1):
            if not is_signed_by(certificate, signer, scratch=Path(scratch)):
                raise UsageError(
                    f"{path}: certificate {number} is not signed by certificate {number + 1}",
                    hint="the file must hold the server's certificate first, then each one's signer",
                )


def _check_dates(path: Path, certificate: Certificate, now: datetime) -> None:
    if certificate.not_after <= now:
        raise UsageError(
            f"the certificate {path} expired on {certificate.not_after:%Y-%m-%d %H:%M} UTC", hint="renew it"
        )
    if certificate.not_before > now:
        raise UsageError(
            f"the certificate {path} is valid from {certificate.not_before:%Y-%m-%d %H:%M} UTC only",
            hint="check the machine's clock",
        )
