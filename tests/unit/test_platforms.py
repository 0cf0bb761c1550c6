"""Other platforms: what is planned for them, refused, and written into images and indexes."""

import json
import struct
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from orchestrator.build.cargo_target import Target
from orchestrator.deploy.preflight import check_platforms
from orchestrator.errors import ImageError, ToolchainError, UsageError
from orchestrator.image.checks import check_platform
from orchestrator.image.index import make_index
from orchestrator.image.layers import File, ImageConfig, ImagePlan, arrange_layers
from orchestrator.image.layout import digest_of, make_documents
from orchestrator.plan import make_plan
from orchestrator.project import Project
from orchestrator.settings import Settings, load_settings
from orchestrator.tools.oci import build_argv
from orchestrator.tools.platforms import PLATFORMS, parse_platform
from tests.unit.test_plan import BACKEND, PROJECT, SETTINGS

ARM = PLATFORMS["linux/arm64"]


def settings_for(*platforms: str) -> Settings:
    return SETTINGS.model_copy(update={"platforms": platforms})


def test_platforms_have_several_names_and_one_form(tmp_path: Path):
    assert {parse_platform(text) for text in ("linux/arm64", "linux/arm64/v8", "linux/aarch64")} == {"linux/arm64"}
    with pytest.raises(ValueError, match="linux/amd64, linux/arm64"):
        parse_platform("windows/amd64")
    flags = {"name": "app", "monorepo": tmp_path, "platforms": ("linux/amd64,linux/arm64", "linux/arm64/v8")}
    assert load_settings(flags, {}).platforms == ("linux/amd64", "linux/arm64")
    environment = {"ORCHESTRATOR_PLATFORMS": "linux/riscv64,linux/arm64"}
    assert load_settings({"name": "app", "monorepo": tmp_path}, environment).platforms == (
        "linux/riscv64",
        "linux/arm64",
    )


def test_the_frontend_is_built_once_and_the_backend_for_each_platform():
    both = make_plan(settings_for("linux/arm64", "linux/amd64"), PROJECT, host="linux/amd64")
    assert [build.service for build in both.builds] == ["frontend", "backend", "backend-arm64"]
    assert both.platforms == ("", "linux/arm64")
    only = make_plan(settings_for("linux/arm64"), PROJECT, host="linux/amd64")
    assert [build.service for build in only.builds] == ["frontend", "backend-arm64"]


def test_this_machines_platform_changes_nothing():
    assert make_plan(settings_for("linux/amd64"), PROJECT, host="linux/amd64") == make_plan(SETTINGS, PROJECT)


def test_cargo_is_told_the_target_after_the_dev_shell_was_asked():
    plan = make_plan(settings_for("linux/arm64"), PROJECT, host="linux/amd64")
    inspect, fetch, build = plan.builds[1].steps
    assert (inspect.name, inspect.argv[-1], fetch.name) == ("inspect", ARM.rust, "fetch")
    assert build.argv[5:7] == ("--target", ARM.rust)


def test_go_is_inspected_before_it_is_built_and_vendored_modules_are_not_fetched():
    backend = replace(BACKEND, framework="go", lock_file=PurePosixPath("api/go.sum"), package="./cmd/api")
    project = Project(root=Path("/repo"), frontend=None, backend=backend, has_flake=False)
    (plan,) = make_plan(SETTINGS, project).builds
    assert [(step.name, step.network) for step in plan.steps] == [("fetch", True), ("inspect", False), ("build", False)]
    vendored = replace(project, backend=replace(backend, lock_file=PurePosixPath("api/vendor/modules.txt")))
    assert [step.name for step in make_plan(SETTINGS, vendored).builds[0].steps] == ["inspect", "build"]


def test_deploying_for_another_machine_alone_is_refused():
    check_platforms(make_plan(settings_for("linux/arm64", "linux/amd64"), PROJECT, host="linux/amd64"))
    with pytest.raises(UsageError, match="the images are for linux/arm64 only") as caught:
        check_platforms(make_plan(settings_for("linux/arm64"), PROJECT, host="linux/amd64"))
    assert "orchestrator build" in (caught.value.hint or "")


def test_all_that_rust_lacks_for_a_target_is_named(tmp_path: Path):
    target = Target(ARM)
    assert not target.read("error: no such target")
    assert target.read(f"std {tmp_path / 'none'}")
    with pytest.raises(ToolchainError, match=r"no Rust standard library for aarch64.*, no C compiler") as caught:
        target.require("backend")
    assert "pkgsCross.aarch64-multiplatform" in (caught.value.hint or "")
    (tmp_path / "libstd-1.rlib").touch()
    for line in (f"std {tmp_path}", "compiler /bin/aarch64-linux-gnu-gcc", "start crt1.o"):
        assert target.read(line)
    with pytest.raises(ToolchainError, match=r"no libc for it"):
        target.require("backend")


def test_a_libc_outside_the_store_is_linked_in(tmp_path: Path):
    (tmp_path / "libstd-1.rlib").touch()
    target = Target(ARM)
    for line in (f"std {tmp_path}", "compiler /bin/gcc", "start /usr/aarch64-linux-gnu/lib/crt1.o"):
        target.read(line)
    target.require("backend")
    assert target.flags() == ("-Ctarget-feature=+crt-static",)
    assert target.variables() == {
        "CARGO_BUILD_TARGET": ARM.rust,
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER": "/bin/gcc",
        "CC_aarch64_unknown_linux_gnu": "/bin/gcc",
    }
    target.read("start /nix/store/x-glibc/lib/crt1.o")
    assert target.flags() == ()


def elf_file(path: Path, machine: int) -> Path:
    """A static 64-bit program without a single segment."""
    header = (
        b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 0, 0, 0, 64, 56, 0, 0, 0, 0)
    )
    path.write_bytes(header)
    return path


def image_of(path: Path, platform: str, *, mode: int = 0o755) -> ImagePlan:
    layers = arrange_layers({"application": [File("app/bin/api", path, mode=mode)]})
    return ImagePlan("backend", layers, ImageConfig(entrypoint=("/app/bin/api",), labels=()), platform)


def test_a_program_for_another_machine_is_refused(tmp_path: Path):
    program = elf_file(tmp_path / "api", ARM.elf)
    check_platform(image_of(program, "linux/arm64"))
    with pytest.raises(ImageError, match="/app/bin/api is for linux/arm64, the backend image for linux/riscv64"):
        check_platform(image_of(program, "linux/riscv64"))
    check_platform(image_of(program, "linux/riscv64", mode=0o644))


def test_configs_and_indexes_name_the_platform(tmp_path: Path):
    plan = image_of(elf_file(tmp_path / "api", ARM.elf), "linux/arm64")
    arm = make_documents(plan, (), architecture="arm64")
    config = json.loads(arm.config)
    assert (config["architecture"], config["variant"], config["os"]) == ("arm64", "v8", "linux")
    amd = make_documents(plan, (), architecture="amd64")
    assert "variant" not in json.loads(amd.config)
    index = json.loads(make_index([("linux/amd64", amd.manifest), ("linux/arm64", arm.manifest)]))
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert index["manifests"][1] == {
        "digest": digest_of(arm.manifest),
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "platform": {"architecture": "arm64", "os": "linux", "variant": "v8"},
        "size": len(arm.manifest),
    }


def test_dockerfiles_are_built_for_the_platform(tmp_path: Path):
    argv = build_argv(["buildah"], context=tmp_path, id_file=tmp_path / "id", timestamp=1, platform="linux/arm64")
    assert argv[argv.index("--platform") + 1] == "linux/arm64"
    assert "--platform" not in build_argv(["buildah"], context=tmp_path, id_file=tmp_path / "id", timestamp=1)
