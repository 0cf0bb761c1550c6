"""All builds of one application, side by side."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

from orchestrator.build import disk, locks
from orchestrator.build.environment import fetch_access, home_directory
from orchestrator.build.jobserver import Jobserver
from orchestrator.build.lfs import find_pointers
from orchestrator.build.registries import read_user_config
from orchestrator.build.service import ServiceBuild, build_service, find_built, write_lock_file
from orchestrator.build.site import Site, phase
from orchestrator.build.snapshot import Snapshot, take_snapshot
from orchestrator.build.toolchain import init_program, open_toolchain, web_server
from orchestrator.build.trace import Trace
from orchestrator.errors import BuildError, DiskError, Interrupted, ToolchainError
from orchestrator.events import Emit, Note
from orchestrator.plan import BuildPlan, Plan, build_name
from orchestrator.process import Cancel, ProgramMissing
from orchestrator.settings import Layout, Settings
from orchestrator.tools import sandbox

_WEB = "web"
_NO_NGINX = "build on a machine of that platform, or where a binary cache or Debian can be reached; or leave {} out"
_LINK_SECONDS = 0.1
_NO_HOMES = frozenset({Path("/"), Path("/nonexistent"), Path("/var/empty")})


@dataclass(frozen=True, slots=True)
class BuildResults:
    """What the builds gave. `toolchain` is "flake" or "host"; `web_server` is nginx's path in the Nix store.

    `init` is that of the first process of an image for one container, None in the other layout;
    `foreign_web_servers` are those for other platforms, as far as there are any.

    `toolchain_key` changes whenever the dev shell does, `sources` whenever a file the builds see does (hexadecimal).
    """

    toolchain: str
    toolchain_reason: str
    wall_seconds: float
    services: tuple[ServiceBuild, ...]
    web_server: Path
    toolchain_key: str
    sources: str
    init: Path | None = None
    foreign_web_servers: Mapping[str, Path] = field(default_factory=dict)


def run_builds(
    settings: Settings,
    project_root: Path,
    plan: Plan,
    *,
    emit: Emit,
    cancel: Cancel,
    trace: Path | None = None,
    place: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    clock: Callable[[], float] = time.monotonic,
) -> BuildResults:
    """Build every service of the plan, in parallel unless `settings.serial`; `trace` is a file for trace events.

    Workspaces, artifacts and logs are in `place`, the cache unless given; dev shells are always in the cache. In a
    place of their own builds start from nothing but what was fetched.
    Raises `ProjectError` for lock files, `DiskError` before anything runs, `ToolchainError`, `BuildError` with the
    first failing tool's lines, `BusyError` when another run builds the same, and `Interrupted`.
    """
    started = clock()
    recorder = Trace(clock=clock)
    with ExitStack() as stack:
        if trace is not None:
            stack.callback(recorder.write, trace)
        stop = stack.enter_context(_stopped_with(cancel))
        jobserver = stack.enter_context(closing(Jobserver(settings.jobs or os.cpu_count() or 1)))
        run = _Run(
            settings, project_root, plan, emit, stop, recorder, jobserver, environ, clock, place or settings.cache_dir
        )
        site = _prepare(run)
        foreign = _foreign_web_servers(run, site)
        services, (nginx, init) = _build_all(run, site, cancel)
    return BuildResults(
        toolchain=site.toolchain.kind,
        toolchain_reason=site.toolchain.reason,
        wall_seconds=clock() - started,
        services=services,
        web_server=nginx,
        toolchain_key=site.toolchain.key,
        sources=site.snapshot.digest,
        init=init,
        foreign_web_servers=foreign,
    )


@dataclass(frozen=True, slots=True)
class _Run:
    """What one call of `run_builds` was given, and what it opened."""

    settings: Settings
    root: Path
    plan: Plan
    emit: Emit
    cancel: Cancel
    trace: Trace
    jobserver: Jobserver
    environ: Mapping[str, str]
    clock: Callable[[], float]
    place: Path


def _prepare(run: _Run) -> Site:
    """Everything before the first build, cheap refusals first."""
    snapshot = _snapshot(run)
    if not run.settings.write_lock:
        locks.check_locks(snapshot, run.plan.builds, write_lock=False, emit=run.emit)
    _check_disk_of_first_run(run, snapshot)
    site = _open_site(run, snapshot)
    site = _with_written_locks(run, site) if run.settings.write_lock else site
    _check_disk(run, snapshot, [build for build in run.plan.builds if find_built(site, build)[1] is None])
    return site


def _snapshot(run: _Run) -> Snapshot:
    with run.trace.span("", "snapshot"):
        taken = take_snapshot(run.root, cache_dir=run.settings.cache_dir, emit=run.emit)
        if pointers := find_pointers(taken):
            some = f"{pointers[0]} and {len(pointers) - 1} more" if len(pointers) > 1 else pointers[0]
            text = f"builds see Git LFS pointers in place of files that were not fetched: {some} (run: git lfs pull)"
            run.emit(Note(text, level="warning"))
    return taken


def _check_disk_of_first_run(run: _Run, snapshot: Snapshot) -> None:
    """Before a first dev shell is opened, which takes a while; nothing has been built without one."""
    toolchain = disk.predict_toolchain(run.settings.cache_dir)
    if toolchain:
        _check_disk(run, snapshot, run.plan.builds, toolchain)


def _check_disk(run: _Run, snapshot: Snapshot, builds: Sequence[BuildPlan], others: Sequence[disk.Need] = ()) -> None:
    """What these builds will write, and the images after them; nothing is refused when all are in the cache."""
    if not builds:
        return
    cache_dir, app = run.settings.cache_dir, run.plan.app
    needs = [disk.predict_build(cache_dir, app, build, snapshot) for build in builds]
    images = disk.predict_images(run.settings.state_dir, cache_dir, app)
    disk.check_space([*needs, *others, images])


def _open_site(run: _Run, snapshot: Snapshot) -> Site:
    with run.trace.span("", "toolchain"):
        toolchain = open_toolchain(run.settings, snapshot, emit=run.emit, cancel=run.cancel)
    home = home_directory(run.environ)
    return Site(
        app=run.plan.app,
        cache_dir=run.place,
        store_dir=run.settings.cache_dir,
        offline=run.settings.offline,
        sandboxed=_sandbox_works(run.emit),
        hidden=_hidden(run.root, home),
        home=home,
        snapshot=snapshot,
        toolchain=toolchain,
        user_config=read_user_config(run.environ, home),
        access=fetch_access(run.environ, home),
        jobserver=run.jobserver,
        trace=run.trace,
        emit=run.emit,
        cancel=run.cancel,
        clock=run.clock,
        clean=run.place != run.settings.cache_dir,
        any_rust=run.settings.ignore_rust_toolchain,
    )


def _sandbox_works(emit: Emit) -> bool:
    problem = sandbox.probe()
    if problem is not None:
        text = f"builds run without a sandbox, with the network and your files in reach: {problem}"
        emit(Note(text, level="warning"))
    return problem is None


def _hidden(root: Path, home: Path) -> tuple[Path, ...]:
    """What no build may read: users' homes, and the monorepo itself (its .env files; builds have their copy)."""
    return tuple(path for path in (Path("/home"), Path("/root"), home, root) if path not in _NO_HOMES)


def _with_written_locks(run: _Run, site: Site) -> Site:
    wrote = locks.write_locks(site.snapshot, run.plan.builds, partial(write_lock_file, site), run.emit)
    fresh = replace(site, snapshot=_snapshot(run)) if wrote else site
    locks.check_locks(fresh.snapshot, run.plan.builds, write_lock=True, emit=run.emit)
    return fresh


def _build_all(run: _Run, site: Site, asked: Cancel) -> tuple[tuple[ServiceBuild, ...], tuple[Path, Path | None]]:
    """Every service, and the programs of ours. The first failure stops the rest, unless `keep_going`."""
    builds = run.plan.builds
    with ThreadPoolExecutor(max_workers=1 if run.settings.serial else len(builds) + 1) as pool:
        try:
            services = [pool.submit(build_service, site, build) for build in builds]
            ours = pool.submit(_our_programs, site, run.plan.layout)
            _wait([*services, ours], run)
        except BaseException:
            run.cancel.request()
            raise
    asked.check()
    _raise_first([*services, ours])
    return tuple(service.result() for service in services), ours.result()


def _foreign_web_servers(run: _Run, site: Site) -> dict[str, Path]:
    """nginx for every platform but this machine's, before anything is compiled for it.

    Raises `ToolchainError` where a page needs one that cannot be had. A backend alone does without: what runs its
    image elsewhere can hand it requests.
    """
    found = {}
    for platform in filter(None, run.plan.platforms):
        try:
            with phase(site, build_name(_WEB, platform), "web server"):
                found[platform] = web_server(site.toolchain, platform, offline=run.settings.offline, cancel=site.cancel)
        except (ToolchainError, ProgramMissing) as error:
            text = f"there is no nginx for {platform}: {error.message}"
            if run.plan.web.static is not None:
                raise ToolchainError(text, details=error.details, hint=_NO_NGINX.format(platform)) from error
            run.emit(Note(f"{text}; its web image is left out", level="warning"))
    return found


def _our_programs(site: Site, layout: Layout) -> tuple[Path, Path | None]:
    """The store paths of nginx and, where it is needed, of the first process of a container with several services."""
    with phase(site, _WEB, "web server"):
        nginx = web_server(site.toolchain, cancel=site.cancel)
    if layout == "pod":
        return nginx, None
    with phase(site, _WEB, "init"):
        return nginx, init_program(site.toolchain, cancel=site.cancel)


def _wait(futures: Sequence[Future[Any]], run: _Run) -> None:
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        if not run.settings.keep_going and any(future.exception() for future in done):
            run.cancel.request()


def _raise_first(futures: Sequence[Future[Any]]) -> None:
    """Raise the failure that stopped the others; with several of equal standing, one that shows them all."""
    failures = [error for future in futures if (error := future.exception())]
    causes = [error for error in failures if not isinstance(error, Interrupted)]
    if not failures:
        return
    if full := [error for error in causes if isinstance(error, DiskError)]:
        raise full[0]
    if len(causes) > 1 and all(isinstance(error, BuildError) for error in causes):
        raise _joined([error for error in causes if isinstance(error, BuildError)])
    raise (causes or failures)[0]


def _joined(errors: Sequence[BuildError]) -> BuildError:
    details = [line for error in errors for line in (f"{error.message}:", *error.details, error.hint or "")]
    return BuildError(f"{len(errors)} builds failed", details=details, hint=errors[0].hint)


@contextmanager
def _stopped_with(cancel: Cancel) -> Iterator[Cancel]:
    """A request to stop of our own, made too when `cancel` is: one failed build must not cancel the whole command."""
    own, done = Cancel(), Event()

    def follow() -> None:
        while not done.is_set():
            if cancel.wait(_LINK_SECONDS):
                own.request()
                return

    follower = Thread(target=follow, name="cancel", daemon=True)
    follower.start()
    try:
        yield own
    finally:
        done.set()
        follower.join()
