"""``python -m tests.sim``: many runs of the simulated cluster, each decided by its seed."""

import argparse
import sys
import time
from collections import Counter
from multiprocessing import Pool
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # the tests are no package: name this folder ``sim``

from sim.world import Failure, World


def main() -> None:
    """Run the seeds; print what happened in them, and every failure."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many (%(default)s)")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first one (%(default)s)")
    parser.add_argument("--trace", type=int, default=60, help="events printed of a failed run (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (%(default)s)")
    options = parser.parse_args()
    began = time.monotonic()
    counts: Counter[str] = Counter()
    failed = []
    jobs = [(seed, options.trace) for seed in range(options.first, options.first + options.seeds)]
    with Pool(min(options.jobs, len(jobs))) as pool:
        for seed, happened, failure in pool.imap(run_seed, jobs, chunksize=1 if len(jobs) < 100 else 20):
            counts += happened
            if failure:
                failed.append(seed)
                print(failure, flush=True)
    for what, count in sorted(counts.items()):
        print(f"{count:10}  {what}")
    print(f"{options.seeds} seeds from {options.first} in {time.monotonic() - began:.0f} s, failed: {failed or 'none'}")
    sys.exit(bool(failed))


def run_seed(job: tuple[int, int]) -> tuple[int, "Counter[str]", str]:
    """One run: its seed, what happened, and how it failed if it did."""
    seed, trace_length = job
    world = World(seed, trace_length)
    try:
        world.run()
    except Failure as failure:
        return seed, world.counts, str(failure)
    return seed, world.counts, ""


if __name__ == "__main__":
    main()
