"""The layer plan: order, parents, what is read from trees and what is refused."""

import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.build.closure import Closure
from orchestrator.errors import ImageError
from orchestrator.image.application import Application
from orchestrator.image.archive import layer_key
from orchestrator.image.contents import is_hashed, read_program, read_site, read_store_paths
from orchestrator.image.layers import Directory, Entry, File, ImagePlan, Link, arrange_layers
from orchestrator.image.services import (
    SingleParts,
    StoreShare,
    plan_backend_image,
    plan_gate_image,
    plan_single_image,
    plan_web_image,
    share_store_paths,
)

PATHS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=4).map("/".join)


def paths_of(plan: ImagePlan, layer: str) -> list[str]:
    return [entry.path for found in plan.layers if found.name == layer for entry in found.entries]


def names(entries: Sequence[Entry]) -> list[str]:
    return sorted(entry.path for entry in entries)


@given(st.dictionaries(st.sampled_from("123"), st.lists(PATHS, max_size=6)))
def test_parents_come_first_and_once(groups: dict[str, list[str]]) -> None:
    layers = arrange_layers({name: [Directory(path) for path in paths] for name, paths in groups.items()})
    seen: set[str] = set()
    for layer in layers:
        assert layer.entries
        for entry in layer.entries:
            assert entry.path not in seen
            parent = entry.path.rpartition("/")[0]
            assert not parent or parent in seen
            seen.add(entry.path)
    assert seen >= {path for paths in groups.values() for path in paths}


def test_empty_layers_are_omitted_and_order_is_kept() -> None:
    layers = arrange_layers({"a": [], "b": [File("x/y", b"")], "c": [Directory("x")], "d": [File("x/z", b"")]})
    assert [layer.name for layer in layers] == ["b", "d"]
    assert [entry.path for entry in layers[1].entries] == ["x/z"]


def test_an_explicit_directory_keeps_its_mode_in_the_layer_that_has_it() -> None:
    (layer,) = arrange_layers({"a": [File("tmp/x", b""), Directory("tmp", 0o1777)]})
    assert layer.entries[0] == Directory("tmp", 0o1777)


@pytest.mark.parametrize(
    ("name", "hashed"),
    [
        ("assets/index-BxYz12_a.js", True),
        ("main.8f3a2b1c.css", True),
        ("static/chunk-8f3a2b1cdeadbeef.js.gz", True),
        ("index.html", False),
        ("favicon.ico", False),
        ("robots.txt", False),
        ("some-component.js", False),
    ],
)
def test_hashed_names(name: str, hashed: bool) -> None:
    assert is_hashed(name) is hashed


@pytest.fixture
def site(tmp_path: Path) -> Path:
    tree = tmp_path / "site"
    (tree / "assets").mkdir(parents=True)
    (tree / "index.html").write_text("<p>" * 1000)
    (tree / "robots.txt").write_text("short")
    (tree / "assets" / "index-BxYz12_a.js").write_text("x" * 5000)
    (tree / "assets" / "index-BxYz12_a.js.map").write_text("{}")
    return tree


def test_a_site_is_split_and_has_no_source_maps(site: Path) -> None:
    hashed, others = read_site(site, "srv/www")
    assert names(hashed) == ["srv/www/assets/index-BxYz12_a.js"]
    assert names(others) == ["srv/www/assets", "srv/www/index.html", "srv/www/robots.txt"]


def test_source_maps_are_there_when_they_are_asked_for(site: Path) -> None:
    hashed, others = read_site(site, "srv/www", source_maps=True)
    assert "srv/www/assets/index-BxYz12_a.js.map" in names((*hashed, *others))


def test_twins_are_wanted_for_large_compressible_files_without_one(site: Path) -> None:
    (site / "logo.png").write_bytes(b"x" * 5000)
    (site / "own.css").write_text("x" * 5000)
    (site / "own.css.gz").write_bytes(b"theirs")
    hashed, others = read_site(site, "srv/www")
    wanted = [entry.path for entry in (*hashed, *others) if isinstance(entry, File) and entry.twin]
    assert sorted(wanted) == ["srv/www/assets/index-BxYz12_a.js", "srv/www/index.html"]


def test_a_directory_named_like_a_source_map_is_kept(site: Path) -> None:
    (site / "road.map").mkdir()
    (site / "road.map" / "a.txt").write_text("x")
    assert "srv/www/road.map/a.txt" in names(read_site(site, "srv/www")[1])


def test_links_inside_the_site_are_kept(site: Path) -> None:
    (site / "assets" / "home.html").symlink_to("../index.html")
    assert Link("srv/www/assets/home.html", "../index.html") in read_site(site, "srv/www")[1]


@pytest.mark.parametrize("target", ["../outside", "/etc/passwd", "../../../../etc/passwd", "loop/../../outside"])
def test_links_that_leave_the_site_are_refused_by_name(site: Path, target: str) -> None:
    (site.parent / "outside").write_text("secret")
    (site / "loop").symlink_to(".")
    (site / "leak").symlink_to(target)
    with pytest.raises(ImageError, match=f"leak is a link to {target}, outside"):
        read_site(site, "srv/www")


def test_links_to_nothing_are_refused(site: Path) -> None:
    (site / "gone").symlink_to("absent")
    with pytest.raises(ImageError, match="gone is a link to absent, which does not exist"):
        read_site(site, "srv/www")


def test_sockets_pipes_and_set_uid_files_are_refused(site: Path) -> None:
    os.mkfifo(site / "pipe")
    with pytest.raises(ImageError, match="pipe is a pipe"):
        read_site(site, "srv/www")
    (site / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as server, pytest.MonkeyPatch.context() as patch:
        patch.chdir(site)
        server.bind("sock")
        with pytest.raises(ImageError, match="sock is a socket"):
            read_site(site, "srv/www")
    (site / "sock").unlink()
    (site / "index.html").chmod(0o4755)
    with pytest.raises(ImageError, match="set-uid") as caught:
        read_site(site, "srv/www")
    assert "chmod" in str(caught.value.hint)


def test_an_empty_site_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="has no files"):
        read_site(tmp_path, "srv/www")


def test_names_that_are_not_utf8_are_refused(site: Path) -> None:
    (site / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    with pytest.raises(ImageError, match="not UTF-8"):
        read_site(site, "srv/www")


def test_a_program_must_be_an_executable_file(tmp_path: Path) -> None:
    program = tmp_path / "app"
    program.write_bytes(b"x")
    with pytest.raises(ImageError, match="not executable"):
        read_program(program, "app/bin/app")
    program.chmod(0o700)
    assert read_program(program, "app/bin/app") == File("app/bin/app", program, 0o755)
    with pytest.raises(ImageError, match="cannot be read"):
        read_program(tmp_path / "absent", "app/bin/app")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    store = tmp_path / "nix" / "store"
    (store / "libc" / "lib").mkdir(parents=True)
    (store / "libc" / "lib" / "libc.so.6").write_bytes(b"libc")
    (store / "libc" / "lib" / "libc.so").symlink_to("libc.so.6")
    (store / "libc" / "lib" / "libc.a").write_bytes(b"archive")
    (store / "libc" / "include" / "sys").mkdir(parents=True)
    (store / "libc" / "include" / "sys" / "types.h").write_bytes(b"header")
    (store / "libc" / "share" / "man").mkdir(parents=True)
    (store / "nginx" / "bin").mkdir(parents=True)
    (store / "nginx" / "bin" / "nginx").write_bytes(b"nginx")
    (store / "nginx" / "bin" / "nginx").chmod(0o755)
    (store / "nginx" / "conf").mkdir()
    (store / "nginx" / "conf" / "mime.types").write_text("types {}")
    (store / "openssl").write_bytes(b"a file")
    return store


def closure_of(product: str, *members: Path) -> Closure:
    return Closure(product, members[-1:], dict.fromkeys(members, ()), members[0].parent)


def test_store_paths_keep_their_names_and_lose_development_files(store: Path) -> None:
    below = [entry.path.removeprefix(str(store)[1:]) for entry in read_store_paths([store / "libc"], store=store)]
    assert sorted(below) == ["/libc", "/libc/lib", "/libc/lib/libc.so", "/libc/lib/libc.so.6", "/libc/share"]


def test_store_files_are_read_only_and_immutable(store: Path) -> None:
    entries = {entry.path.rpartition("/")[2]: entry for entry in read_store_paths([store / "nginx"], store=store)}
    program, types, directory = entries["nginx"], entries["mime.types"], entries["conf"]
    assert isinstance(program, File)
    assert (program.mode, program.immutable) == (0o555, True)
    assert isinstance(types, File)
    assert types.mode == 0o444
    assert isinstance(directory, Directory)
    assert directory.mode == 0o555


def test_store_links_to_the_machine_are_refused(store: Path) -> None:
    (store / "gcc").mkdir()
    (store / "gcc" / "cc").symlink_to("/usr/bin/gcc")
    with pytest.raises(ImageError, match="gcc/cc is a link to /usr/bin/gcc"):
        read_store_paths([store / "gcc"], store=store)


def test_what_both_need_is_shared(store: Path) -> None:
    web = closure_of("web", store / "libc", store / "openssl", store / "nginx")
    backend = closure_of("backend", store / "libc", store / "app")
    assert share_store_paths(web, backend) == (
        StoreShare((store / "libc",), (store / "nginx", store / "openssl"), store),
        StoreShare((store / "libc",), (store / "app",), store),
    )
    assert share_store_paths(web, None)[0].base == ()


def test_web_and_gate_share_the_store_layers_byte_for_byte(store: Path, site: Path) -> None:
    share = StoreShare((store / "libc",), (store / "nginx",), store)
    web = plan_web_image("towns", store / "nginx", share, config="events {}", site=site)
    gate = plan_gate_image("towns", store / "nginx", share)
    assert [layer.name for layer in web.layers] == ["base", "runtime", "assets", "files"]
    assert [layer.name for layer in gate.layers] == ["base", "runtime", "files"]
    assert [layer_key(layer) for layer in web.layers[:2]] == [layer_key(layer) for layer in gate.layers[:2]]
    assert paths_of(gate, "files")[-3:] == ["etc/nginx/mime.types", "run", "run/web"]
    assert "etc/nginx/nginx.conf" in paths_of(web, "files")
    assert "srv/www/index.html" in paths_of(web, "files")
    assert paths_of(web, "assets") == ["srv", "srv/www", "srv/www/assets", "srv/www/assets/index-BxYz12_a.js"]
    assert web.config.entrypoint[0] == str(store / "nginx" / "bin" / "nginx")
    assert web.config.stop_signal == "SIGQUIT"
    assert dict(web.config.labels) == {"io.orchestrator.app": "towns", "io.orchestrator.service": "web"}


def test_a_changed_page_changes_the_last_layer_alone(store: Path, site: Path) -> None:
    share = StoreShare((), ())

    def keys() -> list[str]:
        plan = plan_web_image("towns", store / "nginx", share, config="events {}", site=site)
        return [layer_key(layer) for layer in plan.layers]

    before = keys()
    (site / "index.html").write_text("<p>other")
    after = keys()
    assert before[:-1] == after[:-1]
    assert before[-1] != after[-1]


def test_a_server_without_nginx_or_types_is_refused(store: Path) -> None:
    (store / "libc" / "conf").mkdir()
    (store / "libc" / "conf" / "mime.types").write_text("types {}")
    with pytest.raises(ImageError, match="no bin/nginx"):
        plan_gate_image("towns", store / "libc", StoreShare((), ()))
    (store / "nginx" / "conf" / "mime.types").unlink()
    with pytest.raises(ImageError, match=r"no mime\.types"):
        plan_gate_image("towns", store / "nginx", StoreShare((), ()))


def test_a_backend_is_its_program_and_what_it_needs(store: Path, tmp_path: Path) -> None:
    program = tmp_path / "towns-server"
    program.write_bytes(b"elf")
    program.chmod(0o755)
    plan = plan_backend_image("towns", "backend", Application(program), StoreShare((), ()), port=3000)
    assert paths_of(plan, "application") == ["app", "app/bin", "app/bin/towns-server"]
    assert plan.config.entrypoint == ("/app/bin/towns-server",)
    assert plan.config.user == "10001:10001"
    assert paths_of(plan, "base") == ["etc", "etc/group", "etc/nsswitch.conf", "etc/passwd", "tmp"]
    assert Directory("tmp", 0o1777) in plan.entries


def test_an_interpreters_tree_has_its_packages_below_the_code(store: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for path in ("lib/python3.11/site-packages/a.py", "src/main.py", "src/node_modules/b/index.js"):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text("")
    (tree / "bin").mkdir()
    (tree / "bin/python").symlink_to(store / "libc/bin/python")
    (tree / "lib/libstdc++.so.6").symlink_to(store / "libc/lib/libstdc++.so.6")
    application = Application(tree, ("/app/bin/python", "-m", "a"), "/app/src", (("X", "1"),))
    plan = plan_backend_image("towns", "backend", application, StoreShare((), (), store), port=3000)
    layers = {
        layer.name: {entry.path for entry in layer.entries if not isinstance(entry, Directory)} for layer in plan.layers
    }
    packages = {"app/bin/python", "app/lib/libstdc++.so.6", "app/lib/python3.11/site-packages/a.py"}
    assert layers["dependencies"] == packages | {"app/src/node_modules/b/index.js"}
    assert layers["application"] == {"app/src/main.py"}
    assert (plan.config.entrypoint, plan.config.directory) == (("/app/bin/python", "-m", "a"), "/app/src")
    assert dict(plan.config.environment) == {"PATH": "/app/bin", "X": "1", "LD_LIBRARY_PATH": "/app/lib"}
    (tree / "lib/libstdc++.so.6").unlink()
    plan = plan_backend_image("towns", "backend", application, StoreShare((), (), store), port=3000)
    assert "LD_LIBRARY_PATH" not in dict(plan.config.environment)
    (tree / "src/up").symlink_to("../../outside")
    with pytest.raises(ImageError, match="outside of what goes into the image"):
        plan_backend_image("towns", "backend", application, StoreShare((), (), store), port=3000)


def test_certificates_are_linked_when_the_closure_has_them(store: Path, tmp_path: Path) -> None:
    bundle = store / "cacert" / "etc" / "ssl" / "certs" / "ca-bundle.crt"
    bundle.parent.mkdir(parents=True)
    bundle.write_text("certificates")
    program = tmp_path / "app"
    program.write_bytes(b"elf")
    program.chmod(0o755)
    plan = plan_backend_image(
        "towns", "backend", Application(program), StoreShare((), (store / "cacert",), store), port=1
    )
    assert Link("etc/ssl/certs/ca-certificates.crt", str(bundle)) in plan.entries


@pytest.fixture
def parts(store: Path, site: Path, tmp_path: Path) -> SingleParts:
    program = tmp_path / "server"
    program.write_bytes(b"elf")
    program.chmod(0o755)
    (store / "init" / "bin").mkdir(parents=True)
    (store / "init" / "bin" / "init").write_bytes(b"init")
    (store / "init" / "bin" / "init").chmod(0o755)
    return SingleParts(store / "nginx", store / "init", "events {}", "events { }", site, Application(program), 3000)


def single_share(store: Path) -> tuple[StoreShare, StoreShare]:
    nginx = closure_of("gate", store / "libc", store / "nginx")
    return share_store_paths(nginx, closure_of("single", store / "libc", store / "nginx", store / "init"))


def test_an_image_for_one_container_has_rarely_changing_layers_first(store: Path, parts: SingleParts) -> None:
    gate_share, share = single_share(store)
    single, gate = plan_single_image("towns", parts, share), plan_gate_image("towns", store / "nginx", gate_share)
    assert [layer.name for layer in single.layers] == ["base", "runtime", "application", "assets", "files"]
    assert layer_key(single.layers[0]) == layer_key(gate.layers[0]), "the gate shares all of nginx"
    assert paths_of(single, "application") == ["app", "app/bin", "app/bin/server"]
    assert {"etc/nginx/nginx.conf", "etc/nginx/socket.conf", "srv/www/index.html"} <= set(paths_of(single, "files"))
    config = single.config
    assert (config.user, config.stop_signal, config.ports) == ("10001:10001", "SIGTERM", (8080,))


def test_its_init_starts_the_backend_then_nginx_whose_configuration_is_the_command(
    store: Path, parts: SingleParts
) -> None:
    config = plan_single_image("towns", parts, single_share(store)[1]).config
    init, *words = config.entrypoint
    assert init == str(store / "init/bin/init")
    backend, web = words[: words.index("--")], words[words.index("--") + 1 :]
    assert backend == ["backend", "TERM", "10", "inherit", "PORT=3000", "HOST=127.0.0.1", "/app/bin/server"]
    assert web[:5] == ["web", "QUIT", "35", "empty", str(store / "nginx/bin/nginx")]
    assert (web[-1], config.command) == ("-c", ("/etc/nginx/nginx.conf",))


def test_without_a_backend_the_init_starts_nginx_alone(store: Path, parts: SingleParts) -> None:
    plan = plan_single_image("towns", replace(parts, application=None, port=None), single_share(store)[1])
    assert plan.config.entrypoint[1:4] == ("web", "QUIT", "35")
    assert "application" not in [layer.name for layer in plan.layers]


def test_without_a_frontend_it_has_no_site(store: Path, parts: SingleParts) -> None:
    plan = plan_single_image("towns", replace(parts, site=None), single_share(store)[1])
    assert not [entry for entry in plan.entries if entry.path.startswith("srv")]
