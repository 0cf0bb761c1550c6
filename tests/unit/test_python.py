"""What uv is told about a Python backend and what it says; the tree that is made of what it installed."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import ModuleType

import pytest

from orchestrator.build.inventory import Component
from orchestrator.build.native_libraries import link_libraries
from orchestrator.build.python import Python
from orchestrator.build.snapshot import Entry, Snapshot
from orchestrator.build.workspace import Workspace
from orchestrator.errors import BuildError, OrchestratorError, ToolchainError
from orchestrator.files import resource
from orchestrator.image.sbom import build_url
from orchestrator.plan import BuildPlan
from orchestrator.recipes import ARRANGE_PYTHON, PythonOutput
from tests.unit.test_elf import make_elf

LOCK = """
version = 1
[[package]]
name = "anyio"
source = { registry = "https://pypi.org/simple" }
[[package]]
name = "greeting"
source = { editable = "greeting" }
[[package]]
name = "mono"
source = { virtual = "." }
[[package]]
name = "vendored"
source = { directory = "third/vendored" }
"""
PACKAGES = Path(f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws", inside=True)


def make(root: Path, lock: str = "uv.lock", package: str = "") -> Python:
    plan = BuildPlan(
        "backend", "backend", "python", PurePosixPath("api"), PurePosixPath(lock), (), PythonOutput(package)
    )
    return Python(plan, Snapshot(root, (), frozenset(), ""))


def test_the_monorepos_own_packages_are_built_anew(tmp_path: Path):
    (tmp_path / "uv.lock").write_text(LOCK)
    told = make(tmp_path).arguments(("uv", "sync", "--frozen", "--offline"))
    assert told[4:] == ("--reinstall-package=greeting", "--reinstall-package=vendored")
    assert make(tmp_path).arguments(("uv", "sync", "--locked")) == ("uv", "sync", "--locked")


def test_the_script_is_told_places_relative_to_the_project(tmp_path: Path):
    told = make(tmp_path).arguments(("python3", ARRANGE_PYTHON))
    assert Path(told[1]).is_file() and told[2:] == ("../../target/venv", "../../target/app")


def test_what_the_steps_print_for_us_is_not_shown(tmp_path: Path):
    python = make(tmp_path)
    assert python.read("interpreter 3.11.2 /nix/store/x-python3/bin/python3.11") is None
    assert python.read("component\tTyping_Extensions\t4.16.0\tPSF-2.0\t") is None
    assert python.read("   Built greeting @ file:///build/src/greeting") is not None
    assert (python.settle(), python.compiled) == (None, 1)
    assert python.components == [Component("pypi", "Typing_Extensions", "4.16.0", "PSF-2.0", "")]
    assert build_url(python.components[0]) == "pkg:pypi/typing-extensions@4.16.0"


@pytest.mark.parametrize("said", [[], ["interpreter 3.11.2 /usr/bin/python3.11"]])
def test_another_python_than_the_dev_shells_is_refused(tmp_path: Path, said: list[str]):
    python = make(tmp_path)
    for line in said:
        python.read(line)
    with pytest.raises(ToolchainError, match="not from /nix/store"):
        python.settle()


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        (
            "error: The lockfile at `uv.lock` needs to be updated, but `--locked` was provided.",
            BuildError,
            "uv.lock is out of date",
        ),
        (
            "error: The requested interpreter resolved to Python 3.11.7, which is incompatible with the project's"
            " Python requirement: `>=3.13`.",
            ToolchainError,
            "api asks for Python >=3.13, the dev shell has 3.11.7",
        ),
        (
            "The package `fastapi` requires `starlette>=1.6.0`, but it's not installed",
            BuildError,
            "uv.lock is not complete: fastapi requires starlette>=1.6.0, but it's not installed",
        ),
    ],
)
def test_a_lock_or_a_python_that_does_not_fit_is_explained(
    tmp_path: Path, line: str, kind: type[OrchestratorError], message: str
):
    told = make(tmp_path).explain(BuildError("uv failed", details=["something", line]))
    assert (type(told), told.message) == (kind, message)
    other = BuildError("uv failed", details=["something else"])
    assert make(tmp_path).explain(other) is other


def test_a_fetch_begins_with_an_empty_environment_and_all_downloads(tmp_path: Path, workspace: Workspace):
    for path in ("target/venv/pyvenv.cfg", "home/.cache/uv/wheels/a"):
        (workspace.path / path).parent.mkdir(parents=True)
        (workspace.path / path).touch()
    python = make(tmp_path)
    assert python.is_fetched(workspace)
    python.begin_fetch(workspace)
    assert not python.is_fetched(workspace) and (workspace.path / "home/.cache/uv/wheels/a").exists()


def test_files_that_decide_what_is_installed(tmp_path: Path):
    decides = make(tmp_path).decides_fetch
    assert all(map(decides, ("uv.lock", "api/pyproject.toml", "api/requirements.txt", "requirements-prod.in")))
    assert not any(map(decides, ("api/main.py", "api/my-requirements.txt.py", "README.md")))


@pytest.fixture(scope="module")
def arrange() -> ModuleType:
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("arrange", resource("nix").parent / ARRANGE_PYTHON)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def install(environment: Path, name: str, files: dict[str, str], *, origin: str = "") -> None:
    """A package as an installer leaves it, with a script and notes of its own."""
    notes = environment / PACKAGES / f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\nLicense-Expression: MIT\n"
    own = {
        "METADATA": metadata,
        "WHEEL": "Generator: x",
        "INSTALLER": "uv",
        **({"direct_url.json": origin} if origin else {}),
    }
    content = {
        **{str(PACKAGES / path): text for path, text in files.items()},
        **{f"{PACKAGES}/{notes.name}/{path}": text for path, text in own.items()},
        f"bin/{name}": f"#!{environment}/bin/python\n",
        f"share/{name}/data": "data",
    }
    for path, text in content.items():
        (environment / path).parent.mkdir(parents=True, exist_ok=True)
        (environment / path).write_text(text)
    up = "/".join(".." for _ in PACKAGES.parts)
    rows = [path.removeprefix(f"{PACKAGES}/") if path.startswith(str(PACKAGES)) else f"{up}/{path}" for path in content]
    (notes / "RECORD").write_text("".join(f"{row},sha256=x,1\n" for row in (*rows, f"{notes.name}/RECORD")))


def files_of(tree: Path) -> set[str]:
    return {str(path.relative_to(tree)) for path in tree.rglob("*") if not path.is_dir() or path.is_symlink()}


def test_the_tree_has_other_peoples_packages_and_our_code_apart(
    arrange: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    environment, tree = tmp_path / "venv", tmp_path / "app"
    install(environment, "theirs", {"theirs/__init__.py": "X = 1\n", "theirs/broken.py": "print 1\n"})
    install(environment, "ours", {"ours/__init__.py": ""}, origin='{"url": "file:///x", "dir_info": {}}')
    (tree / "src").mkdir(parents=True)
    (tree / "src/main.py").touch()
    arrange.main(environment, tree)
    tag = sys.implementation.cache_tag
    theirs = {
        f"{PACKAGES}/{path}"
        for path in (
            *("theirs/__init__.py", "theirs/broken.py", f"theirs/__pycache__/__init__.{tag}.pyc"),
            *(f"theirs-1.0.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD")),
        )
    }
    ours = {"ours/__init__.py", f"ours/__pycache__/__init__.{tag}.pyc", "ours-1.0.dist-info/METADATA"}
    sources = {"main.py", f"__pycache__/main.{tag}.pyc"}
    assert files_of(tree) == {
        *("bin/python", "pyvenv.cfg", "share/theirs/data"),
        *theirs,
        *(f"src/{path}" for path in ours | sources),
    }
    record = (tree / PACKAGES / "theirs-1.0.dist-info/RECORD").read_text()
    assert "INSTALLER" not in record and "bin/theirs" not in record and "share/theirs/data" in record
    assert (tree / "bin/python").readlink() == Path("/proc/self/exe").resolve()
    assert capsys.readouterr().out == "component\tours\t1.0\tMIT\tlocal\ncomponent\ttheirs\t1.0\tMIT\t\n"


OWN_CODE = ("main.py", "templates/a.html")
NOT_RUN = ("tests/a.py", ".env", "Dockerfile", "web/package.json", "web/a.js", "uv.lock", "a.test.ts", "node_modules/a")


@pytest.mark.parametrize(
    ("package", "left"), [("", {"src/main.py", "src/templates/a.html", "src/build/package.json"}), ("notes", set())]
)
def test_of_a_project_that_is_installed_its_files_are_not_taken(
    tmp_path: Path, workspace: Workspace, package: str, left: set[str]
):
    for path in (*OWN_CODE, *NOT_RUN):
        (workspace.path / "src/api" / path).parent.mkdir(parents=True, exist_ok=True)
        (workspace.path / "src/api" / path).touch()
    (workspace.path / "target/app").mkdir(parents=True)
    (workspace.path / "target/app/old").touch()
    (workspace.path / "src/api/build").mkdir()
    (workspace.path / "src/api/build/package.json").touch()
    python = make(tmp_path, package=package)
    entry = Entry("api/web/package.json", "file", False, "")
    python.snapshot = replace(python.snapshot, entries=(entry,))
    python.prepare(workspace)
    assert files_of(python.product(workspace)) == left


def test_trees_do_not_depend_on_where_they_are_made(arrange: ModuleType, tmp_path: Path):
    made = []
    for place in ("a", "somewhere/else"):
        tree = tmp_path / place / "app"
        install(
            tmp_path / place / "venv", "theirs", {"theirs.py": "def f(x={1, 2}):\n    return x in {'a', 'b', 'c'}\n"}
        )
        arrange.main(tmp_path / place / "venv", tree)
        made.append({path: (tree / path).read_bytes() for path in files_of(tree)})
    assert made[0] == made[1]
    (compiled,) = (content for path, content in made[0].items() if path.endswith(".pyc"))
    assert compiled[4:8] == b"\1\0\0\0", "valid by its path, not by the time of its source"


@pytest.mark.parametrize(
    ("origin", "source"),
    [
        ("", ""),
        ('{"url": "https://e.org/a.whl", "archive_info": {}}', "https://e.org/a.whl"),
        (
            '{"url": "https://e.org/a.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}',
            "git+https://e.org/a.git@abc",
        ),
    ],
)
def test_where_a_package_comes_from_is_told(
    arrange: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], origin: str, source: str
):
    install(tmp_path / "venv", "a", {"a.py": ""}, origin=origin)
    arrange.main(tmp_path / "venv", tmp_path / "app")
    assert capsys.readouterr().out == f"component\ta\t1.0\tMIT\t{source}\n"


def test_libraries_extensions_count_on_are_linked_when_they_are_not_there(tmp_path: Path):
    tree, store = tmp_path / "app", tmp_path / "gcc-lib"
    (tree / "lib/packages").mkdir(parents=True)
    (tree / "lib/packages/a.so").write_bytes(
        make_elf(needed=("libstdc++.so.6", "libz.so.1", "libc.so.6", "libX11.so.6"))
    )
    (tree / "lib/packages/libz.so.1").write_bytes(make_elf(needed=("libgcc_s.so.1",)))
    (tree / "lib/packages/text.so").write_text("INPUT(a.so)")
    (tree / "lib/packages/addon.node").write_bytes(make_elf(needed=("libm.so.6",)))
    (tmp_path / "glibc").mkdir()
    (tmp_path / "glibc/libm.so.6").touch()
    (tree / "bin").mkdir()
    (tree / "bin/python").write_bytes(make_elf(interpreter=str(tmp_path / "glibc/ld.so")))
    (store / "lib").mkdir(parents=True)
    for name in ("libstdc++.so.6", "libgcc_s.so.1", "libgomp.so.1"):
        (store / "lib" / name).touch()
    asked: list[str] = []

    def provide(package: str) -> Path:
        asked.append(package)
        return store

    link_libraries(tree, provide)
    assert asked == ["stdenv.cc.cc.lib"]
    links = {path.name: path.readlink() for path in (tree / "lib").iterdir() if path.is_symlink()}
    assert links == {
        "libm.so.6": tmp_path / "glibc/libm.so.6",
        **{name: store / "lib" / name for name in ("libgcc_s.so.1", "libstdc++.so.6")},
    }
