"""Images in a real storage: reproducible, equal by every route, complete or not there at all."""

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import process
from orchestrator.errors import DiskError, ImageError, Interrupted
from orchestrator.files import remove_tree
from orchestrator.image.builders import _no_leftovers, build_dockerfile
from orchestrator.image.layers import Directory, File, ImageConfig, ImagePlan, Link, arrange_layers
from orchestrator.image.storage import Image, Workshop, store_layers
from orchestrator.process import Cancel
from orchestrator.tools.oci import buildah_argv
from orchestrator.tools.podman import Engine

ROOT = os.geteuid() == 0

pytestmark = pytest.mark.skipif(process.find("podman") is None, reason="podman is not installed")


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory with a short name, which podman wants for its run directory; its mounts go with it."""
    directory = Path(tempfile.mkdtemp(prefix="img-"))
    yield directory
    unmount_below(directory)
    remove_tree(directory)


def make_engine(base: Path) -> Engine:
    """podman on a storage below `base`, told nothing about the machine's own."""
    driver = "overlay" if ROOT else "vfs"
    root, runroot = base / "storage", base / "run"
    root.mkdir(parents=True)
    runroot.mkdir()
    config = f'[storage]\ndriver = "{driver}"\ngraphroot = "{root}"\nrunroot = "{runroot}"\n'
    (base / "storage.conf").write_text(config)
    (base / "containers.conf").write_text(
        f'[engine]\nevents_logger = "none"\ncgroup_manager = "cgroupfs"\ntmp_dir = "{base}/tmp"\n'
        f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{base}/net"\n'
    )
    environment = {
        **process.base_environment(os.environ),
        "HOME": str(base),
        "CONTAINERS_STORAGE_CONF": str(base / "storage.conf"),
        "CONTAINERS_CONF": str(base / "containers.conf"),
    }
    podman = process.find("podman")
    assert podman is not None
    return Engine(podman, root, runroot, driver, "none", base, environment)


def unmount_below(directory: Path) -> None:
    """Take away what the storage driver mounts on its own directory, innermost first."""
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for point in sorted((point for point in points if point.startswith(f"{directory}/")), reverse=True):
        process.run(["umount", "--lazy", point], check=False)


@pytest.fixture
def engine(short: Path) -> Engine:
    return make_engine(short / "engine")


@pytest.fixture
def workshop(tmp_path: Path, engine: Engine) -> Workshop:
    return Workshop("towns", engine, tmp_path / "cache", lambda _: None, Cancel())


def make_sources(root: Path, *, order: int = 1, umask: int = 0o022, time: int = 1_000_000_000) -> Path:
    """What builds leave: a library in a store, a program, a site. The arguments are what must not matter."""
    files = [
        ("store/libc/lib/libc.so.6", b"library" * 1000),
        ("store/libc/lib/with space é.so", b"odd name"),
        ("program", b"program" * 500),
        ("site/index.html", b"<p>page</p>" * 300),
        ("site/empty.txt", b""),
        ("site/assets/index-BxYz12_a.js", b"code();" * 2000),
    ]
    before = os.umask(umask)
    try:
        for name, content in files[::order]:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(path.stat().st_mode | (0o100 if name == "program" else 0))
            os.utime(path, (time, time))
        (root / "store/libc/lib/libc.so").symlink_to("libc.so.6")
    finally:
        os.umask(before)
    return root


def plan_of(sources: Path, *, page: bytes | None = None, service: str = "web") -> ImagePlan:
    library = sources / "store/libc/lib"
    layers = arrange_layers(
        {
            "base": [
                Directory("tmp", 0o1777),
                File("etc/passwd", b"app:x:10001:10001:::\n"),
                Directory("nix/store/libc", 0o555),
                Directory("nix/store/libc/lib", 0o555),
                File("nix/store/libc/lib/libc.so.6", library / "libc.so.6", 0o444, immutable=True),
                File("nix/store/libc/lib/with space é.so", library / "with space é.so", 0o444, immutable=True),
                Link("nix/store/libc/lib/libc.so", "libc.so.6"),
            ],
            "application": [File("app/bin/program", sources / "program", 0o755)],
            "assets": [File("srv/www/assets/index-BxYz12_a.js", sources / "site/assets/index-BxYz12_a.js", twin=True)],
            "files": [
                File("srv/www/index.html", page or sources / "site/index.html", twin=True),
                File("srv/www/empty.txt", sources / "site/empty.txt"),
                Link("srv/www/home", "index.html"),
                Directory("srv/www/nothing in it"),
            ],
        }
    )
    labels = (("io.orchestrator.app", "towns"), ("io.orchestrator.service", service))
    config = ImageConfig(("/app/bin/program", "-x"), labels, environment=(("PATH", "/app/bin"),), ports=(3000,))
    return ImagePlan(service, layers, config)


def nothing() -> None:
    """A check that has no objection."""


def build(plan: ImagePlan, workshop: Workshop, route: str) -> Image:
    if route == "oci":
        return store_layers(plan, workshop, check=nothing)
    assert route in ("buildah", "podman")
    return build_dockerfile(plan, workshop, program=route, check=nothing)  # type: ignore[arg-type]  # asserted


def stored_tree(image: Image, engine: Engine, out: Path) -> dict[str, tuple[object, ...]]:
    """The image's files as the storage gives them back: kind, mode, owner, link target or content, by path."""
    tree: dict[str, tuple[object, ...]] = {}
    for archive in stored_layers(image, engine, out):
        for member in archive:
            source = archive.extractfile(member) if member.isreg() else None
            content = hashlib.sha256(source.read()).hexdigest() if source else member.linkname
            mode = 0o777 if member.issym() else member.mode & 0o7777
            tree[path_of(member)] = (member.type, mode, member.uid, member.gid, content)
    tree.pop("", None)
    return tree


def path_of(member: tarfile.TarInfo) -> str:
    return member.name.removeprefix("./").rstrip("/")


def stored_layers(image: Image, engine: Engine, out: Path) -> Iterator[tarfile.TarFile]:
    """The archives of a stored image, bottom first; `out` is made for them."""
    shutil.rmtree(out, ignore_errors=True)
    reference = engine.storage_reference(image.reference)
    process.run(
        ["skopeo", "--insecure-policy", "copy", "--quiet", reference, f"oci:{out.name}"],
        env=engine.environment,
        cwd=out.parent,
    )
    manifest = blob(out, json.loads((out / "index.json").read_text())["manifests"][0])
    for layer in json.loads(manifest)["layers"]:
        with tarfile.open(out / "blobs" / "sha256" / layer["digest"].removeprefix("sha256:")) as archive:
            yield archive


def blob(layout: Path, descriptor: dict[str, str]) -> bytes:
    return (layout / "blobs" / "sha256" / descriptor["digest"].removeprefix("sha256:")).read_bytes()


def configuration(image: Image, engine: Engine) -> dict[str, object]:
    told = process.run(
        ["skopeo", "--insecure-policy", "inspect", "--config", engine.storage_reference(image.reference)],
        env=engine.environment,
    )
    config: dict[str, object] = json.loads(told.stdout)["config"]
    return config


def test_every_route_gives_the_same_tree_and_configuration(tmp_path: Path, workshop: Workshop) -> None:
    plan = plan_of(make_sources(tmp_path / "sources", umask=0o077))
    images = {route: build(plan, workshop, route) for route in ("oci", "buildah", "podman")}
    trees = {route: stored_tree(image, workshop.engine, tmp_path / "out") for route, image in images.items()}
    assert trees["oci"]["tmp"] == (tarfile.DIRTYPE, 0o1777, 0, 0, "")
    assert trees["oci"]["nix/store/libc/lib"][1] == 0o555
    assert trees["oci"]["app/bin/program"][1] == 0o755
    assert "srv/www/index.html.gz" in trees["oci"]
    assert trees["buildah"] == trees["oci"]
    assert trees["podman"] == trees["oci"]
    configurations = [configuration(image, workshop.engine) for image in images.values()]
    assert configurations[0] == configurations[1] == configurations[2]
    assert images["buildah"].image_id == images["podman"].image_id


def test_order_umask_times_and_place_do_not_matter(short: Path) -> None:
    images = []
    for number, (order, umask, time) in enumerate([(1, 0o022, 5), (-1, 0o077, 1_700_000_000)]):
        base = short / str(number)
        sources = make_sources(base / ("deep/er" * number) / "sources", order=order, umask=umask, time=time)
        shop = Workshop("towns", make_engine(base / "engine"), base / "cache", lambda _: None, Cancel())
        images.append(store_layers(plan_of(sources), shop, check=nothing))
    assert images[0] == images[1]


def test_ids_are_those_the_engine_reports(tmp_path: Path, workshop: Workshop) -> None:
    for route in ("oci", "buildah"):
        image = build(plan_of(make_sources(tmp_path / route)), workshop, route)
        told = workshop.engine.run("image", "inspect", "--format", "{{.Id}} {{.Digest}}", image.reference)
        assert told.stdout.split() == [image.image_id, image.manifest_digest]
        assert [layer.name for layer in image.layers] == ["base", "application", "assets", "files"]
        assert image.size == sum(layer.size for layer in image.layers)
        assert image.reference == f"localhost/orchestrator/towns-web:{image.image_id[:12]}"


@pytest.mark.parametrize("route", ["oci", "buildah"])
def test_only_what_changed_is_written(tmp_path: Path, workshop: Workshop, route: str) -> None:
    sources = make_sources(tmp_path / "sources")
    first = build(plan_of(sources), workshop, route)
    assert [layer.written for layer in first.layers] == [True] * 4
    again = build(plan_of(sources), workshop, route)
    assert [layer.written for layer in again.layers] == [False] * 4
    assert again.image_id == first.image_id
    workshop.engine.run("create", first.image_id)
    changed = build(plan_of(sources, page=b"<p>another page"), workshop, route)
    assert [layer.written for layer in changed.layers] == [False, False, False, True]
    assert [layer.diff_id for layer in changed.layers[:3]] == [layer.diff_id for layer in first.layers[:3]]
    assert changed.image_id != first.image_id


@pytest.mark.parametrize("route", ["oci", "buildah"])
def test_pages_of_equal_length_get_different_times(tmp_path: Path, workshop: Workshop, route: str) -> None:
    """nginx makes an ETag of length and time: with equal ones a browser would keep the old page."""
    sources = make_sources(tmp_path / "sources")
    times = set()
    for page in (b"<script src=a>", b"<script src=b>"):
        image = build(plan_of(sources, page=page), workshop, route)
        for archive in stored_layers(image, workshop.engine, tmp_path / "out"):
            times |= {member.mtime for member in archive if path_of(member) == "srv/www/index.html"}
    assert len(times) == 2


def test_nothing_is_stored_or_kept_twice(tmp_path: Path, workshop: Workshop) -> None:
    plan = plan_of(make_sources(tmp_path / "sources"))
    store_layers(plan, workshop, check=nothing)
    left = [path for path in workshop.cache_dir.rglob("*") if path.is_file()]
    assert {path.parent.name for path in left} == {"layers"}
    assert sum(path.stat().st_size for path in left) < 2000
    refused = replace(workshop, emit=lambda _: None)
    store_layers(plan, refused, check=lambda: pytest.fail("an image that is there was checked again"))


def test_a_known_layer_that_left_the_storage_is_written_again(tmp_path: Path, workshop: Workshop) -> None:
    plan = plan_of(make_sources(tmp_path / "sources"))
    first = store_layers(plan, workshop, check=nothing)
    assert workshop.engine.remove_image(first.image_id)
    again = store_layers(plan, workshop, check=nothing)
    assert all(layer.written for layer in again.layers)
    assert again.image_id == first.image_id
    assert workshop.engine.image_exists(first.image_id)


def test_layers_above_one_that_changed_are_written_too(tmp_path: Path, workshop: Workshop) -> None:
    sources = make_sources(tmp_path / "sources")
    store_layers(plan_of(sources), workshop, check=nothing)
    (sources / "program").write_bytes(b"another program" * 500)
    changed = store_layers(plan_of(sources), workshop, check=nothing)
    assert [layer.written for layer in changed.layers] == [False, True, True, True]


def test_a_record_that_lies_is_found_out(tmp_path: Path, workshop: Workshop) -> None:
    sources = make_sources(tmp_path / "sources")
    first = store_layers(plan_of(sources), workshop, check=nothing)
    for record in workshop.records.directory.iterdir():
        record.write_text(json.dumps({"diff_id": "sha256:" + "0" * 64, "size": 10240}))
    assert store_layers(plan_of(sources), workshop, check=nothing).image_id == first.image_id


def test_an_image_that_fails_its_check_is_not_stored(tmp_path: Path, workshop: Workshop) -> None:
    def object_to() -> None:
        raise ImageError("no")

    plan = plan_of(make_sources(tmp_path / "sources"))
    for route in (store_layers, build_dockerfile):
        with pytest.raises(ImageError, match="no"):
            extra = {"program": "podman"} if route is build_dockerfile else {}
            route(plan, workshop, check=object_to, **extra)  # type: ignore[operator]  # one of two functions
    assert workshop.engine.run("images", "--all", "--quiet").stdout == ""


def test_a_file_that_changes_meanwhile_is_noticed(tmp_path: Path, workshop: Workshop) -> None:
    sources = make_sources(tmp_path / "sources")

    def meddle() -> None:
        """Between measuring and storing."""
        (sources / "program").write_bytes(b"PROGRAM" * 500)

    with pytest.raises(ImageError, match="app/bin/program changed while it was read"):
        store_layers(plan_of(sources), workshop, check=meddle)
    assert workshop.engine.run("images", "--all", "--quiet").stdout == ""
    assert store_layers(plan_of(sources), workshop, check=nothing)


@pytest.mark.parametrize("route", ["oci", "podman"])
def test_a_stop_leaves_no_image_and_no_container(tmp_path: Path, workshop: Workshop, route: str) -> None:
    workshop.cancel.request()
    with pytest.raises(Interrupted):
        build(plan_of(make_sources(tmp_path / "sources")), workshop, route)
    assert workshop.engine.undisturbed.run("images", "--all", "--quiet").stdout == ""
    assert workshop.engine.undisturbed.run("ps", "--all", "--external", "--quiet").stdout == ""


def test_working_containers_of_failed_and_killed_builds_are_taken_away_and_no_others(workshop: Workshop) -> None:
    engine = workshop.engine
    buildah = buildah_argv(root=engine.root, runroot=engine.runroot, driver=engine.driver)
    process.run([*buildah, "from", "--name", "theirs", "scratch"], env=engine.environment)
    process.run([*buildah, "from", "scratch"], env=engine.environment)  # as a killed build leaves it
    with _no_leftovers(engine):
        assert container_names(engine) == ["theirs"]
    with pytest.raises(KeyError), _no_leftovers(engine):
        process.run([*buildah, "from", "scratch"], env=engine.environment)
        raise KeyError
    assert container_names(engine) == ["theirs"]


def container_names(engine: Engine) -> list[str]:
    return engine.run("ps", "--all", "--external", "--format", "{{.Names}}").stdout.split()


def test_a_failing_build_shows_what_the_program_said(tmp_path: Path, workshop: Workshop, monkeypatch) -> None:
    monkeypatch.setattr("orchestrator.image.dockerfile.render_dockerfile", lambda _: "FROM scratch\nCOPY absent /\n")
    with pytest.raises(ImageError, match="podman could not build the Dockerfile") as caught:
        build(plan_of(make_sources(tmp_path / "sources")), workshop, "podman")
    assert "absent" in " ".join(caught.value.details)


@pytest.mark.skipif(not ROOT, reason="mounting a small file system needs root")
@pytest.mark.parametrize("route", ["oci", "buildah", "podman"])
def test_a_full_disk_is_said_and_leaves_no_image(
    tmp_path: Path, short: Path, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.image.storage.check_space", lambda needs: None)
    base = short / "engine"
    base.mkdir()
    process.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(base)])
    shop = Workshop("towns", make_engine(base), tmp_path / "cache", lambda _: None, Cancel())
    sources = make_sources(tmp_path / "sources")
    with (sources / "program").open("wb") as file:
        file.write(os.urandom(6_000_000))
    with pytest.raises(DiskError, match="no space left"):
        build(plan_of(sources), shop, route)
    # podman cannot even start without room for its database
    process.run(["mount", "-o", "remount,size=100m", str(base)])
    assert "towns-web" not in shop.engine.run("images", "--format", "{{.Repository}}").stdout
    assert shop.engine.run("ps", "--all", "--external", "--quiet").stdout == ""
    assert build(plan_of(sources), shop, route).size > 6_000_000
