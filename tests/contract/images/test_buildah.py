"""A corpus of Dockerfiles, built by us and by buildah: every file's mode, owner and content, and the config.

Where buildah does not do as docker does, the corpus has no case: it keeps a range of EXPOSE as it is written, makes the
directories of VOLUME, does not let SHELL change CMD, and gives a new target of ``COPY dir /target`` mode 0755 whatever
the source has.
"""

import io
import json
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from cri_runtime.build.execute import BuildRequest
from cri_runtime.images.export import export
from ctl.image.context import read_ignore, tar_directory

pytestmark = pytest.mark.root

CORPUS = {
    "copy a file": "COPY a /x/y",
    "copy into a directory": "COPY a b.txt /x/",
    "copy a directory's contents": "COPY dir /target",
    "globs": "COPY *.txt /t/",
    "everything": "COPY . /all/",
    "owner by number": "COPY --chown=7:8 a /a",
    "relative to the working directory": "WORKDIR /w\nCOPY a .\nWORKDIR sub\nCOPY a b",
    "a link is kept in a directory": "COPY dir /d/",
    "add unpacks": "ADD archive.tar /un/",
    "add of a file": "ADD a /added",
    "from a stage": "COPY dir /d\nFROM scratch\nCOPY --from=0 /d/in /in/",
    "named stages": "COPY a /a\nFROM scratch AS two\nCOPY --from=one /a /b\nFROM two\nENV X=y",
    "variables": "ARG A=1\nENV B=$A C=${NONE:-def} D=${A:+set}\nLABEL l=$B-$C\nCOPY a /$B/",
    "quoting": """ENV A="two words" B='$not' C=es\\ caped D="in\\"side" """,
    "old env": "ENV A b c\nENV D=1",
    "commands": 'ENTRYPOINT ["/a", "b"]\nCMD ["c"]',
    "shell commands": "CMD echo $HOME\n",
    "entrypoint after cmd": 'CMD ["x"]\nENTRYPOINT ["y"]',
    "ports": "EXPOSE 80 53/udp\nEXPOSE 8000",
    "user and signal": "USER 7:8\nSTOPSIGNAL SIGUSR1",
    "labels": 'LABEL a=b "c d"="e f" \\\n  multi=line\nMAINTAINER me',
    "comments and continuations": "ENV A=1 \\\n# comment\n  B=2\n# more\nCOPY a \\\n /c",
}


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A context with something of everything."""
    folder = tmp_path / "context"
    (folder / "dir/in").mkdir(parents=True)
    for name, text in (("a", "A"), ("b.txt", "B"), ("c.txt", "C"), ("dir/f", "F"), ("dir/in/g", "G")):
        (folder / name).write_text(text)
    (folder / "a").chmod(0o755)
    (folder / "dir/in").chmod(0o700)
    (folder / "dir/link").symlink_to("in/g")
    with tarfile.open(folder / "archive.tar", "w") as tar:
        tar.add(folder / "dir", arcname="top")
    (folder / ".dockerignore").write_text("Dockerfile\n")
    return folder


def described(root: Path) -> dict[str, tuple[Any, ...]]:
    """Every file below a directory."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = Path(folder) / name
            st = path.lstat()
            content = os.readlink(path) if stat.S_ISLNK(st.st_mode) else path.read_bytes() if path.is_file() else ""  # noqa: PTH115
            mode = 0 if stat.S_ISLNK(st.st_mode) else stat.S_IMODE(st.st_mode)
            found[str(path.relative_to(root))] = (stat.S_IFMT(st.st_mode), mode, st.st_uid, st.st_gid, content)
    return found


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """What matters of a config, empty or absent alike; the tools' own labels and default PATH aside."""
    kept = ("Env", "Cmd", "Entrypoint", "User", "WorkingDir", "ExposedPorts", "Volumes", "Labels", "StopSignal")
    found = {key: config.get(key) or None for key in kept}
    found["Labels"] = {k: v for k, v in (found["Labels"] or {}).items() if k != "io.buildah.version"}
    found["Env"] = [entry for entry in found["Env"] or [] if not entry.startswith("PATH=")]
    found["WorkingDir"] = found["WorkingDir"] or "/"
    return found


@pytest.mark.parametrize("what", CORPUS)
async def test_buildah_agrees(runtime: Any, tool: Any, context: Path, tmp_path: Path, what: str) -> None:
    (tmp_path / "ours").mkdir()
    text = f"FROM scratch AS one\n{CORPUS[what]}\n"
    (context / "Dockerfile").write_text(text)
    storage = ["--root", tmp_path / "bs", "--runroot", tmp_path / "br", "--storage-driver", "vfs"]
    await tool("buildah", *storage, "bud", "-q", "--format", "docker", "--isolation", "chroot", "-t", "theirs", context)
    container = (await tool("buildah", *storage, "from", "--pull-never", "theirs")).out.strip()
    theirs_root = Path((await tool("buildah", *storage, "mount", container)).out.strip())
    theirs = json.loads((await tool("buildah", *storage, "inspect", "--type", "image", "theirs")).out)
    try:
        (tmp_path / "context.tar").write_bytes(b"".join(tar_directory(context, read_ignore(context, None))))
        image = await runtime.room.builder.build(BuildRequest(text.encode(), tmp_path / "context.tar"))
        lower = await runtime.room.store.lower_dirs(image.id)
        with tarfile.open(fileobj=io.BytesIO(b"".join(export(lower)))) as tar:
            tar.extractall(tmp_path / "ours", numeric_owner=True, filter="fully_trusted")
        ours = json.loads(image.config.to_bytes())
        assert described(tmp_path / "ours") == described(theirs_root)
        assert settings(ours["config"]) == settings(theirs["Docker"]["config"])
    finally:
        await tool("buildah", *storage, "umount", container)
