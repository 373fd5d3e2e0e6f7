"""A container's root file system: operations, listed by :func:`plan` (pure) and executed in a new mount namespace.

Sources on the host are opened (open_tree) before anything is made private, so that they keep their propagation; targets
are resolved beneath the new root by descriptor, so that no link in an image can lead outside.
Source: OCI runtime specification, config-linux ("Default Filesystems", "Default Devices"); CRI's Mount.
"""

import errno
import os
import stat

from cri_runtime.linux.constants import (
    AT_RECURSIVE,
    MNT_DETACH,
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_RELATIME,
    MS_REMOUNT,
    MS_SHARED,
    MS_SLAVE,
    MS_STRICTATIME,
)
from cri_runtime.linux.mount import mount, mount_setattr, move_mount, open_tree, pivot_root, umount2
from cri_runtime.linux.paths import ensure, openat2

PROPAGATION = {"private": MS_PRIVATE, "slave": MS_SLAVE, "shared": MS_SHARED}
NODES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
LINKS = (
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)
OPTIONS_MAX = 4000
"""mount(2) takes one page of options."""


class Special:
    """A kernel file system on a directory of the root."""

    def __init__(self, fstype: str, target: str, flags: int, data: str = "", optional: bool = False) -> None:
        self.fstype, self.target, self.flags, self.data = fstype, target, flags, data
        self.optional = optional

    def describe(self) -> str:
        """One line for people."""
        return f"mount {self.fstype} on {self.target}"

    def execute(self, root: int) -> None:
        """Do it beneath ``root``. Raises OSError."""
        target = ensure(root, self.target)
        try:
            mount(self.fstype, f"/proc/self/fd/{target}", self.fstype, self.flags, self.data)
        except OSError as err:
            if not self.optional:
                raise OSError(err.errno, f"mount {self.fstype}: {os.strerror(err.errno or 0)}", self.target) from err
        finally:
            os.close(target)


class Bind:
    """A file or directory of the host on a path of the root."""

    def __init__(self, source: str, target: str, readonly: str = "", propagation: str = "private") -> None:
        self.source, self.target, self.readonly, self.propagation = source, target, readonly, propagation
        self.tree = -1

    def describe(self) -> str:
        """One line for people."""
        mode = {"": "rw", "ro": "ro", "rro": "recursively ro"}[self.readonly]
        return f"bind {self.source} on {self.target}, {mode}, {self.propagation}"

    def prepare(self) -> None:
        """Open the source while it is still in the host's peer group. Raises OSError."""
        self.tree = open_tree(self.source)

    def execute(self, root: int) -> None:
        """Attach it beneath ``root``. Raises OSError."""
        is_file = not stat.S_ISDIR(os.stat(self.tree).st_mode)
        target = ensure(root, self.target, is_file=is_file)
        try:
            move_mount(self.tree, target, self.target)
        finally:
            os.close(target)
        here = f"/proc/self/fd/{self.tree}"
        mount("", here, "", MS_REC | PROPAGATION[self.propagation])
        if self.readonly == "ro":
            mount("", here, "", MS_BIND | MS_REMOUNT | MS_RDONLY | _kept_flags(self.tree))
        elif self.readonly == "rro":
            mount_setattr(self.tree, MOUNT_ATTR_RDONLY, recursive=True, subject=self.target)
        os.close(self.tree)


def _kept_flags(fd: int) -> int:
    """The mount flags that a remount would lose, as mount(2) has them."""
    have = os.fstatvfs(fd).f_flag
    return sum(flag for flag in (MS_NOSUID, MS_NODEV, MS_NOEXEC) if have & flag)


class Devices:
    """The nodes and links of ``/dev``: ``nodes`` are ``(path below /dev, kind, major, minor, mode, uid, gid)``."""

    def __init__(self, nodes: list) -> None:
        self.nodes = [(name, "c", major, minor, 0o666, 0, 0) for name, major, minor in NODES] + nodes

    def describe(self) -> str:
        """One line for people."""
        return f"{len(self.nodes)} device nodes in /dev"

    def execute(self, root: int) -> None:
        """Make them beneath ``root``. Raises OSError."""
        dev = openat2(root, "/dev", os.O_PATH | os.O_DIRECTORY)
        for name, kind, major, minor, mode, uid, gid in self.nodes:
            self._make(dev, name, kind, os.makedev(major, minor), mode)
            if uid or gid:
                os.chown(name, uid, gid, dir_fd=dev, follow_symlinks=False)
        for name, target in LINKS:
            os.symlink(target, name, dir_fd=dev)
        os.close(dev)

    def _make(self, dev: int, name: str, kind: str, number: int, mode: int) -> None:
        parent = os.path.dirname(name)
        if parent:
            os.close(ensure(dev, parent))
        try:
            os.mknod(name, mode | (stat.S_IFBLK if kind == "b" else stat.S_IFCHR), number, dir_fd=dev)
        except FileExistsError:
            pass


class Cgroups:
    """``/sys/fs/cgroup``, read-only unless privileged: ``mounts`` are ``(type, data, directory)``."""

    def __init__(self, mounts: list, writable: bool) -> None:
        self.mounts, self.flags = mounts, MS_NOSUID | MS_NODEV | MS_NOEXEC | (0 if writable else MS_RDONLY)

    def describe(self) -> str:
        """One line for people."""
        return f"mount {len(self.mounts)} cgroup hierarchies on /sys/fs/cgroup"

    def execute(self, root: int) -> None:
        """Do it beneath ``root``. Raises OSError."""
        if len(self.mounts) == 1 and not self.mounts[0][2]:
            Special(self.mounts[0][0], "/sys/fs/cgroup", self.flags).execute(root)
            return
        Special("tmpfs", "/sys/fs/cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755,size=64k").execute(root)
        for fstype, data, directory in self.mounts:
            Special(fstype, f"/sys/fs/cgroup/{directory}", self.flags, data, optional=True).execute(root)
        top = openat2(root, "/sys/fs/cgroup", os.O_PATH)
        mount("", f"/proc/self/fd/{top}", "", MS_BIND | MS_REMOUNT | self.flags)
        os.close(top)


def plan(spec: dict) -> list:
    """Pure: the operations for a container, in order. A mount of the user's replaces a default one and all below it."""
    binds = [Bind(m["source"], m["target"], m["readonly"], m["propagation"]) for m in spec["mounts"]]
    taken = [bind.target.rstrip("/") for bind in binds]
    wanted = [op for path, op in _defaults(spec) if not any(path == t or path.startswith(t + "/") for t in taken)]
    return wanted + sorted(binds, key=lambda bind: bind.target.rstrip("/").count("/"))


def _defaults(spec: dict) -> list:
    hidden = MS_NOSUID | MS_NOEXEC | MS_NODEV
    sysfs = hidden | (0 if spec["privileged"] else MS_RDONLY)
    return [
        ("/proc", Special("proc", "/proc", hidden)),
        ("/dev", Special("tmpfs", "/dev", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k")),
        ("/dev", Devices(spec["devices"])),
        ("/dev/pts", Special("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")),
        ("/dev/shm", Bind(spec["shm"], "/dev/shm")),
        ("/dev/mqueue", Special("mqueue", "/dev/mqueue", hidden, optional=True)),
        ("/sys", Special("sysfs", "/sys", sysfs)),
        ("/sys/fs/cgroup", Cgroups(spec["cgroup_mounts"], spec["privileged"])),
    ]


def build(spec: dict, operations: list, step) -> None:  # type: ignore[no-untyped-def]
    """Make the root file system in this process's own mount namespace and make it ``/``. Raises OSError."""
    step("open mount sources")
    for operation in operations:
        if isinstance(operation, Bind):
            operation.prepare()
    step("make mounts private")
    mount("", "/", "", MS_REC | MS_PRIVATE)
    step("mount the root file system")
    mount_overlay(spec["lower"], spec["upper"], spec["work"], spec["rootfs"])
    root = os.open(spec["rootfs"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for operation in operations:
        step(operation.describe())
        operation.execute(root)
    step("enter the root file system")
    os.fchdir(root)
    pivot_root(".", ".")
    umount2(".", MNT_DETACH)
    os.chdir("/")


def mount_overlay(lower: list, upper: str, work: str, target: str) -> None:
    """Mount an overlay. ``volatile``: a container's root is never mounted twice, so nothing needs syncing at its end.

    Directories go by descriptor where their names would not fit. Raises OSError.
    """
    options = f"lowerdir={':'.join(_escape(path) for path in lower)},upperdir={_escape(upper)},workdir={_escape(work)}"
    fds = []
    if len(options) > OPTIONS_MAX:
        fds = [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in lower]
        names = ":".join(f"/proc/self/fd/{fd}" for fd in fds)
        options = f"lowerdir={names},upperdir={_escape(upper)},workdir={_escape(work)}"
    try:
        mount("overlay", target, "overlay", 0, f"{options},volatile")
    finally:
        for fd in fds:
            os.close(fd)


def _escape(path: str) -> str:
    for char in "\\:,":
        path = path.replace(char, "\\" + char)
    return path


def hide(masked: list, readonly: list) -> None:
    """Mask paths with nothing, make others read-only, in the entered root; absent ones are skipped. Raises OSError."""
    for path in masked:
        try:
            mount("/dev/null", path, "", MS_BIND)
        except OSError as err:
            if err.errno == errno.ENOTDIR:
                mount("tmpfs", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0")
            elif err.errno != errno.ENOENT:
                raise
    for path in readonly:
        try:
            mount(path, path, "", MS_BIND | MS_REC)
        except FileNotFoundError:
            continue
        flags = sum(f for f in (MS_NOSUID, MS_NODEV, MS_NOEXEC) if os.statvfs(path).f_flag & f)
        mount("", path, "", MS_BIND | MS_REMOUNT | MS_RDONLY | flags)


def seal_root() -> None:
    """Make ``/`` read-only, in the entered root. Raises OSError."""
    mount("", "/", "", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_RELATIME)


__all__ = [
    "AT_RECURSIVE",
    "Bind",
    "Cgroups",
    "Devices",
    "Special",
    "build",
    "hide",
    "mount_overlay",
    "plan",
    "seal_root",
]
