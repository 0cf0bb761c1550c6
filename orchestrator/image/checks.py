"""What must hold of an image before it is stored: it starts on its own."""

from pathlib import Path

from orchestrator.build.linkage import check_elf
from orchestrator.build.tree import Tree
from orchestrator.image.layers import File, ImagePlan, Link


def check_image(plan: ImagePlan) -> None:
    """Every library is found inside the image. Raises `ImageError` naming the file, and the library it lacks."""
    links = {f"/{entry.path}": entry.target for entry in plan.entries if isinstance(entry, Link)}
    files = {f"/{entry.path}": entry.source for entry in plan.entries if isinstance(entry, File)}
    check_elf(Tree({path: source for path, source in files.items() if isinstance(source, Path)}, links))
