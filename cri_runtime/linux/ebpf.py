"""bpf(2): load a program that judges device access and attach it to a cgroup."""

import ctypes
import os

from cri_runtime.linux.libc import syscall

BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 2


class _Load(ctypes.Structure):
    _fields_ = [
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
    ]


class _Attach(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("target_fd", "attach_bpf_fd", "attach_type", "attach_flags")]


def load_device_program(program: bytes) -> int:
    """BPF_PROG_LOAD of eBPF instructions; returns a descriptor. Raises OSError."""
    code = ctypes.create_string_buffer(program, len(program))
    license_ = ctypes.create_string_buffer(b"Apache-2.0")
    attr = _Load(
        prog_type=BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt=len(program) // 8,
        insns=ctypes.addressof(code),
        license=ctypes.addressof(license_),
    )
    return syscall("bpf", BPF_PROG_LOAD, ctypes.byref(attr), ctypes.sizeof(attr))


def attach_device_program(cgroup: str, program: int) -> None:
    """BPF_PROG_ATTACH to the cgroup directory; the program lives as long as the cgroup. Raises OSError."""
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        attr = _Attach(directory, program, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI)
        syscall("bpf", BPF_PROG_ATTACH, ctypes.byref(attr), ctypes.sizeof(attr), subject=cgroup)
    finally:
        os.close(directory)
