"""When a supervisor acts."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.watch import render_unit
from orchestrator.deploy.supervision import CALM_SECONDS, LONGEST_PAUSE, Sight, Tally, decide

DOWN = Sight(alive=False, down=True)
FROZEN = Sight(alive=False, age=100)


def run(sights: list[tuple[float, Sight]], tally: Tally | None = None) -> list[str]:
    tally, actions = tally or Tally(), []
    for now, sight in sights:
        tally, action = decide(tally, sight, retries=3, start_period=10, now=now)
        actions.append(action)
    return actions


def test_what_is_down_is_started_with_pauses_that_double() -> None:
    actions = run([(now / 2, DOWN) for now in range(200, 240)])
    started = [100 + number / 2 for number, action in enumerate(actions) if action == "start"]
    assert started == [100, 101, 103, 107, 115]


def test_what_is_frozen_is_restarted_after_enough_failures_in_a_row() -> None:
    assert run([(1, FROZEN), (2, FROZEN), (3, Sight(alive=True)), (4, FROZEN), (5, FROZEN), (6, FROZEN)]) == [
        *["nothing"] * 5,
        "restart",
    ]


def test_a_young_service_may_not_answer_yet() -> None:
    assert set(run([(now, Sight(alive=False, age=9)) for now in range(20)])) == {"nothing"}


def test_a_calm_application_starts_with_short_pauses_again() -> None:
    worn = Tally(attempts=6, not_before=50, last_failure=50)
    soon, _ = decide(worn, Sight(alive=True), retries=3, start_period=0, now=50 + CALM_SECONDS - 1)
    calm, _ = decide(worn, Sight(alive=True), retries=3, start_period=0, now=50 + CALM_SECONDS)
    assert (soon.attempts, calm.attempts) == (6, 0)


@given(st.lists(st.sampled_from([DOWN, FROZEN, Sight(alive=True), Sight(alive=False, age=1)]), max_size=300))
def test_it_never_acts_on_what_is_alive_nor_more_often_than_pauses_allow(sights: list[Sight]) -> None:
    tally = Tally()
    for now, sight in enumerate(sights):
        not_before = tally.not_before
        tally, action = decide(tally, sight, retries=3, start_period=10, now=float(now))
        if action != "nothing":
            assert not sight.alive and now >= not_before
            assert now < tally.not_before <= now + LONGEST_PAUSE


def test_the_unit_runs_this_command_with_these_directories() -> None:
    unit = render_unit(("shop",), {"ORCHESTRATOR_STATE_DIR": "/s p"}, executable=Path("/opt/orchestrator"), root=True)
    assert 'Environment="ORCHESTRATOR_STATE_DIR=/s p"\nExecStart=/opt/orchestrator watch shop\n' in unit
    assert "KillMode=process" in unit and "WantedBy=multi-user.target" in unit
