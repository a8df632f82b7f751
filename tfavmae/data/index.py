"""Random access to the records of a TFRecord split.

TFRecords are made to be read from front to back. One pass over the shards notes the
offset of each record and its small features (id, labels, presence of the modalities).
After that, shuffling, balanced sampling, filtering and resuming at any step cost
nothing that grows with the data.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfavmae.errors import UserError
from tfavmae.files import PARTIAL
from tfavmae.private_hooks import read_record

FORMAT = 1  # raise when the content of the cached index changes
RECORD_OVERHEAD = 16  # bytes of TFRecord framing: length 8, its CRC 4, payload CRC 4
_SCAN_BATCH = 1024  # records; bounds the memory of a scan
_PLACES = ("shard", "record", "offset", "length")


@dataclasses.dataclass(frozen=True)
class Shard:
    """A TFRecord file and the number of records that the data set says it holds."""

    path: str
    num_records: int


@dataclasses.dataclass(frozen=True)
class RecordIndex:
    """Offsets and small features of all records of some shards.

    Attributes:
        files: paths of the shards.
        shard: int32 `(records,)`, position in `files`.
        record: int32 `(records,)`, number of the record within its file.
        offset: int64 `(records,)`, byte offset of the record's framing.
        length: int64 `(records,)`, bytes of the payload.
        columns: small features by name; arrays whose first axis is `records`, or
            lists of variable length as `tf.RaggedTensor`.
    """

    files: tuple[str, ...]
    shard: np.ndarray
    record: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    columns: dict[str, Any]

    def __len__(self) -> int:
        return len(self.shard)

    def take(self, rows: np.ndarray) -> "RecordIndex":
        """The index of only these rows, in this order."""
        columns = {
            name: tf.gather(x, rows) if isinstance(x, tf.RaggedTensor) else x[rows]
            for name, x in self.columns.items()
        }
        return RecordIndex(
            files=self.files,
            shard=self.shard[rows],
            record=self.record[rows],
            offset=self.offset[rows],
            length=self.length[rows],
            columns=columns,
        )

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays for an .npz file: everything but `files`."""
        arrays = {name: getattr(self, name) for name in _PLACES}
        for name, column in self.columns.items():
            if isinstance(column, tf.RaggedTensor):
                arrays[f"values:{name}"] = column.values.numpy()
                arrays[f"splits:{name}"] = column.row_splits.numpy()
            else:
                arrays[f"column:{name}"] = column
        return arrays

    @classmethod
    def from_arrays(
        cls, files: tuple[str, ...], arrays: dict[str, np.ndarray]
    ) -> "RecordIndex":
        """The index of which `arrays` are the `to_arrays`."""
        columns = {}
        for key, array in arrays.items():
            kind, _, name = key.partition(":")
            if kind == "column":
                columns[name] = array
            elif kind == "values":
                splits = arrays[f"splits:{name}"]
                columns[name] = tf.RaggedTensor.from_row_splits(array, splits)
        places = {name: arrays[name] for name in _PLACES}
        return cls(files, **places, columns=columns)


def load_or_build(
    shards: Sequence[Shard],
    columns: dict[str, Any],
    cache_directory: str | None = None,
) -> RecordIndex:
    """Reads the cached index of `shards`, or scans them and caches the result.

    Args:
        shards: the files, in order.
        columns: name -> `tf.io` feature spec of the small features to keep.
        cache_directory: folder of the cache file; `None` keeps the index in memory
            only, and so does a folder that cannot be written to.

    Raises:
        UserError: a file is missing or damaged, or is not the one that the data set
            describes.
    """
    files = tuple(shard.path for shard in shards)
    names = [os.path.basename(path) for path in files]
    # Identifies the files: an index of others, or of these before they changed, is not
    # used.
    sizes = [[name, *file_state(path)] for name, path in zip(names, files, strict=True)]
    state = json.dumps({"format": FORMAT, "columns": sorted(columns), "files": sizes})
    if cache_directory is None:
        return _scan(shards, columns)
    # Each split of a data set has a cache file of its own in the common folder.
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]
    cache = os.path.join(cache_directory, f"tfavmae_index-{digest}.npz")
    index = _read_cache(cache, state, files, columns)
    if index is not None:
        return index
    index = _scan(shards, columns)
    _write_cache(cache, state, index)
    return index


def file_state(path: str) -> tuple[int, int]:
    """Size in bytes and modification time in ns of a shard.

    Raises:
        UserError: the file is missing.
    """
    try:
        status = tf.io.gfile.stat(path)
    except tf.errors.NotFoundError:
        raise UserError(
            f"{path}: this file of the data set is missing; restore it or build the "
            "data set again."
        ) from None
    return int(status.length), int(status.mtime_nsec)


def _scan(shards, columns):
    """The index from one pass over all shards."""
    places, batches = [], []
    for number, shard in enumerate(shards):
        dataset = tf.data.TFRecordDataset(shard.path)
        dataset = dataset.map(
            lambda record: (
                tf.strings.length(record),
                # TensorFlow refuses to parse no features at all.
                tf.io.parse_single_example(record, columns) if columns else {},
            ),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        ).ragged_batch(_SCAN_BATCH)
        try:
            found = list(dataset)
        except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
            raise _diagnose(shard.path) from error
        length = np.concatenate([n.numpy() for n, _ in found] or [[]]).astype(np.int64)
        count = len(length)
        if count != shard.num_records:
            raise UserError(
                f"{shard.path}: has {count} records where the data set counts "
                f"{shard.num_records}; build the data set again."
            )
        offset = np.cumsum(length + RECORD_OVERHEAD) - length - RECORD_OVERHEAD
        record = np.arange(count, dtype=np.int32)
        places.append((np.full(count, number, np.int32), record, offset, length))
        batches += [batch for _, batch in found]
    merged = {}
    for name in batches[0] if batches else ():
        column = tf.concat([batch[name] for batch in batches], 0)
        if not isinstance(column, tf.RaggedTensor):
            column = column.numpy()
            # NumPy saves an array of objects as pickles, which are unsafe to load.
            column = column.astype(np.bytes_) if column.dtype == object else column
        merged[name] = column
    files = tuple(shard.path for shard in shards)
    joined = map(np.concatenate, zip(*places, strict=True))
    return RecordIndex(files, **dict(zip(_PLACES, joined, strict=True)), columns=merged)


def _diagnose(path):
    """The error to raise about a file with a record that cannot be read or parsed."""
    number = 0
    try:
        for _ in tf.data.TFRecordDataset(path):
            number += 1
    except tf.errors.DataLossError:
        return UserError(
            f"{path}: record {number} is damaged (its checksum does not match or the "
            "file is cut short); restore the file or build the data set again."
        )
    return UserError(
        f"{path}: its records lack features that features.json beside it lists; build "
        "the data set again."
    )


def _write_cache(path, state, index):
    content = io.BytesIO()
    np.savez(content, state=np.array(state), **index.to_arrays())
    # Not `files.replacing`: the folder may be a bucket, which only GFile can write.
    folder, name = os.path.split(path)
    partial = os.path.join(folder, f"{PARTIAL}{uuid.uuid4().hex}-{name}")
    try:
        with tf.io.gfile.GFile(partial, "wb") as file:
            file.write(content.getvalue())
        tf.io.gfile.rename(partial, path, overwrite=True)
    except (tf.errors.OpError, OSError):
        # A read-only folder or a full disk only costs the next process another scan.
        if tf.io.gfile.exists(partial):
            tf.io.gfile.remove(partial)


def _read_cache(path, state, files, columns):
    """The cached index; `None` if there is none for the files in this state."""
    if not tf.io.gfile.exists(path):
        return None
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            arrays = dict(np.load(io.BytesIO(file.read()), allow_pickle=False))
        if str(arrays.pop("state")) != state:
            return None
        index = RecordIndex.from_arrays(files, arrays)
    # A cache that was cut short by a copy of the folder, for example, or changed on the
    # disk: zip, zlib, NumPy and TensorFlow each have errors of their own. Scan again.
    except Exception:
        return None
    return index if set(index.columns) == set(columns) else None


# --- One record inside a tf.data graph ---


class RecordReader:
    """Reads the record of a row inside a tf.data graph.

    A record that cannot be read fails with a message that names the file and the record
    (see `naming_damage`).

    Args:
        index: the records.
    """

    def __init__(self, index: RecordIndex) -> None:
        self._files = tf.constant(index.files)
        self._shard = tf.constant(index.shard)
        self._record = tf.constant(index.record)
        self._offset = tf.constant(index.offset)
        self._length = tf.constant(index.length)
        # A request to a bucket costs more than a copy in memory.
        self._is_remote = any("://" in file for file in index.files)

    def place(self, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Path of the row's file, and number of the record in it."""
        return self._files[self._shard[row]], self._record[row]

    def read(self, row: tf.Tensor) -> tf.Tensor:
        """The serialized example of a row, a string scalar."""
        file, record = self.place(row)
        buffer_size = tf.constant(0, tf.int64)
        if self._is_remote:
            buffer_size = self._length[row] + RECORD_OVERHEAD
        serialized = read_record(file, self._offset[row], buffer_size)
        # No example has 0 bytes, so these stand for a damaged record.
        is_read = tf.strings.length(serialized) > 0
        problem = "the record is damaged or its file is gone"
        return checked(serialized, is_read, problem, file, record)


def checked(
    value: Any, condition: tf.Tensor, problem: str, file: tf.Tensor, record: tf.Tensor
) -> Any:
    """Passes a value on if a condition holds; else fails in the graph.

    Args:
        value: tensor or structure of tensors.
        condition: bool scalar.
        problem: the text of the error.
        file: string scalar, path of the file to blame.
        record: integer scalar, number of the record in it.

    Returns:
        `value`. The error is one that `naming_damage` turns into a `UserError`.
    """
    message = ["Damaged data", problem, file, record]
    with tf.control_dependencies([tf.debugging.Assert(condition, message)]):
        return tf.nest.map_structure(tf.identity, value)


# TensorFlow prints the list that an assertion was given as "[...] [...]".
_DAMAGE = re.compile(r"\[Damaged data\] \[(.*?)\] \[(.*?)\] \[(\d+)\]", re.DOTALL)


@contextlib.contextmanager
def naming_damage() -> Iterator[None]:
    """Turns a graph's error about a damaged record into a one-line `UserError`.

    ```python
    with naming_damage():
        model.fit(split.training_batches(...), ...)
    ```

    Raises:
        UserError: a record or a JPEG cannot be read; names file and record if known.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if found := _DAMAGE.search(str(error)):
            problem, file, record = found.groups()
            raise UserError(
                f"{file}: {problem} (record {record}); restore the file or build the "
                "data set again."
            ) from error
        is_graph_error = isinstance(error, tf.errors.InvalidArgumentError)
        if is_graph_error and "Invalid JPEG" in str(error):
            raise UserError(
                "a stored JPEG frame cannot be decoded although its record is as it "
                "was written; build the data set again."
            ) from error
        raise
