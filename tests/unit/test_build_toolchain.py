"""Which dev shell is chosen and why, and which files decide that it is evaluated again."""

from pathlib import Path

import pytest

from orchestrator.build import snapshot as snapshots
from orchestrator.build import toolchain as toolchains
from orchestrator.build.flake import flake_snapshot, lay_out_flake, locked_nixpkgs, require_visible_flake
from orchestrator.build.snapshot import Snapshot, take_snapshot
from orchestrator.build.toolchain import nix_argv, open_toolchain, web_server
from orchestrator.errors import ProjectError, ToolchainError
from orchestrator.events import Event, Note
from orchestrator.files import write_json
from orchestrator.process import Cancel
from orchestrator.settings import Settings
from orchestrator.tools.git import GitFiles
from orchestrator.tools.hostset import HostSet
from orchestrator.tools.nix import FlakeInputs, Nix

PLAIN = 'import ./nix/shell.nix { lock = ./Cargo.lock; text = "${../x}"; }'


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(snapshots, "list_files", lambda root: None)
    root = tmp_path / "repo"
    put(root, "flake.nix", PLAIN)
    for path in (
        "flake.lock",
        "nix/shell.nix",
        "nix/deep/more.nix",
        "rust-toolchain.toml",
        "Cargo.lock",
        "src/main.rs",
    ):
        put(root, path)
    return root


def put(root: Path, path: str, content: str = "") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)


def take(root: Path) -> Snapshot:
    return take_snapshot(root, cache_dir=root.parent / "cache", emit=lambda event: None)


def settings(repo: Path, **flags: object) -> Settings:
    return Settings(name="app", monorepo=repo, cache_dir=repo.parent / "cache", state_dir=repo.parent / "s", **flags)


class FakeNix:
    """Nix and the host set, replaced; `primed` are the references evaluated so far."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.primed: list[tuple[str, tuple[str, ...]]] = []
        self.inputs = self.cache = True
        self.fail: list[str] = []
        self.asked = 0

    def prime(self, nix: Nix, reference: str, *, profile: Path, overrides: tuple[str, ...], **_: object) -> Path:
        self.primed.append((reference, overrides))
        if self.fail:
            raise ToolchainError(self.fail.pop(0))
        profile.parent.mkdir(parents=True, exist_ok=True)
        (self.base / "env").touch()
        profile.symlink_to(self.base / "env")
        return profile.resolve()

    def reachable(self, *_: object, **__: object) -> bool:
        self.asked += 1
        return self.inputs


@pytest.fixture
def nix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNix:
    fake = FakeNix(tmp_path)
    host_set = HostSet(path=tmp_path / "set", fingerprint="f1", visible=(tmp_path / "rustup",), missing={})
    for target, name, value in (
        (toolchains.nix, "open_nix", lambda **_: Nix(Path("/usr/bin/nix"), (2, 8), {})),
        (toolchains.nix, "flake_inputs", lambda *_, **__: FakeInputs),
        (toolchains.nix, "prime_shell", fake.prime),
        (toolchains.nix, "write_shell", lambda nix, profile, script, **_: script.touch()),
        (toolchains.nix, "shell_argv", lambda profile, script: ["bash", str(script)]),
        (toolchains.nixreach, "inputs_reachable", fake.reachable),
        (toolchains.nixreach, "binary_cache_reachable", lambda *_, **__: fake.cache),
        (toolchains.hostset, "prepare", lambda *_, **__: host_set),
        (toolchains.hostset, "overrides", lambda inputs, host: ("--override-input", *inputs)),
    ):
        monkeypatch.setattr(target, name, value)
    return fake


FakeInputs = FlakeInputs(flakes={"nixpkgs": "github:NixOS/nixpkgs"}, sources={})


def opened(repo: Path, events: list[Event] | None = None, **flags: object) -> toolchains.Toolchain:
    emit = (events if events is not None else []).append
    return open_toolchain(settings(repo, **flags), take(repo), emit=emit, cancel=Cancel())


def test_the_flakes_own_nixpkgs_is_used_where_it_can_be_had(repo: Path, nix: FakeNix):
    events: list[Event] = []
    made = opened(repo, events)
    assert made.kind == "flake"
    assert nix.primed[0][1] == ()
    assert Note(f"toolchain: flake, {made.reason}") in events


@pytest.mark.parametrize(("inputs", "cache", "why"), [(False, True, "inputs"), (True, False, "no binary cache")])
def test_else_this_machines_tools_and_why(repo: Path, nix: FakeNix, inputs: bool, cache: bool, why: str):
    nix.inputs, nix.cache = inputs, cache
    made = opened(repo)
    assert (made.kind, why in made.reason) == ("host", True)
    assert nix.primed[0][1] == ("--override-input", "nixpkgs")
    assert made.visible[2:] == (repo.parent / "rustup",)


def test_a_forced_choice_asks_nobody(repo: Path, nix: FakeNix):
    assert opened(repo, toolchain="host").kind == "host"
    assert opened(repo, toolchain="flake").kind == "flake"
    assert nix.asked == 0


def test_offline_asks_nobody_either(repo: Path, nix: FakeNix):
    assert opened(repo, offline=True).kind == "host"
    opened(repo, toolchain="flake")
    assert opened(repo, offline=True).kind == "flake"
    assert nix.asked == 0


def test_nothing_is_evaluated_or_asked_twice(repo: Path, nix: FakeNix):
    nix.cache = False
    first = opened(repo)
    put(repo, "src/main.rs", "fn main() {}")
    assert opened(repo) == first
    assert (len(nix.primed), nix.asked) == (1, 1)
    put(repo, "Cargo.lock", "changed")
    assert opened(repo).key != first.key
    assert (len(nix.primed), nix.asked) == (2, 2)


def test_the_answer_about_the_network_is_asked_for_again_after_a_while(
    repo: Path, nix: FakeNix, monkeypatch: pytest.MonkeyPatch
):
    nix.cache = False
    opened(repo)
    monkeypatch.setattr(toolchains, "DECISION_SECONDS", 0)
    nix.cache = True
    assert opened(repo).kind == "flake"


def test_evaluation_is_tried_with_everything_when_a_file_was_missing(repo: Path, nix: FakeNix):
    nix.fail = ["Nix: path '/nix/store/x/src/main.rs' does not exist"]
    opened(repo)
    parts = [{path.name for path in Path(reference[5:]).rglob("*")} for reference, _ in nix.primed]
    assert "main.rs" not in parts[0] and "main.rs" in parts[1]


def test_other_errors_are_raised_at_once(repo: Path, nix: FakeNix):
    nix.fail = ["Nix: syntax error"]
    with pytest.raises(ToolchainError, match="syntax error"):
        opened(repo)
    assert len(nix.primed) == 1


def test_a_monorepo_without_a_flake_gets_our_dev_shell(repo: Path, nix: FakeNix):
    (repo / "flake.nix").unlink()
    events: list[Event] = []
    assert opened(repo, events).source == "the default dev shell"
    assert any("no flake.nix" in event.text for event in events if isinstance(event, Note))


def test_old_dev_shells_are_forgotten(repo: Path, nix: FakeNix):
    for number in range(8):
        put(repo, "flake.lock", str(number))
        opened(repo)
    assert len(list((repo.parent / "cache/toolchains").iterdir())) == toolchains.KEPT_TOOLCHAINS
    assert opened(repo).home.is_dir()


def test_the_web_server_is_built_once_from_the_same_packages(
    repo: Path, nix: FakeNix, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    built: list[str] = []

    def build(nix: Nix, installable: str, *, out_link: Path, cancel: Cancel | None) -> Path:
        built.append(installable)
        (tmp_path / "nginx").mkdir(exist_ok=True)
        out_link.symlink_to(tmp_path / "nginx")
        return tmp_path / "nginx"

    monkeypatch.setattr(toolchains.nix, "build", build)
    nix.cache = False
    made = opened(repo)
    assert web_server(made) == web_server(made) == tmp_path / "nginx"
    assert built == [f"path:{tmp_path}/set#nginx"]


def test_nix_is_called_with_the_host_set_where_no_cache_answers(repo: Path, nix: FakeNix):
    nix.cache = False
    argv, _ = nix_argv(("run", f"{repo}#deploy", "--", "--name", "x"), cache_dir=repo.parent / "cache")
    assert argv[3:] == [
        *("run", "--override-input", "nixpkgs", "--no-write-lock-file", f"{repo}#deploy", "--", "--name", "x")
    ]
    argv, _ = nix_argv(("flake", "check", f"path:{repo}"), cache_dir=repo.parent / "cache")
    assert argv[3:7] == ["flake", "check", "--override-input", "nixpkgs"]
    nix.cache = True
    argv, _ = nix_argv(("build", f"{repo}#x"), cache_dir=repo.parent / "cache")
    assert argv[3:] == ["build", f"{repo}#x"]


def names(part: Snapshot) -> set[str]:
    return {entry.path for entry in part.entries}


def test_only_what_the_flake_reads_counts(repo: Path):
    assert names(flake_snapshot(take(repo))) == {
        *("flake.nix", "flake.lock", "nix/shell.nix", "nix/deep/more.nix", "rust-toolchain.toml", "Cargo.lock")
    }


@pytest.mark.parametrize("text", ["src = ./.;", '"${self}/x"', "self + /x", "builtins.readDir ./x", "src = self;"])
def test_a_flake_that_reads_its_whole_tree_gets_it(repo: Path, text: str):
    put(repo, "flake.nix", f"{{ {text} }}")
    taken = take(repo)
    assert flake_snapshot(taken) is taken


def test_a_directory_the_flake_names_counts_whole(repo: Path):
    put(repo, "flake.nix", "{ x = ./src; y = ./.cargo/config.toml; z = self.packages; }")
    put(repo, ".cargo/config.toml")
    assert {"src/main.rs", ".cargo/config.toml"} <= names(flake_snapshot(take(repo)))
    assert "Cargo.lock" not in names(flake_snapshot(take(repo)))


def test_the_laid_out_flake_is_exact_and_has_fixed_times(repo: Path):
    part = flake_snapshot(take(repo))
    directory = lay_out_flake(settings(repo), part)
    assert {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()} == names(part)
    assert {path.stat().st_mtime for path in directory.rglob("*") if path.is_file()} == {315_532_800}
    assert lay_out_flake(settings(repo), part) == directory


def test_an_untracked_flake_is_refused(repo: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        snapshots, "list_files", lambda root: GitFiles(frozenset({"Cargo.lock"}), frozenset({"flake.nix"}))
    )
    with pytest.raises(ProjectError, match="not tracked by git") as caught:
        require_visible_flake(take(repo))
    assert caught.value.hint == f"git -C {repo} add flake.nix"
    monkeypatch.setattr(snapshots, "list_files", lambda root: GitFiles(frozenset({"Cargo.lock"}), frozenset()))
    with pytest.raises(ProjectError):
        require_visible_flake(take(repo))


def test_the_locked_nixpkgs_is_read_from_the_lock_file(tmp_path: Path):
    locked = {"type": "github", "owner": "NixOS", "repo": "nixpkgs", "rev": "abc"}
    nodes = {"root": {"inputs": {"nixpkgs": "np"}}, "np": {"locked": locked}}
    write_json(tmp_path / "flake.lock", {"root": "root", "nodes": nodes})
    assert locked_nixpkgs(tmp_path) == "github:NixOS/nixpkgs/abc"
    write_json(tmp_path / "flake.lock", {"root": "root", "nodes": {"root": {}}})
    assert locked_nixpkgs(tmp_path) is None
    assert locked_nixpkgs(tmp_path / "absent") is None
