"""Random trees on disk become layers; what skopeo copies and GNU tar unpacks must be the trees again."""

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator import process
from orchestrator.errors import ImageError
from orchestrator.image.archive import modified
from orchestrator.image.contents import read_site
from orchestrator.image.layers import File, ImageConfig, ImagePlan, arrange_layers
from orchestrator.image.layout import blobs_directory, make_documents, write_layout
from tests.unit.test_layout import write_layer

MISSING = [name for name in ("skopeo", "tar") if process.find(name) is None]
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {MISSING}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can unpack what belongs to root"),
]

ROOT = "srv/www"
ODD = [
    "-rf",
    " ",
    "a b",
    "new\nline",
    "tab\t",
    "ü",
    "日本",
    "*?[",
    "\\",
    "'\"",
    "#",
    "=",
    "~",
    ".hidden",
    "a" * 255,
    "%s",
]
NAMES = st.one_of(
    st.sampled_from(ODD),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40),
).filter(lambda name: name not in (".", "..") and len(name.encode()) <= 255)


@dataclass(frozen=True)
class Leaf:
    """A regular file with `content`, followed by a hole of `hole` bytes; a directory or a link where `kind` says so."""

    kind: str
    content: bytes
    hole: int
    mode: int


LEAVES = st.builds(
    Leaf,
    st.sampled_from(["file", "file", "directory", "link"]),
    st.binary(max_size=2000),
    st.sampled_from([0, 0, 0, 1, 511, 512, 3_000_000]),
    st.sampled_from([0o600, 0o644, 0o755, 0o777, 0o4755, 0o2755]),
)
TREES = st.dictionaries(st.lists(NAMES, min_size=1, max_size=8).map(tuple), LEAVES, min_size=1, max_size=10)


def plant(root: Path, tree: dict[tuple[str, ...], Leaf]) -> bool:
    """Make the tree; whether a file in it is set-uid or set-gid. Leaves in the way of others are left out."""
    root.mkdir()
    (root / "index.html").write_bytes(b"always there")
    special = False
    for names, leaf in tree.items():
        path = root.joinpath(*names)
        if len(os.fsencode(path)) > 3000 or any(parent.is_file() for parent in path.parents) or os.path.lexists(path):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        match leaf.kind:
            case "directory":
                path.mkdir()
            case "link":
                path.symlink_to(os.path.relpath(root / "index.html", path.parent.resolve()))
            case _:
                path.write_bytes(leaf.content)
                os.truncate(path, len(leaf.content) + leaf.hole)
                path.chmod(leaf.mode)
                special |= bool(leaf.mode & 0o6000)
    return special


def walk(root: Path) -> Iterator[Path]:
    for directory, below, files in os.walk(root):
        yield from (Path(directory, name) for name in (*below, *files))


def describe(path: Path) -> tuple[object, ...]:
    """Kind, mode, owner, modification time of files, content or link target."""
    status = path.lstat()
    owner = (status.st_uid, status.st_gid)
    if stat.S_ISLNK(status.st_mode):
        return ("link", owner, str(path.readlink()))
    mode = f"{stat.S_IMODE(status.st_mode):o}"
    if stat.S_ISDIR(status.st_mode):
        return ("directory", mode, owner)
    return ("file", mode, owner, int(status.st_mtime), path.read_bytes())


def expected_of(path: Path) -> tuple[object, ...]:
    """The same of a source, as an image should have it: root's, mode 0755 or 0644, no time of this machine."""
    if path.is_symlink():
        return ("link", (0, 0), str(path.readlink()))
    if path.is_dir():
        return ("directory", "755", (0, 0))
    return ("file", "644", (0, 0), modified(File("x", path)), path.read_bytes())


def unpack(site: Path, base: Path) -> Path:
    """The site as one layer of an image, through skopeo, unpacked by tar."""
    hashed, others = read_site(site, ROOT)
    plan = ImagePlan("web", arrange_layers({"all": (*hashed, *others)}), ImageConfig(("/x",), ()))
    layers = tuple(write_layer(layer, blobs_directory(base / "layout")) for layer in plan.layers)
    write_layout(base / "layout", make_documents(plan, layers, architecture="amd64"))
    process.run(["skopeo", "--insecure-policy", "copy", "--quiet", "oci:layout", "dir:copied"], cwd=base)
    (base / "root").mkdir()
    for layer in layers:
        archive = base / "copied" / layer.diff_id.removeprefix("sha256:")
        process.run(
            ["tar", "--extract", "--same-owner", "-p", "--file", str(archive), "--directory", str(base / "root")]
        )
    return base / "root" / ROOT


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(tree=TREES)
def test_what_tar_unpacks_is_what_was_there(tmp_path: Path, tree: dict[tuple[str, ...], Leaf]) -> None:
    base = tmp_path / "example"
    base.mkdir()
    try:
        site = base / "site"
        if plant(site, tree):
            with pytest.raises(ImageError, match="set-uid or set-gid"):
                read_site(site, ROOT)
            for path in walk(site):
                if not path.is_symlink() and path.is_file():
                    path.chmod(0o755)
        there = unpack(site, base)
        wanted = {path.relative_to(site): expected_of(path) for path in walk(site)}
        found = {path.relative_to(there): describe(path) for path in walk(there)}
        assert {path for path in found if path.suffix != ".gz"} == wanted.keys()
        assert {path: found[path] for path in wanted} == wanted
    finally:
        shutil.rmtree(base)


def test_a_large_sparse_file_arrives_whole(tmp_path: Path) -> None:
    site = tmp_path / "site"
    plant(site, {("large",): Leaf("file", b"begin", 0, 0o644)})
    with (site / "large").open("r+b") as file:
        file.truncate(300_000_000)
        file.seek(0, os.SEEK_END)
        file.write(b"end")
    found = unpack(site, tmp_path) / "large"
    assert found.stat().st_size == 300_000_003
    assert process.run(["cmp", str(site / "large"), str(found)]).returncode == 0
