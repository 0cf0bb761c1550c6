"""Registries: how they are named, what their errors mean, whose login is used, what is listed."""

import base64
import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli import orchestrator_command
from orchestrator.cli.errors import run_command
from orchestrator.errors import UsageError
from orchestrator.image.packing import PackedLayers, gzip_chunks, trim_packed_layers
from orchestrator.image.referrers import INDEX_TYPE, Attachment, describe, make_artifact, merge_index
from orchestrator.process import Cancel
from orchestrator.tools.credentials import auth_files, find_login
from orchestrator.tools.platforms import host_platform
from orchestrator.tools.registry import (
    Access,
    ConnectionDropped,
    Repository,
    _refusal,
    blobs_found,
    check_tag,
    parse_repository,
)

LAYER = f"sha256:{'a' * 64}"
CONFIG = f"sha256:{'b' * 64}"


@pytest.mark.parametrize(
    ("text", "registry", "path"),
    [
        ("registry.example.org/team/app", "registry.example.org", "team/app"),
        ("localhost/app", "localhost", "app"),
        ("localhost:5000/a/b/c", "localhost:5000", "a/b/c"),
        ("[::1]:5000/app", "[::1]:5000", "app"),
    ],
)
def test_repositories(text: str, registry: str, path: str):
    assert parse_repository(text) == Repository(registry, path)


@pytest.mark.parametrize(
    "text",
    ["app", "team/app", "example.org/", "example.org/App", "example.org/app:1", "https://example.org/app", "-x.y/app"],
)
def test_what_names_no_repository_is_refused(text: str):
    with pytest.raises(UsageError, match="does not name a repository"):
        parse_repository(text)


def test_tags():
    assert check_tag("1.2_rc-3") == "1.2_rc-3"
    for tag in ("", "-1", "a b", "x" * 129):
        with pytest.raises(UsageError):
            check_tag(tag)


def test_plain_http_is_for_loopback_unless_asked_for():
    access = Access({})
    trusted = {name: access.trusts_all(Repository(name, "app")) for name in ("localhost:5000", "127.0.0.1", "a.b:1")}
    assert trusted == {"localhost:5000": True, "127.0.0.1": True, "a.b:1": False}
    assert not Access({}, cert_dir=Path("/ca")).trusts_all(Repository("localhost:5000", "app"))
    assert Access({}, plain_http=True).trusts_all(Repository("a.b:1", "app"))


def test_what_the_registry_had_is_read_from_what_skopeo_says():
    lines = [
        f'level=debug msg="HEAD https://r/v2/app/blobs/{LAYER}"',
        'level=debug msg="... already exists"',
        f'level=debug msg="Skipping blob {LAYER} (already present):"',
        f'level=debug msg="HEAD https://r/v2/app/blobs/{CONFIG}"',
        'level=debug msg="... not present"',
    ]
    assert blobs_found(lines) == {LAYER}
    assert blobs_found([*lines[:-1], lines[1]]) == {LAYER, CONFIG}
    assert blobs_found(["Copying blob"]) == frozenset()


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("write: connection reset by peer", "dropped"),
        ('Patch "https://r": unexpected EOF', "dropped"),
        ("received unexpected HTTP status: 503 Service Unavailable", "dropped"),
        ("uploading: status code 502", "dropped"),
        ("unauthorized: authentication required", "login"),
        ("x509: certificate signed by unknown authority", "refused"),
    ],
)
def test_errors_are_told_apart(said: str, kind: str):
    error = _refusal("push to r/app:1", [said])
    assert isinstance(error, ConnectionDropped) == (kind == "dropped")
    assert ("podman login" in (error.hint or "")) == (kind == "login")
    assert error.details == (said,)


def write_auth(path: Path, **config: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config))
    return path


def auth(login: str) -> dict[str, str]:
    return {"auth": base64.b64encode(login.encode()).decode()}


def test_the_most_specific_login_of_the_first_file_is_used(tmp_path: Path):
    entries = {"r.example": auth("all:1"), "r.example/team": auth("team:2"), "other.example": auth("other:3")}
    write_auth(tmp_path / "run" / "containers" / "auth.json", auths=entries)
    write_auth(tmp_path / ".docker" / "config.json", auths={"https://index.example/v1/": auth("old:4")})
    environment = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    users = {
        (registry, path): (login := find_login(registry, path, environment)) and login.user
        for registry, path in (
            ("r.example", "team/app"),
            ("r.example", "teams/app"),
            ("index.example", "x"),
            ("none.example", "x"),
        )
    }
    assert list(users.values()) == ["team", "all", "old", None]


def test_a_chosen_auth_file_is_the_only_one(tmp_path: Path):
    assert auth_files({"REGISTRY_AUTH_FILE": "/a/b", "HOME": "/h"}) == (Path("/a/b"),)
    write_auth(tmp_path / "auth.json", auths={"r.example": {"auth": "not base64!"}})
    assert find_login("r.example", "app", {"REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")}) is None


def test_a_referrer_names_its_subject_and_is_listed_once():
    subject = describe(b"manifest", "application/vnd.oci.image.manifest.v1+json")
    artifact = json.loads(make_artifact(Attachment("application/x", b"{1}"), subject))
    assert artifact["subject"] == subject
    assert artifact["artifactType"] == "application/x"
    others = merge_index(None, [{"digest": "sha256:other", "artifactType": "signature"}])
    listed = [{"digest": "sha256:ours", "artifactType": "application/x"}]
    merged = merge_index(others, listed)
    assert [item["digest"] for item in json.loads(merged)["manifests"]] == ["sha256:other", "sha256:ours"]
    assert json.loads(merged)["mediaType"] == INDEX_TYPE
    assert merge_index(merged, listed) == merged


@given(st.lists(st.binary(max_size=3000), max_size=5))
def test_our_gzip_is_gzip(chunks: list[bytes]):
    made = b"".join(gzip_chunks(iter(chunks)))
    assert gzip.decompress(made) == b"".join(chunks)
    assert made == b"".join(gzip_chunks(iter([b"".join(chunks)])))


def test_packed_layers_are_found_again_unless_damaged_and_the_oldest_go_first(tmp_path: Path):
    directory = tmp_path / "packed" / "gzip-1"
    directory.mkdir(parents=True)
    packed = PackedLayers(directory, "gzip")
    archive = tmp_path / "archive"
    archive.write_bytes(b"layer" * 1000)
    ids = [f"sha256:{letter * 64}" for letter in "abc"]
    made = [packed.pack(diff_id, archive, cancel=Cancel()) for diff_id in ids]
    assert [packed.find(diff_id) for diff_id in ids] == made
    made[1].path.write_bytes(b"cut off")
    assert packed.find(ids[1]) is None
    for used, layer in enumerate((made[0], made[2]), start=1):
        os.utime(layer.path, (used, used))
    trim_packed_layers(tmp_path, keep=made[0].size)
    assert [packed.find(diff_id) is not None for diff_id in ids] == [False, False, True]


def test_an_unknown_platform_is_refused_before_anything_is_done(capsys: pytest.CaptureFixture[str]):
    assert run_command(orchestrator_command, ["build", "--name", "app", "--platform", "linux/m68k"]) == 2
    assert "'linux/m68k' is not a platform images can be made for" in capsys.readouterr().err


def test_this_machines_platform_is_fine(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    flags = ["--name", "app", "--platform", host_platform(), "--monorepo", str(tmp_path / "none")]
    assert run_command(orchestrator_command, ["build", *flags]) != 0
    assert "there is no such directory" in capsys.readouterr().err


def test_pushing_what_is_not_there_is_refused_with_its_exit_code():
    assert run_command(orchestrator_command, ["push", "nobody", "registry.example.org/team/app"]) == 11
    assert run_command(orchestrator_command, ["deploy", "--name", "app", "--push", "app:1"]) == 2
