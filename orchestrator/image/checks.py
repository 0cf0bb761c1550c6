"""What must hold of an image before it is stored: it starts on its own, and nothing in it helps an intruder."""

from pathlib import Path

from orchestrator.build.closure import Closure, check_programs
from orchestrator.build.linkage import check_elf
from orchestrator.build.tree import Tree
from orchestrator.image.layers import File, ImagePlan, Link


def check_image(plan: ImagePlan, closure: Closure) -> None:
    """Every library is found inside the image, and no shell, compiler or package manager is.

    Raises `ImageError` naming the file, and the library it lacks or the chain of references that pulls it in.
    """
    executable = [entry.path for entry in plan.entries if isinstance(entry, File) and entry.mode & 0o111]
    links = {f"/{entry.path}": entry.target for entry in plan.entries if isinstance(entry, Link)}
    check_programs([*(f"/{path}" for path in executable), *links], closure)
    files = {f"/{entry.path}": entry.source for entry in plan.entries if isinstance(entry, File)}
    check_elf(Tree({path: source for path, source in files.items() if isinstance(source, Path)}, links))
