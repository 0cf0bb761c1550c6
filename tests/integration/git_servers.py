"""Private git repositories on loopback: over ssh with a real sshd and agent, and over HTTP with a password."""

import base64
import contextlib
import http.server
import os
import pwd
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator import process

SSHD = process.find("sshd")
_AUTHOR = {f"GIT_{who}_{what}": "test@example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def make_repository(root: Path, files: dict[str, str]) -> str:
    """A git repository at `root` with one more commit that has the files; the commit's hash."""
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git(root, "init", "-q", "-b", "main")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "a commit")
    return git(root, "rev-parse", "HEAD")


def git(root: Path, *arguments: str) -> str:
    """What git says in `root`, without the user's configuration."""
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", **_AUTHOR}
    return subprocess.run(
        ["git", *arguments], cwd=root, env=env, capture_output=True, check=True, text=True
    ).stdout.strip()


@dataclass(frozen=True)
class SshServer:
    """A server that lets `user` in with one key. `known_hosts` is the line a user would have of it, and the other one
    the line of a server that was there before."""

    port: int
    user: str
    known_hosts: str
    other_known_hosts: str
    agent_socket: str


@contextmanager
def serving_ssh(base: Path) -> Iterator[SshServer]:
    """sshd on a port of its own, with a host key of its own, and an agent that has the key it accepts."""
    base.mkdir(parents=True)
    base.chmod(0o700)
    for name in ("host", "other", "user"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(base / name))
    (base / "authorized_keys").write_text((base / "user.pub").read_text())
    port = free_port()
    settings = {
        "ListenAddress": f"127.0.0.1:{port}", "HostKey": base / "host", "PidFile": base / "pid",
        "UsePAM": "no" if os.getuid() else "yes",
        "AuthorizedKeysFile": base / "authorized_keys", "PasswordAuthentication": "no", "StrictModes": "no",
        "PermitRootLogin": "prohibit-password", "KbdInteractiveAuthentication": "no",
    }  # fmt: skip
    (base / "config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    lines = [f"[127.0.0.1]:{port} {(base / name).read_text()}" for name in ("host.pub", "other.pub")]
    with _agent(base) as agent, (base / "log").open("wb") as log:
        Path("/run/sshd").mkdir(exist_ok=True)
        child = subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(base / "config")], stdout=log, stderr=log)
        try:
            wait_for(port, child)
            yield SshServer(port, pwd.getpwuid(os.getuid()).pw_name, lines[0], lines[1], agent)
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(10)


@contextmanager
def _agent(base: Path) -> Iterator[str]:
    address = base / "agent"
    child = subprocess.Popen(["ssh-agent", "-D", "-a", str(address)], stdout=subprocess.DEVNULL)
    try:
        while not address.exists():
            time.sleep(0.01)
        _run("ssh-add", "-q", str(base / "user"), env={"SSH_AUTH_SOCK": str(address)})
        (base / "user").unlink()
        yield str(address)
    finally:
        child.terminate()
        child.wait(10)


@contextmanager
def serving_git_over_http(root: Path, user: str, password: str) -> Iterator[int]:
    """The repositories below `root` through git's own program for web servers, behind a password; the port."""
    wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["Content-Length"])))

        def _answer(self, body: bytes) -> None:
            if self.headers.get("Authorization") != wanted:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="test"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            path, _, query = self.path.partition("?")
            variables = {
                "GIT_PROJECT_ROOT": str(root), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path, "QUERY_STRING": query,
                "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""), "PATH": os.environ["PATH"],
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""), "REMOTE_USER": user,
            }  # fmt: skip
            done = subprocess.run(["git", "http-backend"], input=body, env=variables, capture_output=True, check=True)
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
            self.send_response(int(headers.pop("Status", "200").split()[0]))
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(port: int, child: "subprocess.Popen[bytes]") -> None:
    """Until somebody listens on the port. Raises when the child ends first."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and child.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise AssertionError(f"nobody listens on port {port}")


def _run(*argv: str, env: dict[str, str] | None = None) -> None:
    subprocess.run(argv, env={"PATH": os.environ["PATH"], **(env or {})}, capture_output=True, check=True)
