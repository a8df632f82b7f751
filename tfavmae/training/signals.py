"""Ctrl-C and SIGTERM as a request that the training loop serves between two steps."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether Ctrl-C or SIGTERM has come.

    The second Ctrl-C acts at once. Python allows signal handlers in the main thread
    only; in another one signals keep their meaning.
    """
    asked = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def ask(number: int, frame: object) -> None:
        asked.append(number)
        # A person who presses it twice does not want to wait for the step.
        signal.signal(signal.SIGINT, old[signal.SIGINT])

    old = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
