"""What may go into an image: no compiler, headers, sources or manuals from the store, no more bytes than allowed."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from orchestrator.build.closure import Closure, find_programs
from orchestrator.errors import ImageError
from orchestrator.events import Emit, Note
from orchestrator.files import tree_size
from orchestrator.image.layers import File, ImagePlan, Link
from orchestrator.settings import parse_bytes

MB = 1_000_000
SHOWN_CONTRIBUTORS = 12

_KINDS = (
    (
        "a compiler or linker",
        r"(gcc|g\+\+|clang|llvm|rust|rustc|cargo|go|ghc|binutils|bintools|mold|tinycc|zig|openjdk)"
        r"((-wrapper|-unwrapped|-default|-minimal|-bootstrap)*-[0-9][^-]*(-unstable.*)?)?",
    ),
    ("development files", r".*-dev"),
    ("headers", r"(linux|kernel)-headers-.*|.*-headers(-[0-9].*)?"),
    ("the Rust library's source", r"rust-(lib-)?src.*"),
    ("sources", r"source|.*-source|.*-src|.*\.(tar\.(gz|xz|bz2|zst)|tgz|crate|zip)|(cargo-)?vendor(-.*)?|.*-vendor"),
    ("documentation", r".*-(doc|docs|devdoc|man|info)"),
)


def admit(plan: ImagePlan, closure: Closure, *, allow: tuple[str, ...], budget: str | None, emit: Emit) -> None:
    """Refuse what does not belong in an image, and an image over its budget ("50m"; none when None).

    `allow` holds patterns (fnmatch) of store paths' names without their hash, and of programs' names; what one
    lets pass is said as a warning. Raises `ImageError` with the chain that pulls each in, and its bytes.
    """
    unwanted = {**_unwanted_paths(closure), **_unwanted_programs(plan, closure)}
    passed = {what: line for what, line in unwanted.items() if any(fnmatchcase(what, name) for name in allow)}
    for line in passed.values():
        emit(Note(f"the {plan.service} image contains {line} (image.allow)", level="warning"))
    refused = {what: line for what, line in unwanted.items() if what not in passed}
    if refused:
        names = ", ".join(f'"{what}"' for what in refused)
        raise ImageError(
            f"the {plan.service} image would contain what does not belong in an image: {', '.join(refused)}",
            details=list(refused.values()),
            hint="remove the reference (strip the binary, map build paths away), build without that dependency,"
            f" or let it pass in orchestrator.toml: image.allow = [{names}]",
        )
    if budget is not None:
        _check_budget(plan, parse_bytes(budget))


def contributors(plan: ImagePlan) -> tuple[tuple[int, str], ...]:
    """(bytes, what) of the store paths and other files of an image, the largest first."""
    sizes: defaultdict[str, int] = defaultdict(int)
    for entry in plan.entries:
        if isinstance(entry, File):
            sizes[store_member(entry.path) or f"/{entry.path}"] += file_size(entry)
    return tuple(sorted(((size, what) for what, size in sizes.items()), reverse=True))


def store_member(path: str) -> str | None:
    """The name (hash included) of the store path an image's file is in; None for other files."""
    parts = path.lstrip("/").split("/")
    return parts[2] if parts[:2] == ["nix", "store"] and len(parts) > 2 else None


def file_size(file: File) -> int:
    """Bytes of a file of an image; a gzipped twin is not counted."""
    return len(file.source) if isinstance(file.source, bytes) else file.source.stat().st_size


def name_of(member: Path) -> str:
    """A store path's name without the hash."""
    return member.name.partition("-")[2]


def _unwanted_paths(closure: Closure) -> Mapping[str, str]:
    """Name of each unwanted store path → what is wrong with it."""
    found = {}
    for member in closure.paths:
        name = name_of(member)
        kind = next((kind for kind, pattern in _KINDS if re.fullmatch(pattern, name)), None)
        if kind is not None:
            size = tree_size(member) / MB
            found[name] = f"{member} ({kind}, {size:.1f} MB): {_chain(closure, member)}"
    return found


def _unwanted_programs(plan: ImagePlan, closure: Closure) -> Mapping[str, str]:
    """Name of each unwanted program → where it is and what pulls it in."""
    executable = [entry.path for entry in plan.entries if isinstance(entry, File) and entry.mode & 0o111]
    links = {entry.path: entry.target for entry in plan.entries if isinstance(entry, Link)}
    interpreters = {_stem(target) for path, target in links.items() if path.startswith("app/bin/")}
    paths = [
        path for path in (*executable, *links) if not {_stem(f"/{path}"), _stem(links.get(path, ""))} & interpreters
    ]
    found = find_programs((f"/{path}" for path in paths), closure)
    return {path.rpartition("/")[2]: f"{path}: {_chain(closure, member)}" for path, member in found}


def _stem(path: str) -> str:
    """A program's path without a version at its end: python, python3 and python3.11 are one."""
    return path.rstrip("0123456789.-")


def _chain(closure: Closure, member: Path | None) -> str:
    chain: Iterable[Path] = closure.chain(member) if member else ()
    return " refers to ".join((closure.product, *map(str, chain)))


def _check_budget(plan: ImagePlan, budget: int) -> None:
    parts = contributors(plan)
    total = sum(size for size, _ in parts)
    if total <= budget:
        return
    rest = sum(size for size, _ in parts[SHOWN_CONTRIBUTORS:])
    shown = [*parts[:SHOWN_CONTRIBUTORS], *([(rest, "everything else")] if rest else [])]
    raise ImageError(
        f"the {plan.service} image has {total / MB:.1f} MB, over its budget of {budget / MB:.1f} MB",
        details=[f"{size / MB:8.1f} MB  {100 * size / total:3.0f} %  {what}" for size, what in shown],
        hint=f"make it smaller, or raise image.budget.{plan.service} in orchestrator.toml;"
        " see: orchestrator images explain",
    )
