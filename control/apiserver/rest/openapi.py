"""OpenAPI v3 of the served kinds: enough for kubectl's validation, explain and client-side apply. Pure.

Schemas come from the messages and fields.tsv; there are no descriptions. One path per kind carries the parameters by
which clients see that the server validates (fieldValidation) and can try (dryRun).
"""

import hashlib
import json
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor

from control.api.decode import class_of
from control.api.fields import Field, fields_of
from control.api.kinds import KINDS, Kind, type_name
from control.apiserver.rest.discovery import groups, kinds_in
from control.apiserver.rest.paths import path_of

V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
SCALARS: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "bool": {"type": "boolean"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "double": {"type": "number", "format": "double"},
    "bytes": {"type": "string", "format": "byte"},
}
SPECIALS: dict[str, dict[str, Any]] = {
    "time": {"type": "string", "format": "date-time"},
    "microtime": {"type": "string", "format": "date-time"},
    "duration": {"type": "string"},
    "quantity": {"oneOf": [{"type": "string"}, {"type": "number"}]},
    "intorstring": {"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"},
    "verbs": {"type": "array", "items": {"type": "string"}},
}
ANYTHING: dict[str, Any] = {"type": "object"}


def document_paths() -> list[str]:
    """The names of the documents: ``api/v1``, ``apis/apps/v1``, ..."""
    return ["api/v1", *(f"apis/{group}/{version}" for group, version in groups())]


@cache
def index() -> dict[str, Any]:
    """GET /openapi/v3."""
    return {
        "paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest(path)}"} for path in document_paths()}
    }


@cache
def digest(path: str) -> str:
    """The hash of a document, by which clients cache it."""
    return hashlib.sha256(document(path) or b"").hexdigest().upper()[:32]


@cache
def document(path: str) -> bytes | None:
    """GET /openapi/v3/PATH as JSON text; None for a path that has no document."""
    if path not in document_paths():
        return None
    parts = path.split("/")
    group, version = (parts[1], parts[2]) if parts[0] == "apis" else ("", parts[1])
    kinds = kinds_in(group, version)
    schemas: dict[str, Any] = {}
    for kind in kinds:
        _add_schema(kind.message.DESCRIPTOR, schemas)
    spec = {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1"},
        "paths": {path_of(kind, name="{name}"): _operations(kind) for kind in kinds},
        "components": {"schemas": schemas},
    }
    return json.dumps(spec, separators=(",", ":")).encode()


def _operations(kind: Kind) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
        for name in ("dryRun", "fieldManager", "fieldValidation")
    ]
    body = {"content": {"application/json": {"schema": _reference(kind.message.DESCRIPTOR)}}}
    gvk = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    shared = {"x-kubernetes-group-version-kind": gvk, "responses": {"200": {"description": "OK", **body}}}
    return {
        "get": {"x-kubernetes-action": "get", **shared},
        "put": {"x-kubernetes-action": "put", "parameters": parameters, "requestBody": body, **shared},
        "patch": {"x-kubernetes-action": "patch", "parameters": parameters, "requestBody": body, **shared},
    }


def schema_name(descriptor: Descriptor) -> str:
    """``io.k8s.api.core.v1.Pod`` for ``k8s.io.api.core.v1.Pod``."""
    return "io.k8s." + descriptor.full_name.removeprefix("k8s.io.")


def _reference(descriptor: Descriptor) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{schema_name(descriptor)}"}


def _add_schema(descriptor: Descriptor, schemas: dict[str, Any]) -> None:
    """The schema of a message and of everything below it."""
    name = schema_name(descriptor)
    if name in schemas:
        return
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    schemas[name] = schema
    named = type_name(class_of(descriptor.full_name))
    if named:
        schema["properties"] = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
    kind = next((kind for kind in KINDS if kind.message.DESCRIPTOR is descriptor), None)
    if kind is not None:
        gvk = {"group": kind.group, "version": kind.version, "kind": kind.kind}
        schema["x-kubernetes-group-version-kind"] = [gvk]
    for member, (_, field) in fields_of(descriptor).members.items():
        schema["properties"][member] = _property(field, schemas)


def _property(field: Field, schemas: dict[str, Any]) -> dict[str, Any]:
    value = _value(field, schemas)
    if field.map:
        return {"type": "object", "additionalProperties": value}
    marks: dict[str, Any] = {}
    if field.strategy:
        marks["x-kubernetes-patch-strategy"] = ",".join(field.strategy)
    if field.merge_key:
        marks["x-kubernetes-patch-merge-key"] = field.merge_key
    if field.list_type:
        type_, _, keys = field.list_type.partition(":")
        marks["x-kubernetes-list-type"] = type_
        if keys:
            marks["x-kubernetes-list-map-keys"] = keys.split(",")
    if field.repeated:
        return {"type": "array", "items": value, **marks}
    return {"allOf": [value], **marks} if "$ref" in value else {**value, **marks}


def _value(field: Field, schemas: dict[str, Any]) -> dict[str, Any]:
    if not field.message:
        return SCALARS[field.scalar]
    descriptor = class_of(field.message).DESCRIPTOR
    special = fields_of(descriptor).special
    if special:
        return SPECIALS.get(special, ANYTHING)
    _add_schema(descriptor, schemas)
    return _reference(descriptor)
