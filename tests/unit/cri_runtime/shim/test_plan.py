"""Which mounts a container gets, and in which order; and the pause program."""

import os
import struct
import subprocess

import pytest

from cri_runtime.shim import pause, rootfs


def spec(*mounts: tuple[str, str]) -> dict:
    rows = [{"source": s, "target": t, "readonly": "", "propagation": "private"} for s, t in mounts]
    return {"mounts": rows, "devices": [], "shm": "/shm", "cgroup_mounts": [["cgroup2", "", ""]], "privileged": False}


def targets(spec: dict) -> list[str]:
    return [operation.target for operation in rootfs.plan(spec) if hasattr(operation, "target")]


def test_defaults_come_first_and_parents_before_children() -> None:
    made = targets(spec(("/a", "/x/y/z"), ("/b", "/x"), ("/c", "/x/y")))
    assert made[:2] == ["/proc", "/dev"] and made[-3:] == ["/x", "/x/y", "/x/y/z"]


def test_a_mount_replaces_a_default_and_what_lies_below() -> None:
    assert "/dev/shm" in targets(spec())
    assert targets(spec(("/mine", "/dev/shm"))).count("/dev/shm") == 1
    over_dev = targets(spec(("/dev", "/dev")))
    assert [target for target in over_dev if target.startswith("/dev")] == ["/dev"]
    assert not any(isinstance(operation, rootfs.Devices) for operation in rootfs.plan(spec(("/dev", "/dev/"))))


def test_operations_describe_themselves() -> None:
    assert "bind /a on /x, rw, private" in [operation.describe() for operation in rootfs.plan(spec(("/a", "/x")))]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_pause_program_is_an_elf_file(machine: str) -> None:
    data = pause.program(machine)
    assert data[:4] == b"\x7fELF" and len(data) < 256
    (entry,) = struct.unpack_from("<Q", data, 24)
    assert data[entry - pause.BASE :] == pause.CODE[machine][1]


def test_the_pause_program_pauses() -> None:
    process = subprocess.Popen(["pause"], executable=f"/proc/self/fd/{pause.FD}", pass_fds=[pause.FD])
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
        assert os.path.exists(f"/proc/{process.pid}")  # noqa: PTH110
    finally:
        process.kill()
        process.wait()
