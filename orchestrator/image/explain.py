"""Where an image's bytes are: what was recorded when it was made, as a tree of referrers and as a page."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.build.closure import Closure
from orchestrator.files import resource, write_atomically
from orchestrator.image.admission import file_size, store_member
from orchestrator.image.layers import File, ImagePlan

KEPT = 20
"""Records kept for one service."""

MB = 1_000_000
_WIDTH, _HEIGHT = 1200.0, 640.0
_LABEL_WIDTH, _LABEL_HEIGHT = 90.0, 20.0


class Contents(BaseModel):
    """What is in an image: bytes of each store path (by name), what each refers to, bytes of the other files.

    `roots` are the store paths the product names itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_id: str
    product: str
    roots: tuple[str, ...]
    store: dict[str, int]
    references: dict[str, tuple[str, ...]]
    files: dict[str, int]

    @property
    def size(self) -> int:
        return sum(self.store.values()) + sum(self.files.values())


@dataclass(frozen=True, slots=True)
class Node:
    """A part of an image. `size` counts the part itself and `children`, in bytes; the largest child is first."""

    name: str
    own: int
    size: int
    children: tuple["Node", ...]


def remember_contents(cache_dir: Path, app: str, image_id: str, plan: ImagePlan, closure: Closure) -> None:
    """Record what is in an image, unless that is known, and forget the oldest records of its service."""
    directory = _directory(cache_dir, app, plan.service)
    path = directory / f"{image_id}.json"
    if path.exists():
        return
    write_atomically(path, describe(image_id, plan, closure).model_dump_json())
    for old in sorted(directory.glob("*.json"), key=lambda found: found.stat().st_mtime, reverse=True)[KEPT:]:
        old.unlink(missing_ok=True)


def find_contents(cache_dir: Path, app: str, service: str, image_id: str | None) -> Contents | None:
    """The record of an image, or of the newest of a service; None when there is none."""
    directory = _directory(cache_dir, app, service)
    names = f"{image_id}.json" if image_id else "*.json"
    for path in sorted(directory.glob(names), key=lambda found: found.stat().st_mtime, reverse=True):
        try:
            return Contents.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue
    return None


def describe(image_id: str, plan: ImagePlan, closure: Closure) -> Contents:
    """The record of an image made from this plan."""
    store: defaultdict[str, int] = defaultdict(int)
    files: dict[str, int] = {}
    for entry in plan.entries:
        if not isinstance(entry, File):
            continue
        member = store_member(entry.path)
        if member is None:
            files[f"/{entry.path}"] = file_size(entry)
        else:
            store[member] += file_size(entry)
    return Contents(
        image_id=image_id,
        product=closure.product,
        roots=tuple(path.name for path in closure.roots),
        store={path.name: store.get(path.name, 0) for path in closure.paths},
        references={path.name: tuple(ref.name for ref in refs) for path, refs in closure.references.items()},
        files=files,
    )


def make_tree(contents: Contents) -> Node:
    """Each store path below the one that refers to it on the shortest way from the product; files by directory."""
    below: defaultdict[str, list[str]] = defaultdict(list)
    seen, queue = set(contents.roots), list(contents.roots)
    while queue:
        current = queue.pop(0)
        for reference in contents.references.get(current, ()):
            if reference not in seen:
                seen.add(reference)
                below[current].append(reference)
                queue.append(reference)
    roots = [_store_node(root, contents.store, below) for root in contents.roots]
    directories = _file_nodes(contents.files)
    return _node(contents.product, 0, [*roots, *directories])


def _store_node(name: str, store: Mapping[str, int], below: Mapping[str, list[str]]) -> Node:
    children = [_store_node(child, store, below) for child in below.get(name, ())]
    return _node(name.partition("-")[2] or name, store.get(name, 0), children)


def _file_nodes(files: Mapping[str, int]) -> list[Node]:
    groups: defaultdict[str, list[Node]] = defaultdict(list)
    for path, size in files.items():
        directory, _, name = path.rpartition("/")
        groups[directory or "/"].append(Node(name, size, size, ()))
    return [_node(f"{directory.rstrip('/')}/", 0, nodes) for directory, nodes in groups.items()]


def _node(name: str, own: int, children: list[Node]) -> Node:
    ordered = tuple(sorted(children, key=lambda node: (-node.size, node.name)))
    return Node(name, own, own + sum(child.size for child in children), ordered)


def tree_lines(node: Node, *, depth: int = 0) -> Iterator[str]:
    """The tree, one line a part: bytes with all below it, bytes of its own, name."""
    own = f"{node.own / MB:8.2f}" if node.children else " " * 8
    yield f"{node.size / MB:8.2f} {own}  {'  ' * depth}{node.name}"
    for child in node.children:
        yield from tree_lines(child, depth=depth + 1)


def render_page(contents: Contents) -> str:
    """A page without any request: a treemap of the parts, and the tree as text."""
    parts = {
        **{name.partition("-")[2] or name: size for name, size in contents.store.items()},
        **contents.files,
    }
    sizes = sorted(((size, name) for name, size in parts.items() if size), reverse=True)
    boxes = "\n".join(_box(*place) for place in squarify(sizes, 0, 0, _WIDTH, _HEIGHT))
    style = (resource("templates") / "explain.css").read_text()
    title = f"{contents.product}: {contents.size / MB:.1f} MB"
    text = "\n".join(tree_lines(make_tree(contents)))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{style}</style></head><body>\n<h1>{escape(title)}</h1>\n<p>image {contents.image_id}</p>\n"
        f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" aria-label="{escape(title)}">\n{boxes}\n</svg>\n'
        f"<h2>MB with what it pulls in, MB of its own, part</h2>\n<pre>{escape(text)}</pre>\n</body></html>\n"
    )


Place = tuple[float, float, float, float, int, str]


def squarify(sizes: list[tuple[int, str]], x: float, y: float, width: float, height: float) -> Iterator[Place]:
    """(x, y, width, height, size, name) of boxes that fill a rectangle, near to squares.

    `sizes` are positive, the largest first. After Bruls, Huizing and van Wijk, "Squarified Treemaps" (2000).
    """
    total = sum(size for size, _ in sizes)
    rest = list(sizes)
    while rest:
        side = min(width, height)
        scale = width * height / total
        count = _row_length(rest, side, scale)
        row, rest = rest[:count], rest[count:]
        amount = sum(size for size, _ in row)
        thickness = amount * scale / side
        offset = 0.0
        for size, name in row:
            length = size * scale / thickness
            if width >= height:
                yield x, y + offset, thickness, length, size, name
            else:
                yield x + offset, y, length, thickness, size, name
            offset += length
        if width >= height:
            x, width = x + thickness, width - thickness
        else:
            y, height = y + thickness, height - thickness
        total -= amount


def _row_length(sizes: list[tuple[int, str]], side: float, scale: float) -> int:
    """How many boxes go side by side before the worst of them gets less square."""
    best = float("inf")
    amount = 0.0
    for count, (size, _) in enumerate(sizes, start=1):
        amount += size * scale
        largest, smallest = sizes[0][0] * scale, size * scale
        worst = max(side * side * largest / amount**2, amount**2 / (side * side * smallest))
        if worst > best:
            return count - 1
        best = worst
    return len(sizes)


def _box(x: float, y: float, width: float, height: float, size: int, name: str) -> str:
    label = f"{name}, {size / MB:.2f} MB"
    hue = sum(name.encode()) % 360
    text = ""
    if width > _LABEL_WIDTH and height > _LABEL_HEIGHT:
        shown = name[: int(width / 7.5)]
        text = f'<text x="{x + 5:.1f}" y="{y + 15:.1f}">{escape(shown)}</text>'
    return (
        f'<g><title>{escape(label)}</title><rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}"'
        f' fill="hsl({hue} 55% 80%)"/>{text}</g>'
    )


def _directory(cache_dir: Path, app: str, service: str) -> Path:
    return cache_dir / "contents" / app / service
