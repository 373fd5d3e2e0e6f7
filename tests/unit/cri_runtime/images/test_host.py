"""Images of the host's programs: the closure against ldd, and programs that start in it. Needs root for chroot."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cri_runtime.images.errors import HostProgramError, InvalidReference
from cri_runtime.images.host.layout import Directory, HostFile, Layout, Link
from cri_runtime.images.host.libraries import Libraries
from cri_runtime.images.host.pack import from_host, plan_image
from cri_runtime.images.store import ImageStore

BARE = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
MODULES = "import asyncio, ctypes, http.server, json, sqlite3, ssl, socket, sys, threading; print(sys.version_info[:2])"


def ldd(program: str) -> set[str]:
    """What ldd says, links resolved."""
    output = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    words = [word for line in output.splitlines() for word in line.split() if word.startswith("/")]
    return {os.path.realpath(word) for word in words}


@pytest.mark.parametrize("program", ["sh", "ls", "bash", "tar", "openssl", "node", "git", "systemctl", sys.executable])
def test_the_closure_is_ldds(program: str) -> None:
    found = shutil.which(program)
    if found is None or shutil.which("ldd") is None:
        pytest.skip(f"no {program} or no ldd on this host")
    closure = Libraries().closure([os.path.realpath(found)])
    assert {os.path.realpath(path) for path in closure.paths} - {os.path.realpath(found)} == ldd(found)
    assert closure.missing == ()


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    (tmp_path / "lib.c").write_text("int f(void){return 1;}")
    (tmp_path / "main.c").write_text("int f(void); int main(void){return f();}")
    link = f"-L{tmp_path} -lgone -Wl,-rpath,$ORIGIN/sub"
    subprocess.run(["cc", "-shared", "-o", tmp_path / "libgone.so", tmp_path / "lib.c"], check=True)
    subprocess.run(["cc", "-o", tmp_path / "prog", tmp_path / "main.c", *link.split()], check=True)
    (tmp_path / "sub").mkdir()
    (tmp_path / "libgone.so").rename(tmp_path / "sub/libgone.so")
    assert str(tmp_path / "sub/libgone.so") in Libraries().closure([str(tmp_path / "prog")]).paths
    (tmp_path / "sub/libgone.so").unlink()
    with pytest.raises(HostProgramError, match=r"prog needs the library libgone\.so, which is not on this host"):
        plan_image([str(tmp_path / "prog")])


def test_a_layout_has_every_link_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "real/bin").mkdir(parents=True)
    (tmp_path / "real/bin/prog-1").write_text("x")
    (tmp_path / "real/bin/prog").symlink_to("prog-1")
    (tmp_path / "door").symlink_to(tmp_path / "real")
    layout = Layout()
    assert layout.add(f"{tmp_path}/door/bin/prog") == f"{tmp_path}/real/bin/prog-1"
    assert layout.nodes[f"{tmp_path}/door"] == Link(f"{tmp_path}/real")
    assert layout.nodes[f"{tmp_path}/real/bin/prog"] == Link("prog-1")
    assert layout.nodes[f"{tmp_path}/real/bin/prog-1"] == HostFile(f"{tmp_path}/real/bin/prog-1")
    assert layout.nodes[f"{tmp_path}/real/bin"] == Directory()


def test_wrong_programs_are_named() -> None:
    with pytest.raises(HostProgramError, match='no program "nosuch" in /usr/bin'):
        plan_image(["nosuch"], search="/usr/bin")
    with pytest.raises(HostProgramError, match="absolute"):
        plan_image(["./x"])
    with pytest.raises(HostProgramError, match="/nonexistent: No such file"):
        plan_image(["sh"], ["/nonexistent"])
    with pytest.raises(HostProgramError, match="name a program"):
        plan_image([])


def test_a_scripts_interpreter_comes_along(tmp_path: Path) -> None:
    script = tmp_path / "hello"
    script.write_text("#!/usr/bin/env sh\necho hello\n")
    script.chmod(0o755)
    nodes = plan_image([str(script)]).layout.nodes
    assert isinstance(nodes[os.path.realpath("/usr/bin/env")], HostFile)
    assert isinstance(nodes[os.path.realpath("/bin/sh")], HostFile)
    assert nodes["/usr/local/bin/hello"] == Link(str(script))


async def test_a_bad_tag_is_refused_before_the_work(store: ImageStore) -> None:
    with pytest.raises(InvalidReference):
        await from_host(store, ["sh"], "Bad Tag")


def run_bare(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run with an environment of just a PATH."""
    return subprocess.run(command, env=BARE, capture_output=True, text=True, executable=shutil.which(command[0]))


@pytest.mark.root
@pytest.mark.parametrize("program", ["python3", "/usr/bin/python3", sys.executable])
async def test_python_starts_in_its_image(store: ImageStore, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no {program} on this host")
    image = await from_host(store, [program], "python:host", search=os.environ["PATH"])
    (root,) = await store.lower_dirs(image.id)
    name = Path(program).name
    for command in (["chroot", str(root), name, "-c", MODULES], ["chroot", str(root), "/bin/sh", "-c", f"{name} -V"]):
        done = run_bare(command)
        assert done.returncode == 0, done.stderr
    assert image.config.cmd == (name,)
    assert not list(root.rglob("site-packages/*"))


@pytest.mark.root
async def test_the_same_host_gives_the_same_image(store: ImageStore, tmp_path: Path) -> None:
    one = await from_host(store, ["sh", "ls"], "one")
    two = await from_host(ImageStore(tmp_path / "other"), ["ls", "sh"], "two")
    assert one.layers == two.layers
    assert (await from_host(store, ["sh", "ls"], "three")).id == one.id
