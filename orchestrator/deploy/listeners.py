"""Who listens on a TCP port, read from /proc: no program is run."""

from collections.abc import Iterator
from pathlib import Path

_LISTEN = "0A"


def read_listeners(table: Path) -> tuple[tuple[int, str], ...]:
    """(port, socket inode) of every listening socket in a /proc/net/tcp or tcp6 table; none when it is gone."""
    try:
        return tuple(parse_listeners(table.read_text()))
    except OSError:
        return ()


def parse_listeners(text: str) -> Iterator[tuple[int, str]]:
    """(port, socket inode) of every listening socket in the text of such a table."""
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTEN:
            yield int(fields[1].rpartition(":")[2], 16), fields[9]


def port_owner(port: int) -> str | None:
    """The program listening on `port`, as "name (pid)"; None when nobody does or it cannot be told."""
    tables = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
    inodes = {inode for table in tables for found, inode in read_listeners(table) if found == port}
    for process in Path("/proc").glob("[0-9]*"):
        if _holds_any(process, inodes):
            return f"{_name(process)} ({process.name})"
    return None


def _holds_any(process: Path, inodes: set[str]) -> bool:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    try:
        return any(str(descriptor.readlink()) in wanted for descriptor in (process / "fd").iterdir())
    except OSError:
        return False


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "a process"
