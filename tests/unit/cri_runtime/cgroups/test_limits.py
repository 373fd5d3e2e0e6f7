"""Limits as files and values."""

import pytest

from cri_runtime.cgroups.detect import parse
from cri_runtime.cgroups.devices import assemble
from cri_runtime.cgroups.limits import DeviceRule, Limits, v1_writes, v2_writes, weight_of


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 39), (262144, 10000), (0, 1), (10**9, 10000)])
def test_shares_become_weights(shares: int, weight: int) -> None:
    assert weight_of(shares) == weight


def test_nothing_given_writes_nothing() -> None:
    assert v1_writes(Limits()) == v2_writes(Limits()) == []


LIMITS = Limits(
    cpu_shares=512,
    cpu_quota_us=50_000,
    memory_bytes=1 << 30,
    swap_bytes=3 << 30,
    cpuset_cpus="0-1",
    pids=100,
    hugepage_bytes={"2MB": 4 << 20},
)


def test_v1() -> None:
    assert {f"{file}={value}" for _, file, value in v1_writes(LIMITS)} == {
        "cpu.shares=512",
        "cpu.cfs_period_us=100000",
        "cpu.cfs_quota_us=50000",
        f"memory.limit_in_bytes={1 << 30}",
        f"memory.memsw.limit_in_bytes={3 << 30}",
        "cpuset.cpus=0-1",
        "pids.max=100",
        f"hugetlb.2MB.limit_in_bytes={4 << 20}",
    }


def test_v2() -> None:
    """memory.swap.max is swap alone, CRI's number is memory and swap."""
    assert {f"{file}={value}" for _, file, value in v2_writes(LIMITS)} == {
        f"cpu.weight={weight_of(512)}",
        "cpu.max=50000 100000",
        f"memory.max={1 << 30}",
        f"memory.swap.max={2 << 30}",
        "cpuset.cpus=0-1",
        "pids.max=100",
        f"hugetlb.2MB.max={4 << 20}",
    }
    unlimited = Limits(cpu_quota_us=-1, memory_bytes=-1, swap_bytes=-1, unified={"memory.oom.group": "1"})
    assert [value for _, _, value in v2_writes(unlimited)] == ["max 100000", "max", "max", "1"]


def test_zero_fields_of_a_change_leave_things_as_they_are() -> None:
    changed = LIMITS.merged(Limits(memory_bytes=2 << 30))
    assert changed.memory_bytes == 2 << 30 and changed.cpu_shares == 512


def test_devices_v1() -> None:
    limits = Limits(devices=(DeviceRule("c", 1, 3, "rwm"), DeviceRule("b", None, None, "m")))
    assert [value for _, _, value in v1_writes(limits)] == ["a", "c 1:3 rwm", "b *:* m"]


# --- the device program, run by an interpreter of the few instructions it uses


def allowed(program: bytes, kind: str, major: int, minor: int, access: str) -> bool:
    import struct

    masks = {"m": 1, "r": 2, "w": 4}
    context = {0: {"b": 1, "c": 2}[kind] | sum(masks[letter] for letter in access) << 16, 4: major, 8: minor}
    registers = [0] * 11
    at = 0
    code = list(struct.iter_unpack("<BBhi", program))
    while True:
        op, pair, offset, immediate = code[at]
        at += 1
        target, source = pair & 15, pair >> 4
        if op == 0x61:
            registers[target] = context[offset]
        elif op == 0xBF:
            registers[target] = registers[source]
        elif op == 0x57:
            registers[target] &= immediate
        elif op == 0x77:
            registers[target] >>= immediate
        elif op == 0xB7:
            registers[target] = immediate
        elif op == 0x55:
            at += offset if registers[target] != immediate else 0
        else:
            return bool(registers[0])


def test_devices_v2() -> None:
    program = assemble([DeviceRule("c", 1, 3, "rw"), DeviceRule("b", None, None, "m"), DeviceRule("c", 136, None, "r")])
    assert allowed(program, "c", 1, 3, "r") and allowed(program, "c", 1, 3, "rw")
    assert not allowed(program, "c", 1, 3, "m") and not allowed(program, "c", 1, 5, "r")
    assert not allowed(program, "b", 1, 3, "r") and allowed(program, "b", 254, 0, "m")
    assert allowed(program, "c", 136, 99, "r") and not allowed(program, "c", 136, 99, "w")


def test_hierarchies_are_found() -> None:
    v1 = "25 1 0:22 / /sys/fs/cgroup/{0} rw - cgroup cgroup rw,{0}"
    lines = [v1.format("memory"), v1.format("cpu,cpuacct"), "9 1 0:3 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"]
    tops, unified = parse("\n".join(lines))
    assert {name: str(path) for name, path in tops.items()} == {
        "memory": "/sys/fs/cgroup/memory",
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
    }
    assert str(unified) == "/sys/fs/cgroup/unified"
