"""One process at a time in one place."""

import contextlib
import fcntl
from pathlib import Path

from tfavmae.errors import UserError


@contextlib.contextmanager
def exclusive(path, what: str = "build"):
    """Holds a lock on a file as long as the block runs; a crash frees it.

    Args:
        path: of the file; made with its folder, and left there.
        what: is being done, for the message.

    Yields:
        The file, opened to be read and appended to.

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
                "choose another place (name or folder)."
            ) from error
        yield file
