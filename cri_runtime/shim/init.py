"""What a forked child does on its way into a container: the first process (:func:`start`), later ones (:func:`enter`).

Both run in a child of the supervisor, never return, and report a failing step on ``status``.
"""

import os

from cri_runtime.linux.constants import CLONE_NEWCGROUP, CLONE_NEWNS
from cri_runtime.linux.namespace import setns, unshare
from cri_runtime.shim import process, rootfs
from cri_runtime.shim.stages import Failure, Status, Steps


def start(spec: dict, operations: list, streams: tuple, status: Status) -> None:
    """Become the container's first process. ``streams``: stdin, stdout, stderr, or nothing for a terminal."""
    step = Steps()
    try:
        process.begin_child()
        step("join the cgroup")
        process.join_cgroup(spec["cgroup"]["tasks"])
        if not spec["privileged"]:
            unshare(CLONE_NEWCGROUP)
        if spec["oom_score_adj"] is not None:
            warning = process.set_oom_score(spec["oom_score_adj"])
            if warning:
                status.send({"seq": 0, "warning": warning})
        rootfs.build(spec, operations, step)
        _take_streams(spec["tty"], streams, status, step, console=True)
        step("mask paths")
        rootfs.hide(spec["masked"], spec["readonly"])
        if spec["readonly_rootfs"]:
            rootfs.seal_root()
        process.run(spec["process"], status, step)
    except BaseException as err:
        _fail(step, status, err)


def enter(spec: dict, process_spec: dict, target: int, tty: bool, streams: tuple, status: Status) -> None:
    """Become one more process of the container ``spec`` whose first process has the pidfd ``target``."""
    step = Steps()
    try:
        process.begin_child()
        step("join the cgroup")
        process.join_cgroup(spec["cgroup"]["tasks"])
        if spec["oom_score_adj"] is not None:
            process.set_oom_score(spec["oom_score_adj"])
        step("enter the container's namespaces")
        setns(target, CLONE_NEWNS | CLONE_NEWCGROUP)
        _take_streams(tty, streams, status, step, console=False)
        process.run(process_spec, status, step)
    except BaseException as err:
        _fail(step, status, err)


def _take_streams(tty: bool, streams: tuple, status: Status, step: Steps, console: bool) -> None:
    if not tty:
        process.take_streams(*streams)
        return
    step("open a terminal")
    master, slave = process.open_terminal()
    if console:
        _bind_console(os.ttyname(slave))
    process.take_terminal(slave)
    status.send({"seq": 0, "terminal": True}, (master,))


def _bind_console(name: str) -> None:
    os.close(os.open("/dev/console", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    rootfs.mount(name, "/dev/console", "", rootfs.MS_BIND)


def _fail(step: Steps, status: Status, err: BaseException) -> None:
    """Report, and end without running any of the parent's clean-up."""
    try:
        status.send({"seq": 0, "error": Failure.of(step.current, err).to_dict()})
    finally:
        os._exit(127)
