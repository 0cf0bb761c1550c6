"""Where an image comes from: an in-toto statement (v1) with a SLSA provenance predicate (v1), unsigned.

The same sources, toolchain and parameters give the same bytes: no time and nothing of this machine is in it.
"""

import platform as machine
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orchestrator
from orchestrator.image.layout import canonical
from orchestrator.tools.git import Commit

MEDIA_TYPE = "application/vnd.in-toto+json"
BUILD_TYPE = "urn:orchestrator:build:1"
BUILDER = "urn:orchestrator:builder"


@dataclass(frozen=True, slots=True)
class Origin:
    """What went into all images of a build.

    `commit` is None outside git; `sources` is the digest of every file the builds saw; `locks` maps lock files to
    their SHA-256; `toolchain` says which packages were used; `parameters` is what the user decided. Digests are
    hexadecimal.
    """

    commit: Commit | None
    sources: str
    locks: Mapping[str, str]
    toolchain: Mapping[str, str]
    parameters: Mapping[str, Any]


def make_statement(name: str, digests: Mapping[str, str], origin: Origin, *, platform: str = "") -> bytes:
    """The statement about one image; `digests` maps names of what it is known by to their hexadecimal SHA-256.

    `platform` is what it is for, "" for that of the machine it was built on.
    """
    return canonical(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [
                {"name": f"{name} ({what})", "digest": {"sha256": digest}} for what, digest in sorted(digests.items())
            ],
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": dict(origin.parameters),
                    "internalParameters": {
                        **origin.toolchain,
                        "architecture": machine.machine(),
                        **({"platform": platform} if platform else {}),
                    },
                    "resolvedDependencies": _dependencies(origin),
                },
                "runDetails": {"builder": {"id": BUILDER, "version": {"orchestrator": orchestrator.__version__}}},
            },
        }
    )


def _dependencies(origin: Origin) -> list[dict[str, Any]]:
    source: dict[str, Any] = {"name": "source", "digest": {"sha256": origin.sources}}
    if origin.commit is not None:
        source["digest"] |= {"gitCommit": origin.commit.digest}
        source["annotations"] = {"dirty": origin.commit.dirty}
        source |= {"uri": f"git+{origin.commit.origin}"} if origin.commit.origin else {}
    locks = [{"name": path, "digest": {"sha256": digest}} for path, digest in sorted(origin.locks.items())]
    return [source, *locks]
