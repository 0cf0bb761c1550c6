"""Releases on disk."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.deploy.lock import locked_app
from orchestrator.deploy.state import (
    AppStore,
    BackendRecord,
    ImageRecord,
    ReleaseRecord,
    current_release,
    list_apps,
    load_record,
)
from orchestrator.errors import BusyError, UnknownAppError, UsageError
from orchestrator.settings import Health, Limits

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)


def record(release_id: str = "20260506-070809", **changes: object) -> ReleaseRecord:
    values: dict[str, object] = {
        "id": release_id,
        "app": "app",
        "created": NOW,
        "port": 8080,
        "domains": (),
        "page": True,
        "api_prefix": "/api",
        "images": {"web": ImageRecord(image_id="1", manifest_digest="d", reference=f"r:{release_id}", size=1)},
        "web_limits": Limits(),
        "backend": BackendRecord(
            port=3000, health_path="/health", api_path=None, environment={"TOKEN": "secret"}, limits=Limits()
        ),
        "health": Health(),
    }
    return ReleaseRecord.model_validate(values | changes)


@pytest.fixture
def store(tmp_path: Path) -> AppStore:
    return AppStore(tmp_path, "app")


def test_the_activated_record_is_current_and_private(store: AppStore) -> None:
    store.activate(record("20260101-000000"))
    store.activate(record())
    assert store.current() == record()
    assert [found.id for found in store.releases()] == ["20260101-000000", "20260506-070809"]
    path = store.directory / "releases" / "20260506-070809" / "release.json"
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_fingerprint_is_of_what_would_run() -> None:
    same = record("20270101-000000", created=NOW + timedelta(days=1))
    assert same.fingerprint == record().fingerprint
    for change in ({"port": 9}, {"web_limits": Limits(memory="1g")}, {"backend": None}, {"domains": ("a.localhost",)}):
        assert record(**change).fingerprint != record().fingerprint


def test_the_url_is_one_this_machine_can_ask() -> None:
    assert record(domains=("shop.example.org",)).url == "http://127.0.0.1:8080/"


def test_what_a_killed_run_left_is_removed_and_nothing_else(store: AppStore) -> None:
    store.activate(record())
    releases = store.directory / "releases"
    (releases / "20260506-070810").mkdir()
    (releases / "20260506-070810" / ".release.json.abc").write_text("{")
    (releases / "20260506-070809" / ".release.json.abc").write_text("{")
    (store.directory / ".current.77").symlink_to("releases/x")
    damaged = releases / "20260506-070811"
    damaged.mkdir()
    (damaged / "release.json").write_text('{"version": 2}')
    store.remove_partial()
    assert sorted(path.name for path in releases.iterdir()) == ["20260506-070809", "20260506-070811"]
    assert [path.name for path in (releases / "20260506-070809").iterdir()] == ["release.json"]
    assert sorted(path.name for path in store.directory.iterdir()) == ["current", "releases"]
    assert store.current() == record()


def test_a_lost_or_damaged_current_link_falls_back_to_the_newest(store: AppStore) -> None:
    store.activate(record("20260101-000000"))
    store.activate(record())
    (store.directory / "current").unlink()
    assert store.current() == record()
    (store.directory / "current").symlink_to("releases/nowhere")
    assert store.current() == record()


@given(st.binary(max_size=200) | st.recursive(st.none() | st.integers(), st.lists).map(json.dumps).map(str.encode))
def test_a_damaged_record_is_no_record(content: bytes) -> None:
    with TemporaryDirectory() as directory:
        (Path(directory) / "release.json").write_bytes(content)
        assert load_record(Path(directory)) is None


def test_ids_sort_after_all_others_even_when_the_clock_goes_back(store: AppStore) -> None:
    assert store.new_id(NOW) == "20260506-070809"
    store.activate(record())
    assert store.new_id(NOW) == "20260506-070810"
    assert store.new_id(NOW - timedelta(days=9)) == "20260506-070810"
    assert store.new_id(NOW + timedelta(days=1)) == "20260507-070809"


def test_the_oldest_go_and_the_current_one_stays(store: AppStore) -> None:
    ids = [f"2026010{day}-000000" for day in range(1, 6)]
    for release_id in ids:
        store.activate(record(release_id))
    store.activate(record(ids[0]))
    assert [found.id for found in store.superfluous(3)] == ids[1:3]
    assert [found.id for found in store.superfluous(1)] == ids[1:]
    assert store.superfluous(9) == ()


def test_the_release_before_is_remembered_also_after_going_back(store: AppStore) -> None:
    ids = [f"2026010{day}-000000" for day in (1, 2, 3)]
    records = [record(release_id) for release_id in ids]
    store.activate(records[0])
    assert store.previous() is None
    store.activate(records[1])
    store.activate(records[2])
    assert store.previous() == records[1]
    store.activate(records[0])
    assert (store.current(), store.previous()) == (records[0], records[2])
    store.activate(records[0])
    assert store.previous() == records[2]
    assert [found.id for found in store.superfluous(2)] == [ids[1]]
    store.forget(records[2])
    assert store.previous() is None


def test_a_release_is_found_by_its_id_and_others_are_named(store: AppStore) -> None:
    store.activate(record())
    assert store.release(record().id) == record()
    with pytest.raises(UsageError, match="no release x") as failure:
        store.release("x")
    assert failure.value.hint == f"its releases: {record().id}"


def test_what_was_stopped_is_meant_to_run_again_once_activated(store: AppStore) -> None:
    store.activate(record())
    assert not store.stopped
    store.note_stop()
    assert store.stopped
    store.activate(record())
    assert not store.stopped


def test_a_record_names_secrets_and_their_change_is_another_fingerprint() -> None:
    def with_secret(name: str) -> ReleaseRecord:
        backend = record().backend
        assert backend is not None
        return record(backend=backend.model_copy(update={"secrets": {"TOKEN": name}}))

    assert with_secret("a").fingerprint != with_secret("b").fingerprint
    assert with_secret("a").environment_hash != with_secret("b").environment_hash
    assert with_secret("a").environment_hash == with_secret("a").environment_hash


def test_applications_are_listed_and_unknown_ones_named(store: AppStore, tmp_path: Path) -> None:
    assert list_apps(tmp_path) == ()
    store.activate(record())
    (tmp_path / "apps" / "empty" / "releases").mkdir(parents=True)
    assert list_apps(tmp_path) == ("app",)
    assert current_release(tmp_path, "app") == record()
    with pytest.raises(UnknownAppError) as failure:
        current_release(tmp_path, "empty")
    assert failure.value.hint == "deployed applications: app"


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with locked_app(tmp_path, "app"):
        with locked_app(tmp_path, "other"):
            pass
        with pytest.raises(BusyError, match="app"), locked_app(tmp_path, "app"):
            pass
