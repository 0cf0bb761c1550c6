"""A file system that fills up at any stage: one clear error, nothing half-made, all usable with room again."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath

import pytest

from orchestrator import process
from orchestrator.build import artifacts
from orchestrator.build.jobserver import Slot
from orchestrator.build.snapshot import Snapshot, take_snapshot
from orchestrator.build.steps import Bench, Command, run_command
from orchestrator.build.toolchain import Toolchain
from orchestrator.build.workspace import open_workspace, sync_sources
from orchestrator.deploy.state import AppStore, ReleaseRecord
from orchestrator.errors import DiskError
from orchestrator.files import remove_tree
from orchestrator.image import scratch, storage
from orchestrator.image.layers import File, ImagePlan, arrange_layers
from orchestrator.image.storage import Workshop, store_layers
from orchestrator.plan import BuildPlan
from orchestrator.process import Cancel
from orchestrator.recipes import CargoOutput
from orchestrator.settings import Health, Limits
from orchestrator.tools.nix import Nix
from tests.integration.test_images import make_engine, make_sources, nothing, plan_of, unmount_below

BYTES = 64_000_000
LATER = 4_000_000_000_000_000_000
API = BuildPlan(
    "api", "backend", "rust", PurePosixPath("api"), PurePosixPath("Cargo.lock"), (), CargoOutput("api", "api")
)  # fmt: skip

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system of its own")


@dataclass(frozen=True)
class SmallDisk:
    """A file system of `BYTES`."""

    path: Path

    def fill(self, *, leave: int = 0) -> None:
        """Use all of it up but about `leave` bytes."""
        free = shutil.disk_usage(self.path).free
        with (self.path / "filler").open("ab") as file:
            os.posix_fallocate(file.fileno(), file.tell(), free - leave)

    def make_room(self) -> None:
        (self.path / "filler").unlink()

    def used(self) -> int:
        return shutil.disk_usage(self.path).used


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    base = Path(tempfile.mkdtemp(prefix="full-"))
    try:
        process.run(["mount", "-t", "tmpfs", "-o", f"size={BYTES}", "tmpfs", str(base)])
    except process.ProcessError:
        base.rmdir()
        pytest.skip("this machine lets nobody mount")
    yield SmallDisk(base)
    unmount_below(base)
    process.run(["umount", "--lazy", str(base)])
    base.rmdir()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    root.mkdir()
    (root / "big").write_bytes(os.urandom(5_000_000))
    return root


def snapshot_of(root: Path, cache: Path) -> Snapshot:
    return take_snapshot(root, cache_dir=cache, emit=lambda _: None, clock=lambda: LATER)


def test_snapshot(disk: SmallDisk, repository: Path) -> None:
    disk.fill()
    with pytest.raises(DiskError, match="no space left on the file system of"):
        snapshot_of(repository, disk.path / "cache")
    disk.make_room()
    assert snapshot_of(repository, disk.path / "cache").entries


def test_workspace(disk: SmallDisk, repository: Path, tmp_path: Path) -> None:
    snapshot = snapshot_of(repository, tmp_path / "cache")
    disk.fill(leave=2_000_000)
    with pytest.raises(DiskError), open_workspace(disk.path, "app", "api", inside=False) as workspace:
        sync_sources(workspace, snapshot)
    disk.make_room()
    with open_workspace(disk.path, "app", "api", inside=False) as workspace:
        sync_sources(workspace, snapshot)
        assert (workspace.path / "src" / "big").read_bytes() == (repository / "big").read_bytes()


@pytest.mark.parametrize("program", ["head -c 9000000 /dev/zero > big", "head -c 9000000 /dev/zero > big 2>&-; exit 9"])
def test_build(disk: SmallDisk, tmp_path: Path, program: str) -> None:
    """A program that says why it failed, and one that dies without a word."""
    with open_workspace(disk.path, "app", "api", inside=False) as workspace:
        disk.fill(leave=1_000_000)
        bench = Bench(
            service="api",
            workspace=workspace,
            toolchain=Toolchain(
                "host", "", "flake.nix", "", tmp_path, Nix(Path("nix"), (2, 8), {}), "", (), (), nix_writable=False
            ),
            hidden=(),
            slot=Slot((0, 1), {}),
            log=tmp_path / "log",
            emit=lambda _: None,
            cancel=Cancel(),
        )
        command = Command(("sh", "-c", program), PurePosixPath(), {"PATH": os.environ["PATH"]})
        with pytest.raises(DiskError, match=r"api: no space left for sh -c .* \([01] MB free"):
            run_command(bench, command)
        disk.make_room()
        run_command(bench, replace(command, argv=("true",)))


def test_artifact(disk: SmallDisk, tmp_path: Path) -> None:
    product = tmp_path / "api"
    product.write_bytes(b"x" * 3_000_000)
    save = partial(artifacts.save_artifact, disk.path, "app", API)
    kept = save("1" * 64, product)
    disk.fill(leave=1_000_000)
    used = disk.used()
    with pytest.raises(DiskError):
        save("2" * 64, product)
    assert disk.used() <= used, "nothing half-written is left"
    assert artifacts.find_artifact(disk.path, "app", API, "1" * 64) == kept
    assert artifacts.find_artifact(disk.path, "app", API, "2" * 64) is None
    disk.make_room()
    assert save("2" * 64, product).path.read_bytes() == product.read_bytes()


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No room in memory, and no prediction: it is the failure that counts here."""
    monkeypatch.setattr(storage, "fits_memory", lambda need: False)
    absent = Path("/nonexistent")
    monkeypatch.setattr(storage, "scratch_directory", partial(scratch.scratch_directory, memory=absent))
    monkeypatch.setattr(storage, "check_space", lambda needs: None)


def with_data(plan: ImagePlan, data: Path) -> ImagePlan:
    """`plan` with a layer of `data` more."""
    return replace(plan, layers=(*plan.layers, *arrange_layers({"data": [File("data", data)]})))


@pytest.mark.skipif(process.find("podman") is None, reason="podman is not installed")
@pytest.mark.parametrize("leave", [30_000, 6_000_000, 15_000_000], ids=["layers", "temporary file", "engine storage"])
def test_image(disk: SmallDisk, tmp_path: Path, on_disk: None, leave: int) -> None:
    engine = make_engine(disk.path / "engine")
    workshop = Workshop("app", engine, disk.path / "cache", lambda _: None, Cancel())
    plan = plan_of(make_sources(tmp_path / "sources"))
    before = store_layers(plan, workshop, check=nothing)
    data = tmp_path / "data"
    data.write_bytes(os.urandom(10_000_000))
    disk.fill(leave=leave)
    listed = engine.run("images", "--all", "--quiet").stdout
    with pytest.raises(DiskError):
        store_layers(with_data(plan, data), workshop, check=nothing)
    assert engine.run("images", "--all", "--quiet").stdout == listed
    assert list((disk.path / "engine" / "scratch").iterdir()) == []
    disk.make_room()
    assert engine.image_exists(before.image_id)
    after = store_layers(with_data(plan, data), workshop, check=nothing)
    assert not any(layer.written for layer in after.layers[:-1]), "the records of earlier layers stayed"
    mount = Path(engine.run("image", "mount", after.image_id).stdout.strip())
    assert (mount / "data").read_bytes() == data.read_bytes()
    engine.run("image", "unmount", "--force", after.image_id)


@pytest.mark.skipif(process.find("podman") is None, reason="podman is not installed")
def test_without_room_in_memory_only_one_temporary_copy_is_made(
    disk: SmallDisk, tmp_path: Path, on_disk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(disk.path / "engine")
    workshop = Workshop("app", engine, tmp_path / "cache", lambda _: None, Cancel())
    data = tmp_path / "data"
    data.write_bytes(os.urandom(25_000_000))
    plan = with_data(plan_of(make_sources(tmp_path / "sources")), data)
    image = store_layers(plan, workshop, check=nothing)  # 64 MB hold it twice, not three times
    monkeypatch.undo()
    other = Workshop("app", make_engine(tmp_path / "e"), tmp_path / "cache2", lambda _: None, Cancel())
    layout = store_layers(plan, other, check=nothing)
    unmount_below(tmp_path)
    remove_tree(tmp_path / "e")
    assert (layout.image_id, layout.manifest_digest) == (image.image_id, image.manifest_digest)


def test_a_file_that_vanishes_while_it_is_offered_is_named(disk: SmallDisk, tmp_path: Path, on_disk: None) -> None:
    engine = make_engine(disk.path / "engine")
    workshop = Workshop("app", engine, tmp_path / "cache", lambda _: None, Cancel())
    data = tmp_path / "data"
    data.write_bytes(b"x" * 100_000)
    plan = with_data(plan_of(make_sources(tmp_path / "sources")), data)
    with pytest.raises(FileNotFoundError, match="data"):
        store_layers(plan, workshop, check=data.unlink)


def record(release: str) -> ReleaseRecord:
    return ReleaseRecord(
        id=release,
        app="app",
        created=datetime.now(UTC),
        port=8080,
        domains=(),
        page=True,
        api_prefix=None,
        images={},
        web_limits=Limits(),
        backend=None,
        health=Health(),
    )


def test_state(disk: SmallDisk) -> None:
    store = AppStore(disk.path, "app")
    store.activate(record("20260101-000000"))
    disk.fill()
    with pytest.raises(DiskError):
        store.activate(record("20260101-000001"))
    assert store.current() == store.releases()[0]
    disk.make_room()
    store.remove_partial()
    store.activate(record("20260101-000001"))
    assert [release.id for release in store.releases()] == ["20260101-000000", "20260101-000001"]
