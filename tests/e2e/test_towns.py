"""examples/towns, deployed: asked over HTTP and in a browser, inspected, changed, broken and removed."""

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import REPOSITORY, Machine, ask, commit, complaints_of, free_port, git, load_until, wait_until
from tests.integration.registry import REGISTRY, counting_proxy, serving_registry

TOWNS = "/api/v1/towns/selection"


@dataclass(frozen=True)
class Deployed:
    machine: Machine
    root: Path
    port: int
    result: Any

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def flags(self) -> tuple[str, ...]:
        return ("--name", "towns", "--monorepo", str(self.root), "--port", str(self.port))

    def deploy(self, *flags: str) -> Any:
        return self.machine.json("deploy", *self.flags, *flags)


@pytest.fixture(scope="module")
def deployed(machine: Machine, towns: Path) -> Iterator[Deployed]:
    port = free_port()
    trace = machine.base / "trace.json"
    edge = ("--domain", "towns.localhost", "--http-port", str(free_port()), "--https-port", str(free_port()))
    flags = ("--name", "towns", "--monorepo", str(towns), "--port", str(port), *edge)
    result = machine.json("deploy", *flags, "--trace", str(trace))
    yield Deployed(machine, towns, port, result)
    git(towns, "checkout", "--quiet", "--", ".")


def containers(deployed: Deployed) -> dict[str, Any]:
    """Inspection of each container of the application by its service."""
    names = deployed.machine.engine("ps", "--filter", "label=io.orchestrator.app=towns", "--format", "{{.Names}}")
    found = json.loads(deployed.machine.engine("inspect", *names.split()))
    return {item["Config"]["Labels"]["io.orchestrator.service"]: item for item in found if not item["IsInfra"]}


def test_the_url_is_printed_after_it_answered(deployed: Deployed):
    assert deployed.result["changed"] is True
    assert deployed.result["url"].rstrip("/") == deployed.url
    asked = {probe["url"]: probe["status"] for probe in deployed.result["probes"]}
    assert asked[f"{deployed.url}/"] == 200
    assert asked[f"{deployed.url}{TOWNS}"] == 200


def test_the_page_and_the_towns_are_served(deployed: Deployed):
    page = ask(deployed.url)
    assert page.status == 200 and b'<div id="root">' in page.body
    towns = json.loads(ask(deployed.url + TOWNS).body)
    listed = towns["towns"] if isinstance(towns, dict) else towns
    assert len(listed) > 100 and any(town["name"] == "London" for town in listed)
    assert ask(f"{deployed.url}/health").status == 200
    assert ask(f"{deployed.url}/about").status == 200, "the SPA's own routes lead to its page"
    assert ask(f"{deployed.url}/assets/missing.js").status == 404
    assert ask(f"{deployed.url}/api/v1/nothing").status == 404


def test_the_built_code_has_no_local_address_though_its_source_does(deployed: Deployed):
    source = "".join(path.read_text() for path in (deployed.root / "frontend/src").rglob("*.ts*"))
    assert 'import.meta.env.VITE_API_URL ?? "http://localhost:3000"' in source
    frontend = next(service for service in deployed.result["services"] if service["kind"] == "frontend")
    bundle = "".join(path.read_text() for path in Path(frontend["artifact"]).rglob("*.js"))
    assert "localhost:3000" not in bundle


def test_a_browser_shows_the_towns_without_a_complaint(deployed: Deployed, tmp_path: Path):
    from selenium import webdriver
    from selenium.webdriver.common.by import By

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
        f"--user-data-dir={tmp_path / 'chromium'}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    try:
        listed = load_until(
            browser, lambda: browser.get(deployed.url), lambda page: page.find_elements(By.CSS_SELECTOR, "[data-town]")
        )
        assert len(listed) > 100
        assert complaints_of(browser) == []
        events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        asked = [item["request"]["url"] for item in sent if item["documentURL"].startswith("http")]
        assert deployed.url + TOWNS in asked
        assert all(url.startswith((deployed.url, "data:")) for url in asked), asked
    finally:
        browser.quit()


def test_the_containers_are_confined(deployed: Deployed):
    found = containers(deployed)
    assert set(found) == {"web", "backend", "gate"}
    for service, item in found.items():
        host = item["HostConfig"]
        assert item["Config"]["User"] == "10001:10001", service
        assert host["ReadonlyRootfs"] is True, service
        assert item["EffectiveCaps"] in (None, []), service
        assert "no-new-privileges" in " ".join(host["SecurityOpt"]), service
        assert host["Memory"] > 0 and host["PidsLimit"] > 0 and host["NanoCpus"] > 0, service
    assert found["backend"]["HostConfig"]["Memory"] == 256 * 1024**2


def test_the_images_hold_no_shell_compiler_or_package_manager(deployed: Deployed):
    forbidden = {"sh", "bash", "busybox", "cargo", "rustc", "node", "npm", "gcc", "cc", "ld", "apt", "dpkg", "nix"}
    for image in deployed.result["images"]:
        mounted = deployed.machine.engine("image", "mount", image["image_id"]).strip()
        try:
            programs = {path.name for path in Path(mounted).rglob("*") if not path.is_dir()}
        finally:
            deployed.machine.engine("image", "unmount", image["image_id"])
        assert not programs & forbidden, image["service"]
        assert programs, "the image is not empty"


def test_the_images_are_slim(deployed: Deployed):
    sizes = {image["service"]: image["size"] for image in deployed.result["images"]}
    assert sizes["web"] + sizes["backend"] <= 30_000_000


def test_builds_overlap_in_time(deployed: Deployed):
    events = json.loads((deployed.machine.base / "trace.json").read_text())
    events = events["traceEvents"] if isinstance(events, dict) else events
    spans = [event for event in events if event.get("ph") == "X"]
    names = {event["pid"]: event["args"]["name"] for event in events if event.get("name") == "process_name"}
    threads = {
        (event["pid"], event["tid"]): event["args"]["name"] for event in events if event.get("name") == "thread_name"
    }

    def of(service: str) -> list[tuple[float, float]]:
        return [
            (span["ts"], span["ts"] + span["dur"])
            for span in spans
            if service in (names.get(span["pid"]), threads.get((span["pid"], span["tid"])))
        ]

    assert any(
        start < other_end and other_start < end
        for start, end in of("frontend")
        for other_start, other_end in of("backend")
    )


def test_the_repository_is_untouched(deployed: Deployed):
    assert git(deployed.root, "status", "--porcelain", "--ignored") == ""


def test_a_second_deploy_changes_nothing(deployed: Deployed):
    before = {service: item["Id"] for service, item in containers(deployed).items()}
    again = deployed.deploy("--domain", "towns.localhost")
    assert again["changed"] is False
    assert again["release"] == deployed.result["release"]
    assert {service["cache"] for service in again["services"]} == {"hit"}
    assert not any(layer["written"] for image in again["images"] for layer in image["layers"])
    assert {service: item["Id"] for service, item in containers(deployed).items()} == before


@pytest.mark.skipif(REGISTRY is None, reason="docker-registry is not installed")
def test_it_is_pushed_with_what_is_said_about_it_and_never_twice(deployed: Deployed, tmp_path: Path):
    with serving_registry(tmp_path / "registry") as port, counting_proxy(port) as proxy:
        repository = f"127.0.0.1:{proxy.port}/team/towns"
        first = deployed.machine.json("push", "towns", repository, "--tag", "1")["pushed"]
        assert {*chain(*(image["references"] for image in first))} == {f"{repository}:1-web", f"{repository}:1-backend"}
        assert sum(image["sent"] for image in first) == proxy.uploaded <= 10_000_000
        proxy.reset()
        again = deployed.deploy("--domain", "towns.localhost", "--push", repository)
        assert [image["digest"] for image in again["pushed"]] == [image["digest"] for image in first]
        assert (again["changed"], proxy.uploaded) == (False, 0)


def test_it_is_exported_as_it_would_be_pushed(deployed: Deployed, tmp_path: Path):
    directory = tmp_path / "ex port"
    exported = deployed.machine.json("export", "towns", str(directory), "--tag", "1")
    assert {*chain(*(image["names"] for image in exported["images"]))} == {"1-web", "1-backend"}
    assert exported["written"] <= 10_000_000
    with serving_registry(tmp_path / "registry") as port:
        pushed = deployed.machine.json("push", "towns", f"127.0.0.1:{port}/towns", "--tag", "1")["pushed"]
    assert {image["digest"] for image in pushed} == {image["digest"] for image in exported["images"]}
    assert deployed.machine.json("export", "towns", str(directory), "--tag", "1")["written"] == 0
    printed = deployed.machine.run("export", "towns", str(directory), "--tag", "1").stdout
    assert f"oci:{directory}:1-backend" in printed
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    said = deployed.machine.run("export", "towns", str(tmp_path / "mine"), code=2).stderr
    assert "holds files that are no export" in said


def test_the_sbom_lists_what_is_in_the_images_and_nothing_else(deployed: Deployed):
    documents = {
        service: json.loads(deployed.machine.run("sbom", "towns", service).stdout) for service in ("web", "backend")
    }
    names = {service: {item["name"] for item in document["components"]} for service, document in documents.items()}
    assert {"react", "react-dom"} <= names["web"] and names["web"].isdisjoint({"vite", "typescript", "axum"})
    assert {"axum", "tokio", "serde", "towns-shared"} <= names["backend"]
    assert names["backend"].isdisjoint({"serde_derive", "syn", "react"}), "macros are not linked into the binary"
    shown = deployed.machine.run("sbom", "towns", "backend", "--provenance").stdout
    source = json.loads(shown)["predicate"]["buildDefinition"]["resolvedDependencies"][0]
    assert source["digest"]["gitCommit"] == git(deployed.root, "rev-parse", "HEAD").strip()
    assert source["annotations"] == {"dirty": False}


def test_a_changed_page_replaces_one_small_layer_and_no_request_is_lost(deployed: Deployed):
    index = deployed.root / "frontend/index.html"
    index.write_text(index.read_text().replace("<title>", "<title>New "))
    load = subprocess.Popen(
        ["python3", "-c", LOAD, deployed.url + TOWNS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        changed = deployed.deploy()
        report = json.loads(load.communicate("stop\n", timeout=60)[0])
    finally:
        load.kill()
    assert changed["changed"] is True
    assert b"<title>New " in ask(deployed.url).body
    web = next(image for image in changed["images"] if image["service"] == "web")
    assert sum(layer["size"] for layer in web["layers"] if layer["written"]) < 64_000
    assert report["failed"] == [] and report["answered"] > 50, report


def test_a_backend_that_crashes_at_start_leaves_the_old_release_serving(deployed: Deployed):
    main = deployed.root / "backend/src/main.rs"
    healthy = main.read_text()
    main.write_text(healthy.replace("start_logging();", 'start_logging();\n    panic!("no database");', 1))
    assert main.read_text() != healthy, "the test does not know how to break examples/towns any more"
    release = deployed.machine.json("status", "towns")["release"]
    failed = deployed.machine.run("deploy", *deployed.flags, code=9)
    assert "no database" in failed.stderr and "101" in failed.stderr
    assert "Traceback" not in failed.stderr and failed.stdout == ""
    status = deployed.machine.json("status", "towns")
    assert (status["release"], status["state"]) == (release, "running")
    assert ask(deployed.url + TOWNS).status == 200
    main.write_text(healthy)
    deployed.deploy()


def test_a_compile_error_shows_its_lines_and_the_whole_log(deployed: Deployed):
    main = deployed.root / "backend/src/main.rs"
    healthy = main.read_text()
    main.write_text(healthy + "\nfn broken() -> u32 { not_a_name }\n")
    failed = deployed.machine.run("deploy", *deployed.flags, code=7)
    main.write_text(healthy)
    assert "not_a_name" in failed.stderr and "E0425" in failed.stderr
    log = next(word for word in failed.stderr.split() if word.endswith("backend.log"))
    assert "not_a_name" in Path(log).read_text()
    assert ask(deployed.url + TOWNS).status == 200


def test_both_assemblers_give_the_same_file_tree(deployed: Deployed):
    listings = {}
    for assembler in ("oci", "buildah"):
        flags = ("--name", "towns", "--monorepo", str(deployed.root), "--assembler", assembler)
        images = deployed.machine.json("build", *flags)["images"]
        listings[assembler] = {image["service"]: deployed.machine.listing(image["image_id"]) for image in images}
    assert listings["oci"] == listings["buildah"]
    assert all(image["layers"] for image in deployed.machine.json("images", "towns")["images"]), "no halves of images"


def test_it_moves_into_one_container_and_back_and_no_request_is_lost(deployed: Deployed):
    machine, pod = deployed.machine, deployed.machine.json("status", "towns")["release"]
    load = subprocess.Popen(
        ["python3", "-c", LOAD, deployed.url + TOWNS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        moved = deployed.deploy("--layout", "single")
        status = machine.json("status", "towns")
        back = machine.json("rollback", "towns")
        again = machine.json("rollback", "towns", "--to", moved["release"])
        report = json.loads(load.communicate("stop\n", timeout=60)[0])
    finally:
        load.kill()
    assert [service["name"] for service in status["services"]] == ["single"] and status["state"] == "running"
    assert (back["release"], again["release"]) == (pod, moved["release"])
    assert report["failed"] == [] and report["answered"] > 50, report
    assert set(containers(deployed)) >= {"single", "gate"}
    layers = next(image["layers"] for image in moved["images"] if image["service"] == "single")
    assert [layer["name"] for layer in layers] == ["base", "runtime", "application", "assets", "files"]
    assert "listening" in machine.run("logs", "towns", "--service", "backend").stdout
    names = {item["name"] for item in json.loads(machine.run("sbom", "towns").stdout)["components"]}
    assert {"react", "axum", "orchestrator-init"} <= names


def test_its_one_image_runs_alone(deployed: Deployed):
    images = deployed.machine.json("images", "towns")["images"]
    image = next(item["image_id"] for item in images if item["service"] == "single")
    hardened = ("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--user", "12345")
    for flags in ((), hardened):
        port = free_port()
        deployed.machine.engine("run", "--detach", "--name", "alone", *flags, "-p", f"127.0.0.1:{port}:8080", image)
        try:
            wait_until(lambda url=f"http://127.0.0.1:{port}{TOWNS}": answers(url))
            assert b'<div id="root">' in ask(f"http://127.0.0.1:{port}/about").body
            started = time.monotonic()
            deployed.machine.engine("stop", "alone")
            assert time.monotonic() - started < 9, "nothing had to be killed"
        finally:
            deployed.machine.engine("rm", "--force", "--time", "0", "alone")
    deployed.deploy()


def answers(url: str) -> bool:
    try:
        return ask(url).status == 200
    except OSError:
        return False


def test_it_is_stopped_started_and_listed(deployed: Deployed):
    machine = deployed.machine
    assert machine.json("stop", "towns")["changed"] is True
    assert machine.json("status", "towns")["state"] == "stopped"
    assert machine.json("start", "towns")["changed"] is True
    assert ask(deployed.url + TOWNS).status == 200
    assert [(app["app"], app["state"]) for app in machine.json("list")["apps"]] == [("towns", "running")]
    assert "listening" in machine.run("logs", "towns", "--service", "backend").stdout


def test_another_deploy_of_the_same_application_is_told_to_wait(deployed: Deployed):
    (deployed.root / "backend/src/lib_note.txt").write_text("an untracked file is part of the snapshot")
    first = deployed.machine.start("deploy", *deployed.flags)
    try:
        wait_until(lambda: (deployed.machine.base / "state/locks/towns.lock").exists())
        time.sleep(0.5)
        second = deployed.machine.run("deploy", *deployed.flags, code=10)
        assert "already working on towns" in second.stderr
    finally:
        first.communicate(timeout=300)
        (deployed.root / "backend/src/lib_note.txt").unlink()
    assert first.returncode == 0


def test_removing_it_leaves_nothing_and_frees_the_port(deployed: Deployed):
    other = free_port()
    (deployed.root / "orchestrator.toml").write_text("keep_releases = 2\n")
    commit(deployed.root)
    flags = ("--name", "second", "--monorepo", str(deployed.root), "--port", str(other), "--skip", "backend")
    deployed.machine.run("deploy", *flags)
    deployed.machine.run("remove", "towns")
    assert deployed.machine.engine("ps", "--all", "--filter", "label=io.orchestrator.app=towns", "--quiet") == ""
    assert not list((deployed.machine.base / "state/apps").glob("towns*"))
    deployed.machine.run("status", "towns", code=11)
    assert ask(f"http://127.0.0.1:{other}/").status == 200, "another application is not touched"
    deployed.machine.run("remove", "second")


LOAD = (REPOSITORY / "tests/e2e/load.py").read_text()
