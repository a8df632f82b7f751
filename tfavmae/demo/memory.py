"""Peak memory of a process and its children, measured in a thread."""

import os
import pathlib
import resource
import sys
import threading
from collections.abc import Mapping

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class PeakMemory(threading.Thread):
    """Keeps the largest resident memory of this process with all its children.

    `getrusage` would not do: it knows only the largest single child, and counts a child
    that was just forked with all of its parent's memory. It serves where /proc is
    missing (macOS).

    Args:
        every_seconds: between two measurements.

    Attributes:
        peak_bytes: largest sum so far.
    """

    def __init__(self, every_seconds: float = 0.5) -> None:
        super().__init__(daemon=True)
        self.every_seconds = every_seconds
        self.peak_bytes = 0
        self._done = threading.Event()

    def __enter__(self) -> "PeakMemory":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()

    def run(self) -> None:
        """Measures until the block ends; called by `start`."""
        while True:
            self.peak_bytes = max(self.peak_bytes, tree_bytes())
            if self._done.wait(self.every_seconds):
                return


def tree_bytes() -> int:
    """Resident bytes of this process and its descendants, now."""
    if not pathlib.Path("/proc/self/stat").exists():
        # `ru_maxrss` is in bytes on macOS and in KiB elsewhere.
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    parents: dict[int, int] = {}
    resident: dict[int, int] = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            # The second field is a name in parentheses, with anything in it.
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended in the meantime
            continue
        pid = int(stat.parent.name)
        parents[pid], resident[pid] = int(fields[1]), int(fields[21]) * _PAGE_BYTES
    return sum(resident[pid] for pid in descendants(os.getpid(), parents))


def descendants(ancestor: int, parents: Mapping[int, int]) -> set[int]:
    """A process and all that descend from it.

    Args:
        ancestor: process id.
        parents: process id to that of the parent.
    """
    found = {ancestor}
    while new := {p for p, parent in parents.items() if parent in found} - found:
        found |= new
    return found
