"""The Nix adapter without Nix: versions, JSON, messages, hashes."""

import json
from pathlib import Path

import pytest

from orchestrator.errors import ToolchainError
from orchestrator.tools import nix, nixlog, nixreach
from orchestrator.tools.nix import FlakeInputs, Nix
from orchestrator.tools.nixlog import Message, NixLog

FLAKE = """\
{
  # foo in a comment is not the place
  packages = with pkgs; [ cargo foo ];
}
"""


@pytest.fixture
def flake(tmp_path: Path) -> Path:
    (tmp_path / "flake.nix").write_text(FLAKE)
    return tmp_path


def record(**fields: object) -> str:
    return "@nix " + json.dumps(fields)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("nix (Nix) 2.8.0\n", (2, 8)),
        ("nix (Nix) 2.34.8", (2, 34)),
        ("nix (Determinate Nix 3.6.1) 2.29.0", (2, 29)),
        ("nix (Lix, like Nix) 2.93.0", (2, 93)),
        ("nix (Nix) 2.35pre20260101_abcdef", (2, 35)),
    ],
)
def test_the_version_is_the_last_number(said: str, version: tuple[int, int]):
    assert nix.parse_version(said) == version


def test_something_else_has_no_version():
    with pytest.raises(ToolchainError, match="cannot tell the version"):
        nix.parse_version("hello")


@pytest.mark.parametrize("keyed", [False, True], ids=["2.8", "2.34"])
def test_both_forms_of_path_info_are_read(keyed: bool):
    a, b = "/nix/store/a-a", "/nix/store/b-b"
    rows = {b: {"narSize": 7, "references": [a, b]}, a: {"narSize": 5, "references": []}}
    output = json.dumps(rows if keyed else [{"path": path, **row} for path, row in rows.items()])
    members = nix.parse_path_info(output)
    assert [(member.path.name, member.nar_size) for member in members] == [("a-a", 5), ("b-b", 7)]
    assert members[1].references == (Path(a),)


def test_settings_are_added_to_the_users():
    opened = Nix(Path("/usr/bin/nix"), (2, 8), {"NIX_CONFIG": "max-jobs = 2"})
    assert opened.offline().environment["NIX_CONFIG"] == "max-jobs = 2\nsubstituters ="
    assert opened.environment["NIX_CONFIG"] == "max-jobs = 2"
    shown = opened.with_host_tools([Path("/"), Path("/does-not-exist")]).environment["NIX_CONFIG"]
    assert "/usr" in shown
    assert "/does-not-exist" not in shown


def test_a_command_runs_in_the_environments_own_bash_and_nothing_else(tmp_path: Path):
    profile = tmp_path / "profile"
    shell = {"type": "exported", "value": "/nix/store/x-bash/bin/bash"}
    profile.write_text(json.dumps({"variables": {"shell": shell}, "bashFunctions": {}}))
    opened = Nix(Path("/usr/bin/nix"), (2, 8), {"NIX_CONFIG": "build-users-group ="})
    argv = nix.develop_argv(opened, profile, ["cargo", "build"])
    assert argv[1] == "PATH=/nix/store/x-bash/bin"
    assert argv[-5:] == ["develop", str(profile), "--command", "cargo", "build"]
    assert argv[argv.index("build-users-group") + 1] == ""


def test_a_damaged_environment_is_named(tmp_path: Path):
    (tmp_path / "profile").write_text("{")
    with pytest.raises(ToolchainError, match="cannot be read"):
        nix.read_environment(tmp_path / "profile")


@pytest.mark.parametrize(
    "file",
    ["/nix/store/2rqixk4j2cpw5dm53v06ckvswlr7gp5c-source/flake.nix", "/nix/store/x-source/flake.nix:3:33"],
    ids=["2.8", "2.34"],
)
def test_an_unknown_package_is_named_with_file_and_line(file: str, flake: Path):
    log = NixLog()
    raw = "undefined variable '\x1b[35;1mfoo\x1b[0m'"
    log.feed(record(action="msg", level=0, raw_msg=raw, msg="error:\n trace " + raw, file=file, line=3, column=33))
    cause = log.cause()
    assert cause == Message("undefined variable 'foo'", "flake.nix", 3)
    error = nixlog.explain(cause, flake=flake)
    assert error.message == "flake.nix:3: package 'foo' is unknown to the dev shell"
    assert error.details == ("packages = with pkgs; [ cargo foo ];",)


def test_a_package_the_machine_lacks_is_found_in_the_flake_and_says_what_to_install(flake: Path):
    text = "hostpkgs: package 'foo' is not on this machine. Add it with: apt-get install foo-tools"
    error = nixlog.explain(Message(text), flake=flake)
    assert error.message == "flake.nix:3: package 'foo' is not on this machine"
    assert error.hint == "apt-get install foo-tools"


def test_a_version_the_machine_lacks_says_which_it_has(flake: Path):
    text = "hostpkgs: package 'foo' is not on this machine: this machine has nodejs 20. Install that version, or ask"
    error = nixlog.explain(Message(text), flake=flake)
    assert error.message.endswith("package 'foo' is not on this machine: this machine has nodejs 20")
    assert error.hint == "Install that version, or ask"


def test_a_place_in_somebody_elses_file_is_not_shown(flake: Path):
    error = nixlog.explain(Message("infinite recursion encountered", "pkgs/top-level/impure.nix", 7), flake=flake)
    assert error.message == "Nix: infinite recursion encountered"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("syntax error, unexpected ';'", "Nix: syntax error, unexpected ';'"),
        ("getting status of '/nix/store/x-source/flake.nix': No such file or directory", "not tracked by git"),
        ("Path 'flake.nix' in the repository is not tracked by Git.\n git -C /x add flake.nix", "not tracked by git"),
        (
            "unable to download 'https://api.github.com/x': Couldn't resolve host name (6)\nmore",
            "cannot fetch https://api.github.com/x: Couldn't resolve host name (6)",
        ),
        ("flake 'path:/x' does not provide attribute 'devShells.x86_64-linux.default', 'packages'", "has no dev shell"),
        ("hostpkgs: the flake input 'crane' has no stand-in on this machine", "'crane' has no stand-in"),
        (f"builder for '/nix/store/{'a' * 32}-dep-1.drv' failed with exit code 1", "could not build dep-1"),
        (f"Cannot build '/nix/store/{'a' * 32}-dep-1.drv'.\nReason: builder failed", "could not build dep-1"),
        ("hostpkgs: Rust 1.70.0 is not on this machine (it has 1.95.0). Add it with: rustup x", "Rust 1.70.0 is not"),
    ],
)
def test_a_message_is_translated(text: str, said: str, flake: Path):
    assert said in nixlog.explain(Message(text), flake=flake).message


def test_the_cause_comes_before_its_consequences_and_brings_the_log():
    log = NixLog(on_line=(seen := []).append)
    log.feed(record(action="start", id=1, level=3, type=105, text="building '/nix/store/x.drv'"))
    log.feed(record(action="result", id=1, type=101, fields=["\x1b[1mit broke\x1b[0m"]))
    log.feed(record(action="result", id=1, type=106, fields=[1, 2]))
    log.feed(record(action="msg", level=0, raw_msg="1 dependencies of derivation '/nix/store/y.drv' failed to build"))
    log.feed(record(action="msg", level=0, raw_msg="builder for '/nix/store/x.drv' failed with exit code 1"))
    assert log.cause() == Message("builder for '/nix/store/x.drv' failed with exit code 1")
    assert list(log.build_lines) == ["it broke"]
    assert seen == ["building '/nix/store/x.drv'", "it broke"]


def test_what_is_not_json_is_kept_and_rubbish_does_no_harm():
    log = NixLog()
    for line in ('[{"outputs": {}}]', "@nix {broken", "@nix []", "warning: Git tree '/x' is dirty", "@nix {}"):
        log.feed(line)
    assert list(log.other_lines) == ['[{"outputs": {}}]', "@nix {broken", "@nix []"]
    assert log.cause() is None


def test_the_deepest_error_of_plain_output_is_taken():
    stderr = (
        "error:\n       … while calling\n         at /nix/store/x-source/lib.nix:1:2:\n"
        "       error: attribute 'foo' missing\n       at /nix/store/y-source/flake.nix:4:31:\n"
    )
    assert nixlog.parse_plain(stderr) == Message("attribute 'foo' missing", "flake.nix", 4)
    assert nixlog.parse_plain("all is well") is None


@pytest.mark.parametrize(
    ("line", "noise"),
    [
        ("error (ignored): error: cannot find flake 'flake:nixpkgs' in the flake registries", True),
        ("warning: Git tree '/srv/app' is dirty", True),
        ("error: something real", False),
        ("warning: unused variable", False),
    ],
)
def test_noise_is_known(line: str, noise: bool):
    assert nixlog.is_noise(line) is noise


def test_the_place_of_a_locked_source_follows_from_its_hash():
    # Computed by `nix-store --add-fixed --recursive sha256` of an empty directory called "source".
    empty = "sha256-pQpattmS9VmO3ZIQUFn66az8GSmB4IvYhTTCFn6SUmo="
    assert nixreach.source_path(empty) == EMPTY_SOURCE


EMPTY_SOURCE = "/nix/store/0ccnxa25whszw7mgbgyzdm4nqc0zwnm8-source"


def test_a_flake_whose_inputs_are_paths_needs_no_network(tmp_path: Path):
    inputs = FlakeInputs(flakes={"sub": "path:./sub"}, sources={})
    assert nixreach.inputs_reachable(tmp_path, inputs)


def test_an_unlocked_remote_input_is_knocked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    monkeypatch.setattr(nixreach, "_answers", lambda url, _: asked.append(url) or False)
    inputs = FlakeInputs(flakes={"a": "github:x/y", "b": "git+https://example.org/r.git"}, sources={})
    assert not nixreach.inputs_reachable(tmp_path, inputs)
    assert asked
    assert set(asked) <= {"https://github.com/", "https://example.org/"}


def test_a_locked_input_that_is_not_in_the_store_is_knocked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    locked = {"type": "github", "owner": "x", "repo": "y", "narHash": "sha256-" + "A" * 43 + "="}
    (tmp_path / "flake.lock").write_text(json.dumps({"nodes": {"root": {}, "x": {"locked": locked}}}))
    monkeypatch.setattr(nixreach, "_answers", lambda url, _: url == "https://github.com/")
    assert nixreach.inputs_reachable(tmp_path, FlakeInputs({"x": "github:x/y"}, {}))


def test_a_name_server_that_never_answers_does_not_hold_up(monkeypatch: pytest.MonkeyPatch):
    import threading

    monkeypatch.setattr(nixreach, "_answers", lambda *_: threading.Event().wait(5))
    assert not nixreach.any_answers(["https://example.org/"], timeout=0.05)
