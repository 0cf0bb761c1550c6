"""The layer writer: same plan, same bytes; what it writes is what tar unpacks."""

import gzip
import hashlib
import json
import os
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import ImageError
from orchestrator.image.archive import Layer, archive_layer, compress, key_layer, layer_key, modified
from orchestrator.image.layers import Directory, Entry, File, ImageConfig, ImagePlan, LayerPlan, Link, arrange_layers
from orchestrator.image.layout import (
    KEPT_RECORDS,
    LayerRecords,
    blobs_directory,
    make_documents,
    write_layout,
)

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=120).filter(
    lambda name: name not in (".", "..") and len(name.encode()) <= 255
)


@dataclass(frozen=True)
class Leaf:
    kind: str
    content: bytes
    mode: int


LEAVES = st.builds(
    Leaf, st.sampled_from(["file", "link", "directory"]), st.binary(max_size=3000), st.sampled_from([0o644, 0o755])
)
TREES = st.dictionaries(st.lists(NAMES, min_size=1, max_size=4).map("/".join), LEAVES, max_size=12)


def entries_of(tree: dict[str, Leaf]) -> list[Entry]:
    """Entries for the leaves whose path no other leaf takes for a directory."""
    parents = {path[:i] for path in tree for i, char in enumerate(path) if char == "/"}
    made: list[Entry] = []
    for path, leaf in tree.items():
        if leaf.kind == "directory":
            made.append(Directory(path, 0o555))
        elif path in parents:
            continue
        elif leaf.kind == "link":
            made.append(Link(path, leaf.content.hex() or "nowhere"))
        else:
            made.append(File(path, leaf.content, leaf.mode))
    return made


def layer_of(*entries: Entry) -> LayerPlan:
    (layer,) = arrange_layers({"only": entries})
    return layer


def write_layer(layer: LayerPlan, directory: Path) -> Layer:
    """The layer's archive in `directory`, named by its digest."""
    archive = archive_layer(key_layer(layer))
    measured = archive.measure()
    with (directory / measured.diff_id.removeprefix("sha256:")).open("wb") as file:
        archive.write(file)
    return measured


def unpacked(layer: LayerPlan, directory: Path) -> dict[str, tuple[str, object, int, int, int]]:
    written = write_layer(layer, directory)
    members = {}
    with tarfile.open(directory / written.diff_id.removeprefix("sha256:")) as archive:
        for member in archive:
            source = archive.extractfile(member) if member.isreg() else None
            value = source.read() if source else member.linkname
            members[member.name] = (member.type.decode(), value, member.mode, member.uid, member.gid)
    return members


@settings(max_examples=150)
@given(tree=TREES)
def test_what_is_planned_is_what_is_unpacked(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Leaf]) -> None:
    entries = entries_of(tree)
    if not entries:
        return
    layer = layer_of(*entries)
    members = unpacked(layer, tmp_path_factory.mktemp("layer"))
    expected = {}
    for entry in layer.entries:
        match entry:
            case Directory():
                expected[entry.path] = ("5", "", entry.mode, 0, 0)
            case Link():
                expected[entry.path] = ("2", entry.target, 0o777, 0, 0)
            case File():
                expected[entry.path] = ("0", entry.source, entry.mode, 0, 0)
    assert members == expected
    assert list(members) == sorted(members, key=str.encode)


@settings(max_examples=50)
@given(tree=TREES, seed=st.randoms())
def test_order_does_not_matter(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Leaf], seed) -> None:
    entries = entries_of(tree)
    if not entries:
        return
    shuffled = list(entries)
    seed.shuffle(shuffled)
    directory = tmp_path_factory.mktemp("layer")
    assert write_layer(layer_of(*entries), directory) == write_layer(layer_of(*shuffled), directory)


def test_digest_and_size_are_those_of_the_archive(tmp_path: Path) -> None:
    written = write_layer(layer_of(File("a", b"x" * 5000)), tmp_path)
    content = (tmp_path / written.diff_id.removeprefix("sha256:")).read_bytes()
    assert hashlib.sha256(content).hexdigest() == written.diff_id.removeprefix("sha256:")
    assert len(content) == written.size


def test_bytes_do_not_depend_on_the_source_files_attributes(tmp_path: Path) -> None:
    written = []
    for number, (mode, time) in enumerate([(0o600, 5), (0o755, 1_000_000_000)]):
        source = tmp_path / str(number)
        source.write_bytes(b"same")
        source.chmod(mode)
        os.utime(source, (time, time))
        written.append(write_layer(layer_of(File("a", source)), tmp_path))
    assert written[0] == written[1]


def test_mtime_follows_content_so_that_etags_differ() -> None:
    one, other = File("index.html", b"<script src=a>"), File("index.html", b"<script src=b>")
    assert modified(one) != modified(other)
    assert modified(one) == modified(File("elsewhere", b"<script src=a>"))
    assert 0 < modified(one) <= 1 << 30


def test_store_files_are_identified_without_being_read(tmp_path: Path) -> None:
    absent = File("nix/store/x/lib", tmp_path / "absent", 0o444, immutable=True)
    assert layer_key(layer_of(absent))
    with pytest.raises(FileNotFoundError):
        layer_key(layer_of(File("a", tmp_path / "absent")))


@pytest.mark.parametrize(
    "changed",
    [
        File("a", b"2"),
        File("b", b"1"),
        File("a", b"1", 0o755),
        File("a", b"1", twin=True),
        Link("a", "1"),
        Directory("a"),
    ],
)
def test_every_difference_gives_another_key(changed: Entry) -> None:
    assert layer_key(layer_of(File("a", b"1"))) != layer_key(layer_of(changed))


def test_twins_stand_beside_their_files_when_smaller(tmp_path: Path) -> None:
    text, noise = b"compressible " * 500, os.urandom(3000)
    members = unpacked(
        layer_of(File("a.js", text, twin=True), File("b.js", noise, twin=True), File("c", text)), tmp_path
    )
    assert sorted(members) == ["a.js", "a.js.gz", "b.js", "c"]
    assert gzip.decompress(members["a.js.gz"][1]) == text


@given(content=st.binary(max_size=5000))
def test_compress_is_gzip_without_time_and_name(content: bytes) -> None:
    packed = compress(content)
    assert gzip.decompress(packed) == content
    assert packed[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"
    assert len(packed) <= len(zlib.compress(content, 9)) + 16


@pytest.mark.parametrize("content", [b"xxx", b"y" * 10, b"x" * 9 + b"y"])
def test_a_file_that_is_not_what_was_keyed_is_refused(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 10)
    archive = archive_layer(key_layer(layer_of(File("a", source))))
    assert archive.measure().size == 10240
    source.write_bytes(content)
    with pytest.raises(ImageError, match="a changed while it was read"):
        archive.measure()


def test_a_file_that_grows_between_key_and_header_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 10)
    keyed = key_layer(layer_of(File("a", source)))
    source.write_bytes(b"x" * 11)
    with pytest.raises(ImageError, match="a changed while it was read"):
        archive_layer(keyed).measure()


def plan_of(**changes: object) -> ImagePlan:
    config = ImageConfig(
        entrypoint=("/app/bin/x",), labels=(("z", "last"), ("io.orchestrator.app", "a")), ports=(3000,), **changes
    )
    return ImagePlan("backend", (layer_of(File("a", b"1")),), config)


def test_documents_are_canonical_and_name_the_layers() -> None:
    layers = (Layer("only", "sha256:" + "a" * 64, 10240, written=True),)
    documents = make_documents(plan_of(environment=(("PATH", "/app/bin"),)), layers, architecture="amd64")
    config = json.loads(documents.config)
    assert config["config"] == {
        "Entrypoint": ["/app/bin/x"],
        "Env": ["PATH=/app/bin"],
        "ExposedPorts": {"3000/tcp": {}},
        "Labels": {"io.orchestrator.app": "a", "z": "last"},
        "StopSignal": "SIGTERM",
        "User": "10001:10001",
        "WorkingDir": "/",
    }
    assert config["rootfs"]["diff_ids"] == ["sha256:" + "a" * 64]
    for document in (documents.config, documents.manifest):
        assert document == json.dumps(json.loads(document), sort_keys=True, separators=(",", ":")).encode()
    assert json.loads(documents.manifest)["config"]["digest"] == f"sha256:{documents.image_id}"
    assert documents == make_documents(
        plan_of(environment=(("PATH", "/app/bin"),)),
        (Layer("only", layers[0].diff_id, 10240, False),),
        architecture="amd64",
    )


def test_layout_holds_what_its_index_names(tmp_path: Path) -> None:
    plan = plan_of()
    layer = write_layer(plan.layers[0], blobs_directory(tmp_path))
    documents = make_documents(plan, (layer,), architecture="amd64")
    write_layout(tmp_path, documents)
    index = json.loads((tmp_path / "index.json").read_bytes())
    manifest = json.loads(blob(tmp_path, index["manifests"][0]))
    assert json.loads(blob(tmp_path, manifest["config"]))["os"] == "linux"
    assert len(blob(tmp_path, manifest["layers"][0])) == layer.size


def blob(layout: Path, descriptor: dict[str, object]) -> bytes:
    content = (layout / "blobs" / "sha256" / str(descriptor["digest"]).removeprefix("sha256:")).read_bytes()
    assert len(content) == descriptor["size"]
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == descriptor["digest"]
    return content


def test_records_remember_and_forget(tmp_path: Path) -> None:
    records, layer = LayerRecords(tmp_path / "layers"), Layer("base", "sha256:" + "b" * 64, 7, written=True)
    plan = layer_of(File("a", b"1"))
    assert records.find(plan, "k") is None
    records.remember("k", layer)
    assert records.find(plan, "k") == Layer("only", layer.diff_id, 7, written=False)
    records.forget("k")
    records.forget("k")
    assert records.find(plan, "k") is None


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"diff_id": "sha256:", "size": 3}', '{"diff_id": 3, "size": 3}'])
def test_a_damaged_record_is_no_record(tmp_path: Path, damage: str) -> None:
    (tmp_path / "k.json").write_text(damage)
    assert LayerRecords(tmp_path).find(layer_of(File("a", b"1")), "k") is None


def test_old_records_are_trimmed(tmp_path: Path) -> None:
    for number in range(KEPT_RECORDS + 3):
        path = tmp_path / f"{number}.json"
        path.write_text("{}")
        os.utime(path, (number, number))
    LayerRecords(tmp_path).trim()
    left = {path.stem for path in tmp_path.iterdir()}
    assert len(left) == KEPT_RECORDS
    assert "0" not in left
    assert str(KEPT_RECORDS + 2) in left
