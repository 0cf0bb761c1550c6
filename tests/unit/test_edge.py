"""The edge's decisions: ports, claims, configuration."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.deploy.edge import listening_addresses
from orchestrator.deploy.edge_config import render_edge_config
from orchestrator.deploy.edge_ports import choose_ports
from orchestrator.deploy.edge_sites import EdgeRecord, EdgeStore, Site, check_claims, with_site
from orchestrator.errors import MachineError, UsageError

RECORD = EdgeRecord(image_id="0" * 64, http_port=8080, https_port=8443)
SHOP = Site(app="my-shop", domains=("shop.test", "www.shop.test"), flood_limit=10, trusted_proxies=("10.1.0.0/16",))


def without(*taken: int) -> Callable[[int], bool]:
    return lambda port: port not in taken


@pytest.mark.parametrize(
    ("asked", "taken", "ports"),
    [
        ((None, None), (), (80, 443)),
        ((None, None), (80, 443), (8080, 8443)),
        ((None, None), (80,), (8080, 443)),
        ((9000, None), (443,), (9000, 8443)),
    ],
)
def test_the_usual_ports_where_they_are_free(
    asked: tuple[int | None, int | None], taken: tuple[int, ...], ports: tuple[int, int]
) -> None:
    assert choose_ports(asked, None, running=False, is_free=without(*taken)) == ports


@pytest.mark.parametrize(
    ("domains", "address"),
    [
        ((), ("0.0.0.0", "[::]")),
        ((("towns.localhost", "localhost"),), ("127.0.0.1", "[::1]")),
        ((("towns.localhost",), ("shop.example.org",)), ("0.0.0.0", "[::]")),
        ((("evil-localhost",),), ("0.0.0.0", "[::]")),
    ],
)
def test_names_below_localhost_are_served_on_this_machine_alone(
    domains: tuple[tuple[str, ...], ...], address: tuple[str, str]
) -> None:
    sites = [Site(app="a", domains=names) for names in domains]
    assert listening_addresses(sites, ipv6=True) == address
    assert listening_addresses(sites, ipv6=False) == address[:1]


def test_the_port_of_the_applications_own_gate_is_left_to_it() -> None:
    assert choose_ports((None, None), None, running=False, is_free=without(80, 443), reserved=8080) == (8081, 8443)


def test_a_port_asked_for_that_is_taken_is_an_error() -> None:
    with pytest.raises(MachineError, match="cannot listen on port 9000"):
        choose_ports((9000, None), None, running=False, is_free=without(9000))


def test_a_running_edge_is_not_moved_by_a_deploy() -> None:
    assert choose_ports((None, 8443), RECORD, running=True, is_free=without(8080, 8443)) == (8080, 8443)
    with pytest.raises(UsageError, match="already serves") as refused:
        choose_ports((80, None), RECORD, running=True, is_free=without())
    assert "edge up --http-port 80" in (refused.value.hint or "")


def test_a_domain_is_claimed_once() -> None:
    check_claims((SHOP,), "my-shop", ("shop.test",))
    check_claims((SHOP,), "other", ("other.test",))
    with pytest.raises(UsageError, match=r"www\.shop\.test belongs to the application my-shop"):
        check_claims((SHOP,), "other", ("other.test", "www.shop.test"))


def test_sites_are_remembered_and_damaged_ones_passed_over(tmp_path: Path) -> None:
    store = EdgeStore(tmp_path)
    store.put(SHOP)
    (store.directory / "sites/broken.json").write_text("{")
    assert store.sites() == (SHOP,)
    store.drop("my-shop")
    assert store.sites() == () and store.record() is None


def test_the_configuration_does_not_depend_on_the_order_and_names_no_host() -> None:
    other = Site(app="a", domains=("a.test",))
    both = [with_site((SHOP,), other), with_site((other,), SHOP)]
    one, two = (render_edge_config(RECORD, sites, {"my-shop": "my-shop.1"}, ("0.0.0.0",)) for sites in both)
    assert one == two
    assert set(re.findall(r"^\s+server ([^{\s]\S*)", one, re.MULTILINE)) == {
        "unix:/run/sockets/a/current/web.sock",
        "unix:/run/sockets/my-shop/current/web.sock",
    }
    assert "resolver" not in one


def test_hsts_is_sent_with_tls_only() -> None:
    site = SHOP.model_copy(update={"hsts_seconds": 60})
    assert "Strict-Transport-Security" not in render_edge_config(RECORD, [site], {}, ("0.0.0.0",))
    text = render_edge_config(RECORD, [site], {"my-shop": "my-shop.1"}, ("0.0.0.0",))
    assert text.count('Strict-Transport-Security "max-age=60"') == 1 and "includeSubDomains" not in text
