"""Documents attached to an image in a registry, so that whoever has the image finds them.

Formats: OCI Image Format Specification 1.1 (artifacts with a subject), OCI Distribution Specification 1.1 (referrers;
for registries that keep no track of them, an index under the tag `sha256-DIGEST`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.image.layout import MANIFEST_TYPE, canonical, digest_of
from orchestrator.tools.distribution import Registry

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
EMPTY = b"{}"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"


@dataclass(frozen=True, slots=True)
class Attachment:
    """A document of some media type."""

    media_type: str
    content: bytes


def attach(registry: Registry, manifest: bytes, attachments: Sequence[Attachment]) -> int:
    """Attach documents to the image with this manifest, which the registry has; the bytes of blobs sent.

    A document attached before is neither sent nor listed again. Raises `RegistryError`.
    """
    subject = describe(manifest, MANIFEST_TYPE)
    sent, listed, tracked = 0, [], True
    for attachment in attachments:
        sent += registry.put_blob(EMPTY) + registry.put_blob(attachment.content)
        artifact = make_artifact(attachment, subject)
        tracked &= registry.put_manifest(digest_of(artifact), artifact, MANIFEST_TYPE)
        listed.append(describe(artifact, MANIFEST_TYPE) | {"artifactType": attachment.media_type})
    if not tracked:
        _list_under_tag(registry, str(subject["digest"]), listed)
    return sent


def make_artifact(attachment: Attachment, subject: Mapping[str, Any]) -> bytes:
    """The manifest of a document that refers to `subject`."""
    return canonical(
        {
            "artifactType": attachment.media_type,
            "config": describe(EMPTY, _EMPTY_TYPE),
            "layers": [describe(attachment.content, attachment.media_type)],
            "mediaType": MANIFEST_TYPE,
            "schemaVersion": 2,
            "subject": dict(subject),
        }
    )


def describe(content: bytes, media_type: str) -> dict[str, Any]:
    """The descriptor of some content."""
    return {"digest": digest_of(content), "mediaType": media_type, "size": len(content)}


def merge_index(existing: bytes | None, listed: Sequence[Mapping[str, Any]]) -> bytes:
    """An index of referrers with `listed` in it too; what others listed stays, in its order."""
    manifests: list[Any] = []
    if existing is not None:
        manifests = json.loads(existing).get("manifests", [])
    known = {manifest["digest"] for manifest in manifests}
    manifests += [dict(manifest) for manifest in listed if manifest["digest"] not in known]
    return canonical({"manifests": manifests, "mediaType": INDEX_TYPE, "schemaVersion": 2})


def _list_under_tag(registry: Registry, subject: str, listed: Sequence[Mapping[str, Any]]) -> None:
    tag = subject.replace(":", "-")
    existing = registry.manifest(tag, INDEX_TYPE)
    merged = merge_index(existing, listed)
    if merged != existing:
        registry.put_manifest(tag, merged, INDEX_TYPE)
