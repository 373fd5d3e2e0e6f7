"""What a benchmark says: one row per measure, ours beside the peer's, and the machine it was measured on."""

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One measure. ``ours`` and ``peer`` are medians over the rounds; None where one could not be measured."""

    measure: str
    unit: str
    ours: float | None
    peer: float | None
    peer_name: str
    higher_is_better: bool = True
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How much better we are: above 1 is better than the peer, whichever direction better is."""
        if not self.ours or not self.peer:
            return None
        return self.ours / self.peer if self.higher_is_better else self.peer / self.ours


@dataclass
class Section:
    """The rows of one subject; ``skipped`` says why there are none."""

    name: str
    title: str
    rows: list[Row] = field(default_factory=list)
    skipped: str = ""
    facts: str = ""  # what was run against what, in a sentence or two


class Skip(Exception):
    """A section cannot be measured here; the message says why."""


HEADINGS = ("measure", "knarr", "peer", "", "ratio", "note")


def table(sections: Sequence[Section]) -> str:
    """For a terminal."""
    lines = []
    for section in sections:
        lines += ["", f"{section.title}", f"  {section.facts}" if section.facts else ""]
        if section.skipped:
            lines.append(f"  skipped: {section.skipped}")
            continue
        cells = [HEADINGS, *(_cells(row) for row in section.rows)]
        widths = [max(len(line[column]) for line in cells) for column in range(len(HEADINGS))]
        lines += [
            "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells
        ]
    return "\n".join(line.rstrip() for line in lines if line is not None)


def markdown(machine_then: str, sections: Sequence[Section]) -> str:
    """For docs/benchmarks.md. ``machine_then``: what ``machine`` said before the run."""
    lines = [machine_then, ""]
    for section in sections:
        lines += [f"## {section.title}", ""]
        if section.facts:
            lines += [section.facts, ""]
        if section.skipped:
            lines += [f"Skipped: {section.skipped}.", ""]
            continue
        lines += ["| measure | knarr | peer | | ratio | note |", "| --- | ---: | ---: | --- | ---: | --- |"]
        lines += ["| " + " | ".join(_cells(row)) + " |" for row in section.rows]
        lines.append("")
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    return (f"{row.measure}, {row.unit}", number(row.ours), number(row.peer), row.peer_name, ratio, row.note)


def number(value: float | None) -> str:
    """Three significant digits, thousands apart."""
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def machine() -> str:
    """The machine in a sentence."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    memory = next(int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line)
    return (
        f"{os.cpu_count()} cores ({model}), {memory / 2**20:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, load average before the run {os.getloadavg()[0]:.1f}."
    )


def quantile(values: Sequence[float], q: float) -> float:
    """The value that a share ``q`` of ``values`` does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def median(values: Sequence[float]) -> float:
    """statistics.median, under one roof with quantile."""
    return statistics.median(values)
