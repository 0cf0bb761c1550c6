"""The cascade, and what it refuses."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import UsageError
from orchestrator.settings import Web, check_name, load_settings


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path):
    (tmp_path / "orchestrator.toml").write_text('name = "file"\nport = 1001\njobs = 1\n')
    environ = {"ORCHESTRATOR_PORT": "1002", "ORCHESTRATOR_JOBS": "2", "ORCHESTRATOR_DOMAINS": "a.test,b.test"}
    settings = load_settings({"monorepo": str(tmp_path), "jobs": 3}, environ)
    assert (settings.name, settings.port, settings.jobs, settings.serial) == ("file", 1002, 3, False)
    assert settings.domains == ("a.test", "b.test")


@pytest.mark.parametrize(
    "name", ["", "a/b", "..", "a b", "a;rm", "$(x)", "Upper", "-a", "a-", "a" * 64, "ä", "a\n", "a.b", "a_b"]
)
def test_names_that_cannot_be_paths_labels_and_hosts_are_refused(name: str):
    with pytest.raises(UsageError):
        check_name(name)
    with pytest.raises(UsageError, match="name"):
        load_settings({"name": name}, {})


@given(st.text(max_size=70))
def test_an_accepted_name_is_a_dns_label(name: str):
    try:
        check_name(name)
    except UsageError:
        return
    assert 1 <= len(name) <= 63
    assert name == name.lower()
    assert name.isascii()
    assert name.replace("-", "a").isalnum()
    assert not name.startswith("-") and not name.endswith("-")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"port": 0}, "port"),
        ({"port": 70000}, "port"),
        ({"jobs": -1}, "jobs"),
        ({"toolchain": "magic"}, "toolchain"),
        ({"domains": ["bad domain"]}, "bad domain"),
        ({"api_prefix": "api"}, "api_prefix"),
    ],
)
def test_a_wrong_value_is_named(flags: dict[str, object], message: str):
    with pytest.raises(UsageError, match=message):
        load_settings({"name": "app", **flags}, {})


def test_an_unknown_setting_in_the_file_is_named(tmp_path: Path):
    (tmp_path / "orchestrator.toml").write_text('name = "app"\nprot = 1\n')
    with pytest.raises(UsageError, match="prot"):
        load_settings({"monorepo": str(tmp_path)}, {})


def test_a_broken_file_is_named_with_its_position(tmp_path: Path):
    (tmp_path / "orchestrator.toml").write_text("name = \n")
    with pytest.raises(UsageError, match=r"orchestrator\.toml.*line 1"):
        load_settings({"monorepo": str(tmp_path)}, {})


def test_the_file_cannot_choose_the_machine_s_directories(tmp_path: Path):
    (tmp_path / "orchestrator.toml").write_text('name = "app"\nstate_dir = "/"\n')
    with pytest.raises(UsageError, match="state_dir"):
        load_settings({"monorepo": str(tmp_path)}, {})


def test_without_a_name_nothing_starts():
    with pytest.raises(UsageError, match="no name"):
        load_settings({}, {})


@pytest.mark.parametrize("snippet", ["} server { listen 8080;", "location /a {", "}{"])
def test_a_snippet_cannot_leave_its_server_block(snippet: str) -> None:
    with pytest.raises(ValueError, match="braces"):
        Web(edge_snippet=snippet)
    assert Web(edge_snippet="location /a { return 204; }").edge_snippet


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("csp", {"connect": ["https://a.test; script-src *"]}),
        ("csp", {"img": ['"']}),
        ("cors_origins", ["https://a.test/path"]),
        ("cors_origins", ["*"]),
        ("body_size", "25 m"),
        ("trusted_proxies", ["proxy.test"]),
    ],
)
def test_what_would_break_the_configuration_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        Web.model_validate({field: value})
