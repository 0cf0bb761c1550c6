"""References in files, closures from them, and what must not be in an image."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.build import closure
from orchestrator.build import references as module
from orchestrator.build.closure import (
    Closure,
    RememberedClosures,
    StorePath,
    find_programs,
    runtime_closure,
)
from orchestrator.build.references import RememberedReferences, scan_references

HASHES = st.text("0123456789abcdfghijklmnpqrsvwxyz", min_size=32, max_size=32)
A, B, C = ("a" * 32, "b" * 32, "c" * 32)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 64)


def test_references_are_found_in_binary_text(tmp_path: Path) -> None:
    content = f"\0\x01/nix/store/{A}-glibc-2.40/lib\0/nix/store/{B}-zlib\xff".encode("latin-1")
    (tmp_path / "app").write_bytes(content)
    assert scan_references(tmp_path / "app") == {f"/nix/store/{A}-glibc-2.40", f"/nix/store/{B}-zlib"}


@pytest.mark.parametrize(
    "text", ["/nix/store/short-name", f"/nix/store/{'e' * 32}-name", f"/nix/store/{A}", f"/nix/{A}-x"]
)
def test_what_only_looks_like_a_reference_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "app").write_text(text)
    assert scan_references(tmp_path / "app") == frozenset()


@given(names=st.lists(HASHES, min_size=1, max_size=5), gaps=st.lists(st.binary(max_size=300), min_size=6, max_size=6))
def test_chunk_borders_lose_nothing(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], gaps: list[bytes]
) -> None:
    path = tmp_path_factory.getbasetemp() / "bordered"
    content = gaps[0]
    for number, name in enumerate(names):
        content += f"\0/nix/store/{name}-pkg/".encode() + gaps[number + 1]
    path.write_bytes(content)
    expected = {f"/nix/store/{name}-pkg" for name in names}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", 64)
        assert scan_references(path) == expected


def test_a_name_at_the_very_end_is_whole(tmp_path: Path, small_chunks: None) -> None:
    (tmp_path / "app").write_text("x" * 100 + f"/nix/store/{A}-" + "n" * 150)
    assert scan_references(tmp_path / "app") == {f"/nix/store/{A}-" + "n" * 150}


def test_memory_is_bounded_by_the_chunk_not_the_file(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(64 << 20)
        file.seek(40 << 20)
        file.write(f"/nix/store/{A}-x/".encode())
    tracemalloc.start()
    try:
        assert scan_references(path) == {f"/nix/store/{A}-x"}
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_trees_are_scanned_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "outside").write_text(f"/nix/store/{B}-x")
    (tmp_path / "tree" / "link").symlink_to("../outside")
    (tmp_path / "tree" / "sub" / "file").write_text(f"/nix/store/{A}-x")
    (tmp_path / "tree" / "sub" / "python").symlink_to(f"/nix/store/{C}-python/bin/python")
    assert scan_references(tmp_path / "tree") == {f"/nix/store/{A}-x", f"/nix/store/{C}-python"}


@dataclass(frozen=True)
class Member:
    path: Path
    references: tuple[Path, ...] = ()


class Store:
    """A store on disk, and the question asked of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[Sequence[Path]] = []

    def add(self, name: str) -> Path:
        (self.root / name).mkdir(parents=True)
        return self.root / name

    def closure(self, paths: Sequence[Path]) -> tuple[Member, ...]:
        self.asked.append(paths)
        return tuple(Member(path) for path in paths)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_a_program_needs_what_it_names(store: Store, tmp_path: Path) -> None:
    glibc, gone = store.add(f"{A}-glibc"), store.root / f"{C}-gone"
    (tmp_path / "app").write_text(f"{glibc}/lib {gone}/lib")
    closure = runtime_closure("backend", [tmp_path / "app"], store.closure, store=store.root)
    assert closure.roots == closure.paths == (glibc,)


def test_a_store_path_stands_for_itself(store: Store) -> None:
    nginx = store.add(f"{A}-nginx")
    assert runtime_closure("web", [nginx / "bin" / "nginx"], store.closure, store=store.root).roots == (nginx,)


def test_a_name_that_runs_on_is_cut_where_the_store_says(store: Store, tmp_path: Path) -> None:
    """Rust packs its strings without terminators."""
    glibc = store.add(f"{A}-glibc")
    (store.root / f"{A}-glibc.lock").touch()
    store.add(f"{B}-other.drv")
    (tmp_path / "app").write_text(f"{glibc}assertion.failed {store.root}/{B}-other.drv")
    assert runtime_closure("backend", [tmp_path / "app"], store.closure, store=store.root).roots == (glibc,)


def test_a_static_program_asks_nothing(store: Store, tmp_path: Path) -> None:
    (tmp_path / "app").write_bytes(b"static")
    assert runtime_closure("backend", [tmp_path / "app"], store.closure, store=store.root).paths == ()
    assert store.asked == []


def test_what_is_left_out_goes_with_all_that_only_it_refers_to(tmp_path: Path) -> None:
    python, bash, readline, glibc, other = (
        tmp_path / f"{letter * 32}-{name}"
        for letter, name in (
            *(("a", "python3-3.12.1"), ("b", "bash-5.2p37"), ("c", "readline-8.2")),
            *(("d", "glibc-2.40"), ("f", "bashful-1.0")),
        )
    )
    python.mkdir()
    members = (
        Member(python, (python, bash, glibc, other)),
        Member(bash, (readline, glibc)),
        Member(readline),
        Member(glibc, (glibc,)),
        Member(other),
    )
    left = runtime_closure("x", [python], lambda _: members, store=tmp_path, without=re.compile(r"bash-[0-9].*"))
    assert left.references == {python: (python, glibc, other), glibc: (glibc,), other: ()}


def chained() -> Closure:
    store = Path("/nix/store")
    app, rust, gcc, libc = (
        store / f"{letter * 32}-{name}" for letter, name in zip("abcd", ["x", "rust", "gcc", "libc"], strict=True)
    )
    return Closure("backend", (app,), {app: (libc, rust), rust: (rust, gcc, libc), gcc: (libc,), libc: (libc,)})


def test_chain_is_the_shortest_way() -> None:
    closure = chained()
    app, rust, gcc, libc = closure.paths
    assert closure.chain(gcc) == (app, rust, gcc)
    assert closure.chain(libc) == (app, libc)
    assert closure.chain(app) == (app,)
    assert closure.chain(Path("/nix/store/unknown")) == ()


@pytest.mark.parametrize(
    "name",
    [
        *("sh", "bash", "busybox", "cargo", "rustc", "node", "gcc", "gcc-12", "g++", "clang++", "ld.bfd"),
        *("x86_64-unknown-linux-gnu-ld", "x86_64-linux-gnu-gcc-12", "apt", "nix-store", "python3.11", "perl5.38.0"),
    ],
)
def test_forbidden_programs(name: str) -> None:
    assert list(find_programs([f"/app/bin/{name}"], chained())) == [(f"/app/bin/{name}", None)]


@pytest.mark.parametrize(
    "name", ["nginx", "ld-linux-x86-64.so.2", "towns", "shop", "node-exporter", "nodejs-app", "assh"]
)
def test_other_programs_are_fine(name: str) -> None:
    assert not list(find_programs([f"/app/bin/{name}"], chained()))


def test_a_program_is_found_with_its_store_path() -> None:
    gcc = chained().paths[2]
    assert list(find_programs([f"{gcc}/bin/gcc"], chained())) == [(f"{gcc}/bin/gcc", gcc)]


def told(members: Sequence[StorePath]) -> list[tuple[Path, tuple[Path, ...]]]:
    return [(member.path, tuple(member.references)) for member in members]


def test_a_closure_is_asked_for_once_and_again_when_a_member_was_made_anew(tmp_path: Path) -> None:
    nginx, libc = tmp_path / "nginx", tmp_path / "libc"
    for path in (nginx, libc):
        path.mkdir()
    members = (Member(libc, ()), Member(nginx, (libc,)))
    asked: list[Sequence[Path]] = []

    def query(paths: Sequence[Path]) -> Sequence[Member]:
        asked.append(paths)
        return members

    closures = RememberedClosures(tmp_path / "closures", query)
    assert [told(closures([nginx])) for _ in range(3)] == [told(members)] * 3
    assert len(asked) == 1
    libc.rename(tmp_path / "collected")
    libc.mkdir()
    assert told(closures([nginx])) == told(members)
    assert len(asked) == 2, "the same name, another directory"
    assert told(closures([nginx])) == told(members)
    assert len(asked) == 2
    (record,) = (tmp_path / "closures").iterdir()
    for damage in ("", "{}", "[]", "[[1, 2]]", "null", '[["/gone", [1, 2], []]]'):
        record.write_text(damage)
        assert told(closures([nginx])) == told(members)
    assert len(asked) == 8


def test_old_closures_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closure, "KEPT_CLOSURES", 2)
    closures = RememberedClosures(tmp_path / "closures", lambda paths: [Member(path, ()) for path in paths])
    for name in "abc":
        (tmp_path / name).mkdir()
        closures([tmp_path / name])
    assert len(list((tmp_path / "closures").iterdir())) == 2


def test_what_a_product_names_is_read_once_and_again_when_it_was_made_anew(tmp_path: Path) -> None:
    tree, ask = tmp_path / "tree", RememberedReferences(tmp_path / "references")
    tree.mkdir()
    (tree / "a").write_text(f"/nix/store/{A}-x")
    assert ask(tree) == {f"/nix/store/{A}-x"}
    (tree / "a").write_text(f"/nix/store/{B}-y")
    assert ask(tree) == {f"/nix/store/{A}-x"}, "not read again"
    tree.rename(tmp_path / "old")
    tree.mkdir()
    (tree / "a").write_text(f"/nix/store/{B}-y")
    assert ask(tree) == {f"/nix/store/{B}-y"}
    next((tmp_path / "references").iterdir()).write_text("{")
    assert ask(tree) == {f"/nix/store/{B}-y"}
