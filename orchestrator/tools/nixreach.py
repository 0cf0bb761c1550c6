"""Can Nix get what it would need? Decided quickly, because a machine without a network should not have to wait."""

import base64
import hashlib
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from orchestrator import files
from orchestrator.process import Cancel
from orchestrator.tools.nix import FlakeInputs, Nix

TIMEOUT_SECONDS = 3.0

_STORE = "/nix/store"
_NIX_ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz"
_HOSTS = {
    "github": "https://github.com/",
    "gitlab": "https://gitlab.com/",
    "sourcehut": "https://git.sr.ht/",
    "flake": "https://github.com/",
    "indirect": "https://github.com/",
}


def binary_cache_reachable(nix: Nix, *, timeout: float = TIMEOUT_SECONDS, cancel: Cancel | None = None) -> bool:
    """Whether one of the configured binary caches answers within `timeout` seconds."""
    return any_answers((_cache_url(url) for url in substituters(nix, cancel=cancel)), timeout=timeout)


def substituters(nix: Nix, *, cancel: Cancel | None = None) -> tuple[str, ...]:
    """The binary caches Nix is configured to ask."""
    command = ("config", "show") if nix.version >= (2, 20) else ("show-config",)
    settings = json.loads(nix.call(*command, "--json", cancel=cancel).stdout)
    value = settings.get("substituters", {}).get("value", [])
    return tuple(value.split() if isinstance(value, str) else value)


def _cache_url(url: str) -> str:
    base = url.partition("?")[0].rstrip("/")
    return f"{base}/nix-cache-info" if base.startswith("http") else base


def inputs_reachable(flake_dir: Path, inputs: FlakeInputs, *, timeout: float = TIMEOUT_SECONDS) -> bool:
    """Whether every input of the flake is in the store, is a local path, or can be asked for over the network.

    Locked inputs are looked up by their hash; no Nix is started.
    """
    missing = _missing_urls(flake_dir, inputs)
    return all(any_answers([url], timeout=timeout) for url in sorted(missing))


def _missing_urls(flake_dir: Path, inputs: FlakeInputs) -> set[str]:
    """Where the inputs that are not in the store come from."""
    lock = files.read_json(flake_dir / "flake.lock")
    if not isinstance(lock, dict) or "nodes" not in lock:
        return {_origin(url) for url in {**inputs.flakes, **inputs.sources}.values()} - {""}
    locked = [node["locked"] for node in lock["nodes"].values() if "locked" in node]
    return {_origin_of_locked(source) for source in locked if not _in_store(source)} - {""}


def _origin(url: str) -> str:
    """A URL to knock at for a flake reference, "" for a local one."""
    scheme, _, rest = url.removeprefix("git+").removeprefix("tarball+").removeprefix("file+").partition(":")
    if scheme in ("http", "https"):
        return f"{scheme}://{rest.lstrip('/').split('/')[0]}/"
    if scheme in ("path", "file") or not rest:
        return ""
    return _HOSTS.get(scheme, f"ssh://{rest.lstrip('/').split('/')[0]}")


def _origin_of_locked(source: Mapping[str, Any]) -> str:
    kind = str(source.get("type", ""))
    if kind in ("github", "gitlab", "sourcehut") and "host" in source:
        return f"https://{source['host']}/"
    return _HOSTS.get(kind) or _origin(str(source.get("url", "")))


def _in_store(source: Mapping[str, Any]) -> bool:
    nar_hash = str(source.get("narHash", ""))
    return nar_hash.startswith("sha256-") and Path(source_path(nar_hash)).exists()


def source_path(nar_hash: str, name: str = "source") -> str:
    """Where a tree with this hash ("sha256-…") lies in the store.

    https://nix.dev/manual/nix/latest/protocols/store-path describes the rule.
    """
    digest = base64.b64decode(nar_hash.removeprefix("sha256-")).hex()
    fingerprint = hashlib.sha256(f"source:sha256:{digest}:{_STORE}:{name}".encode()).digest()
    return f"{_STORE}/{_nix_base32(_fold(fingerprint, 20))}-{name}"


def _fold(digest: bytes, size: int) -> bytes:
    """Nix's shortening of a hash: every byte beyond `size` is xor-ed into one before it."""
    folded = bytearray(size)
    for index, byte in enumerate(digest):
        folded[index % size] ^= byte
    return bytes(folded)


def _nix_base32(data: bytes) -> str:
    """Nix's own base 32: little-endian, without the letters e, o, t and u."""
    number = int.from_bytes(data, "little")
    length = (len(data) * 8 - 1) // 5 + 1
    return "".join(_NIX_ALPHABET[(number >> (5 * place)) & 31] for place in reversed(range(length)))


def any_answers(urls: Iterable[str], *, timeout: float = TIMEOUT_SECONDS) -> bool:
    """Whether something answers at one of the URLs within `timeout` seconds, name look-up included."""
    answers: SimpleQueue[bool] = SimpleQueue()
    wanted = sorted(set(urls))
    for url in wanted:
        # A daemon thread: a name server that does not answer must not hold up the end of the program.
        threading.Thread(target=lambda url=url: answers.put(_answers(url, timeout)), daemon=True).start()
    try:
        return any(answers.get(timeout=timeout) for _ in wanted)
    except Empty:
        return False


def _answers(url: str, timeout: float) -> bool:
    """Any answer of a server counts, also "not found"; files and other protocols are taken as given."""
    if not url.startswith("http"):
        return not url.startswith("/") or Path(url).exists()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
