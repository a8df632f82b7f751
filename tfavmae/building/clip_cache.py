"""Decoded clips on the disk, so that an interrupted build goes on where it was.

TFDS deletes what it has written when a build ends early. So each decoded clip is first
appended to a file of records beside the data set; the next build with the same rows
reads those and decodes only the rest. A record that was cut off by the interruption,
or damaged since, ends what is taken over.
"""

import itertools
import os
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tfavmae.building.worker_pool import Outcome
from tfavmae.files import exclusive

_HEADER = struct.Struct("<QL")  # length and CRC-32 of the pickle that follows


class PreparedClips:
    """The outcomes of one list of rows, in its order.

    Args:
        path: of the file of records; made with its folder.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.num_taken_over = 0

    def outcomes(
        self, rows: Iterable, decode: Callable[[Iterable], Iterator[Outcome]]
    ) -> Iterator[Outcome]:
        """One outcome per row: the kept ones, then new ones, which are kept too.

        Args:
            rows: each with a unique `key`.
            decode: turns rows into outcomes, in order.
        """
        rows = iter(rows)
        with exclusive(self.path) as file:
            for row, outcome in self._take_over(file, rows):
                if outcome is None:  # another row than last time: no longer the same
                    rows = itertools.chain([row], rows)
                    break
                self.num_taken_over += 1
                yield outcome
            rows, keyed = itertools.tee(rows)
            for row, outcome in zip(keyed, decode(rows), strict=True):
                self._append(file, row.key, outcome)
                yield outcome

    def _take_over(self, file, rows):
        """Pairs of row and kept outcome; leaves the file at its last good record."""
        file.seek(0)
        good = 0
        for key, outcome in _read_records(file):
            row = next(rows, None)
            if row is None:
                break
            if row.key != key:
                file.truncate(good)
                yield row, None
                return
            good = file.tell()
            yield row, outcome
        file.truncate(good)

    def _append(self, file, key, outcome):
        record = pickle.dumps((key, outcome), protocol=pickle.HIGHEST_PROTOCOL)
        file.write(_HEADER.pack(len(record), zlib.crc32(record)) + record)
        file.flush()


def remove_leftovers(folder):
    """Removes what is of no use once a data set is complete.

    Args:
        folder: of its versions; decoded clips, and what TFDS was writing when it was
            killed, lie beside them.
    """
    for pattern in ("prepared-*", "incomplete.*"):
        for path in folder.glob(pattern):
            shutil.rmtree(path)


def _read_records(file) -> Iterator[tuple[str, Outcome]]:
    size = os.fstat(file.fileno()).st_size
    while len(header := file.read(_HEADER.size)) == _HEADER.size:
        length, checksum = _HEADER.unpack(header)
        record = file.read(min(length, size))  # a damaged length may be anything
        if len(record) < length or zlib.crc32(record) != checksum:
            return
        yield pickle.loads(record)
