"""A machine of the tests' own: state, cache and ports nobody else uses; nothing is left when they end."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = Path(sys.executable).with_name("orchestrator")
LIMIT_SECONDS = 900
NETWORK_CHANGED = "ERR_NETWORK_CHANGED"


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class Machine:
    """Runs the installed command with directories of its own; `path` replaces PATH."""

    base: Path
    path: str = os.environ["PATH"]

    @property
    def environment(self) -> dict[str, str]:
        own = {
            "HOME": str(self.base / "home"),
            "ORCHESTRATOR_STATE_DIR": str(self.base / "state"),
            "ORCHESTRATOR_CACHE_DIR": str(self.base / "cache"),
            "PATH": self.path,
            "NO_COLOR": "1",
        }
        return {**os.environ, **own}

    def start(self, *arguments: str, cwd: Path | None = None) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [PROGRAM, *arguments],
            env=self.environment,
            cwd=cwd or self.base,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, code: int = 0, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """Run to the end; `code` is the exit code it must have."""
        child = self.start(*arguments, cwd=cwd)
        try:
            stdout, stderr = child.communicate(timeout=LIMIT_SECONDS)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
        assert child.returncode == code, f"exit code {child.returncode}, wanted {code}\n{stdout}\n{stderr}"
        return subprocess.CompletedProcess(arguments, child.returncode, stdout, stderr)

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    def engine(self, *arguments: str) -> str:
        return self.run("engine", "--", *arguments).stdout

    def forget_builds(self, app: str) -> None:
        """Remove an application's workspaces and what was built in them."""
        for part in ("workspaces", "artifacts"):
            shutil.rmtree(self.base / "cache" / part / app)

    def listing(self, image: str) -> list[tuple[str, int, int, int, str]]:
        """(path, mode, uid, gid, link target or digest of the content) of all that is in an image."""
        root = Path(self.engine("image", "mount", image).strip())
        try:
            return [_listed(root, path) for path in sorted(root.rglob("*"))]
        finally:
            self.engine("image", "unmount", image)

    def remove_everything(self) -> None:
        for app in self.json("list")["apps"]:
            self.run("remove", app["app"])
        self.engine("rm", "--all", "--force", "--time", "0")
        self.engine("pod", "rm", "--all", "--force", "--time", "0")
        for stage in ("umount", "unmount"):
            subprocess.run(
                [PROGRAM, "engine", "--", stage, "--all"], env=self.environment, capture_output=True, check=False
            )
        shutil.rmtree(self.base, ignore_errors=True)


def _listed(root: Path, path: Path) -> tuple[str, int, int, int, str]:
    status = path.lstat()
    if path.is_symlink():
        content = str(path.readlink())
    else:
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    return (str(path.relative_to(root)), status.st_mode, status.st_uid, status.st_gid, content)


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    made = Machine(tmp_path_factory.mktemp("machine"))
    (made.base / "home").mkdir()
    yield made
    made.remove_everything()


@pytest.fixture(scope="session")
def towns(machine: Machine) -> Path:
    """A git repository of its own with examples/towns in it, in a path with spaces and non-ASCII letters."""
    root = machine.base / "Städte & co" / "towns"
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "examples/towns"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, tracked.split("\0")):
        target = root / Path(name).relative_to("examples/towns")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, target)
    commit(root)
    return root


def commit(root: Path) -> None:
    """Everything in `root`, committed."""
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    if not (root / ".git").exists():
        git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "add", "--all")
    git(root, *identity, "commit", "--quiet", "--allow-empty", "--message", "state")


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def ask(url: str, *, headers: dict[str, str] | None = None) -> Answer:
    """One GET request; an error status is an answer too."""
    request = urllib.request.Request(url, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return Answer(response.status, response.read(), {k.lower(): v for k, v in response.headers.items()})
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read(), {k.lower(): v for k, v in error.headers.items()})


def wait_until(condition: Any, *, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


def load_until(browser: Any, load: Callable[[], None], shown: Callable[[Any], Any]) -> Any:
    """What `shown` gives once it gives something after `load`.

    When containers of other tests come and go, Chromium drops its requests ("network changed"): then again.
    Of a page's parts its console tells, of the page itself only the page of the browser's own that stands there then.
    """
    from selenium.common.exceptions import TimeoutException
    from selenium.webdriver.support.ui import WebDriverWait

    for _ in range(5):
        load()
        try:
            return WebDriverWait(browser, 20).until(shown)
        except TimeoutException:
            seen = f"{browser.get_log('browser')}\n{page_text(browser)}"
            assert NETWORK_CHANGED in seen, seen
    raise AssertionError("the machine's networks do not come to rest")


def page_text(browser: Any) -> str:
    """What stands on the page, as a reader sees it."""
    return str(browser.execute_script("return document.body.innerText"))


def complaints_of(browser: Any) -> list[Any]:
    """What the page printed on the browser's console, the machine's own changes of network left out."""
    return [entry for entry in browser.get_log("browser") if NETWORK_CHANGED not in entry["message"]]
