"""SBOM and provenance: valid, complete, the same for the same image, without secrets or times."""

import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.build.inventory import Component
from orchestrator.image.attestations import about_pushed
from orchestrator.image.provenance import Origin, make_statement
from orchestrator.image.sbom import (
    Contents,
    DebianPackage,
    StorePackage,
    build_url,
    debian_url,
    make_sbom,
    nix_url,
    parse_store_name,
)
from orchestrator.tools.debian import licences
from orchestrator.tools.git import Commit, without_login

HASH = "vy1nlk752hz7vccjc3xmg6kp0crzwq85"
VALIDATOR = JsonStrictValidator(SchemaVersion.V1_5)
LIBC = DebianPackage("libc6", "2.36-9+deb12u14", "amd64", "debian-12", ("LGPL-2.1+", "public-domain"))
CRATES = (
    Component("cargo", "axum", "0.8.9", "MIT", ""),
    Component("cargo", "ring", "0.17.8", "Apache-2.0 AND ISC", ""),
    Component("cargo", "odd", "1.0.0", "see the file, please", ""),
    Component("cargo", "towns-backend", "0.1.0", "", "local"),
    Component("cargo", "forked", "0.3.0", "ISC", "https://user:secret@example.org/forked?branch=x#0a1b"),
    Component("npm", "@scope/name", "1.2.3", "(MIT OR Apache-2.0)", ""),
)


def contents(components: tuple[Component, ...] | None = CRATES) -> Contents:
    paths = tuple(Path("/nix/store", f"{HASH}-{name}") for name in ("glibc-2.36", "openssl-3.0.14-bin", "hook"))
    return Contents("towns", "backend", "ab" * 32, paths, components)


def document(made: Contents) -> dict[str, Any]:
    text = make_sbom(made, lambda package: (LIBC,) if package.name == "glibc" else ()).decode()
    assert VALIDATOR.validate_str(text) is None
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def test_everything_in_the_image_is_listed_and_valid():
    urls = {item.get("purl", item["bom-ref"]) for item in document(contents())["components"]}
    assert urls == {
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u14?arch=amd64&distro=debian-12",
        "pkg:nix/openssl@3.0.14?output=bin",
        "pkg:nix/hook",
        "pkg:cargo/axum@0.8.9",
        "pkg:cargo/ring@0.17.8",
        "pkg:cargo/odd@1.0.0",
        "pkg:cargo/forked@0.3.0?vcs_url=https%3A%2F%2Fexample.org%2Fforked%3Fbranch%3Dx%230a1b",
        "pkg:npm/%40scope/name@1.2.3",
        "local:towns-backend@0.1.0",
    }


def test_licences_are_expressions_where_they_are_some():
    named = {item["name"]: item.get("licenses") for item in document(contents())["components"]}
    assert named["ring"] == [{"expression": "Apache-2.0 AND ISC"}]
    assert named["odd"] == [{"license": {"name": "see the file, please"}}]
    assert named["towns-backend"] is None
    assert named["libc6"] == [{"license": {"name": "LGPL-2.1+"}}, {"license": {"name": "public-domain"}}]


def test_licences_of_debian_packages_are_read_where_they_are_machine_readable(tmp_path: Path):
    texts = {
        "dep5": "Format: https://x/1.0/\n\nFiles: *\nCopyright: a\nLicense: Zlib\n text\n\nFiles: a b\nLicense: Expat\n"
        "\nFiles: debian/*\nLicense: GPL-2+\n\nLicense: BSD-3-clause\n its text\n",
        "prose": "This is a package.\nLicense: anything\n",
    }
    for package, text in texts.items():
        (tmp_path / package).mkdir()
        (tmp_path / package / "copyright").write_text(text)
    assert licences("dep5", tmp_path) == ("Expat", "Zlib")
    assert licences("prose", tmp_path) == licences("absent", tmp_path) == ()


def test_what_is_not_known_is_said():
    assert "compositions" not in document(contents())
    assert document(contents(None))["compositions"][0]["aggregate"] == "incomplete"


def test_the_same_image_gives_the_same_bytes_another_one_another_serial_number():
    assert make_sbom(contents()) == make_sbom(contents(CRATES[::-1]))
    other = Contents("towns", "backend", "cd" * 32, (), ())
    assert document(contents())["serialNumber"] != document(other)["serialNumber"]
    assert b"timestamp" not in make_sbom(contents())


@settings(max_examples=10)
@given(st.lists(st.builds(Component, st.sampled_from(["cargo", "npm"]), *[st.text(max_size=12)] * 4), max_size=4))
def test_whatever_packages_are_called_it_is_valid(components: list[Component]):
    document(contents(tuple(components)))


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("openssl-3.0.14-bin", StorePackage("openssl", "3.0.14", "bin")),
        ("nss-cacert-3.98", StorePackage("nss-cacert", "3.98", "")),
        ("glibc-2.40-66", StorePackage("glibc", "2.40-66", "")),
        ("zlib-1.2.13.dfsg", StorePackage("zlib", "1.2.13.dfsg", "")),
        ("pcre2-10.42-dev", StorePackage("pcre2", "10.42", "dev")),
        ("source", StorePackage("source", "", "")),
    ],
)
def test_store_names_are_taken_apart(name: str, package: StorePackage):
    assert parse_store_name(Path(f"/nix/store/{HASH}-{name}")) == package


def test_package_urls():
    assert nix_url(StorePackage("gtk+", "3.0", "")) == "pkg:nix/gtk%2B@3.0"
    assert debian_url(LIBC).startswith("pkg:deb/debian/libc6@2.36-9%2Bdeb12u14")
    assert build_url(Component("cargo", "a", "1", "", "local")) is None


ORIGIN = Origin(
    commit=Commit("c0ffee", True, "https://example.org/shop.git"),
    sources="12" * 32,
    locks={"backend/Cargo.lock": "34" * 32},
    toolchain={"toolchain": "host"},
    parameters={"name": "towns"},
)


def test_provenance_names_source_locks_toolchain_and_parameters():
    statement = json.loads(make_statement("towns/web", {"image id": "ab" * 32}, ORIGIN))
    definition = statement["predicate"]["buildDefinition"]
    source, lock = definition["resolvedDependencies"]
    assert source == {
        "name": "source",
        "uri": "git+https://example.org/shop.git",
        "digest": {"gitCommit": "c0ffee", "sha256": "12" * 32},
        "annotations": {"dirty": True},
    }
    assert lock == {"name": "backend/Cargo.lock", "digest": {"sha256": "34" * 32}}
    assert definition["internalParameters"]["toolchain"] == "host"
    assert definition["externalParameters"] == {"name": "towns"}
    assert statement["subject"] == [{"name": "towns/web (image id)", "digest": {"sha256": "ab" * 32}}]
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"


def test_provenance_of_a_pushed_image_is_about_its_manifest_too():
    statement = make_statement("towns/web", {"image id": "ab" * 32}, ORIGIN)
    subjects = json.loads(about_pushed(statement, "registry.example.org/team/app", f"sha256:{'ef' * 32}"))["subject"]
    assert subjects[0] == {"name": "registry.example.org/team/app", "digest": {"sha256": "ef" * 32}}
    assert len(subjects) == 2


def test_addresses_lose_their_login():
    assert without_login("https://me:token@example.org/a@b.git") == "https://example.org/a@b.git"
    assert without_login("git@example.org:team/app.git") == "git@example.org:team/app.git"
