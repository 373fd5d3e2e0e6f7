"""Which members disagree about the data. Pure; the caller collects the hashes and raises the alarms."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple


class Report(NamedTuple):
    """One member's HashKV answer."""

    member_id: int
    revision: int
    compact_revision: int
    hash: int


def suspects(reports: Iterable[Report]) -> set[int]:
    """Members whose hash differs from the majority's among those with the same history range.

    Without a majority nobody knows who is right, and all who differ are suspects. Members with other ranges (one is
    behind, or compacted later) cannot be compared and are left for the next round.
    """
    by_range: dict[tuple[int, int], list[Report]] = {}
    for report in reports:
        by_range.setdefault((report.revision, report.compact_revision), []).append(report)
    found: set[int] = set()
    for group in by_range.values():
        votes = Counter(report.hash for report in group)
        if len(votes) > 1:
            winner, count = votes.most_common(1)[0]
            right = winner if 2 * count > len(group) else None
            found |= {report.member_id for report in group if report.hash != right}
    return found
