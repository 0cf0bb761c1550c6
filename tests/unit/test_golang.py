"""What go is told, what it says, which Go will do."""

from pathlib import Path, PurePosixPath

import pytest

from orchestrator.build.go_toolchain import asked_go, require_go, version_key
from orchestrator.build.golang import Go
from orchestrator.build.inventory import Component, go_library
from orchestrator.build.snapshot import Entry, Snapshot
from orchestrator.build.workspace import Workspace
from orchestrator.errors import BuildError, ToolchainError
from orchestrator.image.sbom import build_url
from orchestrator.plan import BuildPlan
from orchestrator.recipes import GoOutput

LISTED = [
    "package net true 5",
    "package github.com/go-chi/chi/v5 false 0 false github.com/go-chi/chi/v5 v5.0.12",
    "package example.org/fork/x false 0 false example.org/x v1.0.0 => example.org/Fork v1.1.0",
    "package example.org/local false 0 false example.org/local v0.0.0 => ../local ",
    "package example.org/notes/cmd/api false 0 true example.org/notes ",
]
CGO = "package github.com/mattn/go-sqlite3 false 8 false github.com/mattn/go-sqlite3 v1.14.22"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws", inside=True)


def make(root: Path, platform: str = "", lock: str = "api/go.sum", sources: tuple[str, ...] = ()) -> Go:
    directory, output = PurePosixPath("api"), GoOutput("./cmd/api", "api")
    plan = BuildPlan("backend", "backend", "go", directory, PurePosixPath(lock), (), output, platform)
    entries = tuple(Entry(path, "file", False, "") for path in sources)
    return Go(plan, Snapshot(root, entries, frozenset(), ""))


def test_what_is_linked_and_compiled_is_counted(tmp_path: Path):
    go = make(tmp_path)
    assert [go.read(line) for line in LISTED] == [None] * len(LISTED)
    assert (go.compiled, go.reused) == (0, 4)
    shown = ["net", "example.org/notes/cmd/api", "something else"]
    assert [go.read(line) for line in shown] == shown
    assert (go.compiled, go.reused) == (2, 3)


def test_components_are_the_modules_and_the_library(tmp_path: Path):
    go = make(tmp_path)
    for line in LISTED:
        go.read(line)
    made = go.linked(go_library("1.26.8"))
    assert made == (
        Component("golang", "example.org/Fork", "v1.1.0", "", ""),
        Component("golang", "example.org/local", "", "", "local"),
        Component("golang", "github.com/go-chi/chi/v5", "v5.0.12", "", ""),
        Component("golang", "stdlib", "1.26.8", "BSD-3-Clause", ""),
    )
    assert [build_url(component) for component in made] == [
        "pkg:golang/example.org/fork@v1.1.0",
        None,
        "pkg:golang/github.com/go-chi/chi/v5@v5.0.12",
        "pkg:golang/stdlib@1.26.8",
    ]


def test_c_code_is_compiled_only_where_there_is_some(tmp_path: Path, workspace: Workspace):
    go = make(tmp_path)
    assert go.variables(workspace)["CGO_ENABLED"] == "1", "go list must see files with C code"
    go.read(LISTED[1])
    assert (go.variables(workspace)["CGO_ENABLED"], go.settle()) == ("0", None)
    go.read(CGO)
    assert go.variables(workspace)["CGO_ENABLED"] == "1"
    assert go.settle() == "backend is built with cgo: github.com/mattn/go-sqlite3 has C code"


def test_another_platform_is_gos_business_and_c_code_for_it_is_refused(tmp_path: Path, workspace: Workspace):
    go = make(tmp_path, "linux/arm64")
    go.read(LISTED[1])
    variables = go.variables(workspace)
    assert (variables["GOOS"], variables["GOARCH"], variables["CGO_ENABLED"]) == ("linux", "arm64", "0")
    go.read(CGO)
    with pytest.raises(ToolchainError, match=r"linux/arm64 here: github\.com/mattn/go-sqlite3 has C code"):
        go.settle()


def test_the_program_is_made_in_target_or_where_a_command_leaves_it(tmp_path: Path, workspace: Workspace):
    go = make(tmp_path)
    argv = go.arguments(("go", "build", "-v", "./cmd/api"))
    assert argv == ("go", "build", "-o", "../../target/bin/api", "-v", "./cmd/api")
    assert go.arguments(("bash", "-c", "make")) == ("bash", "-c", "make")
    left = workspace.path / "src" / "api" / "api"
    left.parent.mkdir(parents=True)
    left.write_text("")
    assert go.product(workspace) == left
    go.prepare(workspace)
    assert not left.exists(), "what an earlier build left is not taken for this one's"
    left.write_text("")
    kept = make(tmp_path, sources=("api/api",))
    kept.prepare(workspace)
    assert left.exists(), "a file of the monorepo's is no product"
    assert kept.product(workspace) == workspace.path / "target" / "bin" / "api"


@pytest.mark.parametrize(
    ("lock", "line", "message", "command"),
    [
        (
            "api/go.sum",
            "main.go:7:2: missing go.sum entry for module providing package github.com/go-chi/chi/v5 (imported by x)",
            "api/go.sum is out of date: github.com/go-chi/chi/v5",
            "run: go mod tidy in",
        ),
        ("api/go.sum", "go: updates to go.mod needed; to update it:", "api/go.sum is out of date", "go mod tidy"),
        (
            "api/vendor/modules.txt",
            "go: inconsistent vendoring in /build/src/api:",
            "is out of date",
            "&& go mod vendor",
        ),
    ],
)
def test_requirements_out_of_date_are_said_with_the_command(
    tmp_path: Path, lock: str, line: str, message: str, command: str
):
    error = make(tmp_path, lock=lock).explain(BuildError("failed", details=[line]))
    assert message in error.message
    assert command in (error.hint or "")
    other = BuildError("failed", details=["undefined: x"])
    assert make(tmp_path).explain(other) is other


def test_versions_sort_as_go_says():
    mixed = ["2.0", "1.21.3", "1.9", "1.22.0", "1.21rc2", "1.21", "1.22", "1.19.8", "1.21.0"]
    ordered = ["1.9", "1.19.8", "1.21", "1.21rc2", "1.21.0", "1.21.3", "1.22", "1.22.0", "2.0"]
    assert sorted(mixed, key=version_key) == ordered


def test_an_older_go_than_asked_for_is_refused(tmp_path: Path):
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "go.mod").write_text("module x\n\ngo 1.22\n")
    (tmp_path / "go.work").write_text("go 1.99.1\n\nuse ./api\n")
    entries = tuple(Entry(path, "file", False, "") for path in ("api/go.mod", "go.work"))
    asked = asked_go(Snapshot(tmp_path, entries, frozenset(), ""), PurePosixPath("api"))
    assert asked is not None
    with pytest.raises(ToolchainError, match=r"go\.work asks for Go 1\.99\.1, the dev shell has 1\.26\.8"):
        require_go(asked, "go version go1.26.8 linux/amd64", source="flake.nix")
    require_go(asked, "go version go2.0 linux/amd64", source="flake.nix")
