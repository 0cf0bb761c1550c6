"""Build results become images: decide the layers, check what is in them, store them."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import assert_never

from orchestrator.build.closure import Closure, ClosureQuery, RememberedClosures, Scan, StorePath, runtime_closure
from orchestrator.build.disk import remember_images
from orchestrator.build.references import STORE, RememberedReferences, scan_references
from orchestrator.build.runner import BuildResults
from orchestrator.errors import ImageError, UsageError
from orchestrator.events import Emit, PhaseFinished, PhaseStarted
from orchestrator.image.admission import admit
from orchestrator.image.application import Application
from orchestrator.image.builders import build_dockerfile, locked_context
from orchestrator.image.checks import check_image
from orchestrator.image.dockerfile import write_context
from orchestrator.image.explain import remember_contents
from orchestrator.image.layers import ImagePlan
from orchestrator.image.nginx import render_web_config
from orchestrator.image.services import (
    STORE_LAYERS,
    SingleParts,
    StoreShare,
    plan_backend_image,
    plan_gate_image,
    plan_single_image,
    plan_web_image,
    share_store_paths,
)
from orchestrator.image.single import SINGLE
from orchestrator.image.storage import Image, Workshop, store_layers
from orchestrator.plan import PUBLIC_PORT, BackendPlan, Plan, build_name
from orchestrator.process import Cancel
from orchestrator.settings import Assembler, Settings
from orchestrator.tools.nix import closure as query_closure
from orchestrator.tools.nix import open_nix
from orchestrator.tools.podman import Engine

_SHELLS = re.compile(r"bash(-interactive|-minimal)?-[0-9].*")

__all__ = ["Image", "Products", "assemble_images", "plan_images"]


@dataclass(frozen=True, slots=True)
class Products:
    """What the builds left on this machine: nginx's store path, the site's directory, the backend.

    `init` is the store path of the first process of an image for one container. All are for one `platform`, "" being
    this machine's. Without a web server there is no image of one.
    """

    web_server: Path | None
    site: Path | None
    application: Application | None
    init: Path | None = None
    platform: str = ""


def assemble_images(
    settings: Settings,
    plan: Plan,
    results: BuildResults,
    *,
    engine: Engine,
    emit: Emit,
    cancel: Cancel,
) -> tuple[Image, ...]:
    """The application's images, in the engine's storage when this returns: "web", "gate", and the backend's.

    With the layout for one container they are "single" and "gate".

    For another platform than this machine's there is no gate, which publishes a port of this machine.

    Raises `ImageError` when one would not work or holds what must not be in it, `DiskError` when a file system is
    full, `Interrupted` on a stop; an image is stored whole or not at all.
    """
    closure, scan = _queries(settings, cancel)
    workshop = Workshop(settings.name, engine, settings.cache_dir, emit, cancel)
    planned = _plan_all(plan, results, closure, scan)
    images = tuple(_assemble(image, needs, workshop, settings) for image, needs in planned)
    remember_images(settings.cache_dir, settings.name, _own_bytes(images))
    return images


def write_contexts(
    settings: Settings, plan: Plan, results: BuildResults, *, services: tuple[str, ...], cancel: Cancel
) -> dict[str, Path]:
    """The build context (Dockerfile and files) of each image, or of the named ones, by service.

    Raises `UsageError` for an unknown service, `DiskError` when the file system is full.
    """
    closure, scan = _queries(settings, cancel)
    planned = _plan_all(plan, results, closure, scan)
    images = {build_name(image.service, image.platform): image for image, _ in planned}
    unknown = ", ".join(sorted(set(services) - images.keys()))
    if unknown:
        raise UsageError(f"there is no image of {unknown}", hint=f"the images: {', '.join(images)}")
    contexts = {}
    for service in services or tuple(images):
        with locked_context(settings.cache_dir, settings.name, service) as context:
            write_context(images[service], context)
            contexts[service] = context
    return contexts


def _queries(settings: Settings, cancel: Cancel) -> tuple[ClosureQuery, Scan]:
    """Nix is looked for and asked, and products are read, only for what is not remembered."""

    def ask(paths: Sequence[Path]) -> Sequence[StorePath]:
        return query_closure(open_nix(cancel=cancel), paths, cancel=cancel)

    cache = settings.cache_dir
    return RememberedClosures(cache / "closures", ask), RememberedReferences(cache / "references")


def _own_bytes(images: tuple[Image, ...]) -> int:
    """Bytes of the layers made of the builds' products: the others come from the store and seldom change."""
    own = {layer.diff_id: layer.size for image in images for layer in image.layers if layer.name not in STORE_LAYERS}
    return sum(own.values())


def find_products(plan: Plan, results: BuildResults, platform: str | None = None) -> Products:
    """The artifact of each planned service, for one of the plan's platforms; the first unless given."""
    platform = plan.platforms[0] if platform is None else platform
    artifacts = {service.service: service.artifact for service in results.services}
    return Products(
        web_server=results.foreign_web_servers.get(platform) if platform else results.web_server,
        site=artifacts[plan.web.static] if plan.web.static else None,
        application=_find_application(plan.backend, artifacts, platform) if plan.backend else None,
        init=results.init,
        platform=platform,
    )


def _find_application(backend: BackendPlan, artifacts: Mapping[str, Path], platform: str) -> Application:
    artifact = artifacts[build_name(backend.service, platform)]
    return Application(artifact, backend.command, backend.directory, backend.defaults)


def _plan_all(plan: Plan, results: BuildResults, closure: ClosureQuery, scan: Scan) -> list[tuple[ImagePlan, Closure]]:
    """The images for every platform of the plan."""
    products = (find_products(plan, results, platform) for platform in plan.platforms)
    return [planned for found in products for planned in plan_images(plan, found, closure, scan=scan)]


def plan_images(
    plan: Plan, products: Products, closure: ClosureQuery, *, store: Path = STORE, scan: Scan = scan_references
) -> tuple[tuple[ImagePlan, Closure], ...]:
    """Each image for the products' platform with the closure it is made from. Raises `ImageError`."""
    if plan.layout == "single":
        return _plan_single_images(plan, products, closure, store=store, scan=scan)
    server = _store_path(products.web_server, store) if products.web_server else None
    web = runtime_closure("web", [server] if server else [], closure, store=store)
    backend = None
    if products.application:
        without = _shells_of(products.application)
        made = [products.application.path]
        backend = runtime_closure("backend", made, closure, store=store, without=without, scan=scan)
    web_share, backend_share = share_store_paths(web, backend)
    images: list[tuple[ImagePlan, Closure]] = []
    if server is not None:
        images.append((_plan_web(plan, server, web_share, products.site), web))
    if server is not None and not products.platform:
        images.append((plan_gate_image(plan.app, server, web_share), web))
    if plan.backend and products.application and backend:
        service, port = plan.backend.service, plan.backend.port
        images.append((plan_backend_image(plan.app, service, products.application, backend_share, port=port), backend))
    return tuple((replace(image, platform=products.platform), needs) for image, needs in images)


def _plan_web(plan: Plan, server: Path, share: StoreShare, site: Path | None) -> ImagePlan:
    config = render_web_config(plan.web, html=_html_files(site))
    source_maps = bool(plan.web.options.source_maps)
    return plan_web_image(plan.app, server, share, config=config, site=site, source_maps=source_maps)


def _plan_single_images(
    plan: Plan, products: Products, closure: ClosureQuery, *, store: Path, scan: Scan
) -> tuple[tuple[ImagePlan, Closure], ...]:
    """The one image of everything, and the gate of this machine, which shares nginx with it."""
    assert products.init is not None and products.web_server is not None
    server, init = _store_path(products.web_server, store), _store_path(products.init, store)
    made = [products.application.path] if products.application else []
    nginx = runtime_closure("gate", [server], closure, store=store)
    without = _shells_of(products.application)
    whole = runtime_closure(SINGLE, [server, init, *made], closure, store=store, without=without, scan=scan)
    gate_share, share = share_store_paths(nginx, whole)
    html = _html_files(products.site)
    parts = SingleParts(
        server=server,
        init=init,
        config=render_web_config(plan.web, html=html, port=PUBLIC_PORT),
        socket_config=render_web_config(plan.web, html=html),
        site=products.site,
        application=products.application,
        port=plan.backend.port if plan.backend else None,
        source_maps=bool(plan.web.options.source_maps),
    )
    single = plan_single_image(plan.app, parts, share)
    return (single, whole), (plan_gate_image(plan.app, server, gate_share), nginx)


def _shells_of(application: Application | None) -> re.Pattern[str] | None:
    """nixpkgs' interpreters name a shell that only scripts beside them would run; an image has no /bin/sh anyway."""
    return _SHELLS if application is not None and application.command else None


def _store_path(path: Path, store: Path) -> Path:
    """The member of the store that `path` is, leads to, or is inside of."""
    resolved = path.resolve()
    if store not in resolved.parents:
        raise ImageError(f"{path} is not in {store}", hint="it must come from the package set")
    return store / resolved.relative_to(store).parts[0]


def _html_files(site: Path | None) -> dict[str, bytes]:
    if site is None:
        return {}
    return {str(path.relative_to(site)): path.read_bytes() for path in sorted(site.rglob("*.html")) if path.is_file()}


def _assemble(plan: ImagePlan, closure: Closure, workshop: Workshop, settings: Settings) -> Image:
    workshop.cancel.check()
    started = time.monotonic()
    workshop.emit(PhaseStarted(plan.service, "image"))
    rules = settings.image
    admit(plan, closure, allow=rules.allow, budget=rules.budget.get(plan.service), emit=workshop.emit)
    image = _store(plan, workshop, assembler=settings.assembler, check=partial(check_image, plan))
    remember_contents(workshop.cache_dir, workshop.app, image.image_id, plan, closure)
    written = sum(layer.written for layer in image.layers)
    outcome = f"{written} of {len(image.layers)} layers written" if written else "unchanged"
    workshop.emit(PhaseFinished(plan.service, "image", time.monotonic() - started, outcome=outcome))
    return replace(image, store_paths=closure.paths)


def _store(plan: ImagePlan, workshop: Workshop, *, assembler: Assembler, check: Callable[[], None]) -> Image:
    match assembler:
        case "oci":
            return store_layers(plan, workshop, check=check)
        case "buildah" | "podman":
            return build_dockerfile(plan, workshop, program=assembler, check=check)
        case _:
            assert_never(assembler)
