"""nix/init with real processes: who is stopped when, what is passed on, what it exits with."""

import ctypes
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

SOURCE = Path(__file__).resolve().parents[2] / "nix/init"
FLAGS = ("-std=gnu11", "-Os", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-fno-stack-protector", "-fno-pie")
LINK = ("-nostdlib", "-static", "-no-pie", "-Wl,-s")
Running = subprocess.Popen[bytes]
Start = Callable[..., Running]

LINES = """
#define LONGEST_LINE 16
#include "lines.h"
static struct lines lines = {.name = "back", .name_size = 4};
static char out[1 << 20];
static size_t used;
static void put(void *to, const char *text, size_t size) { (void)to; while (size--) out[used++] = *text++; }
size_t feed(const char *text, size_t size, size_t step) {
  used = 0;
  for (size_t at = 0; at < size;) {
    size_t count = 0;
    size_t room = LONGEST_LINE - lines.held;
    while (count < step && count < room && at < size) lines.text[lines.held + count++] = text[at++];
    take_bytes(&lines, count, put, 0);
  }
  end_lines(&lines, put, 0);
  return used;
}
char *output(void) { return out; }
"""


def compile_init(target: Path) -> Path:
    """The program as the package set builds it, without waiting for Nix."""
    subprocess.run(["gcc", *FLAGS, *LINK, "-o", target, SOURCE / "init.c"], check=True)
    return target


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_init(tmp_path_factory.mktemp("init") / "init")


@pytest.fixture
def start(program: Path) -> Iterator[Start]:
    started: list[Running] = []

    def begin(*services: Sequence[str], **options: object) -> Running:
        words = [word for service in services for word in ("--", *service)][1:]
        pipe = subprocess.PIPE
        child = subprocess.Popen([program, *words], stdout=pipe, stderr=pipe, bufsize=0, **options)  # type: ignore[call-overload]
        started.append(child)
        return child

    yield begin
    for child in started:
        if child.poll() is None:
            services = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
            child.kill()
            for service in services:
                with suppress(ProcessLookupError):
                    os.killpg(int(service), signal.SIGKILL)
        child.communicate()


def shell(name: str, script: str, *, stop: str = "TERM", seconds: int = 5, sees: str = "inherit") -> list[str]:
    return [name, stop, str(seconds), sees, "/bin/sh", "-c", script]


def read_line(child: Running) -> str:
    assert child.stdout is not None and select.select([child.stdout], [], [], 10)[0], "nothing was written"
    return child.stdout.readline().decode().rstrip("\n")


def finish(child: Running) -> tuple[str, str]:
    """What it wrote until it ended."""
    out, err = child.communicate(timeout=20)
    return out.decode(), err.decode()


WAITING = "echo up; while :; do sleep 0.05; done"


def test_nginx_ends_before_the_backend_is_asked_to(start: Start) -> None:
    backend = shell("backend", "trap 'echo asked; exit 0' TERM; " + WAITING)
    web = shell("web", "trap 'echo finishing; sleep 0.4; echo finished; exit 0' QUIT; " + WAITING, stop="QUIT")
    child = start(backend, web)
    assert {read_line(child), read_line(child)} == {"backend | up", "web | up"}
    child.terminate()
    out, err = finish(child)
    assert out.splitlines() == ["web | finishing", "web | finished", "backend | asked"]
    assert err.splitlines() == ["init | web ended with exit code 0", "init | backend ended with exit code 0"]
    assert child.returncode == 0


@pytest.mark.parametrize(
    ("script", "said", "code"),
    [
        ("echo last words >&2; exit 3", "ended with exit code 3", 3),
        ("echo last words >&2; exit 0", "ended with exit code 0", 1),
        ("printf 'last words' >&2; kill -KILL $$", "was ended by signal 9", 137),
    ],
)
def test_a_service_that_ends_by_itself_ends_the_others(start: Start, script: str, said: str, code: int) -> None:
    web = shell("web", "trap 'echo finished; exit 0' QUIT; " + WAITING, stop="QUIT")
    child = start(shell("backend", f"sleep 0.3; {script}"), web)
    out, err = finish(child)
    expected = ["backend | last words", f"init | backend {said}, unasked", "init | web ended with exit code 0"]
    assert err.splitlines() == expected
    assert out.splitlines() == ["web | up", "web | finished"]
    assert child.returncode == code


def test_the_end_of_the_web_server_ends_the_backend_in_order(start: Start) -> None:
    child = start(shell("backend", "trap 'echo asked; exit 0' TERM; " + WAITING), shell("web", "sleep 0.3; exit 4"))
    out, err = finish(child)
    assert out.splitlines() == ["backend | up", "backend | asked"]
    assert err.splitlines()[0] == "init | web ended with exit code 4, unasked"
    assert child.returncode == 4


def test_what_does_not_end_in_its_time_is_killed(start: Start) -> None:
    child = start(shell("backend", "trap '' TERM; " + WAITING, seconds=1))
    assert read_line(child) == "backend | up"
    started = time.monotonic()
    child.terminate()
    _, err = finish(child)
    assert 0.9 < time.monotonic() - started < 5
    said = ["init | backend did not end within 1 s and is killed", "init | backend was ended by signal 9"]
    assert (err.splitlines(), child.returncode) == (said, 137)


def test_asked_to_stop_while_it_starts_it_stops_in_order(start: Start) -> None:
    for delay in range(12):
        child = start(shell("backend", "exec sleep 30"), shell("web", "exec sleep 30", stop="QUIT"))
        time.sleep(delay * 0.0007)
        child.terminate()
        _, err = finish(child)
        # Before the program is there at all, nobody blocks the signal.
        if child.returncode != -signal.SIGTERM:
            assert [line.split()[2] for line in err.splitlines()] == ["web", "backend"], err
            assert child.returncode == 0


def test_orphans_are_reaped_and_stragglers_do_not_outlive_it(start: Start) -> None:
    script = "(sleep 0.2 & sleep 600 & echo $!) & wait; sleep 0.5; echo later; exec sleep 600"
    child = start(shell("backend", script))
    straggler = int(read_line(child).removeprefix("backend | "))
    assert read_line(child) == "backend | later"
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    states = {pid: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in children}
    assert len(states) == 2 and "Z" not in states.values(), states
    child.terminate()
    finish(child)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{straggler}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{straggler}").exists()


def test_long_and_unfinished_lines_are_whole_and_named(start: Start) -> None:
    script = "head -c 50000 /dev/zero | tr '\\0' x; echo; echo; printf 'to '; sleep 0.2; echo be; printf end"
    out, _ = finish(start(shell("backend", script)))
    lines = out.splitlines()
    assert all(line.startswith(("backend | ", "backend + ")) for line in lines)
    assert reconstruct(out.encode(), b"backend") == b"x" * 50000 + b"\n\nto be\nend"
    assert lines[-2:] == ["backend | to be", "backend | end"]


def test_only_who_may_see_the_environment_does(start: Start) -> None:
    sleep = ["/bin/sleep", "30"]
    child = start(
        ["backend", "TERM", "5", "inherit", "PORT=3000", *sleep],
        ["web", "QUIT", "5", "empty", "A=b", *sleep],
        env={"SECRET": "s", "PORT": "8080", "PORTAL": "x"},
    )
    services = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    deadline = time.monotonic() + 10
    while [Path(f"/proc/{pid}/comm").read_text() for pid in services.read_text().split()] != ["sleep\n"] * 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    seen = [Path(f"/proc/{pid}/environ").read_text().split("\0")[:-1] for pid in services.read_text().split()]
    assert seen == [["PORT=3000", "SECRET=s", "PORTAL=x"], ["A=b"]]


def test_other_signals_are_the_backends(start: Start) -> None:
    trap = "trap 'echo hup' HUP; trap 'echo usr1' USR1; trap 'echo usr2' USR2; "
    child = start(shell("backend", trap + WAITING), shell("web", WAITING))
    assert {read_line(child), read_line(child)} == {"backend | up", "web | up"}
    for number, word in ((signal.SIGHUP, "hup"), (signal.SIGUSR1, "usr1"), (signal.SIGUSR2, "usr2")):
        child.send_signal(number)
        assert read_line(child) == f"backend | {word}"


def test_what_whoever_started_it_ignored_is_not_ignored_by_services(start: Start) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        child = start(shell("backend", "trap 'echo hup' HUP; " + WAITING))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert read_line(child) == "backend | up"
    child.send_signal(signal.SIGHUP)
    assert read_line(child) == "backend | hup"


@pytest.mark.parametrize(
    ("make", "said", "code"),
    [
        (lambda path: None, "no such file or directory", 127),
        (lambda path: path.write_text("no program\n"), "permission denied", 126),
        (lambda path: (path.write_bytes(b"\x7fELF" + bytes(60)), path.chmod(0o755)), "exec format error", 126),
    ],
)
def test_a_program_that_cannot_be_executed_is_named(
    start: Start, tmp_path: Path, make: Callable[[Path], object], said: str, code: int
) -> None:
    make(tmp_path / "server")
    child = start(["backend", "TERM", "5", "empty", str(tmp_path / "server")])
    _, err = finish(child)
    assert err.startswith(f"backend | {tmp_path}/server cannot be executed: {said}")
    assert child.returncode == code


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["backend"],
        ["backend", "TERM", "5", "inherit", "A=b"],
        ["backend", "TERM", "5", "inherit", "sh"],
        ["backend", "STOP", "5", "inherit", "/bin/true"],
        ["backend", "TERM", "5s", "inherit", "/bin/true"],
        ["backend", "TERM", "", "inherit", "/bin/true"],
        ["backend", "TERM", "5", "some", "/bin/true"],
    ],
)
def test_wrong_arguments_are_refused(start: Start, words: list[str]) -> None:
    child = start(words)
    _, err = finish(child)
    assert (child.returncode, err.count("\n")) == (64, 1) and err.startswith("init | ")


def test_it_stops_although_nobody_reads_what_is_written(start: Start) -> None:
    child = start(shell("backend", "while :; do echo 0123456789012345678901234567890123456789; done"))
    time.sleep(0.5)
    child.terminate()
    assert child.wait(timeout=10) == 0


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes, int], bytes]:
    """lines.h with lines of 16 bytes at most, fed `step` bytes at a time."""
    place = tmp_path_factory.mktemp("lines")
    (place / "lines.c").write_text(LINES)
    subprocess.run(["gcc", "-shared", "-fPIC", "-I", SOURCE, "-o", place / "lines.so", place / "lines.c"], check=True)
    library = ctypes.CDLL(os.fspath(place / "lines.so"))
    library.feed.restype, library.output.restype = ctypes.c_size_t, ctypes.c_void_p
    library.feed.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t]

    def run(text: bytes, step: int) -> bytes:
        return ctypes.string_at(library.output(), library.feed(text, len(text), step))

    return run


@given(
    text=st.lists(st.sampled_from([b"\n", b"a", b"\0", b"0123456789", b"x" * 16])).map(b"".join),
    step=st.integers(1, 20),
)
def test_every_byte_is_passed_on_in_named_lines(feed: Callable[[bytes, int], bytes], text: bytes, step: int) -> None:
    out = feed(text, step)
    assert all(line.startswith((b"back | ", b"back + ")) for line in out.split(b"\n")[:-1])
    assert out == b"" or out.endswith(b"\n")
    assert b"back + \n" not in out
    assert max(map(len, out.split(b"\n"))) <= 16 + len(b"back | ")
    assert reconstruct(out, b"back") == text.removesuffix(b"\n")


def reconstruct(out: bytes, name: bytes) -> bytes:
    """What was written, from the named lines; whether it ended with a newline cannot be told."""
    pieces = [line.removeprefix(name) for line in out.split(b"\n")[:-1]]
    return b"".join((b"\n" if piece.startswith(b" |") else b"") + piece[3:] for piece in pieces).removeprefix(b"\n")
