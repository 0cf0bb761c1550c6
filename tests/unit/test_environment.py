"""The backend's variables: where they come from, which win, which must be there; no error ever shows a value."""

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.deploy.environment import (
    Environment,
    Requirement,
    check_required,
    gather_environment,
    requirements,
)
from orchestrator.detect.variables import needed_variables
from orchestrator.errors import UsageError
from orchestrator.settings import Settings, load_settings


def settings(tmp_path: Path, **changes: object) -> Settings:
    values = {"name": "app", "monorepo": tmp_path, "state_dir": tmp_path, "cache_dir": tmp_path}
    return Settings.model_validate(values | changes)


def test_later_sources_win_and_only_the_settings_are_plain(tmp_path: Path) -> None:
    (tmp_path / "vars").write_text(
        "# all of them\n\nA=file\nexport B='quo # ted'\nC=\"two\\nlines\"\nD=x # why\nE\nF=\n"
    )
    made = gather_environment(
        settings(
            tmp_path,
            env="DEV",
            env_file="vars",
            variables=("A=flag=1", "G"),
            services={"backend": {"environment": {"A": "plain", "LEVEL": "info", "RUST_LOG": "warn", "G": "plain"}}},
        ),
        {"E": "taken over", "G": "too"},
    )
    assert made.secret == {"A": "flag=1", "B": "quo # ted", "C": "two\nlines", "D": "x", "E": "taken over", "G": "too"}
    assert made.plain == {"RUST_BACKTRACE": "1", "RUST_LOG": "warn", "LEVEL": "info", "F": ""}
    assert "flag=1" not in repr(made)


def test_a_generated_variable_gives_way_to_a_value(tmp_path: Path) -> None:
    made = gather_environment(settings(tmp_path, generate_secrets=("A", "B"), variables=("A=x",)), {})
    assert (made.generated, made.secret) == ({"B"}, {"A": "x"})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"variables": ("9secret-value=1",)}, "--var: no variable is named"),
        ({"variables": ("NAME",)}, "NAME has no value"),
        ({"env_file": "absent"}, "absent cannot be read"),
        ({"env_file": "bad"}, "bad:2: no variable is named"),
        ({"generate_secrets": ("a b",)}, "--generate-secret"),
    ],
)
def test_a_mistake_is_named_and_no_value_shown(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    (tmp_path / "bad").write_text("A=1\nsecret value here\n")
    with pytest.raises(UsageError) as failure:
        gather_environment(settings(tmp_path, **changes), {})
    assert said in failure.value.message
    assert "secret" not in failure.value.message.replace("--generate-secret", "")


def test_a_key_without_a_value_in_the_example_is_required(tmp_path: Path) -> None:
    (tmp_path / "api").mkdir()
    (tmp_path / ".env.example").write_text("JWT_SECRET=\nPORT=\nLEVEL=info\nVITE_API_URL=\n#X=\nSMTP= # optional\n")
    (tmp_path / "api" / ".env.example").write_text('\nexport DATABASE_URL=""\nJWT_SECRET=\n')
    found = needed_variables(tmp_path, PurePosixPath("api"))
    assert [(item.name, item.path, item.line) for item in found] == [
        ("JWT_SECRET", ".env.example", 1),
        ("DATABASE_URL", "api/.env.example", 2),
    ]


def test_requirements_of_the_settings_come_first(tmp_path: Path) -> None:
    (tmp_path / ".env.example").write_text("JWT_SECRET=\nTOKEN=\n")
    declared = {"backend": {"required": {"JWT_SECRET": {"min_length": 32}}}}
    assert requirements(settings(tmp_path, services=declared), tmp_path, PurePosixPath("api")) == (
        Requirement("JWT_SECRET", "services.backend.required.JWT_SECRET in orchestrator.toml", 32),
        Requirement("TOKEN", ".env.example:2"),
    )


def test_what_is_missing_or_too_short_is_refused_naming_it_and_its_source() -> None:
    wanted = (Requirement("A", "x:1"), Requirement("B", "y:2", 32), Requirement("C", "z:3"), Requirement("D", "w:4"))
    given = Environment({"D": "plain"}, {"B": "hunter2"}, frozenset())
    with pytest.raises(UsageError) as failure:
        check_required(given, wanted, kept=frozenset({"C"}))
    assert failure.value.details == (
        "the variable A is missing; it is required by x:1",
        "the variable B is too short: 7 characters, where y:2 wants 32",
    )
    assert "hunter2" not in str(failure.value.details)
    check_required(Environment({"D": "x"}, {"A": "x", "B": "b" * 32}, frozenset({"C"})), wanted, kept=frozenset())


def test_settings_never_show_the_value_of_a_variable(tmp_path: Path) -> None:
    made = settings(tmp_path, variables=("TOKEN=hunter2",))
    assert "hunter2" not in f"{made!r}{made.model_dump()}{made.model_dump_json()}"
    (tmp_path / "orchestrator.toml").write_text('variables = ["TOKEN=hunter2"]\n')
    with pytest.raises(UsageError, match="do not belong here") as failure:
        load_settings({"name": "app", "monorepo": tmp_path}, {})
    assert "hunter2" not in failure.value.message


@given(st.text(st.characters(exclude_characters="\n\r\x00", exclude_categories=["Cs", "Zl", "Zp", "Cc"])))
def test_a_value_on_the_command_line_is_taken_as_it_is(value: str) -> None:
    made = gather_environment(settings(Path("/nowhere"), variables=(f"KEY={value}",)), {})
    assert {**made.plain, **made.secret} == {"KEY": value}
