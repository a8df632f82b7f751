"""Locks, atomic writes and disk-full errors for everything that touches the disk."""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tfavmae.errors import UserError

PARTIAL = ".partial-"  # prefix of everything that is written but not yet complete
_SCRATCH = "tfavmae-scratch-"  # prefix of temporary folders, which are locked


@contextlib.contextmanager
def exclusive(
    path: str | os.PathLike, what: str = "build", *, wait: bool = False
) -> Iterator[BinaryIO]:
    """Holds a lock on a file while the block runs; the lock dies with the process.

    Args:
        path: the lock file; created with its folder, and never removed.
        what: what the holder is doing, for the error message.
        wait: for another process to be done, instead of an error.

    Yields:
        The file, open for reading and appending.

    Raises:
        UserError: another process holds the lock.
    """
    path = Path(path)
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+b", opener=_open_no_link)  # noqa: SIM115 - closed below
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise UserError(
                f"{path.parent}: another {what} is running here. Wait for it to "
                "finish, or choose another folder."
            ) from error
        yield file


def _open_no_link(path: str, flags: int) -> int:
    """Opens a file, but not through a symbolic link.

    The folder may be somebody else's, and holders write into the file that they lock.
    """
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path that takes the place of `path` when the block succeeds.

    A reader sees the old file or folder, or the new one, never a part of either; after
    an error the old one stays and the temporary one is removed. The temporary name ends
    like `path`, because Keras and NumPy choose the format by the suffix.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if path.is_dir() and not path.is_symlink():
                # `os.replace` refuses a folder that is not empty.
                os.replace(path, old := temporary.with_name(f"{temporary.name}.old"))
                os.replace(temporary, path)
                shutil.rmtree(old)
            else:
                os.replace(temporary, path)
    finally:
        remove(temporary)


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Replaces a file so that a reader sees the old or the new content, never a part.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    content = content.encode() if isinstance(content, str) else content
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def remove(path: Path) -> None:
    """Removes a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        # Also where a part of the path is a file: there is nothing to remove then.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()


def remove_partial(folder: str | os.PathLike) -> None:
    """Removes what killed processes left unfinished in `folder`.

    The caller holds the folder's lock: the leftovers of a running process look alike.
    """
    for path in Path(folder).glob(f"{PARTIAL}*"):
        remove(path)


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yields a temporary folder; removes it after the block.

    Folders of processes that were killed are removed by the next call: the lock on a
    folder dies with its process.

    Raises:
        UserError: the folder for temporary files cannot be written.
    """
    root = Path(tempfile.gettempdir())
    for path in root.glob(f"{_SCRATCH}*"):
        with _locked_folder(path) as is_abandoned:
            if is_abandoned:
                shutil.rmtree(path)
    with disk_errors(root):
        path = Path(tempfile.mkdtemp(prefix="tfavmae-"))
    # Only then the name by which others find it: unlocked, it would look abandoned.
    with _locked_folder(path):
        path = path.rename(root / path.name.replace("tfavmae-", _SCRATCH))
        try:
            yield path
        finally:
            shutil.rmtree(path)


@contextlib.contextmanager
def _locked_folder(path: Path) -> Iterator[bool]:
    """Tries to lock a folder of this user; yields whether it is locked."""
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # of another user, or removed by another process just now
        yield False
        return
    try:
        is_locked = os.fstat(folder).st_uid == os.getuid()
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_locked = False
        yield is_locked
    finally:
        os.close(folder)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, says that the disk is full.

    TensorFlow and HDF5 report a full disk as errors of their own, and Keras and TFDS
    re-raise them, so the text and the chain of causes count as well.
    """
    while error is not None:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if full or "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def disk_error(error: OSError, path: str | os.PathLike) -> UserError:
    """One line for an error of writing; names the remedy if the disk is full."""
    if is_disk_full(error):
        return UserError(
            f"{path}: the disk is full. Free some space and run the same command "
            "again (finished work is kept), or choose another folder."
        )
    return UserError(f"{path}: cannot be written: {error.strerror or error}.")


@contextlib.contextmanager
def disk_errors(path: str | os.PathLike) -> Iterator[None]:
    """Turns an `OSError` of the block into the `UserError` of `disk_error`."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, path) from error
