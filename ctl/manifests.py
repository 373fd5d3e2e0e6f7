"""Objects from manifests: files, directories and stdin. Mistakes are named with file and field path."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from control.api.codec import DecodeError, from_yaml_documents
from control.api.kinds import by_message
from ctl.errors import CtlError

SUFFIXES = (".yaml", ".yml", ".json")


def read_objects(files: Sequence[str]) -> list[Any]:
    """Every object of ``files`` (``-`` is stdin), in order. Raises CtlError naming file and field."""
    return [obj for name, text in _texts(files) for obj in _objects(name, text)]


def _texts(files: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in files:
        if name == "-":
            yield "standard input", sys.stdin.read()
            continue
        for path in _paths(Path(name)):
            try:
                yield str(path), path.read_text()
            except (OSError, UnicodeDecodeError) as err:
                raise CtlError(f"cannot read {path}: {getattr(err, 'strerror', None) or err}") from err


def _paths(path: Path) -> list[Path]:
    if not path.exists():
        raise CtlError(f'the path "{path}" does not exist')
    if not path.is_dir():
        return [path]
    found = sorted(each for each in path.iterdir() if each.suffix in SUFFIXES)
    if not found:
        raise CtlError(f"the directory {path} has no manifests ({', '.join(SUFFIXES)})")
    return found


def _objects(name: str, text: str) -> list[Any]:
    try:
        objects = from_yaml_documents(text)
    except DecodeError as err:
        faults = "".join(f"\n  {path + ': ' if path else ''}{fault}" for path, fault in err.errors)
        raise CtlError(f"error validating {name}:{faults}") from err
    if not objects:
        raise CtlError(f"no objects in {name}")
    return objects


def place(obj: Any, namespace: str, explicit: bool) -> Any:
    """Put a namespaced object without a namespace into ``namespace``.

    Raises CtlError when it has another one and the user asked for ``namespace`` explicitly.
    """
    if not by_message(obj).namespaced:
        return obj
    own = obj.metadata.namespace
    if own and explicit and own != namespace:
        raise CtlError(
            f'the namespace from the provided object "{own}" does not match the namespace "{namespace}". '
            f"You must pass '--namespace={own}' to perform this operation."
        )
    if not own:
        obj.metadata.namespace = namespace
    return obj
