"""The smallest process there is: a program of a few instructions that sleeps for ever, made here, kept in memory.

It is process 1 of pods whose containers share a process namespace. An interpreter would take a megabyte per pod for
that; this takes two pages. It runs with SIGCHLD ignored, so the kernel reaps what it inherits.
Source: elf(5); System V ABI; syscall(2).
"""

import os
import struct

BASE = 0x400000
CODE = {
    # mov eax, SYS_pause; syscall; jmp back
    "x86_64": (62, bytes.fromhex("b822000000 0f05 ebf7")),
    # movz x8, SYS_ppoll; movz x0..x4, 0; svc 0; b back
    "aarch64": (183, struct.pack("<8I", 0xD2800928, *(0xD2800000 + n for n in range(5)), 0xD4000001, 0x17FFFFF9)),
}


def program(machine: str) -> bytes:
    """Pure: the ELF file."""
    number, code = CODE[machine]
    start = 64 + 2 * 56
    size = start + len(code)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, number, 1, BASE + start, 64, 0, 0, 64, 56, 2, 0, 0, 0
    )
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 0x1000)
    stack = struct.pack("<IIQQQQQQ", 0x6474E551, 6, 0, 0, 0, 0, 0, 16)  # PT_GNU_STACK: not executable
    return header + load + stack + code


def load() -> int:
    """The program as a descriptor to execute. Raises OSError."""
    writable = os.memfd_create("pause")
    try:
        os.write(writable, program(os.uname().machine))
        # A file somebody may write to cannot be executed: keep only a descriptor for reading.
        return os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writable)


FD = load()
"""Made once, in the zygote: all pods share its page."""
