"""An ordinary user of a Nix with a daemon: builds, saves, restores and evicts. What other users wrote is not used.

The user is made for the tests and removed after them. The daemon is the tests' own, on the machine's store.
"""

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.test_build import cargo_directory
from tests.integration.test_linker import repository

pytestmark = pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("useradd") is None or shutil.which("nix-daemon") is None,
    reason="needs root, useradd and nix-daemon to make a user of a multi-user Nix",
)

REPOSITORY = Path(__file__).resolve().parents[2]
USER = "orchestrator-test"
SCRIPT = """
import json, sys
from pathlib import Path
from tests.integration import test_linker as t
from orchestrator.build import runner
runner.web_server = lambda *_, **__: Path("/nix/store/nginx")
events = []
built = t.build(Path(sys.argv[1]), Path(sys.argv[2]), events)
notes = [event.text for event in events if hasattr(event, "text") and getattr(event, "level", "") == "warning"]
print(json.dumps([built.compiled_units, t.linked(built)[0].interpreter, notes]))
"""


@dataclass(frozen=True, slots=True)
class User:
    """A user, and the socket of the daemon; the user's programs run in a mount namespace that has root's Rust."""

    home: Path
    socket: Path

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Python with the project's code and these arguments, as the user."""
        tools = self.home / ".rustup/toolchains/stable"
        packages = next(path for path in sys.path if path.endswith("site-packages"))
        nix = Path(shutil.which("nix-daemon") or "").parent
        environment = (
            f"HOME={self.home}", f"PATH={nix}:/usr/local/bin:/usr/bin:/bin", f"NIX_REMOTE=unix://{self.socket}",
            f"PYTHONPATH={REPOSITORY}:{packages}",
        )  # fmt: skip
        mounted = f'mount --bind {cargo_directory().parent} {tools} && exec "$@"'
        namespace = ("unshare", "--mount", "sh", "-c", mounted, "sh")
        switch = ("setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "env", "-i", *environment)
        argv = (*namespace, *switch, "/usr/bin/python3", "-P", *arguments)
        return subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/")

    def build(self) -> tuple[int, str, list[str]]:
        """Units compiled, the binary's loader, and what was warned of."""
        done = self.run("-c", SCRIPT, str(self.home / "repo"), str(self.cache))
        assert done.returncode == 0, done.stderr
        units, interpreter, warnings = json.loads(done.stdout.splitlines()[-1])
        return units, interpreter, warnings

    @property
    def cache(self) -> Path:
        return self.home / ".cache/orchestrator"

    def forget(self) -> None:
        """Leave only what was saved."""
        for name in ("artifacts", "workspaces"):
            shutil.rmtree(self.cache / name)


def python_fits() -> bool:
    """Whether the machine's Python, which everybody may run, is of the version our packages were made for."""
    asked = ["/usr/bin/python3", "-c", "import sys; print(*sys.version_info[:2])"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
    return said == [str(part) for part in sys.version_info[:2]]


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    if not python_fits():
        pytest.skip("the machine's own Python is of another version than the tests'")
    subprocess.run(["useradd", "--create-home", USER], check=True)
    try:
        home = Path(pwd.getpwnam(USER).pw_dir)
        repository(home / "repo", "")
        (home / ".rustup/toolchains/stable").mkdir(parents=True)
        subprocess.run(["chown", "--recursive", f"{USER}:", home], check=True)
        with tempfile.TemporaryDirectory() as directory:  # pytest's own are closed to other users
            Path(directory).chmod(0o755)
            with daemon(Path(directory) / "socket"):
                yield User(home, Path(directory) / "socket")
    finally:
        subprocess.run(["userdel", "--remove", USER], check=True, capture_output=True)


@contextmanager
def daemon(socket: Path) -> Iterator[None]:
    """nix-daemon on a socket of its own."""
    config = os.environ.get("NIX_CONFIG", "") + "\nbuild-users-group =\nexperimental-features = nix-command flakes"
    environment = {**os.environ, "NIX_DAEMON_SOCKET_PATH": str(socket), "NIX_CONFIG": config}
    with subprocess.Popen(["nix-daemon"], env=environment, stderr=subprocess.DEVNULL) as child:
        try:
            while not socket.exists() and child.poll() is None:
                time.sleep(0.02)
            yield
        finally:
            child.terminate()


def test_a_user_of_the_daemon_builds_saves_restores_and_evicts(user: User):
    units, interpreter, warnings = user.build()
    assert (units, warnings) == (1, [])
    assert interpreter.startswith("/nix/store/")
    user.forget()
    assert user.build()[::2] == (0, [])
    listed = user.run("-m", "orchestrator", "cache", "list", "--json")
    assert [entry["uses"] for entry in json.loads(listed.stdout)["entries"]] == [1]
    roots = list((user.cache / "cache/roots").iterdir())
    assert roots and all(root.lstat().st_uid != 0 for root in roots)
    user.forget()
    (record,) = (user.cache / "cache/entries").rglob("*.json")
    os.chown(record, 0, 0)
    assert user.build()[::2] == (1, []), "root's entry was used"
    evicted = user.run("-m", "orchestrator", "cache", "gc", "--max-bytes", "0", "--keep", "0", "--json")
    assert evicted.returncode == 0, evicted.stderr
    assert len(json.loads(evicted.stdout)["evicted"]) == 1
    assert not list((user.cache / "cache/roots").iterdir())
