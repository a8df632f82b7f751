"""How much memory a process and its children hold, watched from a thread."""

import os
import pathlib
import resource
import sys
import threading

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class PeakMemory(threading.Thread):
    """Keeps the largest resident memory of this process with all its children.

    `getrusage` knows only the largest single child, and counts a child that has just
    been forked with all of its parent's memory. Without /proc (macOS) it has to do.

    Attributes:
        peak_bytes: largest sum seen so far.
    """

    def __init__(self, every_seconds: float = 0.5):
        super().__init__(daemon=True)
        self.every_seconds = every_seconds
        self.peak_bytes = 0
        self._done = threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self.join()

    def run(self):
        while True:
            self.peak_bytes = max(self.peak_bytes, tree_bytes())
            if self._done.wait(self.every_seconds):
                return


def tree_bytes() -> int:
    """Resident bytes of this process and its descendants, now."""
    if not pathlib.Path("/proc/self/stat").exists():
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    parents, resident = {}, {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            # The second field is a name in parentheses, with anything in it.
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended in the meantime
            continue
        pid = int(stat.parent.name)
        parents[pid], resident[pid] = int(fields[1]), int(fields[21]) * _PAGE_BYTES
    return sum(resident[pid] for pid in descendants(os.getpid(), parents))


def descendants(ancestor: int, parents: dict[int, int]) -> set[int]:
    """`ancestor` and all that descend from it, given each process' parent."""
    found = {ancestor}
    while new := {p for p, parent in parents.items() if parent in found} - found:
        found |= new
    return found
