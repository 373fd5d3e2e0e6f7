"""Why the cache did not have a step: what it is made of now, against what the step at its place was made of. Pure."""

from collections.abc import Mapping

BELOW, TEXT, FILE = "below", "instruction", "file "
_NAMED_MAX = 3


def why(before: Mapping[str, str], now: Mapping[str, str], use_cache: bool = True) -> str:
    """The reason, for people. Parts are ``below`` (the layers under the step), ``instruction``, ``file PATH``s, and
    ``variable NAME``s, ``user``, ``directory``, ``mount N`` of a command."""
    if not use_cache:
        return "the cache was not to be used"
    if not before:
        return "no step at this place was built before"
    changed = {key for key in {*before, *now} if before.get(key) != now.get(key)}
    if TEXT in changed:
        return f"the instruction was: {before.get(TEXT, '')}"
    files = sorted(key.removeprefix(FILE) for key in changed if key.startswith(FILE))
    others = sorted(key for key in changed if not key.startswith(FILE) and key != BELOW)
    reasons = [f"{_listed(files)} changed"] if files else []
    reasons += [f"{_listed(others)} changed"] if others else []
    if BELOW in changed:
        reasons.append("a step before it, or its base image, changed")
    return ", and ".join(reasons) or "its layer is no longer in the store"


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMED_MAX])
    return f"{shown} and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else shown
