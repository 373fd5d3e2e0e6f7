"""Pure: from a list of rules about system calls to the classic BPF program that seccomp runs.

The program finds the call's number by bisection, so that a call costs some eight comparisons however long the list is.
Layout: refuse foreign architectures, refuse x32 numbers, bisect, then per call an answer or its arguments' tests.
Source: seccomp(2), ``struct seccomp_data``; linux/bpf_common.h.
"""

import struct
from dataclasses import dataclass
from enum import Enum

from cri_runtime.linux.syscalls import number_of

KILL_PROCESS = 0x80000000
KILL_THREAD = 0x00000000
TRAP = 0x00030000
ERRNO = 0x00050000
TRACE = 0x7FF00000
LOG = 0x7FFC0000
ALLOW = 0x7FFF0000

EPERM = 1
ENOSYS = 38

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_BIT = 0x40000000

# Opcodes: BPF_LD|W|ABS, BPF_JMP|{JA,JEQ,JGT,JGE,JSET}|K, BPF_ALU|AND|K, BPF_RET|K
_LD, _JA, _JEQ, _JGT, _JGE, _JSET, _AND, _RET = 0x20, 0x05, 0x15, 0x25, 0x35, 0x45, 0x54, 0x06
_NR, _ARCH, _ARGS = 0, 4, 16


class Op(Enum):
    """How an argument is compared; names as in the OCI runtime specification."""

    NE = "SCMP_CMP_NE"
    LT = "SCMP_CMP_LT"
    LE = "SCMP_CMP_LE"
    EQ = "SCMP_CMP_EQ"
    GE = "SCMP_CMP_GE"
    GT = "SCMP_CMP_GT"
    MASKED_EQ = "SCMP_CMP_MASKED_EQ"


@dataclass(frozen=True)
class Arg:
    """A test of argument ``index`` against ``value``; MASKED_EQ: ``arg & value == value_two``."""

    index: int
    op: Op
    value: int
    value_two: int = 0


@dataclass(frozen=True)
class Rule:
    """These calls, when all ``args`` hold, get ``action``."""

    names: tuple[str, ...]
    action: int = ALLOW
    args: tuple[Arg, ...] = ()


@dataclass(frozen=True)
class Profile:
    """Rules, and the action for whatever none of them names."""

    default_action: int
    rules: tuple[Rule, ...] = ()


Instruction = tuple[int, int, int, int]
"""code, jump if true, jump if false, k."""


def assemble(profile: Profile, machine: str) -> bytes:
    """The program for ``machine`` (``x86_64``, ``aarch64``) as an array of ``struct sock_filter``.

    Names that the machine does not have are skipped. Among rules for one call those with arguments are tried first,
    in their order. Raises ValueError when the program would exceed the kernel's 4096 instructions.
    """
    program = _prologue(machine) + _bisect(_ranges(profile, machine))
    if len(program) > 4096:
        raise ValueError(f"the seccomp profile needs {len(program)} instructions; the kernel allows 4096")
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


def _prologue(machine: str) -> list[Instruction]:
    refuse = (_RET, 0, 0, ERRNO | ENOSYS)
    program = [(_LD, 0, 0, _ARCH), (_JEQ, 1, 0, AUDIT_ARCH[machine]), refuse, (_LD, 0, 0, _NR)]
    if machine == "x86_64":
        program += [(_JGE, 0, 1, X32_BIT), refuse]
    return program


_Body = tuple[Instruction, ...]


def _ranges(profile: Profile, machine: str) -> list[tuple[int, _Body]]:
    """``(first number, what to do)``, ascending from 0, neighbours different: each holds up to the next."""
    default: _Body = ((_RET, 0, 0, profile.default_action),)
    bodies = {number: _body(rules, profile.default_action) for number, rules in _by_number(profile, machine).items()}
    ranges: list[tuple[int, _Body]] = [(0, default)]
    for number in range(max(bodies, default=-1) + 2):
        body = bodies.get(number, default)
        if body != ranges[-1][1]:
            ranges.append((number, body))
    return ranges if len(ranges) == 1 or ranges[1][0] != 0 else ranges[1:]


def _by_number(profile: Profile, machine: str) -> dict[int, list[Rule]]:
    found: dict[int, list[Rule]] = {}
    for rule in profile.rules:
        for name in rule.names:
            number = number_of(name, machine)
            if number is not None:
                found.setdefault(number, []).append(rule)
    return found


def _body(rules: list[Rule], default_action: int) -> _Body:
    program: list[Instruction] = []
    for rule in rules:
        if rule.args:
            program += _conjunction(rule)
    plain = [rule.action for rule in rules if not rule.args]
    return (*program, (_RET, 0, 0, plain[0] if plain else default_action))


def _conjunction(rule: Rule) -> list[Instruction]:
    """All tests, then the answer; a failed test jumps behind it."""
    tail: list[Instruction] = [(_RET, 0, 0, rule.action)]
    for arg in reversed(rule.args):
        tail = _resolve(_test(arg), len(tail)) + tail
    return tail


_PASS, _FAIL = -1, -2


def _test(arg: Arg) -> list[tuple[int, int, int, int]]:
    """A 64-bit comparison in 32-bit halves; jumps to _PASS and _FAIL are symbolic."""
    low, high = arg.value & 0xFFFFFFFF, arg.value >> 32
    load_high, load_low = (_LD, 0, 0, _ARGS + 8 * arg.index + 4), (_LD, 0, 0, _ARGS + 8 * arg.index)
    if arg.op is Op.MASKED_EQ:
        low_two, high_two = arg.value_two & 0xFFFFFFFF, arg.value_two >> 32
        halves = [load_high, (_AND, 0, 0, high), (_JEQ, 0, _FAIL, high_two)]
        return [*halves, load_low, (_AND, 0, 0, low), (_JEQ, _PASS, _FAIL, low_two)]
    if arg.op in (Op.EQ, Op.NE):
        yes, no = (_PASS, _FAIL) if arg.op is Op.EQ else (_FAIL, _PASS)
        return [load_high, (_JEQ, 0, no, high), load_low, (_JEQ, yes, no, low)]
    yes, no = (_PASS, _FAIL) if arg.op in (Op.GT, Op.GE) else (_FAIL, _PASS)
    compare = _JGT if arg.op in (Op.GT, Op.LE) else _JGE
    return [load_high, (_JGT, yes, 0, high), (_JEQ, 0, no, high), load_low, (compare, yes, no, low)]


def _resolve(test: list[tuple[int, int, int, int]], behind: int) -> list[Instruction]:
    """Turn symbolic jumps into distances: _PASS falls out of the test, _FAIL skips ``behind`` more instructions."""
    resolved: list[Instruction] = []
    for index, (code, yes, no, k) in enumerate(test):
        left = len(test) - index - 1
        distance = {_PASS: left, _FAIL: left + behind}
        resolved.append((code, distance.get(yes, yes), distance.get(no, no), k))
    return resolved


def _bisect(ranges: list[tuple[int, _Body]]) -> list[Instruction]:
    if len(ranges) == 1:
        return list(ranges[0][1])
    middle = len(ranges) // 2
    below, above = _bisect(ranges[:middle]), _bisect(ranges[middle:])
    start = ranges[middle][0]
    if len(below) < 256:
        return [(_JGE, len(below), 0, start), *below, *above]
    return [(_JGE, 0, 1, start), (_JA, 0, 0, len(below)), *below, *above]
