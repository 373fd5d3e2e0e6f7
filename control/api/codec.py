"""Objects as JSON, YAML and stored bytes. This module is the door; encode, decode and documents do the work."""

from typing import Any

from google.protobuf.message import DecodeError as ProtobufError
from google.protobuf.message import Message

from control.api.decode import DecodeError, class_of, from_json
from control.api.documents import from_yaml_documents, parse_json, to_yaml, yaml_documents
from control.api.encode import to_json
from control.api.kinds import UnknownKind, message_type, type_name
from protos.k8s.runtime_pb2 import Unknown

MAGIC = b"k8s\0"


def to_envelope(message: Message) -> bytes:
    """The object as Kubernetes stores and sends protobuf: ``k8s\\0``, then runtime.Unknown with type and bytes."""
    named = type_name(message)
    if named is None:
        raise UnknownKind(f"{message.DESCRIPTOR.full_name} has no apiVersion and kind")
    unknown = Unknown(raw=message.SerializeToString(deterministic=True), contentEncoding="", contentType="")
    unknown.typeMeta.apiVersion, unknown.typeMeta.kind = named
    return MAGIC + unknown.SerializeToString(deterministic=True)


def from_envelope(data: bytes, message: type[Any] | None = None) -> Any:
    """The object in an envelope; of class ``message`` when the envelope names no type. Raises DecodeError."""
    if not data.startswith(MAGIC):
        raise DecodeError([("", "not a Kubernetes protobuf body: it does not start with k8s\\0")])
    try:
        unknown = Unknown.FromString(data[len(MAGIC) :])
        named = unknown.typeMeta.kind
        cls = message_type(unknown.typeMeta.apiVersion, named) if named else message
        if cls is None:
            raise DecodeError([("kind", "required: the protobuf body names no type")])
        return cls.FromString(unknown.raw)
    except ProtobufError as err:
        raise DecodeError([("", f"the protobuf body is damaged: {err}")]) from err
    except UnknownKind as err:
        raise DecodeError([("kind", str(err))]) from err


__all__ = [
    "DecodeError",
    "class_of",
    "from_envelope",
    "from_json",
    "from_yaml_documents",
    "parse_json",
    "to_envelope",
    "to_json",
    "to_yaml",
    "yaml_documents",
]
