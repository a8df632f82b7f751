"""Measures the ranking of many clips: seconds and memory.

python benchmarks/retrieval.py --clips 100000
"""

import argparse
import resource
import sys
import time

import numpy as np

from tfavmae.building.progress import Progress
from tfavmae.tasks import metrics

_GIB = 2**20  # `ru_maxrss` counts KiB


def main() -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=768)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    shape = (args.clips, args.width)
    first = rng.standard_normal(shape, "float32")
    second = rng.standard_normal(shape, "float32")
    # So noisy that some are found and some are not.
    second *= 4
    second += first
    start = time.monotonic()
    with Progress() as progress:
        ways = metrics.ranks_both_ways(first, second, progress=progress)
    seconds = time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _GIB
    recalls = ", ".join(f"{100 * way.hits(1).mean():.1f} %" for way in ways)
    print(
        f"{args.clips} x {args.clips} at {args.width}: {seconds:.0f} s both ways, at "
        f"most {peak:.2f} GiB in the process; R@1 {recalls}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
