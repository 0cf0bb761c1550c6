"""Certificates as openssl makes them: those that will do, and each way in which one does not."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.deploy.authority import TlsDir, ensure_authority, self_sign, sign_locally
from orchestrator.deploy.tls import Pair, check_pair, covers
from orchestrator.errors import UsageError

NAMES = ("shop.test", "*.shop.test", "192.168.1.7")


@pytest.fixture
def tls(tmp_path: Path) -> TlsDir:
    return TlsDir(tmp_path / "tls")


def test_a_certificate_of_the_local_authority_will_do(tls: TlsDir) -> None:
    pair = sign_locally(tls, NAMES)
    found = check_pair(pair, ("shop.test", "www.shop.test", "192.168.1.7"))
    assert found.names == NAMES and "local CA" in found.issuer
    assert timedelta(days=390) < found.not_after - datetime.now(UTC) < timedelta(days=398)
    subprocess.run(["openssl", "verify", "-CAfile", tls.authority.cert, pair.cert], check=True, capture_output=True)
    assert {path.stat().st_mode & 0o077 for path in (pair.key, tls.authority.key, tls.path)} == {0}


def test_the_authority_is_made_once_and_certificates_only_when_needed(tls: TlsDir) -> None:
    assert [made for _, made in (ensure_authority(tls), ensure_authority(tls))] == [True, False]
    first = sign_locally(tls, ("shop.test",)).cert.read_bytes()
    assert sign_locally(tls, ("shop.test",)).cert.read_bytes() == first
    assert sign_locally(tls, ("shop.test", "new.test")).cert.read_bytes() != first


def test_a_self_signed_certificate_will_do(tls: TlsDir) -> None:
    assert check_pair(self_sign(tls, ["shop.test"]), ["shop.test"]).subject == "CN = shop.test"


def test_another_ones_key_is_refused(tls: TlsDir) -> None:
    mixed = Pair(self_sign(tls, ["one.test"]).cert, self_sign(tls, ["two.test"]).key)
    with pytest.raises(UsageError, match="does not belong to the certificate"):
        check_pair(mixed, ["one.test"])


def test_an_uncovered_domain_is_named(tls: TlsDir) -> None:
    with pytest.raises(UsageError, match=r"not for a\.b\.shop\.test, other\.test") as refused:
        check_pair(self_sign(tls, NAMES), ("www.shop.test", "a.b.shop.test", "other.test"))
    assert "it is for: shop.test, *.shop.test" in (refused.value.hint or "")


@pytest.mark.parametrize(("days", "words"), [(500, "expired on"), (-2, "is valid from")])
def test_dates_are_looked_at(tls: TlsDir, days: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_pair(self_sign(tls, ["a.test"]), ["a.test"], clock=lambda: datetime.now(UTC) + timedelta(days=days))


def test_the_chain_must_be_in_order(tls: TlsDir) -> None:
    pair = sign_locally(tls, ("shop.test",))
    leaf, authority = pair.cert.read_text(), tls.authority.cert.read_text()
    pair.cert.write_text(leaf + authority)
    check_pair(pair, ["shop.test"])
    stranger = self_sign(TlsDir(tls.path / "other"), ["x.test"]).cert.read_text()
    pair.cert.write_text(leaf + stranger)
    with pytest.raises(UsageError, match="certificate 1 is not signed by certificate 2"):
        check_pair(pair, ["shop.test"])


def test_what_is_no_certificate_or_key_is_told(tls: TlsDir, tmp_path: Path) -> None:
    pair = self_sign(tls, ["a.test"])
    text = tmp_path / "text"
    text.write_text("hello")
    locked = tmp_path / "locked.key"
    encrypt = ["openssl", "pkey", "-in", pair.key, "-aes256", "-passout", "pass:x", "-out", locked]
    subprocess.run(encrypt, check=True)
    for cert, key, words in (
        (text, pair.key, "does not begin with a PEM certificate"),
        (pair.cert, text, "is not a PEM private key"),
        (pair.cert, locked, "without a passphrase"),
        (tmp_path / "gone", pair.key, "No such file"),
    ):
        with pytest.raises(UsageError, match=words):
            check_pair(Pair(cert, key), ["a.test"])


@pytest.mark.parametrize(
    ("name", "domain", "expected"),
    [
        ("a.test", "A.test", True),
        ("*.a.test", "b.a.test", True),
        ("*.a.test", "a.test", False),
        ("*.a.test", "c.b.a.test", False),
        ("*.test", "a.test", False),
        ("a.test", "b.test", False),
    ],
)
def test_a_wildcard_stands_for_one_label(name: str, domain: str, expected: bool) -> None:
    assert covers(name, domain) is expected
