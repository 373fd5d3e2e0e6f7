"""The state machine: the same log gives the same state, from the beginning or from a checkpoint."""

import random
from pathlib import Path
from typing import Any

import pytest

from protos.etcd import rpc_pb2 as pb
from protos.etcd.kv_pb2 import KeyValue
from raftstore import command, errors
from raftstore.auth.identity import ANONYMOUS
from raftstore.auth.tokens import SimpleTokens
from raftstore.client import compare_version, op_delete, op_put, op_range
from raftstore.command import Kind
from raftstore.machine import Machine
from raftstore.mvcc import digest
from raftstore.mvcc.backend import Backend
from raftstore.mvcc.revision import Rev


def random_commands(seed: int, count: int) -> list[bytes]:
    dice = random.Random(seed)
    keys = [b"a", b"b", b"c", b"d"]
    made: list[bytes] = []
    for number in range(count):
        key = dice.choice(keys)
        kind, request = dice.choice(
            [
                (Kind.PUT, pb.PutRequest(key=key, value=b"%d" % number, lease=dice.choice([0, 1, 2]))),
                (Kind.DELETE_RANGE, pb.DeleteRangeRequest(key=key, range_end=dice.choice([b"", b"c"]))),
                (
                    Kind.TXN,
                    pb.TxnRequest(
                        compare=[compare_version(key, ">", 1)],
                        success=[op_delete(key)],
                        failure=[op_put(key, b"x"), op_range(b"a", b"z")],
                    ),
                ),
                (Kind.COMPACT, pb.CompactionRequest(revision=number // 4)),
                (Kind.LEASE_GRANT, pb.LeaseGrantRequest(ID=dice.choice([1, 2]), TTL=10)),
                (Kind.LEASE_REVOKE, pb.LeaseRevokeRequest(ID=dice.choice([1, 2]))),
                (Kind.ALARM, pb.AlarmRequest(action=dice.choice([1, 2]), memberID=5, alarm=pb.CORRUPT)),
            ]
        )
        made.append(command.encode(kind, number, request))
    return made


def apply(machine: Machine, log: list[bytes]) -> list[Any]:
    """Apply what the machine has not applied yet."""
    outcomes = []
    for index, data in enumerate(log, 1):
        if index > machine.applied_index:
            kind, _, request, _ = command.decode(data)
            outcomes.append(machine.apply(index, 1, kind, request).outcome)
    return outcomes


def state(machine: Machine) -> Any:
    store = machine.store
    leases = {id: (lease.ttl_s, sorted(lease.keys)) for id, lease in machine.lessor.leases.items()}
    records = store.backend.history(Rev(0))
    history = [(rev, record) for rev, record in records if store.index.has(KeyValue.FromString(record).key, rev)]
    assert store.digest == sum(digest.of_record(*each) for each in history) % 2**64
    return store.revision, store.compact_revision, history, leases, machine.alarms, machine.applied_index


def comparable(outcome: Any) -> Any:
    return (type(outcome), str(outcome)) if isinstance(outcome, errors.EtcdError) else outcome


@pytest.mark.parametrize("seed", range(20))
def test_replay_from_any_checkpoint_is_exact(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    log = random_commands(seed, 120)
    (tmp_path / "steady").mkdir()
    (tmp_path / "crashing").mkdir()
    steady = Machine(Backend(tmp_path / "steady", 64 << 20), SimpleTokens(lambda: 0.0))
    expected = [comparable(outcome) for outcome in apply(steady, log)]
    for _ in range(4):
        # Up to here it had applied and stored; beyond, applied only; then it crashed.
        machine = Machine(Backend(tmp_path / "crashing", 64 << 20), SimpleTokens(lambda: 0.0))
        done = machine.applied_index
        assert [comparable(o) for o in apply(machine, log[: done + dice.randint(0, 30)])] == expected[
            done : machine.applied_index
        ]
        machine.before_checkpoint()
        machine.backend.write(machine.backend.take_checkpoint())
        machine.backend.finish_checkpoint()
        apply(machine, log[: machine.applied_index + dice.randint(0, 30)])
        machine.backend.close()
    last = Machine(Backend(tmp_path / "crashing", 64 << 20), SimpleTokens(lambda: 0.0))
    apply(last, log)
    assert state(last) == state(steady)
    last.backend.close()
    steady.backend.close()


def test_without_space_only_what_makes_room_is_applied(tmp_path: Path) -> None:
    machine = Machine(Backend(tmp_path, 64 << 20), SimpleTokens(lambda: 0.0))
    requests = [
        (Kind.PUT, pb.PutRequest(key=b"a")),
        (Kind.ALARM, pb.AlarmRequest(action=1, memberID=1, alarm=pb.NOSPACE)),
        (Kind.PUT, pb.PutRequest(key=b"a")),
        (Kind.TXN, pb.TxnRequest(failure=[op_put(b"a", b"")])),
        (Kind.LEASE_GRANT, pb.LeaseGrantRequest(ID=1, TTL=10)),
        (Kind.TXN, pb.TxnRequest(success=[op_delete(b"b")])),
        (Kind.DELETE_RANGE, pb.DeleteRangeRequest(key=b"a")),
        (Kind.ALARM, pb.AlarmRequest(action=2, memberID=1, alarm=pb.NOSPACE)),
        (Kind.PUT, pb.PutRequest(key=b"a")),
    ]
    outcomes = [machine.apply(index, 1, *request).outcome for index, request in enumerate(requests, 1)]
    refused = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, errors.NoSpace)]
    assert refused == [2, 3, 4]
    assert not any(isinstance(outcome, errors.EtcdError) for i, outcome in enumerate(outcomes) if i not in refused)
    machine.backend.close()


def test_a_command_goes_to_bytes_and_back() -> None:
    request = pb.PutRequest(key=b"a", value=b"1")
    data = command.encode(Kind.PUT, 2**64 - 1, request)
    assert command.decode(data) == (Kind.PUT, 2**64 - 1, request, ANONYMOUS)
    assert command.id_of(data) == 2**64 - 1
    with pytest.raises(ValueError, match="99"):
        command.decode(b"\x63" + data[1:])
