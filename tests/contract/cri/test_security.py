"""What a container may do, and what it may not."""

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.cri import runtime_pb2 as cri

pytestmark = pytest.mark.root

DEFAULT_CAPABILITIES = 0xA80425FB


def refused(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code()


def start(runtime: Any, sandbox: Any, *command: str, name: str = "c", **security: Any) -> str:
    """A container with these fields of LinuxContainerSecurityContext."""

    def change(config: cri.ContainerConfig) -> None:
        config.linux.security_context.CopyFrom(cri.LinuxContainerSecurityContext(**security))

    container: str = runtime.run(sandbox, *command, name=name, change=change)
    return container


def status_of(runtime: Any, container: str, field: str) -> str:
    return str(runtime.sh(container, f"grep ^{field}: /proc/self/status")).split(":")[1].strip()


# --- users


def test_users_and_groups(runtime: Any, sandbox: Any) -> None:
    by_number = start(runtime, sandbox, name="a", run_as_user={"value": 1234}, supplemental_groups=[7, 8])
    assert runtime.sh(by_number, "id -u; id -g; id -G").split("\n") == ["1234", "0", "0 7 8"]
    shown = runtime.status(by_number).user.linux
    assert (shown.uid, shown.gid, list(shown.supplemental_groups)) == (1234, 0, [0, 7, 8])
    grouped = start(runtime, sandbox, name="b", run_as_user={"value": 1234}, run_as_group={"value": 99})
    assert runtime.sh(grouped, "id -u; id -g") == "1234\n99"
    assert status_of(runtime, grouped, "CapEff") == "0" * 16
    root = start(runtime, sandbox, name="c", run_as_username="root")
    assert runtime.sh(root, "id -u") == "0"
    strict = start(runtime, sandbox, name="d", run_as_username="root", supplemental_groups_policy=cri.Strict)
    assert runtime.sh(strict, "id -G") == "0"
    assert refused(lambda: start(runtime, sandbox, name="e", run_as_username="nobody-of-that-name"))
    code = refused(lambda: start(runtime, sandbox, name="f", run_as_group={"value": 99}))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


# --- capabilities, filters, paths


def test_default_capabilities(runtime: Any, sandbox: Any) -> None:
    container = start(runtime, sandbox)
    for name in ("CapEff", "CapPrm", "CapBnd"):
        assert int(status_of(runtime, container, name), 16) == DEFAULT_CAPABILITIES
    assert int(status_of(runtime, container, "CapInh"), 16) == 0


def test_capabilities_are_added_and_dropped(runtime: Any, sandbox: Any) -> None:
    more = start(runtime, sandbox, name="a", capabilities={"add_capabilities": ["NET_ADMIN"]})
    assert int(status_of(runtime, more, "CapEff"), 16) == DEFAULT_CAPABILITIES | 1 << 12
    none = start(runtime, sandbox, name="b", capabilities={"drop_capabilities": ["ALL"]})
    assert int(status_of(runtime, none, "CapBnd"), 16) == 0
    one = start(
        runtime,
        sandbox,
        name="c",
        capabilities={"drop_capabilities": ["ALL"], "add_capabilities": ["CAP_CHOWN"]},
    )
    assert int(status_of(runtime, one, "CapEff"), 16) == 1
    every = start(runtime, sandbox, name="d", capabilities={"add_capabilities": ["ALL"]})
    assert int(status_of(runtime, every, "CapEff"), 16) > 1 << 36
    ambient = start(
        runtime,
        sandbox,
        name="e",
        run_as_user={"value": 1000},
        capabilities={"add_ambient_capabilities": ["NET_BIND_SERVICE"]},
    )
    assert int(status_of(runtime, ambient, "CapEff"), 16) == int(status_of(runtime, ambient, "CapAmb"), 16) == 1 << 10
    code = refused(lambda: start(runtime, sandbox, name="f", capabilities={"add_capabilities": ["NO_SUCH"]}))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


def test_no_new_privileges(runtime: Any, sandbox: Any) -> None:
    assert status_of(runtime, start(runtime, sandbox, name="a"), "NoNewPrivs") == "0"
    sealed = start(runtime, sandbox, name="b", no_new_privs=True, seccomp={"profile_type": 0})
    assert status_of(runtime, sealed, "NoNewPrivs") == "1" and status_of(runtime, sealed, "Seccomp") == "2"


@pytest.mark.parametrize("user", [0, 1000])
def test_the_default_filter(runtime: Any, sandbox: Any, user: int) -> None:
    container = start(runtime, sandbox, run_as_user={"value": user}, seccomp={"profile_type": 0})
    assert status_of(runtime, container, "Seccomp") == "2"
    probe = "import ctypes,os; l=ctypes.CDLL(None,use_errno=True); print(l.unshare(0x10000000), ctypes.get_errno())"
    assert runtime.exec(container, "python3", "-c", probe).stdout == b"-1 1\n"
    threads = "import threading; t=threading.Thread(target=print,args=('ran',)); t.start(); t.join()"
    assert runtime.exec(container, "python3", "-c", threads).stdout == b"ran\n"


def test_localhost_filters(runtime: Any, sandbox: Any, tmp_path: Path) -> None:
    rule = {"names": ["chmod", "fchmodat", "fchmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}
    profile = tmp_path / "p.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    container = start(runtime, sandbox, seccomp={"profile_type": 2, "localhost_ref": str(profile)})
    probe = "import os\ntry: os.chmod('/', 0o755)\nexcept OSError as e: print(e.errno)"
    assert runtime.exec(container, "python3", "-c", probe).stdout == b"5\n"
    missing = {"profile_type": 2, "localhost_ref": str(tmp_path / "none.json")}
    assert refused(lambda: start(runtime, sandbox, name="x", seccomp=missing)) is grpc.StatusCode.INVALID_ARGUMENT


def test_masked_and_readonly_paths(runtime: Any, sandbox: Any) -> None:
    container = start(runtime, sandbox, name="a")
    assert runtime.sh(container, "cat /proc/timer_list /proc/keys 2>/dev/null | head -c 1; ls /sys/firmware") == ""
    assert runtime.exec(container, "sh", "-c", "echo 1 > /proc/sys/vm/swappiness").exit_code != 0
    assert runtime.exec(container, "sh", "-c", "echo h > /proc/sysrq-trigger").exit_code != 0
    own = start(runtime, sandbox, name="b", masked_paths=["/etc/hostname"], readonly_paths=["/usr"])
    assert runtime.sh(own, "cat /etc/hostname") == ""
    assert runtime.exec(own, "touch", "/usr/x").exit_code != 0


def test_readonly_root(runtime: Any, sandbox: Any) -> None:
    container = start(runtime, sandbox, readonly_rootfs=True)
    assert b"Read-only" in runtime.exec(container, "touch", "/x").stderr
    runtime.sh(container, "touch /dev/shm/x")


def test_privileged(runtime: Any, sandbox: Any) -> None:
    container = start(runtime, sandbox, privileged=True)
    assert int(status_of(runtime, container, "CapEff"), 16) > 1 << 36
    runtime.sh(container, "mount -t tmpfs x /etc")
    assert "sysfs /sys sysfs rw" in runtime.sh(container, "cat /proc/mounts")


def test_unprivileged_cannot_mount_or_make_devices_work(runtime: Any, sandbox: Any) -> None:
    container = start(runtime, sandbox)
    assert runtime.exec(container, "mount", "-t", "tmpfs", "x", "/tmp").exit_code != 0
    root_device = Path("/").stat().st_dev
    probe = (
        f"import os,stat; os.mknod('/disk', 0o600|stat.S_IFBLK, {root_device})\n"
        "try: open('/disk','rb')\nexcept PermissionError: print('refused')"
    )
    assert runtime.exec(container, "python3", "-c", probe).stdout == b"refused\n"
    assert runtime.exec(container, "head", "-c", "1", "/dev/zero").stdout == b"\0"


def test_devices_are_given(runtime: Any, sandbox: Any, tmp_path: Path) -> None:
    fuse = tmp_path / "fuse"
    os.mknod(fuse, 0o666 | stat.S_IFCHR, os.makedev(10, 229))

    def change(config: cri.ContainerConfig) -> None:
        config.devices.add(container_path="/dev/mine", host_path=str(fuse), permissions="r")

    container = runtime.run(sandbox, change=change)
    assert runtime.sh(container, "stat -c %t:%T /dev/mine") == "a:e5"
    # Whether this machine has the driver or not: it is not the container's permission that is missing.
    assert b"not permitted" not in runtime.exec(container, "sh", "-c", ": < /dev/mine").stderr
    assert b"not permitted" in runtime.exec(container, "sh", "-c", ": > /dev/mine").stderr


# --- ways out


def test_nothing_of_the_runtime_leaks_in(runtime: Any, sandbox: Any) -> None:
    container = start(runtime, sandbox)
    fds = runtime.sh(container, "ls -l /proc/1/fd /proc/self/fd 2>/dev/null")
    assert str(runtime.base) not in fds and "socket" not in fds
    assert runtime.sh(container, "readlink /proc/self/cwd") == "/"
    environment = runtime.sh(container, "env")
    assert {line.split("=")[0] for line in environment.splitlines()} <= {
        "PATH",
        "HOME",
        "HOSTNAME",
        "PWD",
        "SHLVL",
        "_",
    }


def test_the_runtimes_program_cannot_be_written(runtime: Any, sandbox: Any) -> None:
    """The way of CVE-2019-5736: a program that is the runtime itself, kept open and written to after it has ended."""
    container = runtime.run(sandbox)
    # As the interpreter of a script: the kernel itself opens /proc/self/exe while that is still the runtime.
    runtime.sh(container, "printf '#!/proc/self/exe\\n' > /trap; chmod 755 /trap 2>/dev/null || true")
    probe = (
        "import os,time\n"
        "open('/trap','w').write('#!/proc/self/exe\\n'); os.chmod('/trap',0o755); print('set',flush=True)\n"
        "end=time.time()+5; found=set()\n"
        "while time.time()<end and not os.path.exists('/done'):\n"
        "  for p in os.listdir('/proc'):\n"
        "    if not p.isdigit(): continue\n"
        "    try: target=os.readlink(f'/proc/{p}/exe')\n"
        "    except OSError: continue\n"
        "    try: fd=os.open(f'/proc/{p}/exe',os.O_WRONLY); found.add('WROTE '+target); os.close(fd)\n"
        "    except OSError as e: found.add(f'{e.errno} {target}')\n"
        "print(found)\n"
    )
    watcher = runtime.run(sandbox, "python3", "-c", probe, name="watcher")
    runtime.wait_for(lambda: "set" in runtime.log_of(watcher), "the watcher")
    for _ in range(20):
        try:
            runtime.exec(watcher, "/trap", timeout=1)
        except grpc.RpcError:
            pass
    runtime.exec(watcher, "touch", "/done")
    runtime.exited(watcher)
    assert "WROTE /usr/bin/python" not in runtime.log_of(watcher)


def test_a_pod_does_not_see_another(runtime: Any, sandbox: Any) -> None:
    mine, other = runtime.run(sandbox), runtime.run(runtime.run_sandbox(), "sleep", "98765")
    assert "98765" not in runtime.sh(mine, "ps ax -o args | grep -v grep")
    assert other not in runtime.sh(mine, "cat /proc/self/cgroup /proc/self/mountinfo | grep -v overlay || true")


def test_working_directories_outside_are_refused(runtime: Any, sandbox: Any) -> None:
    for index, path in enumerate(("/proc/self/fd/3", "/proc/self/fd/7", "/proc/self/fd/8/../../..")):
        config = runtime.container_config("sleep", "1000", name=f"w{index}", working_dir=path)
        container = runtime.create(sandbox, config)
        with pytest.raises(grpc.RpcError):
            runtime.start_container(container)


# --- propagation and recursive read-only


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A shared mount of the host."""
    path = tmp_path / "volume"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "volume", path], check=True)
    subprocess.run(["mount", "--make-shared", path], check=True)
    (path / "sub").mkdir()
    yield path
    subprocess.run(["umount", "-R", path], check=True)


@pytest.mark.parametrize("mode", [cri.PROPAGATION_PRIVATE, cri.PROPAGATION_HOST_TO_CONTAINER])
def test_mounts_of_the_host_arrive_or_not(runtime: Any, sandbox: Any, volume: Path, mode: int) -> None:
    mount = cri.Mount(container_path="/v", host_path=str(volume), propagation=mode)
    container = runtime.run(sandbox, mounts=[mount])
    subprocess.run(["mount", "-t", "tmpfs", "late", volume / "sub"], check=True)
    (volume / "sub" / "late").touch()
    assert runtime.sh(container, "ls /v/sub") == ("late" if mode == cri.PROPAGATION_HOST_TO_CONTAINER else "")


def test_mounts_of_the_container_arrive_at_the_host(runtime: Any, sandbox: Any, volume: Path) -> None:
    def change(config: cri.ContainerConfig) -> None:
        config.linux.security_context.privileged = True
        config.mounts.add(container_path="/v", host_path=str(volume), propagation=cri.PROPAGATION_BIDIRECTIONAL)

    container = runtime.run(sandbox, change=change)
    runtime.sh(container, "mount -t tmpfs inner /v/sub && touch /v/sub/inner")
    assert (volume / "sub" / "inner").exists()


def test_recursive_read_only(runtime: Any, sandbox: Any, volume: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "inner", volume / "sub"], check=True)
    plain = cri.Mount(container_path="/ro", host_path=str(volume), readonly=True)
    deep = cri.Mount(container_path="/rro", host_path=str(volume), readonly=True, recursive_read_only=True)
    container = runtime.run(sandbox, mounts=[plain, deep])
    runtime.sh(container, "touch /ro/sub/x")
    assert runtime.exec(container, "touch", "/ro/x").exit_code != 0
    assert runtime.exec(container, "touch", "/rro/sub/x").exit_code != 0
