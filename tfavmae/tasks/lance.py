"""LanceDB: how an index is connected to, and its errors in one line."""

import contextlib
import errno
import re
import sys
from collections.abc import Iterator
from typing import Any

from tfavmae.errors import UserError
from tfavmae.files import disk_error, is_disk_full


def is_remote(address: str) -> bool:
    """Whether an index is not in a directory of this machine."""
    return "://" in address


def connect(address: str) -> Any:
    """A connection of LanceDB to a directory, or to `s3://`, `gs://` and the like.

    Raises:
        UserError: LanceDB is not installed.
    """
    try:
        import lancedb
    except ImportError as error:
        raise UserError(
            "an index needs LanceDB, which is not installed. Install it with: "
            "pip install 'tfavmae[search]'"
        ) from error
    return lancedb.connect(address)


@contextlib.contextmanager
def table_errors(address: str) -> Iterator[None]:
    """Turns an error of LanceDB into one line."""
    import pyarrow as pa

    try:
        with _without_other_datasets():
            yield
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, pa.ArrowException) as error:
        if is_disk_full(error):
            raise disk_error(OSError(errno.ENOSPC, ""), address) from error
        # Without the place in Lance's own sources.
        said = re.sub(r",? /\S+\.rs:\d+(:\d+)?", "", " ".join(str(error).split()))
        raise UserError(
            f"{address}: the index cannot be read or written, it may be damaged: "
            f"{said[:200]}. Move it away and run `tfavmae index` again."
        ) from error


@contextlib.contextmanager
def _without_other_datasets() -> Iterator[None]:
    """Hides a loaded module `datasets`, which LanceDB (0.40) takes for Hugging Face's.

    A folder of this name beside a script is a module, as in a checkout of ours.
    """
    other = sys.modules.get("datasets")
    if other is None or hasattr(other, "Dataset"):
        yield
        return
    del sys.modules["datasets"]
    try:
        yield
    finally:
        sys.modules["datasets"] = other
