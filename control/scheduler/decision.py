"""One scheduling decision with its whole reason: per node, who refused or how it scored. Pure.

The record is what events, ``describe`` and a future "why this node" are made from; nothing is decided elsewhere.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from control.scheduler.cache import NodeInfo, PodRecord
from control.scheduler.filters import FILTERS
from control.scheduler.scores import SCORES
from protos.k8s import core_v1_pb2 as core

ENOUGH = 100
"""Nodes that fit among which the best is chosen."""


@dataclass(frozen=True)
class Verdict:
    """One node's answer. ``reasons`` and ``refused_by`` are set if it does not fit, ``scores`` if it does."""

    node: str
    refused_by: str = ""
    reasons: tuple[str, ...] = ()
    scores: dict[str, int] = field(default_factory=dict)
    total: int = 0

    @property
    def fits(self) -> bool:
        """True if no filter refused."""
        return not self.refused_by


@dataclass(frozen=True)
class Decision:
    """The chosen node, or None; and every node's verdict."""

    node: str | None
    verdicts: tuple[Verdict, ...]
    asked: int = 0
    """How many nodes were asked; the next decision may begin with those that were not."""

    @property
    def refused_by(self) -> frozenset[str]:
        """The filters that refused some node: only a change they look at can help."""
        return frozenset(verdict.refused_by for verdict in self.verdicts if not verdict.fits)

    @property
    def message(self) -> str:
        """The text of a FailedScheduling event: ``0/1 nodes are available: 1 Insufficient cpu.``"""
        if not self.verdicts:
            return "no nodes available to schedule pods"
        counts = Counter(reason for verdict in self.verdicts for reason in verdict.reasons)
        reasons = ", ".join(sorted(f"{count} {reason}" for reason, count in counts.items()))
        return f"0/{len(self.verdicts)} nodes are available: {reasons}."


def decide(
    pod: core.Pod, record: PodRecord, nodes: Sequence[NodeInfo], first: int = 0, enough: int = ENOUGH
) -> Decision:
    """Choose a node for ``pod``. Equal totals go to the node with fewest pods, then to the first by name.

    Nodes are asked in order from number ``first`` on, around the end, until ``enough`` of them fit: the best of a
    hundred is good enough, and a cluster of thousands costs no more than one of a hundred (as in Kubernetes).
    """
    verdicts: dict[str, Verdict] = {}
    candidates: list[NodeInfo] = []
    asked = 0
    for number in range(len(nodes)):
        if len(candidates) >= enough:
            break
        info, asked = nodes[(first + number) % len(nodes)], number + 1
        refused = _refusal(pod, record, info)
        if refused is None:
            candidates.append(info)
        else:
            verdicts[info.name] = refused
    for verdict in _scored(pod, record, candidates):
        verdicts[verdict.node] = verdict
    best = min(candidates, key=lambda i: (-verdicts[i.name].total, len(i.pods), _natural(i.name)), default=None)
    ordered = tuple(verdicts[name] for name in sorted(verdicts, key=_natural))
    return Decision(best.name if best is not None else None, ordered, asked)


def _refusal(pod: core.Pod, record: PodRecord, info: NodeInfo) -> Verdict | None:
    for check in FILTERS:
        reasons = check(pod, record, info)
        if reasons:
            return Verdict(info.name, refused_by=check.__name__, reasons=tuple(reasons))
    return None


def _scored(pod: core.Pod, record: PodRecord, nodes: list[NodeInfo]) -> Iterable[Verdict]:
    columns = {name: score(pod, record, nodes) for name, (score, _) in SCORES.items()}
    for row, info in enumerate(nodes):
        scores = {name: column[row] for name, column in columns.items()}
        total = sum(SCORES[name][1] * value for name, value in scores.items())
        yield Verdict(info.name, scores=scores, total=total)


@lru_cache(8192)
def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """Sort key that puts node-2 before node-10."""
    return tuple((int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name))
