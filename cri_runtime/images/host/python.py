"""What of a Python installation a program needs to run: the standard library without its tests and tools."""

import os
from collections.abc import Iterator
from pathlib import Path

from cri_runtime.images.host.layout import Layout
from cri_runtime.images.host.libraries import Libraries
from cri_runtime.images.host.programs import PythonHome

_LEFT_OUT = frozenset(
    [
        "test",
        "tests",
        "idlelib",
        "ensurepip",
        "turtledemo",
        "turtle.py",
        "tkinter",
        "lib2to3",
        "pydoc_data",
        "site-packages",
        "dist-packages",
    ]
)
_LEFT_OUT_PREFIXES = ("config-", "_test", "_tkinter.", "xxlimited", "_xxtestfuzz", "_ctypes_test.")


def add_python(layout: Layout, home: PythonHome, libraries: Libraries) -> Iterator[str]:
    """Copy the interpreter's library; yields the extension modules, whose own libraries the caller adds.

    Extension modules that cannot be loaded on this host are left out, as if not installed. Compiled modules go
    along where they fit: without them every container compiles anew at each start.
    """
    for folder in (home.library, *_outside(home)):
        for path in layout.add_tree(folder, lambda at, name: _wanted(at, name, home, libraries)):
            if path.endswith(".so"):
                yield path


def _outside(home: PythonHome) -> list[str]:
    """Folders of the module path that do not lie in the library (another libdir, as Fedora has)."""
    inside = (home.library, home.library.rstrip("/") + "/")
    return [p for p in home.search_path if p != inside[0] and not p.startswith(inside[1]) and Path(p).is_dir()]


def _wanted(folder: str, name: str, home: PythonHome, libraries: Libraries) -> bool:
    if name in _LEFT_OUT or name.startswith(_LEFT_OUT_PREFIXES) or name.endswith((".a", ".exe")):
        return False
    if folder.endswith("/__pycache__"):
        return _compiled_fits(folder, name, home)
    if name.endswith(".so"):
        return not libraries.closure([f"{folder}/{name}"]).missing
    return True


def _compiled_fits(folder: str, name: str, home: PythonHome) -> bool:
    """A compiled module of this interpreter, unoptimised, whose source goes along."""
    stem, _, ending = name.partition(".")
    source = f"{stem}.py"
    if ending != f"{home.cache_tag}.pyc" or source in _LEFT_OUT or source.startswith(_LEFT_OUT_PREFIXES):
        return False
    return os.path.exists(f"{os.path.dirname(folder)}/{source}")  # noqa: PTH110, PTH120
