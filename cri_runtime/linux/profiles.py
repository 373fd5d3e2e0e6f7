"""Pure: seccomp profiles. The runtime's default, by capability, and those of the OCI runtime specification's JSON.

The default allows what containerd's does, less io_uring and every call of a foreign architecture; the rest is EPERM.
"""

import json
from collections.abc import Set
from functools import lru_cache
from typing import Any

from cri_runtime.linux import bpf
from cri_runtime.linux.bpf import Arg, Op, Profile, Rule

ALWAYS = """
    accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown
    clock_adjtime clock_getres clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup
    dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
    epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fallocate
    fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock
    fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_requeue futex_wait futex_waitv
    futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid geteuid
    getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
    getresuid getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents
    io_pgetevents io_setup io_submit ioctl ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lgetxattr link linkat listen listxattr llistxattr lremovexattr lseek lsetxattr
    lstat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat
    mlock mlock2 mlockall mmap modify_ldt mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend
    mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap nanosleep newfstatat open
    openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 poll ppoll prctl pread64 preadv preadv2
    prlimit64 process_mrelease pselect6 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat
    readv recvfrom recvmmsg recvmsg remap_file_pages removexattr rename renameat renameat2 restart_syscall rmdir
    rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
    sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam
    sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop sendfile sendmmsg sendmsg
    sendto set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid
    setpriority setregid setresgid setresuid setreuid setrlimit setsid setsockopt setuid setxattr shmat shmctl
    shmdt shmget shutdown sigaltstack signalfd signalfd4 socket socketpair splice stat statfs statx symlink
    symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun
    timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname
    unlink unlinkat utime utimensat utimes vfork vmsplice wait4 waitid write writev
"""
"""Allowed whatever the capabilities."""

BY_CAPABILITY = {
    "DAC_READ_SEARCH": "open_by_handle_at",
    "SYS_ADMIN": """bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
        lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount name_to_handle_at open_tree perf_event_open
        quotactl quotactl_fd setdomainname sethostname setns statmount listmount syslog umount2 unshare""",
    "SYS_BOOT": "reboot",
    "SYS_CHROOT": "chroot",
    "SYS_MODULE": "delete_module finit_module init_module",
    "SYS_PACCT": "acct",
    "SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev",
    "SYS_RAWIO": "ioperm iopl",
    "SYS_TIME": "clock_settime settimeofday",
    "SYS_TTY_CONFIG": "vhangup",
    "SYSLOG": "syslog",
    "BPF": "bpf",
    "PERFMON": "perf_event_open",
}
"""Allowed to a container whose bounding set has the capability."""

PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
NEW_NAMESPACES = 0x7E020000
"""CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}."""

ACTIONS = {
    "SCMP_ACT_KILL": bpf.KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": bpf.KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": bpf.KILL_PROCESS,
    "SCMP_ACT_TRAP": bpf.TRAP,
    "SCMP_ACT_ERRNO": bpf.ERRNO,
    "SCMP_ACT_TRACE": bpf.TRACE,
    "SCMP_ACT_LOG": bpf.LOG,
    "SCMP_ACT_ALLOW": bpf.ALLOW,
}


def default_profile(capabilities: Set[str]) -> Profile:
    """RuntimeDefault for a container with these capabilities (without ``CAP_``)."""
    rules = [Rule(tuple(ALWAYS.split()))]
    rules += [Rule(("personality",), args=(Arg(0, Op.EQ, value),)) for value in PERSONALITIES]
    rules += [Rule(tuple(names.split())) for name, names in BY_CAPABILITY.items() if name in capabilities]
    if "SYS_ADMIN" not in capabilities:
        rules.append(Rule(("clone",), args=(Arg(0, Op.MASKED_EQ, NEW_NAMESPACES, 0),)))
        # Its flags lie in memory, out of a filter's reach; ENOSYS makes C libraries fall back to clone.
        rules.append(Rule(("clone3",), bpf.ERRNO | bpf.ENOSYS))
    return Profile(bpf.ERRNO | bpf.EPERM, tuple(rules))


@lru_cache(maxsize=64)
def default_program(capabilities: frozenset[str], machine: str) -> bytes:
    """:func:`default_profile`, assembled; computed once per set of capabilities."""
    return bpf.assemble(default_profile(capabilities & BY_CAPABILITY.keys()), machine)


class InvalidProfile(ValueError):
    """A profile's JSON does not say what the OCI runtime specification wants; the text names the place."""


def parse_profile(text: str) -> Profile:
    """A profile from OCI JSON (``defaultAction``, ``syscalls``; ``architectures`` are this machine's alone).

    Raises InvalidProfile.
    """
    try:
        document = json.loads(text)
        default = _action(document["defaultAction"], document.get("defaultErrnoRet"))
        return Profile(default, tuple(_rule(row) for row in document.get("syscalls") or ()))
    except (KeyError, TypeError, AttributeError, ValueError) as err:
        raise InvalidProfile(f"not an OCI seccomp profile: {err!r}") from err


def _rule(row: dict[str, Any]) -> Rule:
    names = row.get("names") or [row["name"]]
    args = tuple(
        Arg(int(arg["index"]), Op(arg["op"]), int(arg["value"]), int(arg.get("valueTwo", 0)))
        for arg in row.get("args") or ()
    )
    return Rule(tuple(names), _action(row["action"], row.get("errnoRet")), args)


def _action(name: str, errno: int | None) -> int:
    action = ACTIONS[name]
    if action == bpf.ERRNO:
        return action | (bpf.EPERM if errno is None else errno)
    return action | (errno or 0) if action == bpf.TRACE else action
