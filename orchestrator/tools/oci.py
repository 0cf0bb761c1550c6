"""skopeo and buildah: images from a layout or a Dockerfile into the engine's storage."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.errors import DiskError, ImageError
from orchestrator.files import says_no_space
from orchestrator.process import Cancel, Completed, ProcessError, require, run, stream

PACKAGES = "skopeo buildah"
_HINT = f"install it: apt-get install --no-install-recommends {PACKAGES}"


class LayerDiffers(ImageError):
    """A layer that was offered has other bytes than the manifest says."""


class Blob(BaseModel):
    """A descriptor: what a manifest refers to. `size` in bytes."""

    model_config = ConfigDict(frozen=True)

    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    size: int


class Manifest(BaseModel):
    """An OCI image manifest, as far as it is read."""

    model_config = ConfigDict(frozen=True)

    config: Blob
    layers: tuple[Blob, ...]


def copy_offered(
    source: str,
    destination: str,
    *,
    authfile: Path,
    scratch: Path,
    environment: Mapping[str, str],
    cancel: Cancel | None = None,
) -> None:
    """Copy an image from a loopback registry (`docker://…`) to `destination` (`containers-storage:…`).

    Layers the storage has are not read; temporary files go to `scratch`. Raises `LayerDiffers` when a layer is not
    what the manifest says, `DiskError` when a file system is full, `ImageError` else.
    """
    skopeo = require("skopeo", reason="put images into the engine's storage", hint=_HINT)
    argv = [
        *(str(skopeo), "--tmpdir", str(scratch), "--insecure-policy", "copy", "--quiet"),
        *("--src-tls-verify=false", "--src-authfile", str(authfile), source, destination),
    ]
    try:
        run(argv, env=environment, cwd=scratch, cancel=cancel)
    except ProcessError as error:
        if re.search(r"[Dd]igest did not match|unexpected EOF", error.completed.stderr):
            raise LayerDiffers(f"a layer of {destination} is not what it was", details=error.details) from error
        raise _refusal("store the image", error.completed, error.completed.stderr) from error


def extract_layers(
    reference: str, layout: Path, *, environment: Mapping[str, str], cancel: Cancel | None = None
) -> None:
    """Copy a stored image (`containers-storage:…`) into an OCI layout, its layers uncompressed as they were stored.

    A layer the layout has a file for is not read. Raises `DiskError` when a file system is full, `ImageError` else.
    """
    skopeo = require("skopeo", reason="read images from the engine's storage", hint=_HINT)
    argv = [
        *(str(skopeo), "--tmpdir", str(layout.parent), "--insecure-policy", "copy", "--quiet"),
        *("--dest-oci-accept-uncompressed-layers", reference, f"oci:{layout.name}"),
    ]
    try:
        run(argv, env=environment, cwd=layout.parent, cancel=cancel)
    except ProcessError as error:
        raise _refusal(f"read {reference}", error.completed, error.completed.stderr) from error


def read_config(reference: str, *, environment: Mapping[str, str]) -> bytes:
    """The config of a stored image, whose SHA-256 is its id. Raises `ImageError` when there is no such image."""
    skopeo = require("skopeo", reason="read images", hint=_HINT)
    try:
        argv = [str(skopeo), "--insecure-policy", "inspect", "--config", "--raw", reference]
        return run(argv, env=environment).stdout.encode()
    except ProcessError as error:
        raise _refusal(f"read {reference}", error.completed, error.completed.stderr) from error


def build_argv(
    builder: Sequence[str], *, context: Path, id_file: Path, timestamp: int, platform: str = ""
) -> tuple[str, ...]:
    """The command that builds a context's Dockerfile; `builder` is buildah or podman with its storage flags.

    All files and the image get the mtime `timestamp` (seconds since 1970); `platform` "" is this machine's.
    """
    return (
        *builder,
        "build",
        *("--layers", "--identity-label=false"),
        *("--format", "oci"),
        *(("--platform", platform) if platform else ()),
        *("--timestamp", str(timestamp)),
        *("--iidfile", str(id_file)),
        *("--file", str(context / "Dockerfile")),
        str(context),
    )


def buildah_argv(*, root: Path, runroot: Path, driver: str) -> tuple[str, ...]:
    """buildah on a storage. Raises `ProgramMissing` when it is not installed."""
    buildah = require("buildah", reason="build images from their Dockerfile", hint=_HINT)
    return (str(buildah), "--root", str(root), "--runroot", str(runroot), "--storage-driver", driver)


def build_image(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    scratch: Path,
    on_line: Callable[[str], None],
    cancel: Cancel | None = None,
) -> tuple[bool, ...]:
    """Run `build_argv`; for each COPY, whether its layer was made anew.

    Raises `DiskError` when a file system is full and `ImageError` with the last lines on another failure.
    """
    lines: list[str] = []

    def take(line: str) -> None:
        lines.append(line)
        on_line(line)

    completed = stream(argv, env={**environment, "TMPDIR": str(scratch)}, on_line=take, cancel=cancel)
    if completed.returncode != 0:
        raise _refusal("build the Dockerfile", completed, completed.stdout)
    return copies_made(lines)


def copies_made(lines: Sequence[str]) -> tuple[bool, ...]:
    """From a build's output: for each COPY step, whether it was run (True) or taken from the cache."""
    made: list[bool] = []
    in_copy = False
    for line in lines:
        if re.match(r"STEP \d+/\d+: ", line):
            in_copy = ": COPY " in line
            if in_copy:
                made.append(True)
        elif in_copy and line.startswith("--> Using cache"):
            made[-1] = False
    return tuple(made)


def read_manifest(reference: str, *, environment: Mapping[str, str]) -> tuple[Manifest, str]:
    """The manifest of a stored image and its digest (`sha256:…`).

    Raises `ImageError` when there is no such image or its manifest makes no sense.
    """
    skopeo = require("skopeo", reason="read images", hint=_HINT)
    try:
        raw = run([str(skopeo), "--insecure-policy", "inspect", "--raw", reference], env=environment).stdout
        return Manifest.model_validate_json(raw), f"sha256:{hashlib.sha256(raw.encode()).hexdigest()}"
    except ProcessError as error:
        raise _refusal(f"read {reference}", error.completed, error.completed.stderr) from error
    except ValidationError as error:
        raise ImageError(f"{reference} has a manifest we do not understand: {error}") from error


def _refusal(purpose: str, completed: Completed, said: str) -> ImageError | DiskError:
    """Full disks first: buildah shows some as a closed pipe, but names the cause in an earlier line."""
    program = Path(completed.argv[0]).name
    details = said.strip().splitlines()[-10:]
    if says_no_space(said):
        return DiskError(f"no space left for {program} to {purpose}", details=details, hint="free some space")
    return ImageError(
        f"{program} could not {purpose}", details=details, hint=f"the command was: {' '.join(completed.argv)}"
    )
