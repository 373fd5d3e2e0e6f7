"""A tiny image made of the host's own programs, as ``docker save`` writes one: every runtime can load it."""

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

REFERENCE = "localhost/bench:1"
PROGRAMS = ("sleep", "true")


def write_image(path: Path) -> None:
    """Write the image to ``path``: /bin/sleep, /bin/true and their libraries; it sleeps when not told otherwise."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name, source in sorted(_files().items()):
            tar.add(source.resolve(), arcname=name)
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[_machine()],
        "os": "linux",
        "config": {"Cmd": ["/bin/sleep", "infinity"], "Env": ["PATH=/bin"], "User": "0"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"]},
    }
    text = json.dumps(config).encode()
    name = f"{hashlib.sha256(text).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": [REFERENCE], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        for member, data in (
            (name, text),
            ("layer.tar", layer.getvalue()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def unpack(image: Path, root: Path) -> None:
    """Make a root directory of the image's one layer."""
    with tarfile.open(image) as tar:
        layer = tar.extractfile("layer.tar")
        with tarfile.open(fileobj=layer) as inner:
            inner.extractall(root, filter="fully_trusted")


def _files() -> dict[str, Path]:
    """Path in the image to file of the host."""
    found: dict[str, Path] = {}
    for program in PROGRAMS:
        source = shutil.which(program)
        assert source is not None, program
        found[f"bin/{program}"] = Path(source)
        listed = subprocess.run(["ldd", source], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(/\S+)\s+\(0x", listed):
            found[library.lstrip("/")] = Path(library)
    return found


def _machine() -> str:
    import platform

    return platform.machine()
