"""What is given back, and what never is: images of releases, containers and other applications."""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator import process
from orchestrator.deploy.images import retain_images
from orchestrator.deploy.lock import locked_app
from orchestrator.deploy.retention import Garbage, collect_garbage
from orchestrator.deploy.state import AppStore, ImageRecord, ReleaseRecord
from orchestrator.events import Event, Note
from orchestrator.image.packing import packed_lock
from orchestrator.image.storage import Image, Workshop
from orchestrator.process import Cancel
from orchestrator.settings import Health, Limits
from orchestrator.tools.podman import Engine
from tests.integration.test_images import build, engine, make_sources, plan_of, short

__all__ = ["engine", "short"]

pytestmark = pytest.mark.skipif(process.find("podman") is None, reason="podman is not installed")

Make = Callable[[str, str], Image]


@pytest.fixture
def make(tmp_path: Path, engine: Engine) -> Make:
    """An image of an application; the second argument becomes its page."""
    sources = make_sources(tmp_path / "sources")

    def make_image(app: str, page: str) -> Image:
        plan = plan_of(sources, page=page.encode())
        labels = (("io.orchestrator.app", app), ("io.orchestrator.service", "web"))
        workshop = Workshop(app, engine, tmp_path / "cache", lambda _: None, Cancel())
        return build(replace(plan, config=replace(plan.config, labels=labels)), workshop, "oci")

    return make_image


def release(state: Path, app: str, number: int, image: Image) -> ReleaseRecord:
    record = ReleaseRecord(
        id=f"20260101-00000{number}",
        app=app,
        created=datetime.now(UTC),
        port=8080,
        domains=(),
        page=True,
        api_prefix=None,
        images={
            "web": ImageRecord(
                image_id=image.image_id,
                manifest_digest=image.manifest_digest,
                reference=image.reference,
                size=image.size,
            )
        },
        web_limits=Limits(),
        backend=None,
        health=Health(),
    )
    AppStore(state, app).activate(record)
    return record


def collect(
    tmp_path: Path, engine: Engine, *, dry_run: bool = False, keep: int | None = None, events: list[Event] | None = None
) -> tuple[Garbage, ...]:
    told = events if events is not None else []
    return collect_garbage(
        tmp_path / "state",
        tmp_path / "cache",
        engine=engine,
        keep_bytes=1000,
        keep_releases=keep,
        dry_run=dry_run,
        emit=told.append,
    )


def names(found: tuple[Garbage, ...]) -> list[str]:
    return [item.name for item in found if item.kind == "image"]


def test_only_images_no_release_uses_go(tmp_path: Path, engine: Engine, make: Make) -> None:
    state = tmp_path / "state"
    old, live, built, other = make("app", "1"), make("app", "2"), make("app", "3"), make("other", "4")
    release(state, "app", 1, old)
    release(state, "app", 2, live)
    release(state, "other", 1, other)
    engine.tag_image(other.image_id, "localhost/mine:latest")
    assert names(collect(tmp_path, engine, dry_run=True)) == [built.reference]
    assert engine.image_exists(built.image_id), "a dry run removes nothing"
    assert names(collect(tmp_path, engine)) == [built.reference]
    assert [engine.image_exists(image.image_id) for image in (old, live, built, other)] == [True, True, False, True]
    assert collect(tmp_path, engine) == ()
    gone = collect(tmp_path, engine, keep=1)
    assert [(item.kind, item.name) for item in gone] == [
        ("release", "app 20260101-000001"),
        ("image", old.reference),
    ]
    assert [engine.image_exists(image.image_id) for image in (old, live, other)] == [False, True, True]


def test_an_application_at_work_is_left_alone(tmp_path: Path, engine: Engine, make: Make) -> None:
    busy, idle = make("busy", "1"), make("idle", "2")
    events: list[Event] = []
    with locked_app(tmp_path / "state", "busy"):
        assert names(collect(tmp_path, engine, events=events)) == [idle.reference]
    assert engine.image_exists(busy.image_id)
    assert [event.text for event in events if isinstance(event, Note)] == ["busy is being worked on and is left alone"]


def test_a_containers_image_stays(tmp_path: Path, engine: Engine, make: Make) -> None:
    image = make("app", "1")
    container = engine.run("create", image.image_id).stdout.strip()
    assert collect(tmp_path, engine) == ()
    engine.run("rm", container)
    assert names(collect(tmp_path, engine)) == [image.reference]


def test_a_deploy_keeps_what_build_made_up_to_the_budget(tmp_path: Path, engine: Engine, make: Make) -> None:
    state = tmp_path / "state"
    dropped, live, built = make("app", "1"), make("app", "2"), make("app", "3")
    old, new = release(state, "app", 1, dropped), release(state, "app", 2, live)
    retain_images(engine, "app", kept=(new,), dropped=(old,), keep_bytes=10_000_000)
    assert [engine.image_exists(image.image_id) for image in (dropped, live, built)] == [False, True, True]
    retain_images(engine, "app", kept=(new,), dropped=(), keep_bytes=1000)
    assert [engine.image_exists(image.image_id) for image in (live, built)] == [True, False]


def test_the_cache_keeps_the_newest_and_what_the_budget_allows(tmp_path: Path, engine: Engine) -> None:
    artifacts = tmp_path / "cache/artifacts/app/web"
    for number in range(4):
        (artifacts / str(number)).mkdir(parents=True)
        (artifacts / str(number) / "tree").write_bytes(bytes(400))
        os.utime(artifacts / str(number), (1_000_000 + number, 1_000_000 + number))
    (tmp_path / "cache/logs/gone").mkdir(parents=True)
    (tmp_path / "cache/logs/app").mkdir(parents=True)
    (tmp_path / "cache/check/app/first").mkdir(parents=True)
    found = collect(tmp_path, engine)
    assert [(item.kind, item.name) for item in found] == [
        ("artifact", "artifacts/app/web/1"),
        ("artifact", "artifacts/app/web/0"),
        ("log", "logs/gone"),
        ("check", "check/app"),
    ]
    assert sorted(path.name for path in artifacts.iterdir()) == ["2", "3"]


def test_compressed_layers_count_as_cache_and_are_left_alone_during_a_push(tmp_path: Path, engine: Engine) -> None:
    packed = tmp_path / "cache/packed/gzip-0123"
    packed.mkdir(parents=True)
    for number in range(4):
        path = packed / f"{number}.digest.400"
        path.write_bytes(bytes(400))
        os.utime(path, (1_000_000 + number, 1_000_000 + number))
    events: list[Event] = []
    with packed_lock(tmp_path / "cache"):
        assert collect(tmp_path, engine, events=events) == ()
    assert len(events) == 1
    shown = collect(tmp_path, engine, dry_run=True)
    assert [(item.kind, item.name, item.size) for item in shown] == [
        ("layer", "packed/gzip-0123/1.digest.400", 400),
        ("layer", "packed/gzip-0123/0.digest.400", 400),
    ]
    assert len(list(packed.iterdir())) == 4
    assert [item.name for item in collect(tmp_path, engine)] == [item.name for item in shown]
    assert sorted(path.name[0] for path in packed.iterdir()) == ["2", "3"]
