"""What is /app in the image of a Node backend, of trees as npm and pnpm lay them out."""

import os
from pathlib import Path, PurePosixPath

import pytest

from orchestrator.build import node_application
from orchestrator.build.interpreter import Interpreter, parse_interpreter, require_in_store, slim_node
from orchestrator.build.node import Node
from orchestrator.build.node_application import make_application
from orchestrator.build.snapshot import Entry, Snapshot
from orchestrator.build.workspace import Workspace
from orchestrator.errors import ToolchainError
from orchestrator.plan import BuildPlan
from orchestrator.recipes import NodeOutput
from tests.unit.test_node_modules import put


def files_of(tree: Path) -> set[str]:
    """Files as their paths, links as "path -> target"."""
    found = set()
    for path in tree.rglob("*"):
        name = str(path.relative_to(tree))
        if path.is_symlink():
            found.add(f"{name} -> {path.readlink()}")
        elif path.is_file():
            found.add(name)
    return found


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


@pytest.fixture(autouse=True)
def intel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_application, "_PREBUILT", "linux-x64")


def test_npms_tree_has_what_production_needs_where_it_was(tmp_path: Path):
    root, tree = tmp_path / "src", tmp_path / "app"
    put(root, "api", dependencies={"fastify": "5"}, devDependencies={"typescript": "5"})
    put(root, "api/node_modules/fastify", dependencies={"native": "1"})
    put(root, "api/node_modules/fastify/node_modules/native")
    put(root, "api/node_modules/typescript")
    touch(root, "api/dist/server.js", "api/src/server.ts", "api/test/a.js", "api/.env", "api/node_modules/.bin/tsc")
    native = root / "api/node_modules/fastify/node_modules/native"
    touch(native, "binding.gyp", "index.js", "build/Makefile", "build/Release/a.node", "build/Release/obj.target/a.o")
    touch(native, "prebuilds/linux-x64/a.node", "prebuilds/linux-x64/a.musl.node", "prebuilds/darwin-arm64/a.node")
    touch(
        root, "api/dist/package.json", "api/tool/package.json", "api/tool/a.js", "api/node_modules/.prisma/client/a.js"
    )
    projects = (root / "api", root / "api/tool")
    make_application(root / "api", root, tree, Path("/nix/store/x-nodejs-slim/bin/node"), projects)
    assert files_of(tree) == {
        "bin/node -> /nix/store/x-nodejs-slim/bin/node",
        *(f"src/api/{path}" for path in ("package.json", "dist/server.js", "dist/package.json", "src/server.ts")),
        "src/api/node_modules/.prisma/client/a.js",
        "src/api/node_modules/fastify/package.json",
        *(
            f"src/api/node_modules/fastify/node_modules/native/{path}"
            for path in (
                "package.json",
                "binding.gyp",
                "index.js",
                "build/Release/a.node",
                "prebuilds/linux-x64/a.node",
            )
        ),
    }


def test_pnpms_links_and_the_monorepos_own_packages_are_kept(tmp_path: Path):
    root, tree = tmp_path / "src", tmp_path / "app"
    put(root, "packages/api", dependencies={"@mono/shared": "workspace:*", "clsx": "2"})
    put(root, "packages/shared", "@mono/shared")
    touch(root, "packages/shared/index.js", "packages/shared/index.test.js")
    store = put(root, "node_modules/.pnpm/clsx@2/node_modules/clsx")
    for link, target in (("@mono/shared", root / "packages/shared"), ("clsx", store)):
        place = root / "packages/api/node_modules" / link
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(os.path.relpath(target, place.parent))
    put(root, "node_modules/.pnpm/vite@5/node_modules/vite")
    (root / "node_modules/.pnpm/node_modules").mkdir()
    for name in ("clsx@2", "vite@5"):
        link = root / "node_modules/.pnpm/node_modules" / name.partition("@")[0]
        link.symlink_to(f"../{name}/node_modules/{link.name}")
    make_application(root / "packages/api", root, tree, Path("/nix/store/x/bin/node"), (root / "packages/shared",))
    assert files_of(tree / "src") == {
        "packages/api/package.json",
        "packages/api/node_modules/@mono/shared -> ../../../shared",
        "packages/api/node_modules/clsx -> ../../../node_modules/.pnpm/clsx@2/node_modules/clsx",
        "packages/shared/package.json",
        "packages/shared/index.js",
        "node_modules/.pnpm/clsx@2/node_modules/clsx/package.json",
        "node_modules/.pnpm/node_modules/clsx -> ../clsx@2/node_modules/clsx",
    }
    assert all(path.exists() for path in (tree / "src/packages/api/node_modules").rglob("*"))


def backend(root: Path, *sources: str) -> Node:
    plan = BuildPlan(
        "backend", "backend", "node", PurePosixPath("api"), PurePosixPath("api/package-lock.json"), (),
        NodeOutput("dist/server.js"),
    )  # fmt: skip
    return Node(plan, Snapshot(root, tuple(Entry(path, "file", False, "") for path in sources), frozenset(), ""))


def test_nothing_an_earlier_build_made_is_left_but_what_was_installed(tmp_path: Path):
    workspace = Workspace(tmp_path, inside=True)
    touch(
        tmp_path / "src", "api/src/a.ts", "api/dist/gone.js", "api/tsconfig.tsbuildinfo", "api/node_modules/x/index.js"
    )
    touch(tmp_path / "src", "api/node_modules/.tmp/tsconfig.tsbuildinfo")
    touch(tmp_path, "target/app/old", "src/web/dist/other.js")
    backend(tmp_path, "api/src/a.ts").prepare(workspace)
    left = {"api/src/a.ts", "api/node_modules/x/index.js", "web/dist/other.js"}
    assert files_of(tmp_path / "src") == left and not (tmp_path / "target/app").exists()


def test_the_nodes_of_the_dev_shell_and_of_an_image(tmp_path: Path):
    node = backend(tmp_path)
    assert node.read("interpreter v20.20.2 /nix/store/x-nodejs-20/bin/node") is None
    assert node.interpreter == Interpreter("20.20.2", Path("/nix/store/x-nodejs-20/bin/node"))
    assert node.settle() is None
    assert parse_interpreter("interpreter none") is None
    with pytest.raises(ToolchainError, match="not from /nix/store"):
        require_in_store(Interpreter("20.1.0", Path("/usr/bin/node")), service="backend", package="nodejs")


def test_the_image_has_no_package_manager(tmp_path: Path):
    touch(tmp_path, "nodejs/bin/node", "nodejs/lib/node_modules/npm/package.json", "slim/bin/node")
    asked: list[str] = []

    def provide(package: str) -> Path:
        asked.append(package)
        return tmp_path / "slim"

    whole, slim = tmp_path / "nodejs/bin/node", tmp_path / "slim/bin/node"
    assert slim_node(Interpreter("22.1.0", slim), provide) == slim and asked == []
    assert slim_node(Interpreter("22.1.0", whole), provide) == slim and asked == ["nodejs-slim_22"]
