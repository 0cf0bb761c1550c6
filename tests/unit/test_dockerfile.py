"""The Dockerfile and its context: the shape, the modes, and that only what changed is written."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.image.archive import modified
from orchestrator.image.dockerfile import render_dockerfile, write_context
from orchestrator.image.layers import Directory, File, ImageConfig, ImagePlan, Link, arrange_layers


def plan_of(source: Path, page: bytes = b"<p>") -> ImagePlan:
    layers = arrange_layers(
        {
            "base": [Directory("tmp", 0o1777), File("nix/store/x/lib", source, 0o444, immutable=True)],
            "files": [File("srv/www/index.html", page), Link("srv/www/home", "index.html"), Directory("srv/ro", 0o555)],
        }
    )
    config = ImageConfig(
        entrypoint=("/app/bin/my app", '--x="y"'),
        labels=(("io.orchestrator.app", "towns"), ("io.orchestrator.service", "web")),
        environment=(("PATH", "/app/bin"),),
        ports=(3000,),
        stop_signal="SIGQUIT",
    )
    return ImagePlan("web", layers, config)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "libc.so"
    path.write_bytes(b"library")
    path.chmod(0o444)
    return path


def test_metadata_first_then_one_copy_for_each_layer(source: Path) -> None:
    lines = [line for line in render_dockerfile(plan_of(source)).splitlines() if not line.startswith("#")]
    assert lines == [
        "FROM scratch",
        'LABEL io.orchestrator.app="towns" io.orchestrator.service="web"',
        "USER 10001:10001",
        'ENV PATH="/app/bin"',
        "EXPOSE 3000",
        "STOPSIGNAL SIGQUIT",
        'ENTRYPOINT ["/app/bin/my app", "--x=\\"y\\""]',
        'COPY ["1-base/", "/"]',
        'COPY ["2-files/", "/"]',
        "WORKDIR /",
    ]


def test_what_is_not_set_has_no_line(source: Path) -> None:
    plan = ImagePlan("web", plan_of(source).layers, ImageConfig(entrypoint=("/x",), labels=(("a", "b"),)))
    text = render_dockerfile(plan)
    assert "EXPOSE" not in text
    assert "ENV" not in text
    assert "RUN" not in text
    assert "\n\n" not in text


def test_the_context_has_the_plans_modes_links_and_times(tmp_path: Path, source: Path) -> None:
    context = tmp_path / "context"
    write_context(plan_of(source), context)
    page = context / "2-files" / "srv" / "www" / "index.html"
    assert stat.S_IMODE((context / "1-base" / "tmp").stat().st_mode) == 0o1777
    assert stat.S_IMODE((context / "2-files" / "srv" / "ro").stat().st_mode) == 0o555
    assert stat.S_IMODE(page.stat().st_mode) == 0o644
    assert page.stat().st_mtime == modified(File("x", b"<p>"))
    assert (context / "2-files" / "srv" / "www" / "home").readlink() == Path("index.html")


def test_the_context_does_not_depend_on_the_umask(tmp_path: Path, source: Path) -> None:
    layers = arrange_layers({"base": [File("a/b/one", b"1")], "files": [File("a/b/two", b"2")]})
    before = os.umask(0o077)
    try:
        write_context(ImagePlan("web", layers, plan_of(source).config), tmp_path / "context")
    finally:
        os.umask(before)
    for directory in ("", "a", "a/b"):
        assert stat.S_IMODE((tmp_path / "context" / "2-files" / directory).stat().st_mode) == 0o755


def test_store_files_are_hard_linked_when_their_mode_is_right(tmp_path: Path, source: Path) -> None:
    write_context(plan_of(source), tmp_path / "one")
    assert (tmp_path / "one" / "1-base" / "nix" / "store" / "x" / "lib").samefile(source)
    source.chmod(0o644)
    write_context(plan_of(source), tmp_path / "two")
    copied = tmp_path / "two" / "1-base" / "nix" / "store" / "x" / "lib"
    assert not copied.samefile(source)
    assert copied.read_bytes() == b"library"
    assert stat.S_IMODE(copied.stat().st_mode) == 0o444
    assert stat.S_IMODE(source.stat().st_mode) == 0o644


def test_a_store_on_another_file_system_is_copied(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    write_context(plan_of(source), tmp_path / "context")
    assert (tmp_path / "context" / "1-base" / "nix" / "store" / "x" / "lib").read_bytes() == b"library"


def test_only_changed_layers_are_written_again(tmp_path: Path, source: Path) -> None:
    context = tmp_path / "context"
    write_context(plan_of(source), context)
    inodes = {name: (context / name).stat().st_ino for name in ("1-base", "2-files")}
    (context / "stray").write_text("left by a killed run")
    write_context(plan_of(source, b"<p>new"), context)
    assert (context / "1-base").stat().st_ino == inodes["1-base"]
    assert (context / "2-files" / "srv" / "www" / "index.html").read_bytes() == b"<p>new"
    assert sorted(path.name for path in context.iterdir()) == ["1-base", "2-files", "Dockerfile", "layers.json"]


def test_a_layer_half_written_by_a_killed_run_is_written_again(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = tmp_path / "context"
    write_context(plan_of(source), context)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "symlink_to", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_context(plan_of(source, b"<p>new"), context)
    assert "2-files" not in json.loads((context / "layers.json").read_text())
    write_context(plan_of(source, b"<p>new"), context)
    assert (context / "2-files" / "srv" / "www" / "home").is_symlink()


def test_a_damaged_list_of_layers_means_writing_all(tmp_path: Path, source: Path) -> None:
    context = tmp_path / "context"
    write_context(plan_of(source), context)
    (context / "layers.json").write_text("[")
    (context / "2-files" / "srv" / "www" / "index.html").unlink()
    write_context(plan_of(source), context)
    assert (context / "2-files" / "srv" / "www" / "index.html").read_bytes() == b"<p>"


def test_a_command_follows_the_entry_point(source: Path) -> None:
    plan = plan_of(source)
    plan = replace(plan, config=replace(plan.config, command=("/etc/nginx/nginx.conf",)))
    lines = render_dockerfile(plan).splitlines()
    assert lines[lines.index('CMD ["/etc/nginx/nginx.conf"]') - 1].startswith("ENTRYPOINT")
