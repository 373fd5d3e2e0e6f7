"""Each system call wrapper, on the real kernel, in a child that is thrown away."""

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cri_runtime.linux import constants as c
from cri_runtime.linux import mount, namespace, paths, process, sockets

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


def in_child(work: Callable[[], None]) -> None:
    """Run ``work`` in a forked child; its exception's text comes back as a failure."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as err:
            os.write(write, repr(err).encode()[:4000])
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        failure = pipe.read().decode()
    os.waitpid(pid, 0)
    assert not failure, failure


def private_mounts() -> None:
    namespace.unshare(c.CLONE_NEWNS)
    mount.mount("", "/", "", c.MS_REC | c.MS_PRIVATE)


def test_mount_and_umount2_name_call_and_target(tmp_path: Path) -> None:
    def work() -> None:
        private_mounts()
        mount.mount("tmpfs", str(tmp_path), "tmpfs", c.MS_NOSUID, "size=64k")
        assert os.statvfs(tmp_path).f_flag & os.ST_NOSUID
        mount.umount2(str(tmp_path))
        with pytest.raises(OSError) as caught:
            mount.umount2(str(tmp_path))
        assert caught.value.errno == errno.EINVAL and caught.value.filename == str(tmp_path)
        assert "umount2" in caught.value.strerror

    in_child(work)


def test_open_tree_and_move_mount_attach_a_copy(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "file").touch()

    def work() -> None:
        private_mounts()
        tree = mount.open_tree(str(source))
        mount.move_mount(tree, os.open(target, os.O_PATH))
        mount.mount_setattr(tree, c.MOUNT_ATTR_RDONLY, recursive=True)
        assert (target / "file").exists()
        with pytest.raises(OSError, match="Read-only"):
            (target / "new").touch()

    in_child(work)


def test_pivot_root_leaves_nothing_of_the_old_root(tmp_path: Path) -> None:
    def work() -> None:
        private_mounts()
        mount.mount("tmpfs", str(tmp_path), "tmpfs", 0)
        os.chdir(tmp_path)
        mount.pivot_root(".", ".")
        mount.umount2(".", c.MNT_DETACH)
        assert not any(Path("/").iterdir())

    in_child(work)


def test_clone3_makes_namespaces_and_a_pidfd() -> None:
    def work() -> None:
        pid, pidfd = namespace.clone3(c.CLONE_NEWPID)
        if pid == 0:
            os._exit(7 if os.getpid() == 1 else 8)
        signal.pidfd_send_signal(pidfd, 0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7

    in_child(work)


def test_clone3_begins_in_a_cgroup() -> None:
    rows = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    top = next((Path(row[1]) for row in rows if row[2] == "cgroup2"), None)
    if top is None:
        pytest.skip("no cgroup2 is mounted")
    cgroup = top / f"knarr-test-{os.getpid()}"
    cgroup.mkdir()
    try:

        def work() -> None:
            fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
            pid, _ = namespace.clone3(0, fd)
            if pid == 0:
                os._exit(0 if cgroup.name in Path("/proc/self/cgroup").read_text() else 1)
            assert os.waitpid(pid, 0)[1] == 0

        in_child(work)
    finally:
        cgroup.rmdir()


def test_setns_enters_by_descriptor() -> None:
    def work() -> None:
        before = str(Path("/proc/self/ns/uts").readlink())
        home = os.open("/proc/self/ns/uts", os.O_RDONLY)
        namespace.unshare(c.CLONE_NEWUTS)
        namespace.sethostname("elsewhere")
        assert socket.gethostname() == "elsewhere" and str(Path("/proc/self/ns/uts").readlink()) != before
        namespace.setns(home, c.CLONE_NEWUTS)
        assert str(Path("/proc/self/ns/uts").readlink()) == before

    in_child(work)


def test_capabilities_are_dropped_and_kept() -> None:
    def work() -> None:
        chown, kill = 1 << 0, 1 << 5
        process.drop_bounding(chown | kill)
        assert process.bounding_set() == chown | kill
        process.capset(chown, chown | kill, kill)
        process.set_ambient(kill)
        rows = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
        masks = {name: int(rows[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd")}
        assert masks == {
            "CapEff": chown,
            "CapPrm": chown | kill,
            "CapInh": kill,
            "CapAmb": kill,
            "CapBnd": chown | kill,
        }

    in_child(work)


def test_a_seccomp_program_is_installed() -> None:
    from cri_runtime.linux import bpf

    def work() -> None:
        profile = bpf.Profile(bpf.ALLOW, (bpf.Rule(("chroot",), bpf.ERRNO | errno.EXDEV),))
        process.seccomp(bpf.assemble(profile, os.uname().machine))
        with pytest.raises(OSError) as caught:
            os.chroot("/")
        assert caught.value.errno == errno.EXDEV

    in_child(work)


def test_close_range_closes_all_from_there() -> None:
    """In a process of its own: this one may have threads that reopen descriptors."""
    script = """if True:
        import os
        from cri_runtime.linux import process
        fds = [os.open("/", os.O_RDONLY) for _ in range(5)]
        process.close_range(fds[1])
        print([os.path.exists(f"/proc/self/fd/{fd}") for fd in fds])
    """
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[True, False, False, False, False]"


# --- paths beneath a root


@pytest.fixture
def root(tmp_path: Path) -> int:
    (tmp_path / "root" / "dir").mkdir(parents=True)
    (tmp_path / "root" / "up").symlink_to("../../..")
    (tmp_path / "root" / "abs").symlink_to("/made")
    (tmp_path / "root" / "loop").symlink_to("loop")
    return os.open(tmp_path / "root", os.O_PATH)


def where(fd: int, tmp_path: Path) -> str:
    return str(Path(f"/proc/self/fd/{fd}").readlink()).removeprefix(str(tmp_path))


def test_missing_directories_and_files_are_made_beneath_the_root(root: int, tmp_path: Path) -> None:
    assert where(paths.ensure(root, "/a/b/c"), tmp_path) == "/root/a/b/c"
    assert where(paths.ensure(root, "/a/f", is_file=True), tmp_path) == "/root/a/f"
    assert (tmp_path / "root" / "a" / "f").is_file()


def test_links_cannot_lead_out(root: int, tmp_path: Path) -> None:
    assert where(paths.ensure(root, "/up/x"), tmp_path) == "/root/x"
    assert where(paths.ensure(root, "/abs"), tmp_path) == "/root/made"
    assert where(paths.ensure(root, "/abs/../../../y"), tmp_path) == "/root/y"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root"]


def test_loops_end(root: int) -> None:
    with pytest.raises(OSError) as caught:
        paths.ensure(root, "/loop/x")
    assert caught.value.errno == errno.ELOOP


def test_magic_links_are_refused() -> None:
    with pytest.raises(OSError) as caught:
        paths.openat2(os.open("/", os.O_PATH), "/proc/self/exe", os.O_RDONLY)
    assert caught.value.errno == errno.ELOOP


def test_sockets_may_have_long_paths(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 100)
    directory.mkdir()
    with sockets.bind_unix(str(directory), "s") as listener, sockets.connect_unix(str(directory), "s") as client:
        accepted, _ = listener.accept()
        client.sendall(b"x")
        assert accepted.recv(1) == b"x"
        accepted.close()
    assert (directory / "s").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConnectionRefusedError):
        sockets.connect_unix(str(directory), "s")
