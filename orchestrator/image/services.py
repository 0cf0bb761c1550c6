"""The image of each service: which layers it has and how it starts. Layers are ordered by how rarely they change."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.build.closure import Closure
from orchestrator.build.references import STORE
from orchestrator.errors import ImageError
from orchestrator.image.application import Application, application_environment, application_layers
from orchestrator.image.contents import read_site, read_store_paths
from orchestrator.image.layers import Directory, Entry, File, ImageConfig, ImagePlan, Link, arrange_layers
from orchestrator.image.nginx import (
    COMMAND,
    CONFIG_PATH,
    DOCUMENT_ROOT,
    SOCKET_CONFIG_PATH,
    SOCKET_DIR,
)
from orchestrator.image.single import SINGLE, STOP_SECONDS
from orchestrator.plan import PUBLIC_PORT

APP_LABEL = "io.orchestrator.app"
SERVICE_LABEL = "io.orchestrator.service"

STORE_LAYERS = ("base", "runtime")
"""The layers of store paths."""

_CERTIFICATES = "etc/ssl/certs/ca-bundle.crt"
_SKELETON: tuple[Entry, ...] = (
    File("etc/passwd", b"root:x:0:0:root:/:/none\napp:x:10001:10001:app:/:/none\n"),
    File("etc/group", b"root:x:0:\napp:x:10001:\n"),
    File("etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n"),
    Directory("tmp", 0o1777),
)
"""What every image has: the user's name, look-ups that ask /etc/hosts first, and a mount point for writing."""


@dataclass(frozen=True, slots=True)
class StoreShare:
    """The store paths of one service: `base` is the same for all images of the application, `own` the rest."""

    base: tuple[Path, ...]
    own: tuple[Path, ...]
    store: Path = STORE


def share_store_paths(web: Closure, backend: Closure | None) -> tuple[StoreShare, StoreShare]:
    """Split what (web, backend) need into what both need and what only one does."""
    if backend is None:
        return StoreShare((), web.paths, web.store), StoreShare((), (), web.store)
    base = tuple(sorted(frozenset(web.paths) & frozenset(backend.paths)))
    return _share(base, web), _share(base, backend)


def _share(base: tuple[Path, ...], closure: Closure) -> StoreShare:
    own = tuple(path for path in closure.paths if path not in frozenset(base))
    return StoreShare(base, own, closure.store)


def plan_web_image(
    app: str, server: Path, share: StoreShare, *, config: str, site: Path | None, source_maps: bool = False
) -> ImagePlan:
    """nginx (the store path `server`), its configuration and the built frontend, if there is one.

    Raises `ImageError` when the site holds what cannot be served or `server` is not nginx.
    """
    hashed: tuple[Entry, ...] = ()
    others: tuple[Entry, ...] = ()
    if site is not None:
        hashed, others = read_site(site, _image_path(DOCUMENT_ROOT), source_maps=source_maps)
    layers = arrange_layers(
        {
            **_store_layers(share),
            "assets": hashed,
            "files": (*others, *_web_files(server), File(_image_path(CONFIG_PATH), config.encode())),
        }
    )
    return ImagePlan("web", layers, _nginx_config(app, "web", server))


def plan_gate_image(app: str, server: Path, share: StoreShare) -> ImagePlan:
    """The same nginx without a site: its configuration is mounted at /etc/nginx/nginx.conf when it runs."""
    layers = arrange_layers({**_store_layers(share), "files": _web_files(server)})
    return ImagePlan("gate", layers, _nginx_config(app, "gate", server))


def plan_backend_image(app: str, service: str, application: Application, share: StoreShare, *, port: int) -> ImagePlan:
    """One executable at /app/bin under its own name, or an interpreter's tree at /app, and what it needs of the store.

    Raises `ImageError` when it is not an executable file, or holds what cannot be in an image.
    """
    made = application_layers(application, share.store)
    layers = arrange_layers({**_store_layers(share), **made, "files": _certificate_links((*share.base, *share.own))})
    config = ImageConfig(
        entrypoint=application.entrypoint,
        labels=_labels(app, service),
        environment=application_environment(application, made),
        ports=(port,),
        directory=application.directory,
    )
    return ImagePlan(service, layers, config)


@dataclass(frozen=True, slots=True)
class SingleParts:
    """What one image for one container is made of: store paths of nginx and of the init, and what was built.

    `config` is nginx's for an image that stands alone, `socket_config` for a release of ours; `port` is the backend's.
    """

    server: Path
    init: Path
    config: str
    socket_config: str
    site: Path | None
    application: Application | None
    port: int | None
    source_maps: bool = False


def plan_single_image(app: str, parts: SingleParts, share: StoreShare) -> ImagePlan:
    """nginx, the built frontend and the backend's program, started by the init.

    The last argument of the entry point's is the path of nginx's configuration, so that a container's command
    chooses it. Raises `ImageError` for what `plan_web_image` and `plan_backend_image` refuse.
    """
    site = parts.site
    hashed, others = (
        read_site(site, _image_path(DOCUMENT_ROOT), source_maps=parts.source_maps) if site is not None else ((), ())
    )
    made = application_layers(parts.application, share.store) if parts.application else {}
    layers = arrange_layers(
        {
            **_store_layers(share),
            **made,
            "assets": hashed,
            "files": (
                *others,
                *_web_files(parts.server),
                *_certificate_links((*share.base, *share.own)),
                File(_image_path(CONFIG_PATH), parts.config.encode()),
                File(_image_path(SOCKET_CONFIG_PATH), parts.socket_config.encode()),
            ),
        }
    )
    environment = application_environment(parts.application, made) if parts.application else (("PATH", "/app/bin"),)
    config = ImageConfig(
        entrypoint=_init_arguments(parts),
        command=(CONFIG_PATH,),
        labels=_labels(app, SINGLE),
        environment=environment,
        ports=(PUBLIC_PORT,),
        directory=parts.application.directory if parts.application else "/",
    )
    return ImagePlan(SINGLE, layers, config)


def _init_arguments(parts: SingleParts) -> tuple[str, ...]:
    """nix/init/init.c says what they mean. The backend starts first and stops last; nginx sees no variable of it."""
    backend: tuple[str, ...] = ()
    if parts.application is not None:
        given = ("inherit", f"PORT={parts.port}", "HOST=127.0.0.1")
        backend = ("backend", "TERM", str(STOP_SECONDS["backend"]), *given, *parts.application.entrypoint, "--")
    nginx = (str(find_nginx(parts.server)), "-e", "stderr", "-g", "daemon off;", "-c")
    return (str(parts.init / "bin/init"), *backend, "web", "QUIT", str(STOP_SECONDS["web"]), "empty", *nginx)


def find_nginx(server: Path) -> Path:
    """The nginx executable of a store path. Raises `ImageError` when there is none."""
    for name in ("bin/nginx", "sbin/nginx"):
        if (server / name).is_file():
            return server / name
    raise ImageError(f"{server} has no bin/nginx", hint="the package set's nginx should provide it")


def _store_layers(share: StoreShare) -> dict[str, Sequence[Entry]]:
    return {
        "base": (*_SKELETON, *read_store_paths(share.base, store=share.store)),
        "runtime": read_store_paths(share.own, store=share.store),
    }


def _web_files(server: Path) -> tuple[Entry, ...]:
    """mime.types where the configuration includes it from, and the mount point of the sockets."""
    for name in ("conf/mime.types", "etc/nginx/mime.types"):
        if (server / name).is_file():
            return (File("etc/nginx/mime.types", (server / name).read_bytes()), Directory(_image_path(SOCKET_DIR)))
    raise ImageError(f"{server} has no mime.types", hint="looked for conf/mime.types and etc/nginx/mime.types")


def _nginx_config(app: str, service: str, server: Path) -> ImageConfig:
    nginx = find_nginx(server)
    return ImageConfig(
        entrypoint=(str(nginx), *COMMAND),
        environment=(("PATH", str(nginx.parent)),),
        labels=_labels(app, service),
        stop_signal="SIGQUIT",
    )


def _image_path(path: str) -> str:
    return path.removeprefix("/")


def _labels(app: str, service: str) -> tuple[tuple[str, str], ...]:
    return ((APP_LABEL, app), (SERVICE_LABEL, service))


def _certificate_links(paths: Sequence[Path]) -> tuple[Entry, ...]:
    """Certificate authorities where TLS libraries look, when the closure holds a bundle of them."""
    for path in paths:
        if (path / _CERTIFICATES).is_file():
            return tuple(
                Link(f"etc/ssl/certs/{name}", str(path / _CERTIFICATES))
                for name in ("ca-bundle.crt", "ca-certificates.crt")
            )
    return ()
