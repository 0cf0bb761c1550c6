"""What may go into an image, and how a refusal explains itself."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator.build.closure import Closure
from orchestrator.errors import ImageError
from orchestrator.events import Event, Note
from orchestrator.image.admission import admit, contributors
from orchestrator.image.layers import File, ImageConfig, ImagePlan, LayerPlan, Link
from orchestrator.settings import parse_bytes


def make(tmp_path: Path, *names: str) -> tuple[Closure, list[Path]]:
    """A closure in which each name refers to the next; each has a file of 2 MB."""
    members = [tmp_path / f"{letter * 32}-{name}" for letter, name in zip("abcdfg", names, strict=False)]
    for member in members:
        member.mkdir()
        (member / "file").write_bytes(bytes(2_000_000))
    references = {member: (after,) for member, after in pairwise(members)}
    return Closure("backend", (members[0],), {members[-1]: (), **references}, tmp_path), members


def plan_of(*files: File | Link) -> ImagePlan:
    return ImagePlan("backend", (LayerPlan("all", files),), ImageConfig(("/x",), ()))


def told(closure: Closure, plan: ImagePlan | None = None, allow: Sequence[str] = ()) -> list[Event]:
    events: list[Event] = []
    admit(plan or plan_of(), closure, allow=tuple(allow), budget=None, emit=events.append)
    return events


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gcc-13.2.0", "a compiler"),
        ("gcc-wrapper-13.2.0", "a compiler"),
        ("rustc-1.77.0", "a compiler"),
        ("binutils-wrapper-2.41", "a compiler"),
        ("openssl-3.0.13-dev", "development files"),
        ("linux-headers-6.6", "headers"),
        ("rust-lib-src", "the Rust library's source"),
        ("source", "sources"),
        ("towns-1.0-vendor", "sources"),
        ("cargo-vendor-dir", "sources"),
        ("serde-1.0.crate", "sources"),
        ("nginx-1.26-doc", "documentation"),
        ("glibc-2.39-man", "documentation"),
    ],
)
def test_what_does_not_belong_is_refused_with_its_chain_and_bytes(tmp_path: Path, name: str, kind: str) -> None:
    closure, (app, library, unwanted) = make(tmp_path, "app", "library", name)
    with pytest.raises(ImageError, match=f"does not belong in an image: {name}") as caught:
        told(closure)
    (line,) = caught.value.details
    assert f"{unwanted} ({kind}" in line
    assert "2.0 MB" in line
    assert line.endswith(f"backend refers to {app} refers to {library} refers to {unwanted}")
    assert f'image.allow = ["{name}"]' in str(caught.value.hint)


@pytest.mark.parametrize(
    "name", ["gcc-13.2.0-lib", "gcc-13.2.0-libgcc", "glibc-2.39", "llvm-17.0-lib", "openssl-3.0.13", "gomoku-1.0"]
)
def test_libraries_are_fine(tmp_path: Path, name: str) -> None:
    assert told(make(tmp_path, "app", name)[0]) == []


def test_what_is_allowed_passes_and_is_said_every_time(tmp_path: Path) -> None:
    closure, _ = make(tmp_path, "app", "gcc-13.2.0")
    for _ in range(2):
        (note,) = told(closure, allow=["gcc-*"])
        assert isinstance(note, Note)
        assert note.level == "warning"
        assert "gcc-13.2.0" in note.text


def test_a_shell_is_refused_and_can_be_allowed(tmp_path: Path) -> None:
    closure, _ = make(tmp_path, "app")
    plan = plan_of(File("bin/bash", b"", 0o755))
    with pytest.raises(ImageError, match="bash") as caught:
        told(closure, plan)
    assert caught.value.details == ("/bin/bash: backend",)
    assert len(told(closure, plan, allow=["bash"])) == 1


def test_the_interpreter_of_a_backend_is_fine_and_no_other(tmp_path: Path) -> None:
    closure, (python,) = make(tmp_path, "python3-3.11.2")
    inside = str(python).lstrip("/")
    program = File(f"{inside}/bin/python3.11", b"", mode=0o755)
    entries = (program, Link(f"{inside}/bin/python3", "python3.11"), Link(f"{inside}/bin/python", "python3.11"))
    link = Link("app/bin/python", f"{python}/bin/python3.11")
    assert told(closure, plan_of(*entries, link)) == []
    with pytest.raises(ImageError, match="an image: python, python3"):
        told(closure, plan_of(*entries))
    other = File(f"{inside}/bin/perl", b"", mode=0o755)
    with pytest.raises(ImageError, match=r"an image: perl$"):
        told(closure, plan_of(*entries, link, other))


def test_over_budget_the_largest_contributors_are_listed(tmp_path: Path) -> None:
    closure, _ = make(tmp_path, "app")
    store = "nix/store/" + "a" * 32 + "-big"
    files = [File(f"{store}/{n}", bytes(600_000)) for n in range(3)]
    plan = plan_of(*files, File("app/bin/api", bytes(700_000)), *(File(f"f{n}", b"x") for n in range(20)))
    admit(plan, closure, allow=(), budget="3m", emit=lambda _: None)
    with pytest.raises(ImageError, match=r"has 2.5 MB, over its budget of 2.0 MB") as caught:
        admit(plan, closure, allow=(), budget="2m", emit=lambda _: None)
    assert "1.8 MB   72 %  " + "a" * 32 + "-big" in caught.value.details[0]
    assert "0.7 MB   28 %  /app/bin/api" in caught.value.details[1]
    assert caught.value.details[-1].endswith("everything else")
    assert sum(size for size, _ in contributors(plan)) == 2_500_020


def test_sizes() -> None:
    assert [parse_bytes(size) for size in ("1k", "40m", "5g")] == [1_000, 40_000_000, 5_000_000_000]
