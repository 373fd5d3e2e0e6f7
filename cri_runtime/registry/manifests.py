"""What a registry reads of a manifest: what it refers to, its subject, how it shows among referrers. Pure."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cri_runtime.images.digest import Digest
from cri_runtime.images.errors import InvalidManifest
from cri_runtime.images.manifest import (
    EMPTY_JSON,
    INDEXES,
    MANIFEST_BYTES_MAX,
    OCI_INDEX,
    Descriptor,
    dump,
    parse_descriptor,
)
from cri_runtime.registry import errors


@dataclass(frozen=True)
class Reading:
    """A manifest or index as far as the registry cares."""

    media_type: str
    blobs: tuple[Digest, ...] = ()
    """Config and layers, but not those that lie elsewhere by URL."""
    manifests: tuple[Digest, ...] = ()
    subject: Digest | None = None
    artifact_type: str = ""
    annotations: dict[str, str] = field(default_factory=dict)


def read_manifest(data: bytes, content_type: str) -> Reading:
    """Read a manifest. Raises the refusals MANIFEST_INVALID and SIZE_INVALID."""
    if len(data) > MANIFEST_BYTES_MAX:
        raise errors.size_invalid(f"a manifest has at most {MANIFEST_BYTES_MAX} bytes")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise errors.manifest_invalid("the manifest is not JSON") from None
    if not isinstance(body, dict):
        raise errors.manifest_invalid("the manifest is not a JSON object")
    stated = body.get("mediaType")
    if stated and content_type and stated != content_type:
        raise errors.manifest_invalid(f"the manifest says {stated}, the request {content_type}")
    try:
        return _read(body, stated or content_type)
    except InvalidManifest as err:
        raise errors.manifest_invalid(str(err)) from err


def _read(body: dict[str, Any], media_type: str) -> Reading:
    config = body.get("config")
    artifact_type = body.get("artifactType") or (config.get("mediaType") if isinstance(config, dict) else "") or ""
    return Reading(
        media_type,
        tuple(_blobs(body)) if media_type not in INDEXES else (),
        tuple(d.digest for d in map(parse_descriptor, body.get("manifests") or [])),
        parse_descriptor(body["subject"]).digest if body.get("subject") else None,
        "" if artifact_type == EMPTY_JSON else str(artifact_type),
        {str(k): str(v) for k, v in (body.get("annotations") or {}).items()},
    )


def _blobs(body: dict[str, Any]) -> Iterator[Digest]:
    entries = [body["config"]] if body.get("config") else []
    for entry in [*entries, *(body.get("layers") or body.get("blobs") or [])]:
        descriptor = parse_descriptor(entry)
        if not entry.get("urls"):
            yield descriptor.digest


def referrers_index(descriptors: list[Descriptor]) -> bytes:
    """The body of the referrers API: an image index."""
    manifests = [descriptor.to_json() for descriptor in descriptors]
    return dump({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests})
