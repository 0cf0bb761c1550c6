"""examples/towns over HTTPS in a browser that trusts a local authority, through a swap; and a bundle that is refused.

Runs after test_towns.py, whose build workspace it finds warm.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Machine, ask, complaints_of, free_port, git, load_until

DOMAIN = "towns.test"


@pytest.fixture(scope="module")
def secured(machine: Machine, towns: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """The flags of a deployed application with a domain and a certificate of the local authority."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCHESTRATOR_TLS_DIR", str(tmp_path_factory.mktemp("tls")))
        ports = ("--port", str(free_port()), "--http-port", str(free_port()), "--https-port", str(free_port()))
        machine.run("edge", "down")  # the one test_towns.py started has other ports
        flags = ("--name", "towns", "--monorepo", str(towns), *ports, "--domain", DOMAIN, "--env", "DEV")
        result = machine.json("deploy", *flags)
        assert result["domains"] == [url_of(flags)]
        yield flags
        git(towns, "checkout", "--quiet", "--", ".")
        machine.run("remove", "towns")
        machine.run("edge", "down")


def url_of(flags: tuple[str, ...]) -> str:
    return f"https://{DOMAIN}:{flags[flags.index('--https-port') + 1]}/"


@contextmanager
def trusting_browser(home: Path) -> Iterator[Any]:
    """A headless Chromium whose user trusts the local authority and nothing else out of the ordinary."""
    from selenium import webdriver

    database = home / ".pki/nssdb"
    database.mkdir(parents=True)
    authority = Path(os.environ["ORCHESTRATOR_TLS_DIR"]) / "local-ca.pem"
    subprocess.run(["certutil", "-d", f"sql:{database}", "-N", "--empty-password"], check=True)
    subprocess.run(
        ["certutil", "-d", f"sql:{database}", "-A", "-t", "C,,", "-n", "orchestrator", "-i", str(authority)], check=True
    )
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
        f"--user-data-dir={home / 'chromium'}",
        f"--host-resolver-rules=MAP {DOMAIN} 127.0.0.1",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService("/usr/bin/chromedriver", env={**os.environ, "HOME": str(home)})
    browser = webdriver.Chrome(options=options, service=service)
    try:
        yield browser
    finally:
        browser.quit()


def test_a_browser_session_over_https_lives_through_a_swap(
    machine: Machine, towns: Path, secured: tuple[str, ...], tmp_path: Path
) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    with trusting_browser(tmp_path) as browser:
        wait = WebDriverWait(browser, 20)

        def shown(page: Any) -> int:
            return len(page.find_elements(By.CSS_SELECTOR, "[data-town]"))

        assert load_until(browser, lambda: browser.get(url_of(secured)), shown) > 100
        browser.find_element(By.ID, "filter").send_keys("London")
        wait.until(lambda page: 0 < shown(page) < 5)

        index = towns / "frontend/index.html"
        index.write_text(index.read_text().replace("<title>", "<title>Swapped "))
        assert machine.json("deploy", *secured)["changed"] is True

        assert browser.find_element(By.ID, "filter").get_attribute("value") == "London", "the session goes on"

        def come_back() -> None:
            browser.find_element(By.LINK_TEXT, "About").click()
            wait.until(lambda page: "About" in page.find_element(By.TAG_NAME, "h1").text)
            browser.find_element(By.LINK_TEXT, "Towns").click()

        assert load_until(browser, come_back, shown) > 100, "the old page gets its data from the new release"
        assert not browser.title.startswith("Swapped")
        assert load_until(browser, browser.refresh, shown) > 100
        assert browser.title.startswith("Swapped")
        assert complaints_of(browser) == []


def test_the_edge_tells_what_it_serves(machine: Machine, secured: tuple[str, ...]) -> None:
    status = machine.json("edge", "status")
    assert status["state"] == "running"
    (site,) = status["sites"]
    assert (site["app"], site["domains"], site["problem"]) == ("towns", [DOMAIN], "")
    assert machine.run("edge", "reload").stderr.startswith("the edge is up to date already")


def test_a_certificate_for_another_name_is_refused_before_anything_is_built(
    machine: Machine, secured: tuple[str, ...]
) -> None:
    cert, key = machine.run("certs", "self-signed", "other.test").stdout.split()[1::2]
    refused = machine.run("deploy", *secured, "--cert", cert, "--key", key, code=2)
    assert f"not for {DOMAIN}" in refused.stderr and "build" not in refused.stderr
    assert ask(f"http://127.0.0.1:{secured[secured.index('--port') + 1]}/").status == 200


def test_a_bundle_that_asks_the_visitors_machine_is_refused(machine: Machine, towns: Path) -> None:
    source = towns / "frontend/src/api.ts"
    healthy = source.read_text()
    source.write_text(healthy.replace("import.meta.env.VITE_API_URL ?? ", ""))
    assert source.read_text() != healthy
    flags = ("--name", "towns", "--monorepo", str(towns), "--only", "frontend")
    try:
        refused = machine.run("build", *flags, code=8)
        assert "http://localhost:3000" in refused.stderr and "frontend/src/api.ts:1" in refused.stderr
        assert "image done" not in refused.stderr
        allowed = machine.run("build", *flags, "--allow-absolute-urls")
        assert "--allow-absolute-urls" in allowed.stderr and "http://localhost:3000" in allowed.stderr
    finally:
        source.write_text(healthy)
