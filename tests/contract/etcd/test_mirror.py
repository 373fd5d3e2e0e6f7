"""Moving from etcd to the store and back while both run, with etcdctl make-mirror."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.etcd import rpc_pb2 as pb
from protos.etcd import rpc_pb2_grpc as rpc


def contents(address: str) -> dict[bytes, bytes]:
    with grpc.insecure_channel(address) as channel:
        found = rpc.KVStub(channel).Range(pb.RangeRequest(key=b"\0", range_end=b"\0"))
        return {kv.key: kv.value for kv in found.kvs}


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("direction", ["from etcd", "to etcd"])
def test_a_mirror_follows(direction: str, any_etcdctl: str, start_knarr: Any, newest_etcd: Any, tmp_path: Path) -> None:
    ours, theirs = start_knarr().address, newest_etcd.address
    source, target = (theirs, ours) if direction == "from etcd" else (ours, theirs)
    with grpc.insecure_channel(source) as channel:
        kv = rpc.KVStub(channel)
        for number in range(1500):  # more than one page
            kv.Put(pb.PutRequest(key=b"k%04d" % number, value=b"%d" % number))
        command = [any_etcdctl, "--endpoints", source, "make-mirror", target]
        with (tmp_path / "mirror.log").open("wb") as log:
            mirror = subprocess.Popen(command, env={"ETCDCTL_API": "3"}, stdout=log, stderr=log)
        try:
            until(lambda: len(contents(target)) >= 1500)
            kv.Put(pb.PutRequest(key=b"k0000", value=b"changed"))
            kv.DeleteRange(pb.DeleteRangeRequest(key=b"k1"))
            kv.DeleteRange(pb.DeleteRangeRequest(key=b"k0100", range_end=b"k0200"))
            put = pb.RequestOp(request_put=pb.PutRequest(key=b"new", value=b"1"))
            delete = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"k0001"))
            kv.Txn(pb.TxnRequest(success=[put, delete]))
            until(lambda: contents(target) == contents(source))
        finally:
            mirror.kill()
            mirror.wait()
    assert len(contents(target)) == 1500 - 100 - 1 + 1
