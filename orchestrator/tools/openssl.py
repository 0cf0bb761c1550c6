"""openssl: what is in certificates and keys, and making them for machines without a public authority."""

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

from orchestrator.process import Completed, require, run

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.DOTALL)
_TIMEOUT = 60.0
_LEAF_DAYS = 397
"""Browsers refuse certificates that are valid for longer (CA/Browser Forum, ballot SC31: 398 days)."""

_AUTHORITY_DAYS = 3650


@dataclass(frozen=True, slots=True)
class Certificate:
    """The first certificate of a file. `names` are its DNS names and addresses; moments are UTC."""

    names: tuple[str, ...]
    subject: str
    issuer: str
    not_before: datetime
    not_after: datetime
    public_key: str
    fingerprint: str


def read_certificate(pem: str) -> Certificate:
    """The first certificate of a PEM text. Raises `ProcessError` when it is none."""
    said = _openssl(
        *("x509", "-noout", "-subject", "-issuer", "-startdate", "-enddate", "-fingerprint", "-sha256", "-pubkey"),
        *("-ext", "subjectAltName"),
        stdin=pem,
    ).stdout
    fields = dict(line.split("=", 1) for line in said.splitlines() if re.match(r"\w[\w ]*=", line))
    return Certificate(
        names=tuple(re.findall(r"(?:DNS|IP Address):([^,\s]+)", said)),
        subject=fields["subject"].strip(),
        issuer=fields["issuer"].strip(),
        not_before=_moment(fields["notBefore"]),
        not_after=_moment(fields["notAfter"]),
        public_key=said[said.index("-----BEGIN PUBLIC KEY") : said.index("-----END PUBLIC KEY")].strip(),
        fingerprint=fields["sha256 Fingerprint"].replace(":", "").lower(),
    )


def public_key(key: Path) -> str:
    """The public half of a private key. Raises `ProcessError` when it is none, or needs a passphrase."""
    said = _openssl("pkey", "-in", str(key), "-pubout", "-passin", "pass:").stdout
    return said[: said.index("-----END PUBLIC KEY")].strip()


def split_chain(pem: str) -> tuple[str, ...]:
    """The certificates of a PEM text, in order."""
    return tuple(_PEM.findall(pem))


def is_signed_by(certificate: str, signer: str, *, scratch: Path) -> bool:
    """Whether the key in `signer` signed `certificate` (both PEM); dates are not looked at."""
    files = scratch / "signed.pem", scratch / "signer.pem"
    for file, pem in zip(files, (certificate, signer), strict=True):
        file.write_text(pem)
    answer = _openssl(
        *("verify", "-partial_chain", "-no_check_time", "-trusted", str(files[1]), str(files[0])), check=False
    )
    return answer.returncode == 0


def make_authority(certificate: Path, key: Path, *, name: str) -> None:
    """A certificate authority of one's own, able to sign host names only. Raises `ProcessError`."""
    _make_key(key)
    _openssl(
        *("req", "-x509", "-new", "-sha256", "-key", str(key), "-out", str(certificate)),
        *("-days", str(_AUTHORITY_DAYS), "-subj", f"/CN={name}"),
        *("-addext", "basicConstraints=critical,CA:TRUE,pathlen:0"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )


def make_certificate(
    certificate: Path, key: Path, names: Sequence[str], *, authority: tuple[Path, Path] | None
) -> None:
    """A certificate for `names`, signed by an authority (its certificate and key) or by itself.

    Raises `ProcessError`.
    """
    _make_key(key)
    kinds = ",".join(f"{'IP' if _is_address(name) else 'DNS'}:{name}" for name in names)
    signing = () if authority is None else ("-CA", str(authority[0]), "-CAkey", str(authority[1]))
    _openssl(
        *("req", "-x509", "-new", "-sha256", "-key", str(key), "-out", str(certificate)),
        *("-days", str(_LEAF_DAYS), "-subj", f"/CN={names[0][:64]}"),
        *("-addext", f"subjectAltName={kinds}"),
        *("-addext", "basicConstraints=critical,CA:FALSE"),
        *("-addext", "extendedKeyUsage=serverAuth"),
        *signing,
    )


def _make_key(key: Path) -> None:
    key.touch(mode=0o600)
    _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(key))


def _openssl(*arguments: str, stdin: str | None = None, check: bool = True) -> Completed:
    program = require("openssl", reason="read certificates", hint="install it: apt-get install openssl")
    data = stdin.encode() if stdin is not None else None
    return run([str(program), *arguments], stdin=data, timeout=_TIMEOUT, check=check)


def _moment(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
