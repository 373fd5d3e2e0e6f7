"""Globs of COPY and patterns of --exclude, over paths in a tree. Pure.

Source: Go's ``filepath.Match``, component by component; ``**`` spans directories in patterns of --exclude.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from cri_runtime.build.words import glob_regex
from cri_runtime.images.tree import Rel, split


def has_glob(text: str) -> bool:
    """Whether ``text`` has wildcards."""
    return any(char in text for char in "*?[")


@lru_cache(512)
def _component(pattern: str) -> re.Pattern[str]:
    return re.compile(glob_regex(pattern, "[^/]*", "[^/]") + r"\Z", re.DOTALL)


def matches_name(pattern: str, name: str) -> bool:
    """Whether one path component matches one pattern component."""
    return _component(pattern).match(name) is not None


def excluded(rel: Rel, patterns: Iterable[str]) -> bool:
    """Whether the path, or a directory above it, matches the last pattern that matches; ``!`` takes back."""
    verdict = False
    for pattern in patterns:
        names = split(pattern.removeprefix("!"))
        if any(_matches(names, rel[:depth]) for depth in range(1, len(rel) + 1)):
            verdict = not pattern.startswith("!")
    return verdict


def _matches(pattern: Rel, rel: Rel) -> bool:
    if not pattern:
        return not rel
    if pattern[0] == "**":
        return any(_matches(pattern[1:], rel[at:]) for at in range(len(rel) + 1))
    return bool(rel) and matches_name(pattern[0], rel[0]) and _matches(pattern[1:], rel[1:])
