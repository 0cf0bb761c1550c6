"""`python -m benchmarks.assemble_once ROUTE SOURCES`: one image from files, in the storage of the environment.

ROUTE is `oci` (the orchestrator's own), `context` (only the Dockerfile and its context) or `buildah` (from that
context, with buildah's layer cache). Prints one JSON object: seconds, and the bytes of layers that were written.
"""

import json
import os
import sys
import time
from pathlib import Path

from orchestrator.image.dockerfile import write_context
from orchestrator.image.layers import File, ImageConfig, ImagePlan, arrange_layers
from orchestrator.image.storage import Workshop, store_layers
from orchestrator.process import Cancel
from orchestrator.settings import default_cache_dir, default_state_dir
from orchestrator.tools.oci import build_argv, build_image, buildah_argv
from orchestrator.tools.podman import Engine, open_engine

STORE = "nix/store/0123456789abcdfghijklmnpqrsvwxyz-base"


def plan_of(sources: Path) -> ImagePlan:
    """One layer of store files, one of hashed assets, one of the binary, one of what is left.

    A layer is stored anew with each below it, so the binary has only small ones above, as in a backend's image.
    """
    base = [File(f"{STORE}/{path.name}", path, 0o444, immutable=True) for path in sorted((sources / "base").iterdir())]
    assets = [File(f"srv/www/assets/{path.name}", path) for path in sorted((sources / "assets").iterdir())]
    layers = arrange_layers(
        {
            "base": base,
            "assets": assets,
            "application": [File("app/bin/server", sources / "server", 0o755)],
            "files": [File("srv/www/index.html", sources / "index.html")],
        }
    )
    return ImagePlan("bench", layers, ImageConfig(("/app/bin/server",), (("io.orchestrator.app", "bench"),)))


def main(route: str, sources: Path) -> None:
    cache = default_cache_dir(os.environ)
    engine = open_engine(default_state_dir(os.environ))
    plan, context = plan_of(sources), cache / "context"
    engine.ask("images")
    started = time.monotonic()
    written = 0
    if route == "oci":
        workshop = Workshop("bench", engine, cache, lambda _: None, Cancel())
        image = store_layers(plan, workshop, check=lambda: None)
        written = sum(layer.size for layer in image.layers if layer.written)
    elif route == "context":
        write_context(plan, context)
    else:
        _buildah(engine, context)
    print(json.dumps({"seconds": time.monotonic() - started, "layers": written}))


def _buildah(engine: Engine, context: Path) -> None:
    builder = buildah_argv(root=engine.root, runroot=engine.runroot, driver=engine.driver)
    argv = build_argv(builder, context=context, id_file=context.with_name("id"), timestamp=1)
    scratch = Path(os.environ["TMPDIR"])
    build_image(argv, environment=engine.environment, scratch=scratch, on_line=lambda _: None)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
