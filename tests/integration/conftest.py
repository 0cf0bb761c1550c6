"""One engine with images of a small application, shared by every test of running applications."""

from collections.abc import Iterator

import pytest

from orchestrator.deploy.app import remove_app
from orchestrator.deploy.state import AppStore
from orchestrator.tools.inspection import list_containers
from tests.integration.release_bench import APP, Bench, backend_image, free_port, private_engine, web_images


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with private_engine() as (state_dir, engine):
        images = [*web_images(engine), backend_image(engine, tmp_path_factory.mktemp("server"))]
        for image in images:
            engine.tag_image(image.image_id, f"localhost/kept/{image.service}")
        yield Bench(state_dir, engine, images)


@pytest.fixture
def bench(prepared: Bench) -> Iterator[Bench]:
    prepared.port = free_port()
    yield prepared
    if AppStore(prepared.state_dir, APP).releases() or list_containers(prepared.engine, {"io.orchestrator.app": APP}):
        remove_app(prepared.state_dir, APP, engine=prepared.engine)
