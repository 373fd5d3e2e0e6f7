"""Finding the programs a user names, and what they are: ELF files, scripts, or Python by one of its many doors."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cri_runtime.images.errors import HostProgramError

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PYTHON = re.compile(r"python(?:\d+(?:\.\d+)?)?\Z")
_ASK_TIMEOUT_S = 30.0
_SHEBANG_BYTES_MAX = 256
_QUESTION = """
import json, os, sys
print(json.dumps({"program": sys._base_executable or sys.executable, "library": os.path.dirname(os.__file__),
                  "path": sys.path, "tag": sys.implementation.cache_tag}))
"""


@dataclass(frozen=True)
class Program:
    """A program as named and as found."""

    name: str
    path: str
    """Absolute, links not followed."""


@dataclass(frozen=True)
class PythonHome:
    """Where a Python interpreter and its standard library really are, whatever shim or venv was named."""

    program: str
    library: str
    search_path: tuple[str, ...]
    cache_tag: str
    """``cpython-311``: the middle of compiled modules' names."""


def find_program(name: str, search: str) -> Program:
    """Find ``name`` on the search path, or take it as a path. Raises HostProgramError."""
    if "/" in name and not name.startswith("/"):
        raise HostProgramError(f'"{name}": give a name to search for, or an absolute path')
    found = shutil.which(name, path=search or DEFAULT_PATH)
    if found is None or not Path(found).is_file():
        where = "" if name.startswith("/") else f" in {search or DEFAULT_PATH}"
        raise HostProgramError(f'no program "{name}"{where}; is it installed?')
    return Program(os.path.basename(name), os.path.abspath(found))  # noqa: PTH100, PTH119


def is_python(program: Program) -> bool:
    """Whether the name is one of Python's own."""
    return _PYTHON.match(program.name) is not None


def ask_python(program: Program, search: str) -> PythonHome:
    """Let the interpreter say where it lives: it may be a venv's link or a version manager's shim.

    Runs it, isolated from the environment and from installed packages. Raises HostProgramError.
    """
    try:
        done = subprocess.run(
            [program.path, "-I", "-S", "-c", _QUESTION],
            env={"PATH": search or DEFAULT_PATH, "HOME": os.environ.get("HOME", "/root")},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_ASK_TIMEOUT_S,
            check=True,
        )
        answer = json.loads(done.stdout)
        return PythonHome(answer["program"], answer["library"], tuple(answer["path"]), answer["tag"])
    except subprocess.CalledProcessError as err:
        lines = err.stderr.strip().splitlines() or [f"exit code {err.returncode}"]
        raise HostProgramError(f"{program.path} does not say where its library is: {lines[-1]}") from err
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError) as err:
        raise HostProgramError(f"{program.path} does not say where its library is: {err}") from err


def interpreter_of(path: str) -> list[str]:
    """The words of a script's ``#!`` line; empty for other files."""
    with open(path, "rb") as file:  # noqa: PTH123
        line = file.read(_SHEBANG_BYTES_MAX).partition(b"\n")[0]
    return os.fsdecode(line[2:]).split() if line.startswith(b"#!") else []
