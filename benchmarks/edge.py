"""What the edge costs: requests through it, the gate, and a plain nginx in its place or straight on the backend."""

import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.lab import Orchestrator
from benchmarks.measure import BenchmarkError, run_checked
from benchmarks.table import Goal, Quantity, Row, Table
from benchmarks.towns import Towns
from orchestrator.deploy.names import CURRENT, sockets_dir
from orchestrator.image.nginx import SOCKET_NAME
from orchestrator.tools.podman import open_engine

API = "/api/v1/towns/selection"
DOMAIN = "localhost"
"""A name that leads to this machine without a resolver."""

ADDED_SECONDS = 0.001
THROUGHPUT_RATIO = 0.9
CLIENTS = 32
SECONDS = 3

_ON_BACKEND = "nginx with TLS, straight on the backend"
_ON_RELEASE = "nginx with TLS, and the release's nginx"
_GATE = "gate, and the release's nginx"
_EDGE = "edge with TLS, and the release's nginx"
_PLAIN = """
user root; pid {base}/nginx.pid; error_log stderr crit; worker_processes 2; events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000;
  client_body_temp_path {base}/a; proxy_temp_path {base}/b; fastcgi_temp_path {base}/c;
  uwsgi_temp_path {base}/d; scgi_temp_path {base}/e;
  upstream backend {{ server {address}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{port} ssl http2;
    ssl_certificate {base}/cert.pem; ssl_certificate_key {base}/key.pem;
    location / {{ proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""

_MAKE_KEY = (
    *("openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", f"/CN={DOMAIN}"),
    *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
)


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk measured: the median time of an answer with one client, and requests a second with many."""

    median_seconds: float
    per_second: float


def run(towns: Towns) -> tuple[Table, ...]:
    ports = free_port(), free_port()
    flags = ("--domain", DOMAIN, "--env", "DEV", "--http-port", str(ports[0]), "--https-port", str(ports[1]))
    towns.command(towns.deployed, "deploy", "--port", str(towns.port), *flags)
    try:
        with ExitStack() as stack:
            plain = {
                _ON_BACKEND: stack.enter_context(plain_nginx(backend_address(towns.deployed))),
                _ON_RELEASE: stack.enter_context(plain_nginx(release_address(towns.deployed))),
            }
            urls = {label: f"https://{DOMAIN}:{port}" for label, port in plain.items()}
            urls |= {_GATE: f"http://127.0.0.1:{towns.port}", _EDGE: f"https://{DOMAIN}:{ports[1]}"}
            turns = range(towns.rounds.close)
            rounds = [{label: measure(url + API) for label, url in urls.items()} for _ in turns]
    finally:
        towns.deployed.run("edge", "down")
        towns.deploy(towns.deployed)
    return (_table({label: [one[label] for one in rounds] for label in rounds[0]}),)


def _table(loads: dict[str, list[Load]]) -> Table:
    backend, release, edge = (loads[label] for label in (_ON_BACKEND, _ON_RELEASE, _EDGE))
    rows = [Row(label, _cells(load, backend)) for label, load in loads.items()]
    added = _added(edge, backend)
    rows += [
        Row("edge, against the plain nginx in its place", _cells(edge, release), _throughput(edge, release)),
        Row("edge, against nginx straight on the backend", _cells(edge, backend), _throughput(edge, backend)),
        Row("added by both, median", (None, added, None, None), Goal(added, milliseconds(ADDED_SECONDS))),
    ]
    notes = (
        f"wrk, {SECONDS} s each, {len(edge)} times in turns: the median with one client, requests a second with "
        f"{CLIENTS}; GET {API}. Added and slower: medians of what they were in each turn.",
        "Added and slower: than nginx straight on the backend, where no other is named. The plain nginx has TLS, "
        "connections kept to its upstream, and nothing else: no log, no headers, no limits.",
        "Clients, every nginx and the backend share the machine's cores: a hop more is processor time less.",
    )
    return Table("edge", "The edge", ("median", "added", "requests / s", "slower by"), tuple(rows), notes)


def _cells(loads: Sequence[Load], base: Sequence[Load]) -> tuple[Quantity, ...]:
    return (
        milliseconds(median(load.median_seconds for load in loads)),
        _added(loads, base),
        Quantity(round(median(load.per_second for load in loads))),
        _slower(loads, base),
    )


def _added(loads: Sequence[Load], base: Sequence[Load]) -> Quantity:
    pairs = zip(loads, base, strict=True)
    return milliseconds(median(load.median_seconds - other.median_seconds for load, other in pairs))


def _slower(loads: Sequence[Load], base: Sequence[Load]) -> Quantity:
    pairs = zip(loads, base, strict=True)
    return Quantity(median(other.per_second / load.per_second for load, other in pairs), "×")


def _throughput(loads: Sequence[Load], base: Sequence[Load]) -> Goal:
    return Goal(_slower(loads, base), Quantity(1 / THROUGHPUT_RATIO, "×"), "0.9 × the throughput")


def measure(url: str) -> Load:
    """Raises `BenchmarkError` when a request failed."""
    one, many = _wrk(url, clients=1), _wrk(url, clients=CLIENTS)
    return Load(_median(one), float(re.search(r"Requests/sec:\s*([\d.]+)", many)[1]))  # type: ignore[index]


def _wrk(url: str, *, clients: int) -> str:
    threads = min(clients, 2)
    said = run_checked(("wrk", f"-t{threads}", f"-c{clients}", f"-d{SECONDS}s", "--latency", url))
    if "Non-2xx" in said or "Socket errors" in said:
        raise BenchmarkError(f"{url} did not answer every request:\n{said}")
    return said


def _median(said: str) -> float:
    """wrk's 50 % line in seconds."""
    found = re.search(r"50%\s+([\d.]+)(us|ms|s)", said)
    if found is None:
        raise BenchmarkError(f"wrk said something else:\n{said}")
    return float(found[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[found[2]]


def milliseconds(value: float) -> Quantity:
    return Quantity(1000 * value, "ms")


def backend_address(orchestrator: Orchestrator) -> str:
    """Where the live release's backend listens, in the application's own network."""
    pod = orchestrator.engine("pod", "ps", "--filter", "status=running", "--format", "{{.Name}}").split()[0]
    infra = orchestrator.engine("pod", "inspect", "--format", "{{.InfraContainerID}}", pod).strip()
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    address = orchestrator.engine("inspect", "--format", template, infra).strip()
    variables = orchestrator.engine("inspect", "--format", "{{.Config.Env}}", f"{pod}-backend")
    return f"{address}:{re.search(r'PORT=([0-9]+)', variables)[1]}"  # type: ignore[index]


def release_address(orchestrator: Orchestrator) -> str:
    """Where the live release's nginx listens."""
    return f"unix:{sockets_dir(open_engine(orchestrator.state), 'towns') / CURRENT / SOCKET_NAME}"


@contextmanager
def plain_nginx(address: str) -> Iterator[int]:
    """A plain nginx of this machine before an address, with TLS as the edge has it; its port."""
    port = free_port()
    with tempfile.TemporaryDirectory() as base:
        config = Path(base, "nginx.conf")
        run_checked((*_MAKE_KEY, "-keyout", f"{base}/key.pem", "-out", f"{base}/cert.pem"))
        config.write_text(_PLAIN.format(base=base, address=address, port=port))
        child = subprocess.Popen(["/usr/sbin/nginx", "-e", "stderr", "-c", str(config), "-g", "daemon off;"])
        try:
            _wait_for(port)
            yield port
        finally:
            child.terminate()
            child.wait()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 5
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise BenchmarkError(f"nginx does not listen on port {port}") from error
            time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
