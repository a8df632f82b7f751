"""Rows of an index: windows of files with their vectors, and what is known of files."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

VECTORS = ("audio", "video", "fused")  # columns of vectors, those that a model gives


@dataclasses.dataclass(frozen=True)
class FileState:
    """What an index knows of a file.

    Attributes:
        content: hash of what it holds.
        size_bytes, modified_ns: of the file when it was indexed.
        num_windows: its windows in the index.
        problem: why nothing of it, or not all of it, is there; empty if all is.
    """

    content: str
    size_bytes: int
    modified_ns: int
    num_windows: int
    problem: str = ""


def rows_of(
    file: str,
    state: FileState,
    places: Sequence[tuple[float, float]],
    vectors: dict[str, np.ndarray],
    sizes: dict[str, int],
) -> "pa.Table":
    """The rows of a file: one for each window, or one that says why there is none.

    Args:
        file: its path.
        state: what is known of it.
        places: start and end in seconds of each window.
        vectors: by column `(windows, hidden_dim)`, NaN where a window has none.
        sizes: length of the vectors of each column.
    """
    import pyarrow as pa

    count = max(1, len(places))
    columns: dict[str, Any] = {
        "file": [file] * count,
        "content": [state.content] * count,
        "size_bytes": [state.size_bytes] * count,
        "modified_ns": [state.modified_ns] * count,
        "window": list(range(len(places))) or [-1],
        "start_seconds": [start for start, _ in places] or [0.0],
        "end_seconds": [end for _, end in places] or [0.0],
        "problem": [state.problem] * count,
    }
    for name, size in sizes.items():
        values = vectors.get(name) if places else None
        if values is None:
            values = np.full((count, size), np.nan, "float32")
        lacks = ~np.isfinite(values).all(1)
        flat = pa.array(np.nan_to_num(values).astype("float32").ravel())
        columns[name] = pa.FixedSizeListArray.from_arrays(
            flat, size, mask=pa.array(lacks)
        )
    return pa.table(columns, schema=schema_of(sizes))


def renamed(rows: "pa.Table", file: str, state: FileState) -> "pa.Table":
    """The rows of a file as those of another one with the same content.

    Args:
        rows: from `vector_store.VectorStore.rows`.
        file: path of the other file.
        state: its size and time of change.
    """
    import pyarrow as pa

    values = {
        "file": file,
        "size_bytes": state.size_bytes,
        "modified_ns": state.modified_ns,
    }
    for name, value in values.items():
        field = rows.schema.field(name)
        column = pa.array([value] * rows.num_rows, field.type)
        rows = rows.set_column(rows.schema.get_field_index(name), field, column)
    return rows


def schema_of(sizes: dict[str, int]) -> "pa.Schema":
    """The columns of an index; `sizes` as of `rows_of`."""
    import pyarrow as pa

    fields = {
        "file": pa.string(),
        "content": pa.string(),
        "size_bytes": pa.int64(),
        "modified_ns": pa.int64(),
        "window": pa.int32(),
        "start_seconds": pa.float64(),
        "end_seconds": pa.float64(),
        "problem": pa.string(),
        **{name: pa.list_(pa.float32(), size) for name, size in sizes.items()},
    }
    return pa.schema([pa.field(name, kind) for name, kind in fields.items()])
