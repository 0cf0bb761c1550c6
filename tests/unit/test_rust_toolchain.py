"""What rust-toolchain.toml asks for, and what a compiler is."""

from pathlib import Path, PurePosixPath

import pytest

from orchestrator.build.rust_toolchain import Asked, asked_toolchain, provides, require_rust
from orchestrator.build.snapshot import Entry, Snapshot
from orchestrator.errors import ToolchainError

STABLE = "rustc 1.95.0 (f2d3ce0bd 2026-03-21)"
NIGHTLY = "rustc 1.97.0-nightly (abcdef012 2026-04-30)"


@pytest.mark.parametrize(
    ("rustc", "channel", "holds"),
    [
        (STABLE, "stable", True), (STABLE, "1.95", True), (STABLE, "1.95.0", True), (STABLE, "1.9", False),
        (STABLE, "1.94.1", False), (STABLE, "nightly", False), (STABLE, "stable-x86_64-unknown-linux-gnu", True),
        (NIGHTLY, "nightly", True), (NIGHTLY, "nightly-2026-05-01", True), (NIGHTLY, "nightly-2026-04-01", False),
        (NIGHTLY, "1.97", False), ("rustc 1.95.0-beta.3 (abc 2026-03-01)", "beta", True), ("", "stable", False),
        (STABLE, "my-fork", False), ("rustc 1.95.0 (f2d3ce0bd 2026-03-21) (built from a source tarball)", "1.95", True),
        ("rustc 1.95.0", "1.95.0", True),
    ],
)  # fmt: skip
def test_channels(rustc: str, channel: str, holds: bool):
    assert provides(rustc, channel) is holds


@pytest.mark.parametrize(
    ("file", "content", "channel"),
    [
        ("rust-toolchain.toml", '[toolchain]\nchannel = "1.75"\n', "1.75"),
        ("rust-toolchain", "nightly-2026-05-01\n", "nightly-2026-05-01"),
        ("rust-toolchain", '[toolchain]\nchannel = "stable"\n', "stable"),
        ("rust-toolchain.toml", '[toolchain]\npath = "/opt/rust"\n', None),
        ("rust-toolchain.toml", "not toml [", None),
    ],
)
def test_the_nearest_file_counts(tmp_path: Path, file: str, content: str, channel: str | None):
    (tmp_path / "backend/api").mkdir(parents=True)
    (tmp_path / "backend" / file).write_text(content)
    (tmp_path / "rust-toolchain").write_text("1.60\n")
    paths = (f"backend/{file}", "rust-toolchain")
    snapshot = Snapshot(tmp_path, tuple(Entry(path, "file", False, "") for path in paths), frozenset(), "")
    found = asked_toolchain(snapshot, PurePosixPath("backend/api"))
    assert found == (Asked(channel, f"backend/{file}") if channel else None)


def test_a_mismatch_is_refused_with_both_versions_and_the_flag():
    with pytest.raises(
        ToolchainError, match=r"rust-toolchain asks for Rust 1\.75, the dev shell has rustc 1\.95\.0"
    ) as caught:
        require_rust(Asked("1.75", "rust-toolchain"), STABLE, source="flake.nix")
    assert "--ignore-rust-toolchain" in (caught.value.hint or "")
    require_rust(Asked("stable", "rust-toolchain"), STABLE, source="flake.nix")
