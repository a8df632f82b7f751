"""Ctrl-C and SIGTERM: a wish that the training loop fulfils between two steps."""

import contextlib
import signal
import threading


@contextlib.contextmanager
def stop_signals():
    """Yields a function that says whether Ctrl-C or SIGTERM has come.

    The second Ctrl-C acts at once. Only the main thread may catch signals; in
    another one they keep what they do.
    """
    asked = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def ask(number, frame):
        asked.append(number)
        signal.signal(signal.SIGINT, old[signal.SIGINT])

    old = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
