"""Device access in v2: a small eBPF program per list of rules, since v2 has no file for it.

The kernel runs it with ``struct bpf_cgroup_dev_ctx {u32 access_type; u32 major; u32 minor}``: the low half of
access_type is 1 for block, 2 for character; the high half is a mask of mknod 1, read 2, write 4. It answers 1: allowed.
"""

import os
import struct
from collections.abc import Sequence
from pathlib import Path

from cri_runtime.cgroups.base import CgroupError
from cri_runtime.cgroups.limits import DeviceRule
from cri_runtime.linux import ebpf

_KIND = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}

# Registers: r2 kind, r3 access, r4 major, r5 minor, r1 scratch
_LOAD_U32, _AND, _RSH, _MOVE, _SET, _JUMP_NE, _EXIT = 0x61, 0x57, 0x77, 0xBF, 0xB7, 0x55, 0x95


def restrict(directory: Path, rules: Sequence[DeviceRule]) -> None:
    """Allow the cgroup only these devices. Raises CgroupError."""
    try:
        program = ebpf.load_device_program(assemble(rules))
        try:
            ebpf.attach_device_program(str(directory), program)
        finally:
            os.close(program)
    except OSError as err:
        raise CgroupError(err.errno, f"cannot restrict devices: {err.strerror}", str(directory)) from err


def assemble(rules: Sequence[DeviceRule]) -> bytes:
    """Pure: the program that allows what any rule allows."""
    head = [
        _instruction(_LOAD_U32, 2, 1, 0),
        _instruction(_MOVE, 3, 2),
        _instruction(_AND, 2, immediate=0xFFFF),
        _instruction(_RSH, 3, immediate=16),
        _instruction(_LOAD_U32, 4, 1, 4),
        _instruction(_LOAD_U32, 5, 1, 8),
    ]
    body = [instruction for rule in rules for instruction in _rule(rule)]
    return b"".join([*head, *body, _instruction(_SET, 0), _instruction(_EXIT)])


def _rule(rule: DeviceRule) -> list[bytes]:
    """Tests that jump behind the rule when they fail, then: allowed."""
    refused = 7 & ~sum(_ACCESS[letter] for letter in rule.access)
    tests: list[tuple[int, int]] = [(2, _KIND[rule.kind])] if rule.kind != "a" else []
    tests += [(register, number) for register, number in ((4, rule.major), (5, rule.minor)) if number is not None]
    code: list[bytes] = []
    length = len(tests) + 3 + 2
    for register, number in tests:
        code.append(_instruction(_JUMP_NE, register, offset=length - len(code) - 1, immediate=number))
    code += [_instruction(_MOVE, 1, 3), _instruction(_AND, 1, immediate=refused)]
    code.append(_instruction(_JUMP_NE, 1, offset=2, immediate=0))
    return [*code, _instruction(_SET, 0, immediate=1), _instruction(_EXIT)]


def _instruction(code: int, target: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("<BBhi", code, target | source << 4, offset, immediate)
