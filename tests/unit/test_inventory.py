"""What builds are made of, read from what cargo says."""

import json

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.build.inventory import Component, from_json, parse_cargo_tree, to_json

TREE = """\
towns-backend v0.1.0 (/build/src/backend)\t
axum v0.7.9\tMIT
hyper v1.4.1\tMIT (*)
hyper v1.4.1\tMIT
libc v0.2.169\tMIT/Apache-2.0
forked v0.3.0 (https://example.org/forked?branch=main#0a1b2c3d)\tISC

warning: something else
"""


def test_crates_are_listed_once_with_their_licences():
    found = {(crate.name, crate.version): crate for crate in parse_cargo_tree(TREE.splitlines())}
    assert len(found) == 5 == len(parse_cargo_tree(TREE.splitlines()))
    assert found["axum", "0.7.9"] == Component("cargo", "axum", "0.7.9", "MIT", "")
    assert found["hyper", "1.4.1"].licence == "MIT"
    assert found["libc", "0.2.169"].licence == "MIT OR Apache-2.0"
    assert found["towns-backend", "0.1.0"].source == "local"
    assert found["forked", "0.3.0"].source == "https://example.org/forked?branch=main#0a1b2c3d"


@given(st.lists(st.builds(Component, st.sampled_from(["cargo", "npm"]), *[st.text()] * 4)))
def test_components_survive_the_cache(components: list[Component]):
    assert from_json(json.loads(json.dumps(to_json(components)))) == tuple(components)


def test_a_damaged_list_is_no_list():
    assert from_json(None) is None
    assert from_json([["cargo", "axum"]]) is None
