"""What the tests of a running application share: an engine of their own, and small images made from this machine."""

import http.client
import io
import os
import re
import shutil
import socket
import subprocess
import tarfile
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from orchestrator.deploy.lock import locked_app
from orchestrator.deploy.release import Release, deploy_release
from orchestrator.events import Event
from orchestrator.image.nginx import CONFIG_PATH, DOCUMENT_ROOT, SOCKET_DIR, render_web_config
from orchestrator.image.storage import Image
from orchestrator.plan import BackendPlan, Plan, Proxy, WebPlan
from orchestrator.process import Cancel
from orchestrator.settings import Health, Settings
from orchestrator.tools.engine_config import engine_dirs
from orchestrator.tools.podman import Engine, open_engine

APP = "bench"

SERVER = r"""
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *value(const char *name, const char *otherwise) {
  const char *found = getenv(name);
  return found ? found : otherwise;
}

static void serve(int connection) {
  char request[16384], answer[512], body[256];
  for (;;) {
    size_t used = 0;
    request[0] = 0;
    while (!strstr(request, "\r\n\r\n")) {
      ssize_t got = read(connection, request + used, sizeof request - 1 - used);
      if (got <= 0) _exit(0);
      request[used += got] = 0;
    }
    const char *length_header = strstr(request, "Content-Length: ");
    size_t wanted = strstr(request, "\r\n\r\n") + 4 - request + (length_header ? atoi(length_header + 16) : 0);
    while (used < wanted && used < sizeof request - 1) {
      ssize_t got = read(connection, request + used, sizeof request - 1 - used);
      if (got <= 0) _exit(0);
      used += got;
    }
    if (strstr(request, " /api/ws ")) {
      const char *upgrade = "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
      ssize_t got = write(connection, upgrade, strlen(upgrade));
      while (got > 0 && (got = read(connection, body, sizeof body)) > 0) got = write(connection, body, got);
      _exit(0);
    }
    int status = 200;
    if (!strncmp(request, "GET /health ", 12)) status = atoi(value("HEALTH", "200"));
    if (strstr(request, " /api/slow ")) usleep(1500000);
    int size = snprintf(body, sizeof body, "%s", value("VERSION", "?"));
    int length = snprintf(answer, sizeof answer,
        "HTTP/1.1 %d X\r\nContent-Length: %d\r\nLocation: /login\r\n\r\n%s", status, size, body);
    if (write(connection, answer, length) != length) _exit(0);
  }
}

static void finish(int number) { (void)number; _exit(0); }

int main(void) {
  const char *mode = value("MODE", "serve");
  fprintf(stderr, "server starting as %s\n", mode);
  signal(SIGTERM, finish);
  signal(SIGCHLD, SIG_IGN);
  int broken = !strcmp(value("PORT", ""), value("BROKEN_PORT", "none"));
  if (broken || !strcmp(mode, "crash")) { fprintf(stderr, "DATABASE_URL is not set\n"); return 3; }
  if (!strcmp(mode, "silent")) for (;;) pause();
  if (!strcmp(mode, "leak")) for (;;) memset(malloc(1 << 20), 1, 1 << 20);
  if (!strcmp(mode, "brief")) ualarm(600000, 0);
  int one = 1, port = atoi(value("PORT", "3000")) + (!strcmp(mode, "elsewhere") ? 1000 : 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 128)) return 4;
  for (;;) {
    int connection = accept(listener, 0, 0);
    if (connection >= 0 && fork() == 0) { signal(SIGTERM, SIG_DFL); serve(connection); }
    if (connection >= 0) close(connection);
  }
}
"""


def make_plan(
    app: str, *, environment: dict[str, str] | None = None, health: str | None = "/health", replicas: int = 1
) -> Plan:
    """A page and a backend that answers its VERSION below /api."""
    variables = tuple((environment or {}).items())
    backend = BackendPlan("backend", 3000, health, "/api/version", variables, replicas=replicas)
    return Plan(app, (), make_web_plan(replicas), backend)


def make_web_plan(replicas: int = 1) -> WebPlan:
    proxy = Proxy("backend", 3000, "/api", ("/health",), replicas=replicas)
    return WebPlan(static="frontend", spa=True, proxy=proxy)


@contextmanager
def private_engine() -> Iterator[tuple[Path, Engine]]:
    """A state directory and its engine; everything either made is gone afterwards."""
    state_dir = Path(tempfile.mkdtemp(prefix="orc-"))
    dirs = engine_dirs(state_dir, os.environ)
    try:
        engine = open_engine(state_dir)
        yield state_dir, engine
    finally:
        with suppress(UnboundLocalError):
            engine.ask("pod", "rm", "--all", "--force", "--time", "0")
            engine.ask("rm", "--all", "--force", "--time", "0")
            engine.ask("rmi", "--all", "--force")
        subprocess.run(["umount", str(dirs.storage / "overlay")], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(dirs.runtime, ignore_errors=True)
        shutil.rmtree(state_dir)


def import_image(engine: Engine, service: str, files: dict[str, bytes | Path], entrypoint: list[str]) -> Image:
    """An image of these files, stored by `podman import`."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in {"etc/passwd": b"app:x:10001:10001::/:/none\n", **files}.items():
            data = content.read_bytes() if isinstance(content, Path) else content
            member = tarfile.TarInfo(name.lstrip("/"))
            member.size, member.mode = len(data), 0o755
            tar.addfile(member, io.BytesIO(data))
        for name, mode in (("tmp", 0o1777), (SOCKET_DIR.lstrip("/"), 0o755)):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, mode
            tar.addfile(directory)
    words = ", ".join(f'"{word}"' for word in entrypoint)
    reference = f"localhost/orchestrator/{APP}-{service}:{abs(hash(archive.getvalue()))}"
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        file.write(archive.getvalue())
        file.flush()
        changes = ("--change", f"ENTRYPOINT [{words}]", "--change", f"LABEL io.orchestrator.app={APP}")
        engine.run("import", "--quiet", *changes, file.name, reference)
    image_id = engine.run("image", "inspect", "--format", "{{.Id}}", reference).stdout.strip()
    return Image(service, image_id, "sha256:0", len(archive.getvalue()), reference, ())


def nginx_files() -> dict[str, bytes | Path]:
    """This machine's nginx with the libraries it is linked to."""
    listed = subprocess.run(["ldd", "/usr/sbin/nginx"], check=True, capture_output=True, text=True).stdout
    libraries = re.findall(r"(/lib\S+)", listed)
    return {path: Path(path) for path in ("/usr/sbin/nginx", "/etc/nginx/mime.types", *libraries)}


def web_images(engine: Engine, *, page: bytes = b"<!doctype html><title>one</title>", replicas: int = 1) -> list[Image]:
    """A web image that serves `page`, and a gate."""
    command = ["/usr/sbin/nginx", "-e", "stderr", "-c", CONFIG_PATH, "-g", "daemon off;"]
    config = render_web_config(make_web_plan(replicas), html={"index.html": page}).encode()
    site: dict[str, bytes | Path] = {f"{DOCUMENT_ROOT}/index.html": page, CONFIG_PATH: config}
    return [
        import_image(engine, "web", nginx_files() | site, command),
        import_image(engine, "gate", nginx_files(), command),
    ]


def backend_image(engine: Engine, directory: Path) -> Image:
    """A backend whose environment decides how it behaves: MODE, VERSION, HEALTH."""
    source = directory / "server.c"
    source.write_text(SERVER)
    program = directory / "server"
    subprocess.run(["gcc", "-O1", "-static", "-o", str(program), str(source)], check=True)
    return import_image(engine, "backend", {"/app/bin/server": program}, ["/app/bin/server"])


class Bench:
    """One engine with images, and an application on a free port."""

    def __init__(self, state_dir: Path, engine: Engine, images: list[Image]) -> None:
        self.state_dir = state_dir
        self.engine = engine
        self.images = images
        self.port = free_port()

    def settings(self, **changes: object) -> Settings:
        values = {"name": APP, "port": self.port, "state_dir": self.state_dir, "cache_dir": self.state_dir / "cache"}
        values["health"] = Health(deadline=5, interval=0.2)
        return Settings.model_validate(values | changes)

    def deploy(
        self,
        environment: dict[str, str] | None = None,
        *,
        emit: Callable[[Event], None] = lambda event: None,
        cancel: Cancel | None = None,
        replicas: int = 1,
        **changes: object,
    ) -> Release:
        settings = self.settings(**changes)
        plan = replace(make_plan(APP, environment=environment, replicas=replicas), layout=settings.layout)
        own = {"single", "gate"} if settings.layout == "single" else {"web", "backend", "gate"}
        images = [image for image in self.images if image.service in own]
        cancel = cancel or Cancel()
        with locked_app(self.state_dir, APP):
            engine = replace(self.engine, cancel=cancel)
            return deploy_release(settings, plan, images, engine=engine, emit=emit, cancel=cancel)

    def get(self, path: str, *, port: int | None = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


def descendants(pid: int) -> list[int]:
    """The processes below one."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [grandchild for child in children for grandchild in descendants(child)]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Load:
    """Clients that keep their connections and ask all the time; counts what they got."""

    def __init__(self, port: int, clients: int = 6, *, methods: tuple[str, ...] = ("POST", "GET")) -> None:
        self.answers: Counter[str] = Counter()
        self._methods = methods
        self._port = port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        method = self._methods[number % len(self._methods)]
        path, method = ("/", "GET") if number % 3 == 0 else ("/api/version", method)
        while not self._stop.wait(0.003):
            try:
                connection.request(method, path)
                answer = connection.getresponse()
                body = answer.read().decode()
                self.answers[body if answer.status == 200 and path != "/" else str(answer.status)] += 1
            except (OSError, http.client.HTTPException) as error:
                self.answers[f"failed: {error!r}"] += 1
                connection.close()
        connection.close()
