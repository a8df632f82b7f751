"""Decoded clips kept on the disk, so that an interrupted build can continue.

TFDS deletes what it has written when a build ends early. Each decoded clip is therefore
first appended to a file of records next to the data set; the next build with the same
rows reads those and decodes only the rest. Records are taken over up to the first that
was cut off by the interruption, or damaged since, or that is none of ours: they are
plain data (`messages`), as anybody may have put a file there.
"""

import dataclasses
import itertools
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tfavmae.building import messages
from tfavmae.building.worker_pool import Outcome
from tfavmae.files import exclusive

_HEADER = struct.Struct("<QL")  # length and CRC-32 of the message that follows


class PreparedClips:
    """The outcomes of one list of rows, in its order.

    Args:
        path: the file of records; created with its folder.
        kind: the type of the outcomes' values.

    Attributes:
        num_taken_over: rows whose outcome an earlier pass had kept.
    """

    def __init__(self, path: str | os.PathLike, kind: type) -> None:
        self.path, self.kind = Path(path), kind
        self.num_taken_over = 0

    def outcomes(
        self, rows: Iterable[Any], decode: Callable[[Iterable], Iterator[Outcome]]
    ) -> Iterator[Outcome]:
        """One outcome per row: the kept ones, then new ones, which are kept too.

        Args:
            rows: each with a unique `key`.
            decode: turns rows into outcomes, in order.

        Raises:
            UserError: another pass holds the file.
        """
        rows = iter(rows)
        with exclusive(self.path) as file:
            file.seek(0)
            good = 0  # end of the last record that was taken over
            for key, outcome in read_records(file, self.kind):
                row = next(rows, None)
                if row is None:
                    break
                if row.key != key and outcome.is_past_end:
                    # Asked for before its file was known to have ended.
                    rows = itertools.chain([row], rows)
                    good = file.tell()
                    continue
                if row.key != key:  # other rows from here on than last time
                    rows = itertools.chain([row], rows)
                    break
                good = file.tell()
                self.num_taken_over += 1
                yield outcome
            file.truncate(good)
            rows, keyed = itertools.tee(rows)
            for row, outcome in zip(keyed, decode(rows), strict=True):
                # Flushed one by one: what is not on the disk is decoded again.
                record = messages.pack([row.key, outcome])
                file.write(_HEADER.pack(len(record), zlib.crc32(record)) + record)
                file.flush()
                yield outcome


def read_records(file: BinaryIO, kind: type) -> Iterator[tuple[str, Outcome]]:
    """Keys and outcomes of a file of records, up to the first that cannot be used.

    Args:
        file: the file, whoever wrote it.
        kind: the type of the outcomes' values.
    """
    size = os.fstat(file.fileno()).st_size
    while len(header := file.read(_HEADER.size)) == _HEADER.size:
        length, checksum = _HEADER.unpack(header)
        record = file.read(min(length, size))  # a damaged length may be anything
        if len(record) < length or zlib.crc32(record) != checksum:
            return
        try:
            content = messages.unpack(record)
            key, outcome = messages.typed(tuple[str, Outcome], content)
            value = messages.typed(kind | None, outcome.value)
        except messages.BadMessage:
            return
        yield key, dataclasses.replace(outcome, value=value)


def find_leftovers(folder: Path) -> list[Path]:
    """Folders that are of no use once a data set is complete.

    Args:
        folder: that of the versions of a data set. Decoded clips lie next to them, and
            so does what TFDS was writing when it was killed.
    """
    return [*folder.glob("prepared-*"), *folder.glob("incomplete.*")]
