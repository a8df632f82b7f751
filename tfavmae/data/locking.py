"""One process at a time in one place."""

import contextlib
import fcntl
from pathlib import Path

from tfavmae.errors import UserError


@contextlib.contextmanager
def exclusive(path, what: str = "build"):
    """Holds a lock file as long as the block runs; the system frees it after a crash.

    Args:
        path: of the file; made with its folder, and left there.
        what: is being done, for the message.

    Raises:
        UserError: if another process holds it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{path.parent}: another {what} is at work here. Wait for it, or "
                "choose another place."
            ) from error
        yield
