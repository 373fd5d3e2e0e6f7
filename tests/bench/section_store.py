"""Puts and linearizable reads: ``python -m raftstore`` against etcd, one member each, one client program for both."""

import struct
from contextlib import ExitStack
from pathlib import Path

from bench.grpcload import CallFailed, load
from bench.processes import PYTHON, answers, folder, free_port, need, process, wait_until
from bench.report import Row, Section, Skip, median, quantile

from protos.etcd import rpc_pb2

NAME = "store"
CLIENTS = (1, 64, 256)
VALUE = b"v" * 256
KEYS = 10_000

Samples = dict[tuple[str, int, str, str], list[float]]


def run(rounds: int, seconds: float) -> Section:
    """Measure. Raises Skip."""
    need("etcd")
    section = Section(
        NAME,
        "Store",
        facts=(
            f"One member each, plaintext on loopback, {len(VALUE)}-byte values, {KEYS} keys, data on the same disk; "
            "every put is on disk before it is answered."
        ),
    )
    samples: Samples = {}
    with folder() as path, ExitStack() as stack:
        addresses = {
            "ours": _start(stack, path, "ours", [PYTHON, "-m", "raftstore"]),
            "peer": _start(stack, path, "peer", ["etcd", "--log-level", "error"]),
        }
        for address in addresses.values():
            load(address, "/etcdserverpb.KV/Put", _put, 16, 0.5)
        for number in range(rounds):
            for who in ("ours", "peer") if number % 2 == 0 else ("peer", "ours"):
                for clients in CLIENTS:
                    _measure(samples, who, addresses[who], clients, seconds)
    section.rows = _rows(samples)
    return section


def _start(stack: ExitStack, path: Path, name: str, program: list[str]) -> tuple[str, int]:
    client, peer = free_port(), free_port()
    command = [
        *program,
        *("--name", "default", "--data-dir", f"{path}/{name}"),
        *(
            "--listen-client-urls",
            f"http://127.0.0.1:{client}",
            "--advertise-client-urls",
            f"http://127.0.0.1:{client}",
        ),
        *(
            "--listen-peer-urls",
            f"http://127.0.0.1:{peer}",
            "--initial-advertise-peer-urls",
            f"http://127.0.0.1:{peer}",
        ),
        *("--initial-cluster", f"default=http://127.0.0.1:{peer}"),
    ]
    log = path / f"{name}.log"
    child = stack.enter_context(process(command, log))
    address = ("127.0.0.1", client)

    def ready() -> bool:
        try:
            return answers(address) and load(address, "/etcdserverpb.KV/Put", _put, 1, 0.1).calls > 0
        except CallFailed:
            return False

    wait_until(ready, " ".join(program), child, log)
    return address


def _measure(samples: Samples, who: str, address: tuple[str, int], clients: int, seconds: float) -> None:
    for what, method, request in (("put", "Put", _put), ("read", "Range", _range)):
        try:
            result = load(address, f"/etcdserverpb.KV/{method}", request, clients, seconds)
        except CallFailed as err:
            raise Skip(f"{who}: {what} with {clients} clients: {err}") from err
        if not result.calls:
            raise Skip(f"{who}: no {what} was answered in {seconds:g} s with {clients} clients")
        samples.setdefault((what, clients, who, "rate"), []).append(result.calls / result.seconds)
        samples.setdefault((what, clients, who, "p99"), []).append(quantile(result.latencies, 0.99) * 1e3)


def _key(number: int) -> bytes:
    return b"bench/" + struct.pack(">I", number * 2_654_435_761 % KEYS).hex().encode()


def _put(number: int) -> bytes:
    return rpc_pb2.PutRequest(key=_key(number), value=VALUE).SerializeToString()


def _range(number: int) -> bytes:
    return rpc_pb2.RangeRequest(key=_key(number)).SerializeToString()


def _rows(samples: Samples) -> list[Row]:
    rows = []
    for what, noun in (("put", "puts"), ("read", "linearizable reads")):
        for clients in CLIENTS:
            name = f"{noun}, {clients} client{'s' if clients > 1 else ''}"
            rate = [median(samples[what, clients, who, "rate"]) for who in ("ours", "peer")]
            p99 = [median(samples[what, clients, who, "p99"]) for who in ("ours", "peer")]
            rows.append(Row(name, "per s", *rate, "etcd"))
            rows.append(Row(f"{name}, p99", "ms", *p99, "etcd", False))
    return rows
