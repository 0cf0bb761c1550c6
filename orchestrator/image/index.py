"""One name for the images of a service on several platforms: an OCI image index in a registry.

Format: OCI Image Format Specification 1.0, image index. Each image is pushed by its digest; the index, which is small,
is written last, under the tags: whoever pulls a tag finds either the index of before or a whole new one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.image.layout import MANIFEST_TYPE, canonical, describe_architecture, digest_of
from orchestrator.image.packed import Dock, Source, by_service
from orchestrator.image.push import Pushed, PushedDocuments, Target, persistently, push_image, references_of
from orchestrator.image.referrers import INDEX_TYPE, describe
from orchestrator.tools.distribution import Registry
from orchestrator.tools.platforms import architecture_name


@dataclass(frozen=True, slots=True)
class PushedIndex:
    """An index in a registry: its digest, its tags, and the digest of the image for each platform."""

    service: str
    digest: str
    references: tuple[str, ...]
    platforms: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a push left in the registry."""

    images: tuple[Pushed, ...] = ()
    indexes: tuple[PushedIndex, ...] = ()


def push_platforms(sources: Sequence[Source], target: Target, dock: Dock) -> Delivery:
    """Push images; where a service has several, by digest and with an index under the tags.

    Raises what `push_image` does.
    """
    images: list[Pushed] = []
    indexes: list[PushedIndex] = []
    for service, members in by_service(sources):
        if len(members) == 1:
            images.append(push_image(members[0], target, dock, references=references_of(service, target)).image)
        else:
            done = [push_image(member, target, dock, references=()) for member in members]
            images += [found.image for found in done]
            indexes.append(_push_index(service, done, target, dock))
    return Delivery(tuple(images), tuple(indexes))


def make_index(manifests: Sequence[tuple[str, bytes]]) -> bytes:
    """The index of (platform, manifest) pairs, in their order."""
    described = [
        describe(manifest, MANIFEST_TYPE) | {"platform": describe_architecture(architecture_name(platform))}
        for platform, manifest in manifests
    ]
    return canonical({"manifests": described, "mediaType": INDEX_TYPE, "schemaVersion": 2})


def _push_index(service: str, done: Sequence[PushedDocuments], target: Target, dock: Dock) -> PushedIndex:
    platforms = [(found.image.platform, found.documents.manifest) for found in done]
    index = make_index(platforms)
    registry = Registry(target.repository, target.access)
    references = references_of(service, target)
    for reference in references:
        tag = reference.rpartition(":")[2]
        persistently(lambda tag=tag: _put(registry, tag, index), dock)  # type: ignore[misc]  # bound for each tag
    return PushedIndex(
        service=service,
        digest=digest_of(index),
        references=references,
        platforms=tuple((platform, digest_of(manifest)) for platform, manifest in platforms),
    )


def _put(registry: Registry, tag: str, index: bytes) -> None:
    if registry.manifest(tag, INDEX_TYPE) != index:
        registry.put_manifest(tag, index, INDEX_TYPE)
