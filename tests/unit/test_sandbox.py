"""The arguments bubblewrap gets."""

from pathlib import Path, PurePosixPath

import pytest

from orchestrator.tools import sandbox
from orchestrator.tools.sandbox import Sandbox, inner_argv, outer_argv, probe


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A root directory to look at."""
    root = tmp_path / "machine"
    for name in ("usr/bin", "etc", "nix", "proc", "dev", "tmp", "run/systemd/resolve", "build", "root/.rustup"):
        (root / name).mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "swapfile").touch()
    return root


def view(machine: Path, *, network: bool = False, nix_writable: bool = False) -> Sandbox:
    return Sandbox(
        binds=((Path("/ws/src"), PurePosixPath("/build/src")),),
        hidden=(machine / "root", machine / "absent"),
        visible=(machine / "root/.rustup", machine / "usr/bin"),
        network=network,
        nix_writable=nix_writable,
    )


def argv(machine: Path, **options: bool) -> list[str]:
    return outer_argv(view(machine, **options), ["true"], directory=PurePosixPath("/build/src/web"), root=machine)


def pairs(arguments: list[str], option: str) -> list[tuple[str, str]]:
    return [(arguments[i + 1], arguments[i + 2]) for i, part in enumerate(arguments) if part == option]


def test_every_top_level_entry_is_read_only_and_links_stay_links(machine: Path):
    made = argv(machine)
    assert ("usr/bin", "/bin") in pairs(made, "--symlink")
    shown = {inside for _, inside in pairs(made, "--ro-bind")}
    assert {"/usr", "/etc", "/nix", "/run", "/root"} <= shown
    assert shown.isdisjoint({"/proc", "/dev", "/tmp", "/build", "/swapfile"})
    assert pairs(made, "--bind") == [("/ws/src", "/build/src")]


def test_hidden_directories_are_empty_but_for_the_visible(machine: Path):
    made = argv(machine)
    covered = [made[index + 1] for index, part in enumerate(made) if part == "--tmpfs"]
    assert covered == [f"{machine}/run", f"{machine}/tmp", f"{machine}/root"]
    rustup, resolver = f"{machine}/root/.rustup", f"{machine}/run/systemd/resolve"
    assert {(rustup, rustup), (resolver, resolver)} <= set(pairs(made, "--ro-bind"))
    assert made.index(rustup) > made.index(f"{machine}/root", made.index("--tmpfs"))
    sealed = [made[index + 1] for index, part in enumerate(made) if part == "--remount-ro"]
    assert sealed == [f"{machine}/run", f"{machine}/root", "/"]
    assert (f"{machine}/usr/bin", f"{machine}/usr/bin") not in pairs(made, "--ro-bind")


def test_only_a_step_with_the_network_has_it(machine: Path):
    assert "--unshare-net" in argv(machine)
    assert "--unshare-net" not in argv(machine, network=True)


def test_nix_is_writable_only_around_the_dev_shell(machine: Path, tmp_path: Path):
    assert (f"{machine}/nix", "/nix") in pairs(argv(machine, nix_writable=True), "--bind")
    made = inner_argv(["cargo"], nix_state=tmp_path)
    assert ("/nix", "/nix") in pairs(made, "--ro-bind-try")
    assert "--tmpfs" not in made
    (tmp_path / "daemon-socket").mkdir()
    made = inner_argv(["cargo"], nix_state=tmp_path)
    assert made[made.index("--tmpfs") + 1] == f"{tmp_path}/daemon-socket"


def test_it_dies_with_us_and_has_its_own_namespaces(machine: Path):
    made = argv(machine)
    assert {"--die-with-parent", "--new-session", "--unshare-pid", "--unshare-ipc", "--unshare-uts"} <= set(made)
    assert made[made.index("--chdir") + 1] == "/build/src/web"
    assert made[-2:] == ["--", "true"]


def test_a_machine_without_bubblewrap_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sandbox, "find", lambda program: None)
    assert probe() == "bubblewrap is not installed (apt-get install bubblewrap)"
