"""What is rendered for nginx."""

import base64
import hashlib
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.deploy.gate import DRAIN_SECONDS, KEEP_MILLISECONDS, render_gate_config
from orchestrator.image.nginx import (
    HASHED_NAME,
    content_security_policy,
    inline_scripts,
    quoted,
    render_web_config,
)
from orchestrator.plan import Proxy, WebPlan
from orchestrator.settings import Csp, Web

BOTH = WebPlan(static="frontend", spa=True, proxy=Proxy("backend", 3000, "/api", ("/health",)))


def test_the_configuration_depends_on_nothing_but_its_input() -> None:
    pages = {"index.html": b"<script>1</script>", "b.html": b"<script>2</script>"}
    assert render_web_config(BOTH, html=pages) == render_web_config(BOTH, html=dict(reversed(pages.items())))


def test_no_name_has_to_be_resolved_at_start() -> None:
    config = render_web_config(BOTH, html={})
    assert re.findall(r"^\s*server (\S+)", config, re.MULTILINE) == ["127.0.0.1:3000", "{", "{"]
    assert "resolver" not in config


def test_a_server_that_stands_alone_says_itself_who_asks() -> None:
    behind, alone = render_web_config(BOTH, html={}), render_web_config(BOTH, html={}, port=8080)
    assert (
        "listen unix:" in behind
        and "set_real_ip_from unix:;" in behind
        and "X-Forwarded" not in behind.replace("real_ip_header X-Forwarded-For", "")
    )
    assert "listen 8080;" in alone and "unix:" not in alone and "real_ip_header" not in alone
    for header in ("X-Forwarded-For $remote_addr", "X-Forwarded-Proto $client_scheme", 'Forwarded ""'):
        assert f"proxy_set_header {header};" in alone
    trusting = replace(BOTH, options=Web.model_validate({"trusted_proxies": ["10.0.0.0/8"]}))
    alone = render_web_config(trusting, html={}, port=8080)
    assert "set_real_ip_from 10.0.0.0/8;" in alone and "10.0.0.0/8 1;" in alone


def test_without_a_backend_nothing_is_proxied() -> None:
    config = render_web_config(WebPlan(static="frontend", spa=True, proxy=None), html={})
    assert "proxy_pass" not in config and "upstream backend" not in config


def test_without_files_there_is_no_document_root_and_no_policy() -> None:
    config = render_web_config(WebPlan(static=None, spa=False, proxy=Proxy("backend", 1, "/", ())), html={})
    assert "root " not in config
    assert "Content-Security-Policy" not in config


def test_every_location_that_adds_a_header_adds_the_security_headers() -> None:
    config = render_web_config(BOTH, html={})
    blocks = re.findall(r"location [^{]*?\{(?!\d)(.*?)\n    \}", config, re.DOTALL)
    assert len(blocks) > 5
    for block in blocks:
        assert "add_header" not in block or "X-Content-Type-Options nosniff always" in block


@pytest.mark.parametrize(
    "path",
    [
        "/assets/index-BxYz12_a.js",
        "/assets/deep/er/style-a1b2c3d4.css",
        "/static/js/main.8f3a2b1c.chunk.js",
        "/_next/static/chunks/framework-0123456789abcdef.js",
        "/assets/index-BxYz12_a.js.map",
        "/assets/x-Ab-_Cd12.woff2",
    ],
)
def test_hashed_names_are_known(path: str) -> None:
    assert re.search(HASHED_NAME, path)


@pytest.mark.parametrize(
    "path",
    [
        "/index-BxYz12_a.js",
        "/assets/logo.svg",
        "/assets/report-20240101.pdf",
        "/assets/our-holidays.jpg",
        "/assets/team-Holidays.jpg",
        "/assets/a-bc1.js",
        "/photos/index-BxYz12_a.jpg",
        "/service-worker.js",
    ],
)
def test_names_people_give_are_not_taken_for_hashed(path: str) -> None:
    assert not re.search(HASHED_NAME, path)


def test_only_scripts_that_run_are_hashed() -> None:
    page = (
        b"<script>a</script><SCRIPT type=module>b &amp; <b></b></SCRIPT><script src=x.js>c</script><script></script>"
        b"<script type='application/json'>d</script><script type=text/javascript>\r\ne\r</script><p>f</p>"
    )
    assert inline_scripts(page) == ("a", "b &amp; <b></b>", "\ne\n")


@given(st.lists(st.text(st.characters(exclude_characters="<\r", exclude_categories=["Cs"]), min_size=1), max_size=4))
def test_the_policy_holds_the_hash_of_each_inline_script(scripts: list[str]) -> None:
    page = "".join(f"<script>{script}</script>" for script in scripts).encode()
    policy = content_security_policy({"index.html": page}, Csp())
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.count("sha256-") == len(set(scripts))
    assert ("script-src" in policy) == bool(scripts)


@given(st.text(st.characters(exclude_characters="$\n", exclude_categories=["Cs"])))
def test_a_quoted_word_ends_where_it_should(text: str) -> None:
    inside = quoted(text)[1:-1]
    assert re.fullmatch(r'(?:[^"\\]|\\["\\])*', inside, re.DOTALL)
    assert re.sub(r"\\(.)", r"\1", inside) == text


@pytest.mark.parametrize("text", ["/$host", "/a\nb"])
def test_what_cannot_be_quoted_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="nginx"):
        quoted(text)


def test_the_gate_lets_go_of_a_release_before_it_is_stopped() -> None:
    config = render_gate_config()
    assert f"keepalive_time {KEEP_MILLISECONDS}ms;" in config
    assert f"keepalive_timeout {KEEP_MILLISECONDS}ms;" in config
    assert 2 * KEEP_MILLISECONDS / 1000 <= DRAIN_SECONDS / 2
