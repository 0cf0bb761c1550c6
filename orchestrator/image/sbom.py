"""What is in an image, as a software bill of materials. Format: CycloneDX 1.5, JSON (ECMA-424).

The same image gives the same bytes: no time, and a serial number made from the image's id. Packages are named by
package URLs (ECMA-427), so that scanners know which database to ask.
"""

import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never
from urllib.parse import quote

import orchestrator
from orchestrator.build.inventory import Component
from orchestrator.image.layout import canonical
from orchestrator.tools.git import without_login

MEDIA_TYPE = "application/vnd.cyclonedx+json"

_STORE_NAME = re.compile(
    r"[0-9a-z]{32}-(?P<name>.+?)(?:-(?P<version>[0-9].*?))?(?:-(?P<output>bin|lib|dev|man|doc|data|info|out))?"
)
_EXPRESSION = re.compile(r"\(*[A-Za-z0-9.+-]+\)*( (AND|OR|WITH) \(*[A-Za-z0-9.+-]+\)*)*")


@dataclass(frozen=True, slots=True)
class StorePackage:
    """A store path's name taken apart: "openssl-3.0.14-bin" is openssl, 3.0.14, output bin."""

    name: str
    version: str
    output: str


@dataclass(frozen=True, slots=True)
class DebianPackage:
    """A Debian package whose files are in the image; `distribution` is such as "debian-12".

    `licences` are in Debian's names, empty when they are not known.
    """

    name: str
    version: str
    architecture: str
    distribution: str
    licences: tuple[str, ...] = ()


Origins = Callable[[StorePackage], Sequence[DebianPackage]]
"""The Debian packages a store path was copied from; none for a path Nix built."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in one image. `components` is None when the packages built into the application are not known."""

    app: str
    service: str
    image_id: str
    store_paths: tuple[Path, ...]
    components: tuple[Component, ...] | None


def make_sbom(contents: Contents, origins: Origins = lambda _: ()) -> bytes:
    """The document for one image."""
    root = f"{contents.app}/{contents.service}@sha256:{contents.image_id}"
    found = [*_from_store(contents.store_paths, origins), *map(_from_build, contents.components or ())]
    components = {component["bom-ref"]: component for component in found}
    references = sorted(components)
    document: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, contents.image_id)}",
        "metadata": {
            "component": {
                "bom-ref": root,
                "type": "container",
                "name": f"{contents.app}/{contents.service}",
                "version": contents.image_id[:12],
                "hashes": [{"alg": "SHA-256", "content": contents.image_id}],
            },
            "tools": {
                "components": [
                    {"type": "application", "name": "orchestrator", "version": orchestrator.__version__},
                ]
            },
        },
        "components": [components[reference] for reference in references],
        "dependencies": [{"ref": root, "dependsOn": references}],
    }
    if contents.components is None:
        document["compositions"] = [{"aggregate": "incomplete", "assemblies": [root]}]
    return canonical(document)


def parse_store_name(path: Path) -> StorePackage:
    """The package a store path belongs to, from its name, as Nix takes names apart (`builtins.parseDrvName`)."""
    found = _STORE_NAME.fullmatch(path.name)
    if found is None:
        return StorePackage(path.name, "", "")
    return StorePackage(found["name"], found["version"] or "", found["output"] or "")


def _from_store(paths: Iterable[Path], origins: Origins) -> Iterable[dict[str, Any]]:
    for path in paths:
        package = parse_store_name(path)
        where = {"properties": [{"name": "orchestrator:store-path", "value": str(path)}]}
        debian = origins(package)
        for origin in debian:
            licences = [{"license": {"name": name}} for name in origin.licences]
            described = _component("library", origin.name, origin.version, debian_url(origin)) | where
            yield described | ({"licenses": licences} if licences else {})
        if not debian:
            yield _component("library", package.name, package.version, nix_url(package)) | where


def _from_build(component: Component) -> dict[str, Any]:
    described = _component("library", component.name, component.version, build_url(component))
    return described | _licences(component.licence)


def _component(kind: str, name: str, version: str, url: str | None) -> dict[str, Any]:
    described = {"bom-ref": url or f"local:{name}@{version}", "type": kind, "name": name, "version": version}
    return described | ({"purl": url} if url else {})


def _licences(licence: str) -> dict[str, Any]:
    if not licence:
        return {}
    if _EXPRESSION.fullmatch(licence) and licence.count("(") == licence.count(")"):
        return {"licenses": [{"expression": licence}]}
    return {"licenses": [{"license": {"name": licence}}]}


def nix_url(package: StorePackage) -> str:
    """`pkg:nix/openssl@3.0.14?output=bin`."""
    version = f"@{_quoted(package.version)}" if package.version else ""
    output = f"?output={package.output}" if package.output else ""
    return f"pkg:nix/{_quoted(package.name)}{version}{output}"


def debian_url(package: DebianPackage) -> str:
    """`pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12`."""
    vendor = package.distribution.partition("-")[0]
    qualifiers = f"arch={package.architecture}&distro={_quoted(package.distribution)}"
    return f"pkg:deb/{vendor}/{_quoted(package.name)}@{_quoted(package.version)}?{qualifiers}"


def build_url(component: Component) -> str | None:
    """The package URL of other people's package; None for the monorepo's own, which no database knows."""
    if component.source == "local":
        return None
    source = f"?vcs_url={_quoted(without_login(component.source))}" if component.source else ""
    match component.ecosystem:
        case "cargo":
            name = _quoted(component.name)
        case "golang":
            name = "/".join(_quoted(part) for part in component.name.lower().split("/"))
        case "npm":
            name = "/".join(_quoted(part) for part in component.name.split("/"))
        case "pypi":
            name = _quoted(re.sub(r"[-_.]+", "-", component.name).lower())
        case _:
            assert_never(component.ecosystem)
    return f"pkg:{component.ecosystem}/{name}@{_quoted(component.version)}{source}"


def _quoted(text: str) -> str:
    return quote(text, safe=".-_~")
