"""Manifests, indexes and image configs as values (OCI image-spec 1.1; Docker's schema 2 in the same shape). Pure.

Digest is of the bytes as they travel (compressed), diff id of the tar inside, chain id of a layer with all below it.
"""

import json
import platform as host_platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cri_runtime.images.digest import Digest
from cri_runtime.images.errors import InvalidDigest, InvalidManifest

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
INDEXES = (OCI_INDEX, DOCKER_INDEX)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
EMPTY_JSON = "application/vnd.oci.empty.v1+json"

MANIFEST_BYTES_MAX = 4 << 20
"""The largest manifest, index or config that we take; distribution-spec asks registries for at least 4 MiB."""

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class Platform:
    """What an image runs on: ``linux/amd64``, with a variant for some architectures."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        """``os/architecture[/variant]``."""
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    @classmethod
    def parse(cls, text: str) -> "Platform":
        """Parse ``linux/arm64/v8``. Raises InvalidManifest."""
        parts = text.split("/")
        if not 2 <= len(parts) <= 3 or not all(parts):
            raise InvalidManifest(f'"{text}" is not a platform; write os/architecture, for instance linux/amd64')
        return cls(*parts)

    @classmethod
    def host(cls) -> "Platform":
        """This machine's."""
        machine = host_platform.machine()
        return cls("linux", _MACHINES.get(machine, machine))


@dataclass(frozen=True)
class Descriptor:
    """A typed, sized pointer to a blob (descriptor.md)."""

    media_type: str
    digest: Digest
    size: int
    """Bytes of the blob."""
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str = ""

    def to_json(self) -> dict[str, Any]:
        """The specification's JSON form."""
        out: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.artifact_type:
            out["artifactType"] = self.artifact_type
        if self.platform:
            out["platform"] = {"os": self.platform.os, "architecture": self.platform.architecture}
            if self.platform.variant:
                out["platform"]["variant"] = self.platform.variant
        if self.annotations:
            out["annotations"] = dict(self.annotations)
        return out


@dataclass(frozen=True)
class Manifest:
    """One image: its config and its layers, lowest first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]

    def to_bytes(self) -> bytes:
        """The bytes to hash and store; equal manifests give equal bytes."""
        return dump(
            {
                "schemaVersion": 2,
                "mediaType": self.media_type,
                "config": self.config.to_json(),
                "layers": [layer.to_json() for layer in self.layers],
            }
        )


@dataclass(frozen=True)
class Index:
    """Several images behind one name, one per platform; also the answer of the referrers API."""

    media_type: str
    manifests: tuple[Descriptor, ...]

    def choose(self, wanted: Platform) -> Descriptor:
        """The entry for ``wanted``: variant equal or unasked for. Raises InvalidManifest naming what there is."""
        entries = [m for m in self.manifests if m.media_type in (*MANIFESTS, *INDEXES)]
        for entry in entries:
            if entry.platform and _fits(entry.platform, wanted):
                return entry
        if len(entries) == 1 and entries[0].platform is None:
            return entries[0]
        offered = ", ".join(sorted({str(m.platform) for m in entries if m.platform})) or "none"
        raise InvalidManifest(f"the image has no variant for {wanted}; it offers {offered}")


def _fits(offered: Platform, wanted: Platform) -> bool:
    return (offered.os, offered.architecture) == (wanted.os, wanted.architecture) and (
        not wanted.variant or not offered.variant or offered.variant == wanted.variant
    )


@dataclass(frozen=True)
class HistoryEntry:
    """One instruction that made the image; ``empty_layer`` when it made no layer."""

    created: str
    created_by: str
    comment: str = ""
    empty_layer: bool = False

    def to_json(self) -> dict[str, Any]:
        """The specification's JSON form."""
        out: dict[str, Any] = {"created": self.created, "created_by": self.created_by}
        if self.comment:
            out["comment"] = self.comment
        if self.empty_layer:
            out["empty_layer"] = True
        return out


@dataclass(frozen=True)
class ImageConfig:
    """How to run an image, and what its layers are (config.md). Unknown fields survive in ``extra``."""

    os: str = "linux"
    architecture: str = ""
    variant: str = ""
    created: str = EPOCH
    """RFC 3339."""
    author: str = ""
    user: str = ""
    env: tuple[str, ...] = ()
    """``NAME=value`` each."""
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    working_dir: str = ""
    stop_signal: str = ""
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    """``8080/tcp`` each."""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    shell: tuple[str, ...] | None = None
    healthcheck: Mapping[str, Any] | None = field(default=None, hash=False)
    on_build: tuple[str, ...] = ()
    diff_ids: tuple[Digest, ...] = ()
    """Of the layers, lowest first."""
    history: tuple[HistoryEntry, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def environment(self) -> dict[str, str]:
        """``env`` as a dict."""
        return dict(entry.partition("=")[::2] for entry in self.env)

    @property
    def platform(self) -> Platform:
        """What it runs on."""
        return Platform(self.os, self.architecture, self.variant)

    def to_bytes(self) -> bytes:
        """The bytes whose digest is the image's id; equal configs give equal bytes."""
        out: dict[str, Any] = {
            **self.extra,
            "created": self.created,
            "architecture": self.architecture,
            "os": self.os,
            "config": self._run_config(),
            "rootfs": {"type": "layers", "diff_ids": [str(d) for d in self.diff_ids]},
            "history": [entry.to_json() for entry in self.history],
        }
        out.update({k: v for k, v in (("variant", self.variant), ("author", self.author)) if v})
        return dump(out)

    def _run_config(self) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "User": self.user,
            "ExposedPorts": {port: {} for port in self.exposed_ports},
            "Env": list(self.env),
            "Entrypoint": _listed(self.entrypoint),
            "Cmd": _listed(self.cmd),
            "Volumes": {path: {} for path in self.volumes},
            "WorkingDir": self.working_dir,
            "Labels": dict(self.labels),
            "StopSignal": self.stop_signal,
            "Shell": _listed(self.shell),
            "Healthcheck": dict(self.healthcheck) if self.healthcheck else None,
            "OnBuild": list(self.on_build),
        }
        kept = {"Entrypoint", "Cmd"}  # an empty list is not absence: it clears the base image's
        return {k: v for k, v in fields.items() if v or (k in kept and v is not None)}


def _listed(value: Sequence[str] | None) -> list[str] | None:
    return None if value is None else list(value)


def dump(value: Any) -> bytes:
    """JSON with one canonical form: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def chain_ids(diff_ids: Sequence[Digest]) -> list[Digest]:
    """The chain id of every prefix of ``diff_ids`` (config.md#layer-chainid)."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(Digest.of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain


def parse_document(data: bytes, media_type: str = "") -> Manifest | Index:
    """Parse a manifest or an index, told apart by media type, else by shape. Raises InvalidManifest."""
    body = _object(data, "manifest")
    kind = body.get("mediaType") or media_type
    if body.get("schemaVersion") != 2:
        raise InvalidManifest("the manifest's schemaVersion is not 2; push the image again with a current tool")
    if kind in INDEXES or "manifests" in body:
        entries = _list(body, "manifests")
        return Index(kind if kind in INDEXES else OCI_INDEX, tuple(map(parse_descriptor, entries)))
    if not isinstance(body.get("config"), dict):
        raise InvalidManifest("the manifest has no config")
    layers = tuple(map(parse_descriptor, _list(body, "layers")))
    return Manifest(kind if kind in MANIFESTS else OCI_MANIFEST, parse_descriptor(body["config"]), layers)


def parse_descriptor(value: Any) -> Descriptor:
    """Parse one descriptor. Raises InvalidManifest."""
    if not isinstance(value, dict):
        raise InvalidManifest("a descriptor is not an object")
    size, media_type = value.get("size"), value.get("mediaType", "")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0 or not isinstance(media_type, str):
        raise InvalidManifest("a descriptor has no proper size or mediaType")
    try:
        digest = Digest(str(value.get("digest", "")))
    except InvalidDigest as err:
        raise InvalidManifest(f"a descriptor's digest is wrong: {err}") from err
    return Descriptor(
        media_type,
        digest,
        size,
        _platform(value.get("platform")),
        _strings(value.get("annotations")),
        str(value.get("artifactType") or ""),
    )


def _platform(value: Any) -> Platform | None:
    if not isinstance(value, dict):
        return None
    return Platform(str(value.get("os", "")), str(value.get("architecture", "")), str(value.get("variant") or ""))


_KNOWN = {"created", "architecture", "os", "variant", "author", "config", "rootfs", "history"}


def parse_config(data: bytes) -> ImageConfig:
    """Parse an image config. Raises InvalidManifest."""
    body = _object(data, "image config")
    run, rootfs = _object_in(body, "config"), _object_in(body, "rootfs")
    try:
        diff_ids = tuple(Digest(str(d)) for d in _list(rootfs, "diff_ids"))
    except InvalidDigest as err:
        raise InvalidManifest(f"the image config's rootfs.diff_ids is wrong: {err}") from err
    return ImageConfig(
        os=str(body.get("os") or "linux"),
        architecture=str(body.get("architecture") or ""),
        variant=str(body.get("variant") or ""),
        created=str(body.get("created") or EPOCH),
        author=str(body.get("author") or ""),
        user=str(run.get("User") or ""),
        env=_words(run, "Env") or (),
        entrypoint=_words(run, "Entrypoint"),
        cmd=_words(run, "Cmd"),
        working_dir=str(run.get("WorkingDir") or ""),
        stop_signal=str(run.get("StopSignal") or ""),
        volumes=tuple(sorted(_object_in(run, "Volumes"))),
        exposed_ports=tuple(sorted(_object_in(run, "ExposedPorts"))),
        labels=_strings(run.get("Labels")),
        shell=_words(run, "Shell"),
        healthcheck=run.get("Healthcheck") if isinstance(run.get("Healthcheck"), dict) else None,
        on_build=_words(run, "OnBuild") or (),
        diff_ids=diff_ids,
        history=tuple(_history_entry(e) for e in _list(body, "history") if isinstance(e, dict)),
        extra={k: v for k, v in body.items() if k not in _KNOWN},
    )


def _history_entry(value: dict[str, Any]) -> HistoryEntry:
    return HistoryEntry(
        str(value.get("created") or EPOCH),
        str(value.get("created_by") or ""),
        str(value.get("comment") or ""),
        bool(value.get("empty_layer")),
    )


def _object(data: bytes, what: str) -> dict[str, Any]:
    if len(data) > MANIFEST_BYTES_MAX:
        raise InvalidManifest(f"the {what} is larger than {MANIFEST_BYTES_MAX} bytes")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as err:
        raise InvalidManifest(f"the {what} is not JSON") from err
    if not isinstance(body, dict):
        raise InvalidManifest(f"the {what} is not a JSON object")
    return body


def _list(body: dict[str, Any], key: str) -> list[Any]:
    value = body.get(key) or []
    if not isinstance(value, list):
        raise InvalidManifest(f"{key} is not a list")
    return value


def _object_in(body: dict[str, Any], key: str) -> dict[str, Any]:
    value = body.get(key) or {}
    if not isinstance(value, dict):
        raise InvalidManifest(f"{key} is not an object")
    return value


def _words(run: dict[str, Any], key: str) -> tuple[str, ...] | None:
    value = run.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise InvalidManifest(f"the image config's {key} is not a list of strings")
    return tuple(value)


def _strings(value: Any) -> dict[str, str]:
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}
