"""Patches: the examples of RFC 7386 and RFC 6902, and strategic merge by merge key."""

from typing import Any

import pytest

from control.api import patch
from protos.k8s.core_v1_pb2 import Pod


@pytest.mark.parametrize(
    ("target", "change", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": "foo"}, {"b": {"c": {"d": None}}}, {"a": "foo", "b": {"c": {}}}),
        ([1], {"a": "b"}, {"a": "b"}),
        ({"a": "b"}, ["c"], ["c"]),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ],
)
def test_merge_as_rfc_7386(target: Any, change: Any, result: Any) -> None:
    assert patch.merge(target, change) == result


@pytest.mark.parametrize(
    ("target", "operation", "result"),
    [
        ({"foo": "bar"}, {"op": "add", "path": "/baz", "value": 1}, {"foo": "bar", "baz": 1}),
        ({"foo": ["a", "c"]}, {"op": "add", "path": "/foo/1", "value": "b"}, {"foo": ["a", "b", "c"]}),
        ({"foo": ["a"]}, {"op": "add", "path": "/foo/-", "value": "b"}, {"foo": ["a", "b"]}),
        ({"a": 1, "b": 2}, {"op": "remove", "path": "/a"}, {"b": 2}),
        ({"a": [1, 2]}, {"op": "replace", "path": "/a/1", "value": 3}, {"a": [1, 3]}),
        ({"a": {"x": 1}, "b": {}}, {"op": "move", "from": "/a/x", "path": "/b/y"}, {"a": {}, "b": {"y": 1}}),
        ({"a": [1]}, {"op": "copy", "from": "/a", "path": "/b"}, {"a": [1], "b": [1]}),
        ({"a/b": 1, "m~n": 2}, {"op": "test", "path": "/a~1b", "value": 1}, {"a/b": 1, "m~n": 2}),
        ({"a": 1}, {"op": "replace", "path": "", "value": {"b": 2}}, {"b": 2}),
    ],
)
def test_json_patch_as_rfc_6902(target: Any, operation: Any, result: Any) -> None:
    assert patch.apply_operations(target, [operation]) == result


@pytest.mark.parametrize(
    ("operation", "kind", "told"),
    [
        ({"op": "remove", "path": "/x"}, patch.PatchError, "does not exist"),
        ({"op": "add", "path": "/x/y", "value": 1}, patch.PatchError, "there is no 'x'"),
        ({"op": "add", "path": "/l/5", "value": 1}, patch.PatchError, "no element '5' in a list of 2"),
        ({"op": "test", "path": "/a", "value": 2}, patch.PatchError, "test failed: the value is the number 1"),
        ({"op": "test", "path": "/a", "value": True}, patch.PatchError, "test failed"),
        ({"op": "add", "path": "x", "value": 1}, patch.MalformedPatch, "JSON pointer"),
        ({"op": "frob", "path": "/a"}, patch.MalformedPatch, "unknown op 'frob'"),
        ({"op": "add", "path": "/a"}, patch.MalformedPatch, "needs value"),
        ("x", patch.MalformedPatch, "op and path"),
    ],
)
def test_json_patches_that_cannot_be(operation: Any, kind: type[Exception], told: str) -> None:
    target = {"a": 1, "l": [0, 0]}
    with pytest.raises(kind, match=told):
        patch.apply_operations(target, [{"op": "add", "path": "/z", "value": 1}, operation])
    assert target == {"a": 1, "l": [0, 0]}


def merged(target: Any, change: Any) -> Any:
    return patch.strategic({"spec": target}, {"spec": change}, Pod.DESCRIPTOR)["spec"]


CONTAINERS = {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}


def test_lists_merge_by_their_key() -> None:
    result = merged(CONTAINERS, {"containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "3"}]})
    assert [(c["name"], c["image"]) for c in result["containers"]] == [("a", "1"), ("b", "2"), ("c", "3")]
    ports = {"containers": [{"name": "a", "ports": [{"containerPort": 80}]}]}
    result = merged(ports, {"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "http"}]}]})
    assert result["containers"][0]["ports"] == [{"containerPort": 80, "name": "http"}]


def test_directives_delete_replace_and_order() -> None:
    result = merged(CONTAINERS, {"containers": [{"name": "a", "$patch": "delete"}]})
    assert [c["name"] for c in result["containers"]] == ["b"]
    result = merged(CONTAINERS, {"containers": [{"$patch": "replace"}, {"name": "z"}]})
    assert result["containers"] == [{"name": "z"}]
    order = [{"name": "c"}, {"name": "b"}, {"name": "a"}]
    result = merged(CONTAINERS, {"containers": [{"name": "c"}], "$setElementOrder/containers": order})
    assert [c["name"] for c in result["containers"]] == ["c", "b", "a"]
    finalizers = {"metadata": {"finalizers": ["a", "b"]}}
    change = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}}
    assert patch.strategic(finalizers, change, Pod.DESCRIPTOR)["metadata"]["finalizers"] == ["b", "c"]
    volume = {"volumes": [{"name": "v", "emptyDir": {}}]}
    change = {"volumes": [{"name": "v", "hostPath": {"path": "/x"}, "$retainKeys": ["name", "hostPath"]}]}
    assert merged(volume, change)["volumes"] == [{"name": "v", "hostPath": {"path": "/x"}}]


def test_maps_merge_other_lists_replace_and_null_removes() -> None:
    assert merged({"nodeSelector": {"a": "b"}}, {"nodeSelector": {"c": "d", "a": None}}) == {"nodeSelector": {"c": "d"}}
    args = merged({"containers": [{"name": "a", "args": ["x"]}]}, {"containers": [{"name": "a", "args": ["y"]}]})
    assert args["containers"][0]["args"] == ["y"]
    with pytest.raises(patch.MalformedPatch, match="needs its merge key name"):
        merged(CONTAINERS, {"containers": [{"image": "x"}]})
    with pytest.raises(patch.MalformedPatch, match="unknown directive"):
        merged(CONTAINERS, {"$patch": "explode"})
