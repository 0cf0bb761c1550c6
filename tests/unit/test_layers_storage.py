"""What surrounds storing an image: temporary space, commands, what programs say."""

from pathlib import Path

import pytest

from orchestrator.errors import DiskError, ImageError
from orchestrator.files import free_bytes, locked
from orchestrator.image.scratch import scratch_directory
from orchestrator.process import Completed
from orchestrator.tools.oci import _refusal, build_argv, copies_made


def test_scratch_is_in_memory_when_there_is_plenty(tmp_path: Path) -> None:
    with scratch_directory(tmp_path / "disk", need=1, memory=tmp_path) as scratch:
        assert scratch.parent == tmp_path
        assert scratch.stat().st_mode & 0o777 == 0o700
    assert not scratch.exists()


@pytest.mark.parametrize("present", [True, False])
def test_scratch_is_on_disk_otherwise(tmp_path: Path, present: bool) -> None:
    memory = tmp_path if present else tmp_path / "absent"
    with scratch_directory(tmp_path / "disk", need=free_bytes(tmp_path) // 2, memory=memory) as scratch:
        assert scratch.parent == tmp_path / "disk"


def test_what_a_killed_run_left_is_removed_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    abandoned, used, other = (tmp_path / name for name in ("orchestrator-image-a", "orchestrator-image-b", "other"))
    for directory in (abandoned, used, other):
        directory.mkdir()
        (directory / "lock").touch()
    with locked(used / "lock", holder="a test"), scratch_directory(tmp_path, need=1, memory=tmp_path):
        assert not abandoned.exists()
        assert used.exists()
        assert other.exists()


def test_the_build_command() -> None:
    argv = build_argv(("podman", "--root", "/r"), context=Path("/c"), id_file=Path("/i"), timestamp=7)
    assert argv == (
        *("podman", "--root", "/r", "build", "--layers", "--identity-label=false", "--format", "oci"),
        *("--timestamp", "7", "--iidfile", "/i", "--file", "/c/Dockerfile", "/c"),
    )


def test_copies_made_follows_the_cache_lines() -> None:
    lines = [
        "STEP 1/9: FROM scratch",
        "STEP 2/9: USER 1",
        "--> Using cache 8250",
        'STEP 8/9: COPY ["1-base/", "/"]',
        "--> Using cache 970b",
        "--> 970b71649e6",
        'STEP 9/9: COPY ["2-app/", "/"]',
        "--> e095aff63c8",
        "COMMIT",
    ]
    assert copies_made(lines) == (False, True)


def test_a_full_disk_is_told_from_other_failures() -> None:
    completed = Completed(("/usr/bin/skopeo", "copy"), 1, "", "")
    full = _refusal("store the image", completed, 'writing blob: write /x: no space left on device"')
    assert isinstance(full, DiskError)
    other = _refusal("store the image", completed, "denied")
    assert isinstance(other, ImageError)
    assert other.message == "skopeo could not store the image"
    assert other.details == ("denied",)
