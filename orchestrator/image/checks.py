"""What must hold of an image before it is stored: it starts on its own, on the machine it is for."""

from pathlib import Path

from orchestrator.build.elf import read_elf
from orchestrator.build.linkage import check_elf
from orchestrator.build.tree import Tree
from orchestrator.errors import ImageError
from orchestrator.image.layers import File, ImagePlan, Link
from orchestrator.tools.platforms import host_platform, platform_name


def check_image(plan: ImagePlan) -> None:
    """Every program is for the image's platform, and every library is found inside the image.

    Raises `ImageError` naming the file, and what is wrong with it or the library it lacks.
    """
    check_platform(plan)
    links = {f"/{entry.path}": entry.target for entry in plan.entries if isinstance(entry, Link)}
    files = {f"/{entry.path}": entry.source for entry in plan.entries if isinstance(entry, File)}
    searched = dict(plan.config.environment).get("LD_LIBRARY_PATH", "")
    tree = Tree({path: source for path, source in files.items() if isinstance(source, Path)}, links)
    check_elf(tree, environment=tuple(filter(None, searched.split(":"))))


def check_platform(plan: ImagePlan) -> None:
    """Raises `ImageError` for the first program or library made for another platform than the image's.

    Files a frontend offers for download may be for any; they are not executable.
    """
    wanted = plan.platform or host_platform()
    for entry in plan.entries:
        if not isinstance(entry, File) or isinstance(entry.source, bytes):
            continue
        elf = read_elf(entry.source) if entry.immutable or entry.mode & 0o111 else None
        if elf is not None and platform_name(elf.machine) != wanted:
            raise ImageError(
                f"/{entry.path} is for {platform_name(elf.machine)}, the {plan.service} image for {wanted}",
                hint="the build must make it for that platform: a build command of your own gets GOARCH"
                " or CARGO_BUILD_TARGET for it",
            )
