"""Against building inside a container, as the first users did: one Dockerfile, a builder image with the toolchain."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.debian_image import import_programs
from benchmarks.lab import Orchestrator
from benchmarks.measure import BenchmarkError, Usage, run_checked
from benchmarks.table import Goal, Quantity, Row, Table, Unit, megabytes, seconds
from benchmarks.towns import BACKEND_LINE, Deploy, Towns

BUILDER = "localhost/builder"
SERVER = "localhost/server"
IMAGE = "localhost/first-users"

_BUILDER_PROGRAMS = ("bash", "sh", "cat", "sed", "grep", "find", "gcc", "/usr/include/stdio.h", "node", "npm", "git")
_SERVER_PROGRAMS = ("bash", "cat", "nginx")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CERTIFICATES = Path("/etc/ssl/certs")
_USER_FILES = (".npmrc", ".cargo/config.toml", ".cargo/credentials.toml")

_DOCKERFILE = f"""\
FROM {BUILDER} AS build
ENV HOME=/root SSL_CERT_FILE={_CERTIFICATES}/ca-certificates.crt NODE_EXTRA_CA_CERTS={_CERTIFICATES}/ca-certificates.crt
WORKDIR /app
COPY . .
RUN cd backend && cargo build --release
RUN cd frontend && npm ci && VITE_API_URL= npm run build

FROM {SERVER}
COPY --from=build /app/backend/target/release/towns-backend /usr/local/bin/backend
COPY --from=build /app/frontend/dist /usr/share/nginx/html
COPY nginx.conf /etc/nginx/nginx.conf
COPY start.sh /start.sh
EXPOSE 80
CMD ["/bin/bash", "/start.sh"]
"""
_NGINX = """\
events {}
http {
  include mime.types;
  server {
    listen 80;
    root /usr/share/nginx/html;
    location / { try_files $uri /index.html; }
    location /api { proxy_pass http://127.0.0.1:3000; }
  }
}
"""
_START = "#!/bin/bash\nbackend &\nexec nginx -g 'daemon off;'\n"


@dataclass(frozen=True, slots=True)
class Inside:
    """What building in a container cost in one round; sizes in bytes."""

    cold: Usage
    backend_line: Usage
    image_size: int
    builder_size: int


def run(towns: Towns) -> tuple[Table, ...]:
    ours = (towns.cold, towns.backend_line)
    inside = [_measure(towns) for _ in range(towns.rounds.cold)]
    rows = (
        *_rows("cold", ours[0], [one.cold for one in inside]),
        *_rows("one line of the backend", ours[1], [one.backend_line for one in inside]),
        _row("image", "MB", median(one.image_bytes for one in ours[0]), median(one.image_size for one in inside)),
    )
    builder = megabytes([one.builder_size for one in inside])
    notes = (
        "Ours: `orchestrator deploy`, which also starts the application and asks it whether it works. Theirs: "
        "`podman build --layers` of the Dockerfile below, image only, with our engine configuration and an empty "
        "storage that holds the two base images.",
        f"The builder image ({builder}) is made of this machine's Debian packages (gcc, node, npm) and its Rust "
        "toolchain; the server image of bash and nginx. Making them is not counted, on neither side is the toolchain.",
        "Image: ours is all layers of all images, a shared one once; theirs is the final stage with its base.",
        "Written and peak disk as in the table of deploys.",
        "The Dockerfile:\n\n" + "\n".join(f"      {line}".rstrip() for line in _DOCKERFILE.splitlines()),
    )
    columns = ("orchestrator", "in a container", "ratio")
    return (Table("container", "Against building inside a container", columns, rows, notes),)


def _rows(label: str, ours: Sequence[Deploy], theirs: Sequence[Usage]) -> tuple[Row, ...]:
    def row(what: str, unit: Unit, number: Callable[[Usage], float]) -> Row:
        return _row(
            f"{label}: {what}", unit, median(number(one.usage) for one in ours), median(number(one) for one in theirs)
        )

    return (
        row("time", "s", lambda usage: usage.seconds),
        row("processor", "s", lambda usage: usage.cpu_seconds),
        row("written to disk", "MB", lambda usage: usage.written),
        row("peak disk", "MB", lambda usage: usage.peak_disk),
    )


def _row(label: str, unit: Unit, ours: float, theirs: float) -> Row:
    convert = seconds if unit == "s" else megabytes
    mine, other = convert([ours]), convert([theirs])
    ratio = Quantity(theirs / ours, "×") if ours else None
    return Row(label, (mine, other, ratio), Goal(mine, other, "in a container"))


def _measure(towns: Towns) -> Inside:
    engine = towns.lab.orchestrator("container")
    try:
        builder_size = make_base_images(engine)
        context = _make_context(towns, engine)
        cold = _build(engine, context)
        BACKEND_LINE.change(context, 1)
        changed = _build(engine, context)
        return Inside(cold, changed, _image_size(engine, IMAGE), builder_size)
    finally:
        engine.discard()


def make_base_images(engine: Orchestrator) -> int:
    """The images a user would pull; the builder's bytes."""
    sysroot = Path(run_checked(("rustc", "--print", "sysroot")).strip())
    packaged = sysroot == Path("/usr")
    import_programs(
        engine,
        BUILDER,
        (*_BUILDER_PROGRAMS, *(("cargo", "rustc") if packaged else ())),
        trees=(_npm_tree(), *(() if packaged else (sysroot,))),
        environment={"PATH": f"{sysroot}/bin:{_PATH}"},
    )
    import_programs(engine, SERVER, _SERVER_PROGRAMS, environment={"PATH": _PATH})
    return _image_size(engine, BUILDER)


def _npm_tree() -> Path:
    """npm's own directory: it updates itself over what its package brought."""
    npm = shutil.which("npm")
    if npm is None:
        raise BenchmarkError("npm is not installed")
    return Path(npm).resolve().parent.parent


def _make_context(towns: Towns, engine: Orchestrator) -> Path:
    """The monorepo with what the first users had beside it."""
    towns.restore()
    context = engine.base / "context"
    shutil.copytree(towns.root, context)
    (context / "Dockerfile").write_text(_DOCKERFILE)
    (context / "nginx.conf").write_text(_NGINX)
    (context / "start.sh").write_text(_START)
    return context


def _build(engine: Orchestrator, context: Path) -> Usage:
    """Build with the network and the user's certificates and registries; as they did, with a layer cache."""
    home = Path(os.environ.get("HOME", "/root"))
    files = [(home / name, Path("/root", name)) for name in _USER_FILES if (home / name).is_file()]
    volumes = [f"--volume={source}:{target}:ro" for source, target in [(_CERTIFICATES, _CERTIFICATES), *files]]
    arguments = ("build", "--layers", "--network=host", *volumes, "--tag", IMAGE, str(context))
    return engine.measure("engine", "--", *arguments).usage


def _image_size(engine: Orchestrator, name: str) -> int:
    return int(json.loads(engine.engine("image", "inspect", name))[0]["Size"])
