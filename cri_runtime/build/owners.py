"""Users and groups by name, as an image's own /etc/passwd and /etc/group have them."""

from collections.abc import Iterator

from cri_runtime.build.errors import StepFailed
from cri_runtime.images.tree import Stack, split

_FILE_BYTES_MAX = 4 << 20


def resolve_owner(text: str, stage: Stack, line: int) -> tuple[int, int] | None:
    """Numbers for ``user[:group]``; None for an empty text. A missing group is the user's number.

    Raises StepFailed for a name that the stage does not have.
    """
    if not text:
        return None
    user, colon, group = text.partition(":")
    uid = _number(user, "user", "etc/passwd", stage, line)
    return uid, _number(group, "group", "etc/group", stage, line) if colon and group else uid


def _number(name: str, what: str, file: str, stage: Stack, line: int) -> int:
    if name.isdecimal():
        return int(name)
    for fields in _rows(stage, file):
        if fields[0] == name and len(fields) > 2 and fields[2].isdecimal():
            return int(fields[2])
    raise StepFailed(line, f'the image has no {what} "{name}" in /{file}; give its number')


def _rows(stage: Stack, path: str) -> Iterator[list[str]]:
    place = stage.resolve(split(path), follow_last=True)
    found = stage.lookup(place)
    if found is None or found.is_dir:
        return
    with open(found.tree.open(place), "rb") as file:  # noqa: PTH123 (a descriptor)
        for row in file.read(_FILE_BYTES_MAX).decode("utf-8", "replace").splitlines():
            yield row.split(":")
