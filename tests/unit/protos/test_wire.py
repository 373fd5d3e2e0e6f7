"""Our .proto files against the fact tables in tests/wire: names, numbers, types, labels, oneofs, JSON names, streaming.

Whatever lies in a package of a table must agree with it; every rpc of etcd and CRI must be there. Rows that are in no
release of their upstream yet are not demanded, and older forms of a field are accepted as they are in the wild.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc_tools
import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[3]
TABLES = ROOT / "tests" / "wire"
UNRELEASED = {"unreleased", "1.37-beta"}
FIELD = descriptor_pb2.FieldDescriptorProto


@dataclass
class Facts:
    """What a table, or a descriptor set, says: each owner's members by name."""

    fields: dict[str, dict[str, tuple]] = field(default_factory=dict)
    enums: dict[str, dict[str, int]] = field(default_factory=dict)
    rpcs: dict[str, dict[str, tuple]] = field(default_factory=dict)
    released_rpcs: set[str] = field(default_factory=set)
    retired: set[tuple] = field(default_factory=set)


def read_table(path: Path) -> tuple[set[str], Facts]:
    facts, packages = Facts(), set()
    for line in path.read_text().splitlines():
        if line.startswith("# packages:"):
            packages = {name.strip() for name in line.removeprefix("# packages:").split(",")}
        if not line or line.startswith("#"):
            continue
        kind, owner, name, *rest = line.split("\t")
        if kind == "message":
            members = facts.fields.setdefault(owner, {})
            if name != "-":
                number, label, type_, oneof, json_name = rest[:5]
                members[name] = (int(number), label, type_, oneof, json_name)
        elif kind == "enum":
            facts.enums.setdefault(owner, {})[name] = int(rest[0])
        elif kind == "rpc":
            facts.rpcs.setdefault(owner, {})[name] = tuple(rest[:4])
            if rest[4] not in UNRELEASED:
                facts.released_rpcs.add(f"{owner}.{name}")
        elif kind == "retired-message":
            facts.retired.add((owner, name, int(rest[0]), rest[1], rest[2]))
    return packages, facts


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> descriptor_pb2.FileDescriptorSet:
    out = tmp_path_factory.mktemp("protos") / "all.fds"
    include = Path(grpc_tools.__file__).parent / "_proto"
    files = sorted(str(path) for path in ROOT.glob("protos/*/*.proto"))
    assert protoc.main(["protoc", f"-I{ROOT}", f"-I{include}", f"--descriptor_set_out={out}", *files]) == 0
    return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())


def read_descriptors(fds: descriptor_pb2.FileDescriptorSet, packages: set[str]) -> Facts:
    facts = Facts()
    for file in fds.file:
        if file.package in packages:
            for message in file.message_type:
                _read_message(facts, file.package, message)
            for enum in file.enum_type:
                facts.enums[f"{file.package}.{enum.name}"] = {value.name: value.number for value in enum.value}
            for service in file.service:
                facts.rpcs[f"{file.package}.{service.name}"] = {rpc.name: _rpc(rpc) for rpc in service.method}
    return facts


def _read_message(facts: Facts, scope: str, message: descriptor_pb2.DescriptorProto) -> None:
    name = f"{scope}.{message.name}"
    maps = {f".{name}.{nested.name}": nested for nested in message.nested_type if nested.options.map_entry}
    facts.fields[name] = {f.name: _field(f, message, maps) for f in message.field}
    for nested in message.nested_type:
        if not nested.options.map_entry:
            _read_message(facts, name, nested)
    for enum in message.enum_type:
        facts.enums[f"{name}.{enum.name}"] = {value.name: value.number for value in enum.value}


def _field(f: FIELD, message: descriptor_pb2.DescriptorProto, maps: dict) -> tuple:
    label = {FIELD.LABEL_OPTIONAL: "optional", FIELD.LABEL_REPEATED: "repeated"}[f.label]
    type_ = _type(f)
    if f.type_name in maps:
        key, value = maps[f.type_name].field
        label, type_ = "map", f"map<{_type(key)},{_type(value)}>"
    in_oneof = f.HasField("oneof_index") and not f.proto3_optional
    oneof = message.oneof_decl[f.oneof_index].name if in_oneof else "-"
    json_name = f.json_name or re.sub(r"_(\w)", lambda m: m[1].upper(), f.name)
    return (f.number, label, type_, oneof, json_name)


def _type(f: FIELD) -> str:
    return f.type_name.lstrip(".") or FIELD.Type.Name(f.type).removeprefix("TYPE_").lower()


def _rpc(rpc: descriptor_pb2.MethodDescriptorProto) -> tuple:
    streaming = ("yes" if rpc.client_streaming else "no", "yes" if rpc.server_streaming else "no")
    return (*streaming, rpc.input_type.lstrip("."), rpc.output_type.lstrip("."))


def differences(table: Facts, mine: Facts) -> Iterator[str]:
    for kind in ("fields", "enums", "rpcs"):
        known = getattr(table, kind)
        for owner, members in getattr(mine, kind).items():
            if owner not in known:
                yield f"{owner}: not in the table"
                continue
            for name, fact in members.items():
                if kind == "fields" and (owner, name, *fact[:3]) in table.retired:
                    continue
                if known[owner].get(name) != fact:
                    yield f"{owner}.{name}: ours {fact}, the table's {known[owner].get(name)}"


@pytest.mark.parametrize("table", ["etcd-v3.tsv", "cri-v1.tsv", "kubernetes.tsv"])
def test_protos_agree_with_the_wire_facts(table: str, ours: descriptor_pb2.FileDescriptorSet) -> None:
    packages, facts = read_table(TABLES / table)
    mine = read_descriptors(ours, packages)
    assert mine.fields, "none of the table's packages was found"
    assert list(differences(facts, mine)) == []


@pytest.mark.parametrize(("table", "packages"), [("etcd-v3.tsv", 5), ("cri-v1.tsv", 1)])
def test_every_rpc_is_there(table: str, packages: int, ours: descriptor_pb2.FileDescriptorSet) -> None:
    tabled, facts = read_table(TABLES / table)
    tabled -= {"grpc.health.v1"}  # served by grpcio-health-checking, which carries its own descriptors
    mine = read_descriptors(ours, tabled)
    have = {f"{owner}.{name}" for owner, members in mine.rpcs.items() for name in members}
    want = {rpc for rpc in facts.released_rpcs if not rpc.startswith("grpc.health.v1.")}
    assert len(tabled) == packages
    assert want - have == set()


def test_a_wrong_number_is_noticed(ours: descriptor_pb2.FileDescriptorSet) -> None:
    packages, facts = read_table(TABLES / "etcd-v3.tsv")
    broken = descriptor_pb2.FileDescriptorSet.FromString(ours.SerializeToString())
    file = next(f for f in broken.file if f.package == "mvccpb")
    file.message_type[0].field[0].number = 17
    assert len(list(differences(facts, read_descriptors(broken, packages)))) == 1
