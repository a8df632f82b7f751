"""Functions of a worker that answer one item with many numbers."""

import pathlib
import time

MEETING = 20  # more than a worker may be ahead of who reads


def numbers(item):
    """Yields `count` numbers; the kinds say what else happens on the way."""
    kind, count, folder = item
    for number in range(count):
        if kind == "meets" and number == MEETING:
            meet(pathlib.Path(folder))
        if kind == "fails once" and number == 1:
            yield ValueError("the second of them")
        elif kind == "fails" and number == 1:
            raise ValueError("all that would follow")
        else:
            yield number


def meet(folder):
    """Waits for a second worker that has come as far."""
    (folder / str(time.monotonic_ns())).touch()
    until = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2:
        if time.monotonic() > until:
            raise TimeoutError("nobody came")
        time.sleep(0.01)
