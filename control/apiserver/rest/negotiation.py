"""Media types: what a client accepts, and in which form it gets it. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

JSON, YAML, PROTOBUF = "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"
ANY = ("*/*", "application/*", "")


@dataclass(frozen=True)
class MediaType:
    """``type;name=value;...``: parameters as (name, value) pairs."""

    type: str
    parameters: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str:
        """A parameter, or empty text."""
        return dict(self.parameters).get(name, "")


def parse_accept(header: str) -> Iterator[MediaType]:
    """The media types of an Accept header, in the order written."""
    for part in header.split(","):
        type_, *parameters = (piece.strip() for piece in part.split(";"))
        pairs = [(name, value) for name, _, value in (item.partition("=") for item in parameters)]
        yield MediaType(type_.lower(), tuple(pairs))


@dataclass(frozen=True)
class Form:
    """How to answer. ``encoding`` is a media type; ``transform``: "", Table, or PartialObjectMetadata(List)."""

    encoding: str = JSON
    transform: str = ""


TRANSFORMS = ("Table", "PartialObjectMetadata", "PartialObjectMetadataList")


def negotiate(header: str) -> Form | None:
    """The first form in an Accept header that we have; None when there is none (406)."""
    for accepted in parse_accept(header):
        wanted = accepted.get("as")
        if accepted.type in ANY:
            return Form()
        if accepted.type == JSON and (not wanted or wanted in TRANSFORMS):
            return Form(JSON, wanted if accepted.get("g") == "meta.k8s.io" else "")
        if accepted.type == YAML and not wanted:
            return Form(YAML)
        if accepted.type == PROTOBUF and not wanted and not _json_too(header):
            return Form(PROTOBUF)
    return None


def _json_too(header: str) -> bool:
    """JSON is answered whenever it is acceptable: every client reads it, errors and watches included."""
    return any(accepted.type in (JSON, *ANY) for accepted in parse_accept(header))


def wants_aggregated(header: str) -> str:
    """The version of aggregated discovery that is accepted first: "v2", "v2beta1", or "" for the plain documents."""
    for accepted in parse_accept(header):
        if accepted.get("as") == "APIGroupDiscoveryList" and accepted.get("v") in ("v2", "v2beta1"):
            return accepted.get("v")
        if accepted.type == JSON and not accepted.get("as"):
            return ""
    return ""
