"""From build results to images: programs linked by gcc against a store of our own, started from their image."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator import process
from orchestrator.errors import ImageError
from orchestrator.events import Event, PhaseFinished, PhaseStarted
from orchestrator.image import assemble
from orchestrator.image.application import Application
from orchestrator.image.assemble import Image, Products, assemble_images, plan_images
from orchestrator.plan import BackendPlan, Plan, Proxy, WebPlan
from orchestrator.process import Cancel
from orchestrator.settings import Settings
from orchestrator.tools.podman import Engine
from tests.integration.test_images import ROOT, engine, short

__all__ = ["engine", "short"]

MISSING = [name for name in ("gcc", "podman", "skopeo") if process.find(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {MISSING}")

PLAN = Plan(
    app="towns",
    builds=(),
    web=WebPlan(static="frontend", spa=True, proxy=Proxy("backend", 3000, "/api", ())),
    backend=BackendPlan("backend", 3000, "/health", None),
)


@dataclass(frozen=True)
class Member:
    path: Path
    references: tuple[Path, ...] = ()


class Store:
    """A store with the machine's own C library in it, and packages compiled here."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.members: dict[Path, Member] = {}
        self.libc = self.add("libc")
        for name in ("libc.so.6", "ld-linux-x86-64.so.2"):
            found = process.run(["gcc", f"-print-file-name={name}"]).stdout.strip()
            (self.libc / "lib").mkdir(exist_ok=True)
            shutil.copy(Path(found).resolve(), self.libc / "lib" / name)

    def add(self, name: str, *references: Path) -> Path:
        letter = "abcdfghijk"[len(self.members)]
        path = self.root / f"{letter * 32}-{name}"
        path.mkdir(parents=True)
        self.members[path] = Member(path, references)
        return path

    def closure(self, paths: Sequence[Path]) -> tuple[Member, ...]:
        found: dict[Path, Member] = {}
        pending = list(paths)
        while pending:
            member = self.members[pending.pop()]
            if member.path not in found:
                found[member.path] = member
                pending += member.references
        return tuple(found.values())

    def compile(self, out: Path, code: str, *flags: str) -> Path:
        """A program whose loader and libraries are this store's, as the dev shell's linker makes them."""
        out.parent.mkdir(parents=True, exist_ok=True)
        source = out.with_suffix(".c")
        source.write_text(code)
        lib = self.libc / "lib"
        linking = [f"-Wl,--dynamic-linker={lib}/ld-linux-x86-64.so.2", f"-Wl,-rpath,{lib}"]
        process.run(["gcc", "-o", str(out), str(source), *linking, *flags])
        source.unlink()
        return out


@pytest.fixture
def store(short: Path) -> Store:
    return Store(short / "store")


@pytest.fixture
def products(short: Path, store: Store) -> Products:
    nginx = store.add("nginx", store.libc)
    store.compile(nginx / "bin" / "nginx", "int main(void) { return 7; }")
    (nginx / "conf").mkdir()
    (nginx / "conf" / "mime.types").write_text("types { text/html html; }")
    site = short / "site"
    (site / "assets").mkdir(parents=True)
    (site / "index.html").write_text("<!doctype html><script>go()</script>")
    (site / "assets" / "index-BxYz12_a.js").write_text("code();" * 1000)
    code = "#include <unistd.h>\nint main(void) { return getuid() == 10001 && getgid() == 10001 ? 42 : 1; }"
    return Products(nginx, site, Application(store.compile(short / "build" / "towns-server", code)))


@dataclass
class Run:
    """One call of `assemble_images` after the other, in one engine."""

    store: Store
    products: Products
    engine: Engine
    settings: Settings
    events: list[Event]

    def __call__(self) -> dict[str, Image]:
        services = (
            SimpleNamespace(service="frontend", artifact=self.products.site),
            SimpleNamespace(service="backend", artifact=self.products.application.path),
        )
        results = SimpleNamespace(services=services, web_server=self.products.web_server, init=None)
        made = assemble_images(
            self.settings,
            PLAN,
            results,  # type: ignore[arg-type]  # what is read of it
            engine=self.engine,
            emit=self.events.append,
            cancel=Cancel(),
        )
        return {image.service: image for image in made}

    def stored(self) -> str:
        return self.engine.run("images", "--all", "--quiet").stdout


@pytest.fixture
def run(short: Path, store: Store, products: Products, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(assemble, "plan_images", partial(plan_images, store=store.root))
    monkeypatch.setattr(assemble, "open_nix", lambda cancel: None)
    monkeypatch.setattr(assemble, "query_closure", lambda _, paths, cancel: store.closure(paths))
    settings = Settings(name="towns", state_dir=short / "state", cache_dir=short / "cache")
    return Run(store, products, engine, settings, [])


@pytest.fixture
def mounted(engine: Engine) -> Iterator[dict[str, Path]]:
    """Image id to its files; filled by `mount_image`, emptied at the end."""
    mounts: dict[str, Path] = {}
    yield mounts
    for image_id in mounts:
        engine.run("image", "unmount", "--force", image_id)


def test_three_images_from_one_application(run: Run) -> None:
    images = run()
    assert list(images) == ["web", "gate", "backend"]
    layers = {service: {layer.name: layer.diff_id for layer in image.layers} for service, image in images.items()}
    assert list(layers["web"]) == ["base", "runtime", "assets", "files"]
    assert list(layers["gate"]) == ["base", "runtime", "files"]
    assert list(layers["backend"]) == ["base", "application"]
    assert layers["web"]["base"] == layers["gate"]["base"] == layers["backend"]["base"]
    assert layers["web"]["runtime"] == layers["gate"]["runtime"]
    assert [type(event) for event in run.events] == [PhaseStarted, PhaseFinished] * 3
    assert [event.outcome for event in run.events if isinstance(event, PhaseFinished)] == [
        "4 of 4 layers written",
        "1 of 3 layers written",
        "1 of 2 layers written",
    ]


def test_a_second_run_changes_nothing(run: Run) -> None:
    first = run()
    run.events.clear()
    second = run()
    assert {service: image.image_id for service, image in first.items()} == {
        service: image.image_id for service, image in second.items()
    }
    assert {event.outcome for event in run.events if isinstance(event, PhaseFinished)} == {"unchanged"}


@pytest.mark.skipif(not ROOT, reason="chroot needs root")
def test_programs_start_from_their_image_as_user_10001(run: Run, mounted: dict[str, Path]) -> None:
    images = run()
    for service, expected in (("backend", 42), ("web", 7), ("gate", 7)):
        root = Path(run.engine.run("image", "mount", images[service].image_id).stdout.strip())
        mounted[images[service].image_id] = root
        entrypoint = run.engine.run(
            "image", "inspect", "--format", "{{index .Config.Entrypoint 0}}", images[service].image_id
        )
        started = process.run(["chroot", "--userspec=10001:10001", str(root), entrypoint.stdout.strip()], check=False)
        assert (service, started.returncode, started.stderr) == (service, expected, "")


def test_a_library_outside_the_closure_is_named_and_nothing_is_stored(run: Run, short: Path) -> None:
    library = short / "elsewhere" / "libextra.so"
    run.store.compile(library, "int extra(void) { return 1; }", "-shared", "-fPIC", "-Wl,-soname,libextra.so")
    program = run.products.application.path
    assert program is not None
    run.store.compile(program, "int extra(void); int main(void) { return extra(); }", f"-L{library.parent}", "-lextra")
    with pytest.raises(ImageError, match=r"/app/bin/towns-server needs libextra\.so, which is not in the image"):
        run()
    assert "backend" not in run.engine.run("images", "--format", "{{.Repository}}").stdout


def test_a_program_linked_to_the_machines_loader_is_refused(run: Run) -> None:
    program = run.products.application.path
    assert program is not None
    (program.parent / "main.c").write_text("int main(void) { return 0; }")
    process.run(["gcc", "-o", str(program), str(program.parent / "main.c")])
    with pytest.raises(ImageError, match=r"needs the dynamic loader /lib.*/ld-linux.* which is not in the image"):
        run()


def test_a_shell_is_refused_with_the_chain_that_pulls_it_in(run: Run) -> None:
    bash = run.store.add("bash", run.store.libc)
    run.store.compile(bash / "bin" / "bash", "int main(void) { return 0; }")
    tool = run.store.add("tool", bash)
    program = run.products.application.path
    assert program is not None
    run.store.compile(program, f'const char *tool = "{tool}/bin/x"; int main(void) {{ return !tool; }}')
    with pytest.raises(ImageError, match=r"the backend image would contain .*: bash") as caught:
        run()
    assert caught.value.details == (f"{bash}/bin/bash: backend refers to {tool} refers to {bash}",)


def test_a_web_server_outside_the_store_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is not in"):
        plan_images(PLAN, Products(tmp_path, None, None), run.store.closure, store=run.store.root)


def test_the_pages_inline_scripts_reach_the_configuration(run: Run, products: Products) -> None:
    (web, _), *_ = plan_images(PLAN, products, run.store.closure, store=run.store.root)
    config = next(entry for entry in web.entries if entry.path == "etc/nginx/nginx.conf")
    assert "sha256-" in config.source.decode()


@pytest.mark.skipif(process.find("buildah") is None, reason="buildah is not installed")
@pytest.mark.parametrize("assembler", ["buildah", "podman"])
def test_the_other_assemblers(run: Run, assembler: str) -> None:
    run.settings = run.settings.model_copy(update={"assembler": assembler})
    images = run()
    assert {service: len(image.layers) for service, image in images.items()} == {"web": 4, "gate": 3, "backend": 2}
    assert (run.settings.cache_dir / "contexts" / "towns" / "backend" / "Dockerfile").is_file()
