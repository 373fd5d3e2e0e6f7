"""What a member measures, under etcd's names where they mean the same, in Prometheus' text format 0.0.4."""

import os
import resource
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence

DISK_BUCKETS_S = tuple(0.001 * 2**power for power in range(14))
"""etcd's buckets for the disk, 1 ms to 8 s."""

_STARTED = time.time()
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Histogram:
    """Counts of durations in seconds. One thread observes; others may read a value that is a moment old."""

    def __init__(self, buckets: Sequence[float] = DISK_BUCKETS_S) -> None:
        self._bounds = buckets
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str) -> Iterator[str]:
        """The samples of the metric ``name``."""
        total = 0
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self._sum}"
        yield f"{name}_count {total}"


class Text:
    """A page of metrics under construction."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def gauge(self, name: str, meaning: str, value: float, **labels: str) -> None:
        """A value that goes up and down."""
        self._sample("gauge", name, meaning, value, labels)

    def counter(self, name: str, meaning: str, value: float, **labels: str) -> None:
        """A value that only grows."""
        self._sample("counter", name, meaning, value, labels)

    def histogram(self, name: str, meaning: str, histogram: Histogram) -> None:
        """A distribution."""
        self._head("histogram", name, meaning)
        self._lines += histogram.lines(name)

    def _sample(self, kind: str, name: str, meaning: str, value: float, labels: dict[str, str]) -> None:
        self._head(kind, name, meaning)
        inside = ",".join(f'{label}="{text}"' for label, text in labels.items())
        self._lines.append(f"{name}{{{inside}}} {value}" if inside else f"{name} {value}")

    def _head(self, kind: str, name: str, meaning: str) -> None:
        head = f"# TYPE {name} {kind}"
        if head not in self._lines:
            self._lines += (f"# HELP {name} {meaning}", head)

    def process(self) -> None:
        """What Prometheus' clients say of every process."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        with open("/proc/self/statm") as file:  # noqa: PTH123 - procfs
            virtual, resident = (int(field) * _PAGE_BYTES for field in file.read().split()[:2])
        self.counter("process_cpu_seconds_total", "CPU time spent.", usage.ru_utime + usage.ru_stime)
        self.gauge("process_resident_memory_bytes", "Resident memory.", resident)
        self.gauge("process_virtual_memory_bytes", "Virtual memory.", virtual)
        self.gauge("process_open_fds", "Open file descriptors.", len(os.listdir("/proc/self/fd")))  # noqa: PTH208
        self.gauge("process_max_fds", "Most of them.", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self.gauge("process_start_time_seconds", "When it started, since 1970.", _STARTED)

    def render(self) -> str:
        """The page."""
        return "\n".join(self._lines) + "\n"
