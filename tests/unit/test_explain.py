"""The tree and the page that say where an image's bytes are."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.build.closure import Closure
from orchestrator.image.explain import (
    describe,
    find_contents,
    make_tree,
    remember_contents,
    render_page,
    squarify,
    tree_lines,
)
from orchestrator.image.layers import File, ImageConfig, ImagePlan, LayerPlan

STORE = Path("/nix/store")
NGINX, SSL, LIBC = (
    STORE / f"{letter * 32}-{name}" for letter, name in zip("abc", ("nginx", "ssl", "libc"), strict=True)
)
CLOSURE = Closure("web", (NGINX,), {NGINX: (SSL, LIBC), SSL: (LIBC,), LIBC: ()})
PLAN = ImagePlan(
    "web",
    (
        LayerPlan(
            "all",
            (
                File(f"{NGINX}/bin/nginx".lstrip("/"), bytes(1_000_000), 0o555),
                File(f"{SSL}/lib/libssl.so".lstrip("/"), bytes(3_000_000), 0o444),
                File(f"{LIBC}/lib/libc.so".lstrip("/"), bytes(2_000_000), 0o444),
                File("srv/www/<b>.html", bytes(500_000)),
                File("srv/www/index.html", bytes(10_000)),
            ),
        ),
    ),
    ImageConfig(("/x",), ()),
)


def test_the_tree_counts_what_each_part_pulls_in() -> None:
    tree = make_tree(describe("1" * 64, PLAN, CLOSURE))
    assert (tree.name, tree.size) == ("web", 6_510_000)
    nginx, files = tree.children
    assert (nginx.name, nginx.own, nginx.size) == ("nginx", 1_000_000, 6_000_000)
    assert [(child.name, child.size) for child in nginx.children] == [("ssl", 3_000_000), ("libc", 2_000_000)]
    assert (files.name, files.size) == ("/srv/www/", 510_000)
    assert list(tree_lines(tree))[1] == "    6.00     1.00    nginx"


def test_records_are_found_by_image_and_by_age(tmp_path: Path) -> None:
    assert find_contents(tmp_path, "app", "web", None) is None
    for number in range(25):
        remember_contents(tmp_path, "app", f"{number:064}", PLAN, CLOSURE)
    found = find_contents(tmp_path, "app", "web", f"{24:064}")
    assert found is not None
    assert found.size == 6_510_000
    assert find_contents(tmp_path, "app", "web", None) is not None
    assert len(list((tmp_path / "contents/app/web").iterdir())) == 20


def test_the_page_is_whole_and_asks_nothing() -> None:
    page = render_page(describe("1" * 64, PLAN, CLOSURE))
    assert page.count("<rect") == 5
    assert "&lt;b&gt;.html" in page
    assert "<b>" not in page
    for request in ("http", "url(", "<script", "<link", "src=", "href="):
        assert request not in page


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=40))
def test_boxes_fill_the_rectangle_in_proportion(sizes: list[int]) -> None:
    ordered = sorted(((size, str(index)) for index, size in enumerate(sizes)), reverse=True)
    boxes = list(squarify(ordered, 0, 0, 1200, 640))
    assert [box[4] for box in boxes] == [size for size, _ in ordered]
    for x, y, width, height, size, _ in boxes:
        assert width * height == pytest.approx(1200 * 640 * size / sum(sizes), rel=1e-6, abs=1e-3)
        assert x >= -1e-6
        assert y >= -1e-6
        assert x + width <= 1200 + 1e-3
        assert y + height <= 640 + 1e-3
    assert math.isclose(sum(box[2] * box[3] for box in boxes), 1200 * 640, rel_tol=1e-6)
