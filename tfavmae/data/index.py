"""Where every clip of a TFRecord split lies, so that any clip can be read at once.

TFRecords are made to be read from front to back. One pass over the shards notes
the offset of each record and its small features (id, labels, which modalities are
there); after that, shuffling, balanced sampling, filtering and resuming at any
step cost nothing that grows with the data.
"""

import dataclasses
import hashlib
import io
import json
import os
import re
import uuid
import zipfile

import numpy as np
import tensorflow as tf

from tfavmae.errors import UserError
from tfavmae.private_hooks import read_record

FORMAT = 1  # raise when the content of the cached index changes
RECORD_OVERHEAD = 16  # TFRecord framing: 8 length + 4 crc, payload, 4 crc
_SCAN_BATCH = 1024


@dataclasses.dataclass(frozen=True)
class Shard:
    """A TFRecord file and the number of records the dataset says it holds."""

    path: str
    num_records: int


@dataclasses.dataclass(frozen=True)
class RecordIndex:
    """Offsets and small features of all records of some shards.

    Attributes:
        files: the shards' paths.
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
    columns: dict

    def __len__(self):
        return len(self.shard)

    def take(self, rows):
        """The index of only these rows, in this order."""
        columns = {k: _take_column(v, rows) for k, v in self.columns.items()}
        places = (self.shard, self.record, self.offset, self.length)
        return RecordIndex(self.files, *(p[rows] for p in places), columns)


def _take_column(column, rows):
    if isinstance(column, tf.RaggedTensor):
        return tf.gather(column, rows)
    return column[rows]


def load_or_build(shards, columns, cache_directory=None):
    """Reads the cached index of `shards`, or scans them and caches what it found.

    Args:
        shards: list of `Shard`.
        columns: name -> `tf.io` feature spec of the small features to keep.
        cache_directory: where to keep the index; `None` keeps it in memory only. A
            folder that can't be written to does the same.

    Returns:
        A `RecordIndex`.
    """
    state = _state(shards, columns)
    path = cache_directory and os.path.join(cache_directory, _cache_name(shards))
    cached = path and _read_cache(path, state)
    if cached:
        return RecordIndex(tuple(s.path for s in shards), **cached)
    index = _concatenate([_scan(i, s, columns) for i, s in enumerate(shards)], shards)
    if path:
        _write_cache(path, state, index)
    return index


def file_state(path):
    """(size in bytes, modification time in ns) of a shard."""
    try:
        status = tf.io.gfile.stat(path)
    except tf.errors.NotFoundError:
        raise UserError(
            f"{path}: this file of the dataset is missing; restore it or build the "
            "dataset again"
        ) from None
    return int(status.length), int(status.mtime_nsec)


def _cache_name(shards):
    names = "\n".join(os.path.basename(s.path) for s in shards)
    return f"tfavmae_index-{hashlib.sha256(names.encode()).hexdigest()[:12]}.npz"


def _state(shards, columns):
    files = [[os.path.basename(s.path), *file_state(s.path)] for s in shards]
    return json.dumps({"format": FORMAT, "columns": sorted(columns), "files": files})


def _scan(number, shard, columns):
    """Reads one shard: (shard, record, offset, length, columns)."""
    dataset = tf.data.TFRecordDataset(shard.path)
    dataset = dataset.map(
        lambda record: (
            tf.strings.length(record),
            _parse_columns(record, columns),
        ),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    ).ragged_batch(_SCAN_BATCH)
    try:
        batches = list(dataset)
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        raise _damaged(shard.path) from error
    lengths = np.concatenate([b[0].numpy() for b in batches] or [[]]).astype(np.int64)
    if len(lengths) != shard.num_records:
        raise UserError(
            f"{shard.path}: has {len(lengths)} records where the dataset counts "
            f"{shard.num_records}; build the dataset again"
        )
    starts = np.cumsum(lengths + RECORD_OVERHEAD) - lengths - RECORD_OVERHEAD
    n = len(lengths)
    merged = _merge_columns([b[1] for b in batches])
    return (
        np.full(n, number, np.int32),
        np.arange(n, dtype=np.int32),
        starts,
        lengths,
        merged,
    )


def _parse_columns(record, columns):
    # TFDS stores bool and the short integers as int64.
    return tf.io.parse_single_example(record, columns) if columns else {}


def _merge_columns(batches):
    names = batches[0] if batches else ()
    return {name: tf.concat([b[name] for b in batches], 0) for name in names}


def _damaged(path):
    """Which record of the file can't be read (only called when one can't)."""
    number = 0
    try:
        for _ in tf.data.TFRecordDataset(path):
            number += 1
    except tf.errors.DataLossError:
        return UserError(
            f"{path}: record {number} is damaged (its checksum does not match or the "
            "file is cut short); restore the file or build the dataset again"
        )
    return UserError(
        f"{path}: its records do not have the features that features.json beside it "
        "promises; build the dataset again"
    )


def _concatenate(parts, shards):
    places = [np.concatenate([p[i] for p in parts]) for i in range(4)]
    filled = [p[4] for p in parts if p[4]]
    columns = {
        k: _plain(tf.concat([c[k] for c in filled], 0)) for k in (filled or [{}])[0]
    }
    return RecordIndex(tuple(s.path for s in shards), *places, columns)


def _plain(column):
    if isinstance(column, tf.RaggedTensor):
        return column
    array = column.numpy()
    return array.astype(np.bytes_) if array.dtype == object else array


def _write_cache(path, state, index):
    arrays = {
        "state": np.array(state),
        "shard": index.shard,
        "record": index.record,
        "offset": index.offset,
        "length": index.length,
    }
    for name, column in index.columns.items():
        if isinstance(column, tf.RaggedTensor):
            arrays[f"values:{name}"] = column.values.numpy()
            arrays[f"splits:{name}"] = column.row_splits.numpy()
        else:
            arrays[f"column:{name}"] = column
    content = io.BytesIO()
    np.savez(content, **arrays)
    partial = f"{path}.{uuid.uuid4().hex}.partial"
    try:
        with tf.io.gfile.GFile(partial, "wb") as file:
            file.write(content.getvalue())
        tf.io.gfile.rename(partial, path, overwrite=True)
    except (tf.errors.OpError, OSError):
        # A read-only or full disk only costs the next process another scan.
        if tf.io.gfile.exists(partial):
            tf.io.gfile.remove(partial)


def _read_cache(path, state):
    """The cached arrays, or None when there are none for the files as they are."""
    if not tf.io.gfile.exists(path):
        return None
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            arrays = dict(np.load(io.BytesIO(file.read()), allow_pickle=False))
    except (ValueError, EOFError, zipfile.BadZipFile):
        return None  # cut short by something else than us: scan again
    if str(arrays["state"]) != state:
        return None
    places = {k: arrays[k] for k in ("shard", "record", "offset", "length")}
    return {**places, "columns": _cached_columns(arrays)}


def _cached_columns(arrays):
    columns = {}
    for key, array in arrays.items():
        kind, _, name = key.partition(":")
        if kind == "column":
            columns[name] = array
        elif kind == "values":
            splits = arrays[f"splits:{name}"]
            columns[name] = tf.RaggedTensor.from_row_splits(array, splits)
    return columns


# --- Reading one record inside a tf.data graph ---


class RecordReader:
    """Reads the record of a row, for use inside tf.data maps.

    A record that can't be read fails with a message that names file and record
    (see `naming_damage`).
    """

    def __init__(self, index):
        self._files = tf.constant(index.files)
        self._shard = tf.constant(index.shard)
        self._record = tf.constant(index.record)
        self._offset = tf.constant(index.offset)
        self._length = tf.constant(index.length)

    def place(self, row):
        """(file, number of the record in it)."""
        return self._files[self._shard[row]], self._record[row]

    def read(self, row):
        """The serialized example."""
        file, record = self.place(row)
        size = self._length[row] + RECORD_OVERHEAD
        serialized = _read_at(file, self._offset[row], size)
        # No example takes 0 bytes: that is what a damaged record is read as.
        is_read = tf.strings.length(serialized) > 0
        problem = "the record is damaged or its file is gone"
        return checked(serialized, is_read, problem, file, record)


def _read_at(file, offset, size):
    """One record at a byte offset; b"" when it is damaged or the file is gone."""
    # Errors are ignored one level up: a reader that can't open its file would fail, and
    # be asked again, forever.
    place = tf.data.Dataset.from_tensors((file, offset, size))
    record = (
        place.map(read_record)
        .ignore_errors()
        .concatenate(tf.data.Dataset.from_tensors(tf.constant(b"")))
    )
    return record.take(1).get_single_element()


def checked(value, condition, problem, file, record):
    """`value`, or an error in the graph that names the file and the record."""
    message = ["Damaged data", problem, file, record]
    with tf.control_dependencies([tf.debugging.Assert(condition, message)]):
        return tf.nest.map_structure(tf.identity, value)


_DAMAGE = re.compile(r"\[Damaged data\] \[(.*?)\] \[(.*?)\] \[(\d+)\]", re.DOTALL)


class naming_damage:
    """Turns the graph's error about a damaged record into a one-line `UserError`.

    ```python
    with naming_damage():
        model.fit(split.training_batches(...), ...)
    ```
    """

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        found = isinstance(error, tf.errors.OpError) and _DAMAGE.search(str(error))
        is_graph_error = isinstance(error, tf.errors.InvalidArgumentError)
        if not found and is_graph_error and "Invalid JPEG" in str(error):
            raise UserError(
                "a stored JPEG frame cannot be decoded although its record is as it "
                "was written; build the dataset again"
            ) from error
        if found:
            problem, file, record = found.groups()
            raise UserError(
                f"{file}: {problem} (record {record}); restore the file or build the "
                "dataset again"
            ) from error
        return False
