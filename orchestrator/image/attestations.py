"""What is said about each image of a build: what it contains (SBOM) and where it comes from (provenance)."""

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from orchestrator.build.runner import BuildResults
from orchestrator.files import sha256
from orchestrator.image.layout import canonical
from orchestrator.image.provenance import Origin, make_statement
from orchestrator.image.sbom import Contents, DebianPackage, Origins, StorePackage, make_sbom
from orchestrator.image.single import SINGLE
from orchestrator.image.storage import Image
from orchestrator.plan import Plan
from orchestrator.settings import Settings
from orchestrator.tools import debian
from orchestrator.tools.git import head_commit
from orchestrator.tools.hostcopies import LIBRARIES
from orchestrator.tools.platforms import architecture_name, host_platform

_PARAMETERS = frozenset(
    {"name", "frontend_dir", "backend_dir", "backend_bin", "frontend_build", "backend_build", "api_prefix", "api_base"}
    | {"only", "skip", "toolchain", "assembler", "layout"}
)
"""The settings an image depends on. None of them holds a secret."""


@dataclass(frozen=True, slots=True)
class Attestations:
    """One image's documents as JSON: `sbom` (CycloneDX 1.5) and `provenance` (an in-toto statement)."""

    sbom: bytes
    provenance: bytes


def attest_images(
    settings: Settings, plan: Plan, root: Path, results: BuildResults, images: Sequence[Image]
) -> dict[str, Attestations]:
    """The documents of each image, by its name; `root` is the monorepo's."""
    origin = _origin(settings, plan, root, results)
    origins = debian_origins() if results.toolchain == "host" else (lambda _: ())
    made = {}
    for image in images:
        contents = _contents(plan, results, image)
        digests = {"image id": image.image_id, "stored manifest": image.manifest_digest.removeprefix("sha256:")}
        made[image.name] = Attestations(
            sbom=make_sbom(contents, origins),
            provenance=make_statement(f"{plan.app}/{image.name}", digests, origin, platform=image.platform),
        )
    return made


def about_pushed(provenance: bytes, repository: str, digest: str) -> bytes:
    """The same statement, about the manifest a registry has too."""
    statement = json.loads(provenance)
    pushed = {"name": repository, "digest": {"sha256": digest.removeprefix("sha256:")}}
    return canonical(statement | {"subject": [pushed, *statement["subject"]]})


def debian_origins() -> Origins:
    """The Debian packages the host package set's copies are made from, as they are installed now."""
    installed = debian.read().versions
    distribution = _distribution()

    def origins(package: StorePackage) -> tuple[DebianPackage, ...]:
        library = LIBRARIES.get(package.name)
        names = library.packages.split() if library else []
        return tuple(
            DebianPackage(
                name=name,
                version=installed[name],
                architecture=architecture_name(host_platform()),
                distribution=distribution,
                licences=debian.licences(name),
            )
            for name in names
            if debian.upstream_version(installed.get(name, "")) == package.version
        )

    return origins


def _distribution() -> str:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return "debian"
    return f"{release['ID']}-{release['VERSION_ID']}" if "VERSION_ID" in release else release["ID"]


def _contents(plan: Plan, results: BuildResults, image: Image) -> Contents:
    built = {service.service: service.components for service in results.services}
    sources = {"web": (plan.web.static,), SINGLE: tuple(built)}.get(image.service, (image.name,))
    found = [built.get(source, ()) if source else () for source in sources]
    known = [components for components in found if components is not None]
    return Contents(
        app=plan.app,
        service=image.service,
        image_id=image.image_id,
        store_paths=image.store_paths,
        components=tuple(chain.from_iterable(known)) if len(known) == len(found) else None,
    )


def _origin(settings: Settings, plan: Plan, root: Path, results: BuildResults) -> Origin:
    locks = {str(build.lock_file) for build in plan.builds} | {"flake.lock"}
    parameters = settings.model_dump(mode="json", include=set(_PARAMETERS), exclude_defaults=True)
    return Origin(
        commit=head_commit(root),
        sources=results.sources,
        locks={name: sha256(root / name) for name in locks if (root / name).is_file()},
        toolchain={"toolchain": results.toolchain, "toolchainKey": results.toolchain_key},
        parameters=parameters,
    )
