"""The seccomp assembler, judged by an interpreter of classic BPF that only knows the kernel's rules."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cri_runtime.linux import bpf, profiles
from cri_runtime.linux.bpf import ALLOW, ENOSYS, EPERM, ERRNO, Arg, Op, Profile, Rule
from cri_runtime.linux.syscalls import NUMBERS, number_of

MACHINES = ("x86_64", "aarch64")


def run(program: bytes, number: int, args: tuple[int, ...] = (), arch: int = bpf.AUDIT_ARCH["x86_64"]) -> int:
    """What the kernel would answer. Source: seccomp(2) and bpf's classic instruction set."""
    padded = [*args, *(0,) * (6 - len(args))]
    data = struct.pack("<iIQ6Q", number, arch, 0, *padded)
    code = list(struct.iter_unpack("<HBBI", program))
    accumulator = at = 0
    while True:
        op, yes, no, k = code[at]
        at += 1
        if op == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif op == 0x54:
            accumulator &= k
        elif op == 0x06:
            return int(k)
        elif op == 0x05:
            at += k
        else:
            holds = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[op]
            at += yes if holds else no


@pytest.mark.parametrize("machine", MACHINES)
def test_the_default_profile_answers_each_call_as_its_list_says(machine: str) -> None:
    program = profiles.default_program(frozenset(), machine)
    always = set(profiles.ALWAYS.split())
    for name in NUMBERS:
        number = number_of(name, machine)
        if number is None or name in ("personality", "clone", "clone3"):
            continue
        expected = ALLOW if name in always else ERRNO | EPERM
        assert run(program, number, arch=bpf.AUDIT_ARCH[machine]) == expected, name


def test_names_of_the_default_profile_exist() -> None:
    named = {*profiles.ALWAYS.split(), *" ".join(profiles.BY_CAPABILITY.values()).split()}
    assert named <= NUMBERS.keys()


def test_new_namespaces_need_a_capability() -> None:
    program = profiles.default_program(frozenset(), "x86_64")
    clone, clone3, unshare = (number_of(name, "x86_64") or 0 for name in ("clone", "clone3", "unshare"))
    assert run(program, clone, (0x3D0F00,)) == ALLOW  # a thread
    assert run(program, clone, (0x10000000,)) == ERRNO | EPERM  # CLONE_NEWUSER
    assert run(program, clone3) == ERRNO | ENOSYS
    assert run(program, unshare) == ERRNO | EPERM
    admin = profiles.default_program(frozenset({"SYS_ADMIN"}), "x86_64")
    assert run(admin, clone, (0x10000000,)) == run(admin, clone3) == run(admin, unshare) == ALLOW


def test_foreign_architectures_and_x32_are_refused() -> None:
    program = profiles.default_program(frozenset(), "x86_64")
    assert run(program, 0, arch=0x40000003) == ERRNO | ENOSYS
    assert run(program, 0x40000000) == ERRNO | ENOSYS


HOLDS = {
    Op.EQ: lambda a, v, w: a == v,
    Op.NE: lambda a, v, w: a != v,
    Op.LT: lambda a, v, w: a < v,
    Op.LE: lambda a, v, w: a <= v,
    Op.GT: lambda a, v, w: a > v,
    Op.GE: lambda a, v, w: a >= v,
    Op.MASKED_EQ: lambda a, v, w: a & v == w,
}
WORD = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**32 + 1, 2**63, 2**64 - 1]))


@given(st.sampled_from(list(Op)), WORD, WORD, WORD, st.integers(0, 5))
def test_arguments_compare_in_64_bits(op: Op, value: int, two: int, actual: int, index: int) -> None:
    rule = Rule(("read",), ALLOW, (Arg(index, op, value, two),))
    program = bpf.assemble(Profile(ERRNO | EPERM, (rule,)), "x86_64")
    args = tuple(actual if at == index else 7 for at in range(6))
    assert (run(program, 0, args) == ALLOW) == HOLDS[op](actual, value, two)


@given(st.dictionaries(st.sampled_from(sorted(NUMBERS)), st.integers(1, 4000), max_size=80))
def test_bisection_finds_every_call(actions: dict[str, int]) -> None:
    rules = tuple(Rule((name,), ERRNO | action) for name, action in actions.items())
    program = bpf.assemble(Profile(ALLOW, rules), "x86_64")
    for name in NUMBERS:
        number = number_of(name, "x86_64")
        if number is not None:
            assert run(program, number) == (ERRNO | actions[name] if name in actions else ALLOW)


def test_all_arguments_of_a_rule_must_hold_and_rules_are_alternatives() -> None:
    both = Rule(("ioctl",), ALLOW, (Arg(0, Op.EQ, 1), Arg(1, Op.GE, 10)))
    other = Rule(("ioctl",), ERRNO | 9, (Arg(2, Op.NE, 0),))
    program = bpf.assemble(Profile(ERRNO | EPERM, (both, other)), "x86_64")
    assert run(program, 16, (1, 10, 0)) == ALLOW
    assert run(program, 16, (1, 9, 0)) == ERRNO | EPERM
    assert run(program, 16, (2, 10, 5)) == ERRNO | 9


def test_oci_profiles() -> None:
    text = json.dumps(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [
                {"names": ["read", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
                {
                    "names": ["write"],
                    "action": "SCMP_ACT_ERRNO",
                    "errnoRet": 5,
                    "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}],
                },
            ],
        }
    )
    program = bpf.assemble(profiles.parse_profile(text), "x86_64")
    assert (run(program, 0), run(program, 1, (1,)), run(program, 1, (2,))) == (ALLOW, ERRNO | 5, ERRNO | 38)
    for broken in ("{", "[]", '{"defaultAction": "SCMP_ACT_NONSENSE"}', '{"defaultAction": 3}'):
        with pytest.raises(profiles.InvalidProfile):
            profiles.parse_profile(broken)
