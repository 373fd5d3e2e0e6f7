"""From program names to an image: plan the layout, write the layer, add the image."""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cri_runtime.images.digest import Digest
from cri_runtime.images.errors import HostProgramError
from cri_runtime.images.host.layout import Directory, Layout, Link, Text, write
from cri_runtime.images.host.libraries import CACHE, Libraries
from cri_runtime.images.host.programs import (
    DEFAULT_PATH,
    Program,
    ask_python,
    find_program,
    interpreter_of,
    is_python,
)
from cri_runtime.images.host.python import add_python
from cri_runtime.images.layer import LayerWriter, WrittenLayer
from cri_runtime.images.manifest import (
    HistoryEntry,
    ImageConfig,
    Platform,
)
from cri_runtime.images.reference import normalize
from cri_runtime.images.store import Image, ImageStore

_OPENED_LATER = {"libc.so.6": ("libnss_files.so.2", "libnss_dns.so.2", "libgcc_s.so.1")}
"""Libraries that others open by name while running."""
_DATA = {
    "libtinfo": tuple(f"/lib/terminfo/{t[0]}/{t}" for t in ("xterm", "xterm-256color", "linux", "vt100", "screen")),
    "libssl": ("/etc/ssl/certs/ca-certificates.crt",),
    "node": ("/usr/share/nodejs/cjs-module-lexer", "/usr/share/nodejs/undici", "/usr/share/nodejs/acorn"),
}
"""Files that libraries and programs read: by the beginning of the name; absent ones do not matter."""
_SHELL = "/bin/sh"
_STANDARD_BIN = DEFAULT_PATH.split(":")
_PASSWD = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
_GROUP = b"root:x:0:\nnogroup:x:65534:\n"
_NSSWITCH = b"passwd: files\ngroup: files\nhosts: files dns\n"


@dataclass(frozen=True)
class Plan:
    """What to pack, and the programs as they were found."""

    layout: Layout
    programs: tuple[Program, ...]


def plan_image(programs: Sequence[str], include: Sequence[str] = (), search: str = "") -> Plan:
    """Find everything the programs load. Reads the host, writes nothing. Raises HostProgramError.

    A shell goes along if the host has one: ``exec`` without it is little use, and ``system()`` needs it.
    """
    if not programs and not include:
        raise HostProgramError("name a program to pack, for instance python3")
    found = [find_program(name, search) for name in programs]
    packer = _Packer(search)
    for program in found:
        packer.add_program(program)
    if os.path.exists(_SHELL):  # noqa: PTH110
        packer.add_objects([_SHELL])
    for path in include:
        packer.include(path)
    packer.finish()
    return Plan(packer.layout, tuple(found))


class _Packer:
    def __init__(self, search: str) -> None:
        self.layout = Layout()
        self._libraries = Libraries()
        self._search = search
        self._scripts: set[str] = set()
        for path in ("/dev", "/proc", "/sys", "/run", "/var", "/etc"):
            self.layout.put(path, Directory())
        self.layout.put("/tmp", Directory(0o1777))

    def add_program(self, program: Program) -> None:
        """A program with all it loads, and a link in /usr/local/bin if it lies off the beaten path."""
        path = program.path
        if is_python(program):
            home = ask_python(program, self._search)
            path = home.program
            self.add_objects([*add_python(self.layout, home, self._libraries)], strict=False)
        self.add_objects([path])
        self._add_data(program.name)
        if os.path.dirname(path) not in _STANDARD_BIN:  # noqa: PTH120
            self.layout.put(f"/usr/local/bin/{program.name}", Link(path))

    def add_objects(self, paths: Sequence[str], strict: bool = True) -> None:
        """Files with the libraries they load. Raises HostProgramError for a library that is not there, if strict."""
        for path in paths:
            real = self.layout.add(path)
            if self._libraries.elf(real) is None:
                self._add_interpreter(real)
        closure = self._libraries.closure(paths, _OPENED_LATER["libc.so.6"])
        if closure.missing and strict:
            name, wanted_by = closure.missing[0]
            raise HostProgramError(f"{wanted_by} needs the library {name}, which is not on this host")
        for path in sorted(closure.paths):
            self.layout.add(path)
            self._add_data(os.path.basename(path))  # noqa: PTH119
        if closure.used_cache:
            self.layout.add(str(CACHE))

    def include(self, path: str) -> None:
        """A file or directory of the user's choice, with the libraries of programs in it."""
        if not path.startswith("/"):
            raise HostProgramError(f'"{path}": what to include is named by its absolute path')
        real = self.layout.add(path)
        files = [*self.layout.add_tree(path)] if os.path.isdir(real) else [real]  # noqa: PTH112
        objects = [file for file in files if self._libraries.elf(file) is not None]
        if objects:
            self.add_objects(objects, strict=False)

    def finish(self) -> None:
        """The files that programs expect of any system."""
        self.layout.put("/etc/passwd", Text(_PASSWD))
        self.layout.put("/etc/group", Text(_GROUP))
        self.layout.put("/etc/nsswitch.conf", Text(_NSSWITCH))
        self.layout.put("/root", Directory(0o700))
        self.layout.put("/var/tmp", Directory(0o1777))

    def _add_interpreter(self, script: str) -> None:
        words = interpreter_of(script)
        if not words or script in self._scripts:
            return
        self._scripts.add(script)
        self.add_objects([words[0]])
        wanted = next((w for w in words[1:] if not w.startswith("-") and "=" not in w), None)
        if os.path.basename(words[0]) == "env" and wanted:  # noqa: PTH119
            self.add_program(find_program(wanted, self._search))
        elif is_python(Program(os.path.basename(words[0]), words[0])):  # noqa: PTH119
            self.add_program(Program(os.path.basename(words[0]), words[0]))  # noqa: PTH119

    def _add_data(self, name: str) -> None:
        for prefix, paths in _DATA.items():
            for path in paths if name.startswith(prefix) else ():
                if os.path.isdir(path):  # noqa: PTH112
                    for _ in self.layout.add_tree(path):
                        pass
                elif os.path.exists(path):  # noqa: PTH110
                    self.layout.add(path)


async def from_host(
    store: ImageStore,
    programs: Sequence[str],
    tag: str,
    include: Sequence[str] = (),
    search: str = "",
    report: Callable[[str], None] = lambda text: None,
) -> Image:
    """Make an image of programs of this host and add it as ``tag``. The same host gives the same image.

    Its command is the first program. Raises HostProgramError, InvalidReference, OSError.
    """
    name = str(normalize(tag))
    plan = await asyncio.to_thread(plan_image, programs, include, search)
    report(f"packing {len(plan.layout.nodes)} files")
    async with store.holding():
        layer, newest = await asyncio.to_thread(_write_layer, store, plan.layout)
        return await store.add_config(_config(plan, layer.diff_id, newest), [layer.descriptor], [name])


def _write_layer(store: ImageStore, layout: Layout) -> tuple[WrittenLayer, int]:
    with LayerWriter(store.blobs) as writer:
        newest = write(layout, writer)
        return writer.commit(), newest


def _config(plan: Plan, diff_id: Digest, newest: int) -> ImageConfig:
    created = datetime.fromtimestamp(newest, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    names = " ".join(program.name for program in plan.programs)
    host = Platform.host()
    return ImageConfig(
        os=host.os,
        architecture=host.architecture,
        created=created,
        env=(f"PATH={DEFAULT_PATH}",),
        cmd=(plan.programs[0].name,) if plan.programs else (_SHELL,),
        diff_ids=(diff_id,),
        history=(HistoryEntry(created, f"from-host {names}".strip()),),
    )
