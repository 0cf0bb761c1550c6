"""bubblewrap: a private view of the machine for one build step.

Two sandboxes, one in the other. The outer one has everything read-only: the dev shell starts in it, because its
`shellHook` is the user's code too. Where `nix develop` itself must start the shell, /nix stays writable there: a
single-user Nix opens its database for writing. The inner one takes /nix, Nix's daemon and every capability away from
the build step itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from orchestrator.process import find, run

INSTALL_HINT = "apt-get install bubblewrap"

_REPLACED = frozenset({"proc", "dev", "tmp"})
_RUNTIME = ("current-system", "booted-system", "systemd/resolve", "resolvconf", "NetworkManager")
"""What of /run a build needs: NixOS's programs and the resolver's configuration; the rest is daemons' sockets."""

_NIX_STATE = Path("/nix/var/nix")

_TRIES = 3
"""A machine short of memory or processes for a moment refuses namespaces too; what it never allows it refuses each
time."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A view of the machine.

    `binds` are (directory outside, directory inside), writable. `hidden` directories are empty inside, except
    for the `visible` paths, which are read-only. Without `network` there is a loopback and nothing else.
    """

    binds: tuple[tuple[Path, PurePosixPath], ...]
    hidden: tuple[Path, ...]
    visible: tuple[Path, ...]
    network: bool
    nix_writable: bool


def probe() -> str | None:
    """Why bubblewrap cannot be used here, in a few words; None when it can."""
    bwrap = find("bwrap")
    if bwrap is None:
        return f"bubblewrap is not installed ({INSTALL_HINT})"
    namespaces = ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net")
    nested = (str(bwrap), "--dev-bind", "/", "/", "--cap-drop", "ALL", "--", "/bin/sh", "-c", ":")
    argv = [str(bwrap), "--dev-bind", "/", "/", "--proc", "/proc", *namespaces, "--", *nested]
    for _ in range(_TRIES):
        tried = run(argv, check=False)
        if tried.returncode == 0:
            return None
    said = tried.stderr.strip().splitlines()
    return f"bubblewrap cannot create namespaces here ({said[-1] if said else f'exit code {tried.returncode}'})"


def outer_argv(
    sandbox: Sandbox, command: Sequence[str], *, directory: PurePosixPath, root: Path = Path("/")
) -> list[str]:
    """`command` run in `directory` of the sandbox, in namespaces of its own; it dies with whoever started it.

    The root is a fresh one made of links to the machine's top-level entries (`root` lists them), so that the
    mount points of `binds` can be created in it.
    """
    return [
        *(_own_path(), "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--hostname", "build"),
        *([] if sandbox.network else ["--unshare-net"]),
        *("--die-with-parent", "--new-session"),
        *_system(root, sandbox),
        *("--proc", "/proc", "--dev", "/dev"),
        *_hidden(root, sandbox),
        *(part for outside, inside in sandbox.binds for part in ("--bind", str(outside), str(inside))),
        *("--remount-ro", "/", "--chdir", str(directory), "--", *command),
    ]


def inner_argv(command: Sequence[str], *, nix_state: Path = _NIX_STATE) -> list[str]:
    """`command` as `outer_argv` left the machine, with Nix read-only, its daemon out of reach, no capabilities."""
    socket = nix_state / "daemon-socket"
    return [
        *(_own_path(), "--dev-bind", "/", "/", "--ro-bind-try", "/nix", "/nix"),
        *(["--tmpfs", str(socket)] if socket.is_dir() else []),
        *("--cap-drop", "ALL", "--die-with-parent", "--", *command),
    ]


def _own_path() -> str:
    """bubblewrap by its whole real path: inside the dev shell PATH is the dev shell's."""
    found = find("bwrap")
    return str(found.resolve()) if found else "bwrap"


def _system(root: Path, sandbox: Sandbox) -> list[str]:
    """Every top-level entry read-only, links as links; mount points of ours and of the kernel's are left out."""
    ours = {inside.parts[1] for _, inside in sandbox.binds}
    argv = []
    for entry in sorted(root.iterdir()):
        inside = f"/{entry.name}"
        if entry.name in _REPLACED | ours:
            continue
        if entry.is_symlink():
            argv += ["--symlink", str(entry.readlink()), inside]
        elif entry.is_dir():
            writable = entry.name == "nix" and sandbox.nix_writable
            argv += ["--bind" if writable else "--ro-bind", str(entry), inside]
    return argv


def _hidden(root: Path, sandbox: Sandbox) -> list[str]:
    """Empty file systems over what a build must not see, then the exceptions; only /tmp stays writable."""
    runtime, temporary = root / "run", root / "tmp"
    hidden = (runtime, temporary, *sandbox.hidden)
    covered = [path for path in dict.fromkeys(hidden) if path.is_dir() and not path.is_symlink()]
    exceptions = [*(runtime / name for name in _RUNTIME), *sandbox.visible]
    inside = [path for path in exceptions if path.exists() and any(path.is_relative_to(top) for top in covered)]
    return [
        *(part for path in covered for part in ("--tmpfs", str(path))),
        *(part for path in dict.fromkeys(inside) for part in ("--ro-bind", str(path), str(path))),
        *(part for path in covered if path != temporary for part in ("--remount-ro", str(path))),
    ]
