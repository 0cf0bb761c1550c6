"""The JSON each command prints with --json. docs/json-schema/ is generated from these models."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from orchestrator.cli.app_results import APPS_PUBLISHED, ProbeResult, probe_result
from orchestrator.cli.cache_results import CACHE_PUBLISHED
from orchestrator.tools.platforms import host_platform

if TYPE_CHECKING:
    from orchestrator.build.runner import BuildResults
    from orchestrator.deploy.edge_status import EdgeStatus
    from orchestrator.deploy.listing import ListedImage
    from orchestrator.deploy.release import Release
    from orchestrator.deploy.retention import Garbage
    from orchestrator.image.assemble import Image
    from orchestrator.plan import Plan
    from orchestrator.project import Project


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EvidenceResult(_Model):
    claim: str
    path: str
    line: int | None


class StepResult(_Model):
    name: Literal["fetch", "inspect", "build"]
    command: tuple[str, ...]
    directory: str
    network: bool


class PlannedService(_Model):
    name: str
    kind: Literal["frontend", "backend"]
    framework: str
    directory: str
    port: int | None
    steps: tuple[StepResult, ...]
    environment: dict[str, str]
    evidence: tuple[EvidenceResult, ...]


class PlanResult(_Model):
    """`plan --json`."""

    app: str
    monorepo: str
    flake: bool
    port: int
    layout: Literal["pod", "single"]
    services: tuple[PlannedService, ...]


class ServiceResult(_Model):
    name: str
    kind: Literal["frontend", "backend"]
    framework: str
    seconds: float
    cache: Literal["hit", "partial", "miss"]
    compiled_units: int
    artifact: str


class LayerResult(_Model):
    name: str
    diff_id: str
    size: int
    written: bool


class ImageResult(_Model):
    """An image in the engine's storage; `manifest_digest` is that of its manifest there, uncompressed."""

    service: str
    image_id: str
    manifest_digest: str
    size: int
    layers: tuple[LayerResult, ...]
    platform: str


class PushedImage(_Model):
    """An image in a registry. `digest` is that of its manifest there, whose layers are compressed.

    `size` counts all its blobs, `sent` those the registry did not have, in bytes.
    """

    service: str
    image_id: str
    digest: str
    references: tuple[str, ...]
    size: int
    sent: int
    platform: str


class PushedIndexResult(_Model):
    """An image index in a registry; `platforms` maps each platform to the digest of the image for it."""

    service: str
    digest: str
    references: tuple[str, ...]
    platforms: dict[str, str]


class PushResult(_Model):
    """`push --json`."""

    app: str
    release: str
    pushed: tuple[PushedImage, ...]
    indexes: tuple[PushedIndexResult, ...] = ()


class ExportedResult(_Model):
    """An image, or the index of a service's images, in an OCI layout under `names`."""

    service: str
    digest: str
    names: tuple[str, ...]
    platforms: dict[str, str]


class ExportFields(_Model):
    """What is in an OCI layout now; `written` are the bytes that were not there before."""

    directory: str
    images: tuple[ExportedResult, ...]
    written: int


class ExportResult(ExportFields):
    """`export --json`."""

    app: str
    release: str


class FindingResult(_Model):
    service: str
    package: str
    version: str
    identifier: str
    severity: Literal["unknown", "negligible", "low", "medium", "high", "critical"]
    fixed: str


class ScanResult(_Model):
    """`scan --json`, the worst findings of each image first."""

    app: str
    release: str
    scanner: str
    findings: tuple[FindingResult, ...]


class _Built(_Model):
    """What a build gave. Seconds and bytes. `pushed` and `indexes` are empty without --push."""

    app: str
    toolchain: Literal["flake", "host"]
    wall_seconds: float
    services: tuple[ServiceResult, ...]
    images: tuple[ImageResult, ...]
    pushed: tuple[PushedImage, ...] = ()
    indexes: tuple[PushedIndexResult, ...] = ()


class BuildResult(_Built):
    """`build --json`. Seconds and bytes. `pushed` and `indexes` are empty without --push, `exported` is null without
    --export.
    """

    exported: ExportFields | None = None


class ReproducedService(_Model):
    name: str
    size: int


class ReproducedResult(_Model):
    """`build --check --json`: services whose two builds were equal; a difference is an error."""

    app: str
    services: tuple[ReproducedService, ...]


class DeployResult(_Built):
    """`deploy --json`. `changed` is false when what runs was already this."""

    release: str
    url: str
    changed: bool
    probes: tuple[ProbeResult, ...]
    domains: tuple[str, ...] = ()


class SiteResult(_Model):
    app: str
    domains: tuple[str, ...]
    certificate_until: str | None
    problem: str


class EdgeResult(_Model):
    """`edge --json`. `state` is "running", "stopped" or "absent"."""

    state: Literal["running", "stopped", "absent"]
    http_port: int | None
    https_port: int | None
    sites: tuple[SiteResult, ...]


class CertificateResult(_Model):
    """`certs --json`. `until` is ISO 8601 in UTC."""

    cert: str
    key: str
    names: tuple[str, ...]
    until: str


class ListedLayerResult(_Model):
    """`shared_with` names the other images that have the layer, as app/service."""

    digest: str
    size: int
    shared_with: tuple[str, ...]


class ListedImageResult(_Model):
    app: str
    service: str
    image_id: str
    names: tuple[str, ...]
    size: int
    releases: tuple[str, ...]
    layers: tuple[ListedLayerResult, ...]


class ImagesResult(_Model):
    """`images --json`. Bytes; `size` counts shared layers once."""

    size: int
    images: tuple[ListedImageResult, ...]


class ExplainResult(_Model):
    """`images explain --json`. Bytes of store paths (by name) and of other files; what each store path refers to."""

    image_id: str
    product: str
    roots: tuple[str, ...]
    store: dict[str, int]
    references: dict[str, tuple[str, ...]]
    files: dict[str, int]


class RenderedDockerfile(_Model):
    service: str
    context: str
    dockerfile: str


class DockerfilesResult(_Model):
    """`render dockerfile --json`."""

    app: str
    dockerfiles: tuple[RenderedDockerfile, ...]


class GarbageResult(_Model):
    """`size` in bytes; an image's counts layers it shares with others."""

    kind: Literal["release", "image", "artifact", "toolchain", "layer", "log", "check"]
    name: str
    size: int
    reason: str


class GcResult(_Model):
    """`gc --json`. With `dry_run` nothing was removed."""

    dry_run: bool
    removed: tuple[GarbageResult, ...]


class ErrorDetail(_Model):
    exit_code: int
    message: str
    details: tuple[str, ...]
    hint: str | None


class ErrorResult(_Model):
    """What any command prints with --json when it fails."""

    error: ErrorDetail


class CheckResult(_Model):
    name: str
    state: Literal["ok", "warning", "missing"]
    found: str
    advice: str | None


class DoctorResult(_Model):
    """`doctor --json`."""

    ready: bool
    checks: tuple[CheckResult, ...]


PUBLISHED: dict[str, type[BaseModel]] = {
    "plan": PlanResult,
    "build": BuildResult,
    "build-check": ReproducedResult,
    "deploy": DeployResult,
    "images": ImagesResult,
    "images-explain": ExplainResult,
    "gc": GcResult,
    "render-dockerfile": DockerfilesResult,
    "doctor": DoctorResult,
    "push": PushResult,
    "export": ExportResult,
    "scan": ScanResult,
    "edge": EdgeResult,
    "certs": CertificateResult,
    "error": ErrorResult,
    **APPS_PUBLISHED,
    **CACHE_PUBLISHED,
}


def plan_result(port: int, project: "Project", plan: "Plan") -> PlanResult:
    found = {"frontend": project.frontend, "backend": project.backend}
    return PlanResult(
        app=plan.app,
        monorepo=str(project.root),
        flake=project.has_flake,
        port=port,
        layout=plan.layout,
        services=tuple(
            PlannedService(
                name=build.service,
                kind=build.kind,
                framework=build.framework,
                directory=build.directory.as_posix(),
                port=plan.backend.port if plan.backend and build.kind == "backend" else None,
                steps=tuple(
                    StepResult(
                        name=step.name,
                        command=step.argv,
                        directory=step.directory.as_posix(),
                        network=step.network,
                    )
                    for step in build.steps
                ),
                environment={name: value for step in build.steps for name, value in step.environment},
                evidence=tuple(
                    EvidenceResult(claim=item.claim, path=item.path, line=item.line)
                    for item in getattr(found[build.kind], "evidence", ())
                ),
            )
            for build in plan.builds
        ),
    )


def build_result(app: str, results: "BuildResults", images: "tuple[Image, ...]") -> BuildResult:
    return BuildResult.model_validate(_build_fields(app, results, images))


def deploy_result(app: str, results: "BuildResults", images: "tuple[Image, ...]", release: "Release") -> DeployResult:
    return DeployResult.model_validate(
        _build_fields(app, results, images)
        | {
            "release": release.id,
            "url": release.url,
            "changed": release.changed,
            "probes": tuple(probe_result(probe) for probe in release.probes),
        }
    )


def _build_fields(app: str, results: "BuildResults", images: "tuple[Image, ...]") -> dict[str, object]:
    return {
        "app": app,
        "toolchain": results.toolchain,
        "wall_seconds": round(results.wall_seconds, 3),
        "services": [
            {
                "name": service.service,
                "kind": service.kind,
                "framework": service.framework,
                "seconds": round(service.seconds, 3),
                "cache": service.cache,
                "compiled_units": service.compiled_units,
                "artifact": str(service.artifact),
            }
            for service in results.services
        ],
        "images": [
            {
                "service": image.service,
                "image_id": image.image_id,
                "manifest_digest": image.manifest_digest,
                "size": image.size,
                "platform": image.platform or host_platform(),
                "layers": [
                    {
                        "name": layer.name,
                        "diff_id": layer.diff_id,
                        "size": layer.size,
                        "written": layer.written,
                    }
                    for layer in image.layers
                ],
            }
            for image in images
        ],
    }


def edge_result(status: "EdgeStatus") -> EdgeResult:
    return EdgeResult.model_validate(asdict(status))


def images_result(images: "tuple[ListedImage, ...]") -> ImagesResult:
    listed = tuple(ListedImageResult.model_validate(asdict(image)) for image in images)
    sizes = {layer.digest: layer.size for image in images for layer in image.layers}
    return ImagesResult(size=sum(sizes.values()), images=listed)


def gc_result(found: "tuple[Garbage, ...]", *, dry_run: bool) -> GcResult:
    removed = tuple(GarbageResult(kind=item.kind, name=item.name, size=item.size, reason=item.reason) for item in found)
    return GcResult(dry_run=dry_run, removed=removed)
