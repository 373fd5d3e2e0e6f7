"""The build context on its way: a directory as a tar stream, without what .dockerignore leaves out."""

import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

from ctl.errors import CtlError
from ctl.image.ignore import Ignore, IgnoreError

CHUNK_BYTES = 1 << 18
DOCKERFILE = "Dockerfile"


def read_dockerfile(context: Path, name: str | None) -> bytes:
    """The Dockerfile of a directory, or the file ``name``. Raises CtlError saying what to do."""
    path = Path(name) if name else context / DOCKERFILE
    if name and not path.exists() and (context / name).exists():
        path = context / name
    try:
        return path.read_bytes()
    except IsADirectoryError:
        raise CtlError(f"{path} is a directory; name the Dockerfile in it with -f") from None
    except OSError as err:
        hint = "; is this the right directory? -f names another file" if not name else ""
        raise CtlError(f"cannot read the Dockerfile {path}: {err.strerror}{hint}") from None


def read_ignore(context: Path, dockerfile: str | None) -> Ignore:
    """The rules of ``<Dockerfile>.dockerignore``, else of ``.dockerignore``, else none. Raises CtlError."""
    named = Path(f"{dockerfile or context / DOCKERFILE}.dockerignore")
    for path in (named, context / ".dockerignore"):
        try:
            return Ignore(path.read_text().splitlines())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, UnicodeDecodeError, IgnoreError) as err:
            raise CtlError(f"{path}: {err}") from None
    return Ignore()


def tar_directory(context: Path, ignore: Ignore) -> Iterator[bytes]:
    """The directory as a tar stream, sorted, owned by root, in pieces. Raises CtlError naming an unreadable file."""
    try:
        for folder, folders, files in os.walk(context, onerror=_raise):
            base = os.path.relpath(folder, context)
            prefix = "" if base == "." else base + "/"
            for name in sorted([*files, *(f for f in folders if Path(folder, f).is_symlink())]):
                if not ignore.excludes(prefix + name):
                    yield from _entry(Path(folder, name), prefix + name)
            real = [name for name in folders if not Path(folder, name).is_symlink()]
            folders[:] = sorted(name for name in real if not ignore.prunes(prefix + name))
            for name in folders:
                if not ignore.excludes(prefix + name):
                    yield from _entry(Path(folder, name), prefix + name)
    except OSError as err:
        raise CtlError(f"cannot send the build context: {err}") from err
    yield b"\0" * tarfile.BLOCKSIZE * 2


def _raise(err: OSError) -> None:
    raise err


def _entry(path: Path, name: str) -> Iterator[bytes]:
    st = path.lstat()
    entry = tarfile.TarInfo(name)
    entry.mode, entry.mtime = stat.S_IMODE(st.st_mode), int(st.st_mtime)
    if stat.S_ISDIR(st.st_mode):
        entry.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(st.st_mode):
        entry.type, entry.linkname = tarfile.SYMTYPE, str(path.readlink())
    elif stat.S_ISREG(st.st_mode):
        yield from _file(path, entry)
        return
    else:
        return  # sockets, fifos and devices are no files to copy
    yield entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _file(path: Path, entry: tarfile.TarInfo) -> Iterator[bytes]:
    """A file with exactly the size that its header says, whatever becomes of it meanwhile."""
    with path.open("rb") as file:
        left = entry.size = os.fstat(file.fileno()).st_size
        yield entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        while left:
            chunk = file.read(min(left, CHUNK_BYTES))
            if not chunk:
                raise OSError(f"{path} became shorter while it was read")
            left -= len(chunk)
            yield chunk
    yield b"\0" * (-entry.size % tarfile.BLOCKSIZE)
