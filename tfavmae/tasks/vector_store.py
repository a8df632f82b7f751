"""The vectors of an index: a LanceDB table in a directory or on object storage.

Each row is a window of a file: its place, the content of the file, and a vector for
each modality that it has. Every change is a new version of the table, which readers see
as a whole or not at all.
"""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfavmae.errors import UserError
from tfavmae.files import exclusive
from tfavmae.tasks.lance import connect, is_remote, table_errors
from tfavmae.tasks.vector_rows import FileState, schema_of

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
# With fewer vectors every search looks at all of them.
EXACT_BELOW = 100_000
RECALL = 0.95  # of the ten nearest, by an approximate search
_NUM_MEASURED = 100  # vectors that it is measured with
_PROBES = (8, 16, 32, 64, 128, 256)
_REFINE = 10  # candidates for each result, ordered by their whole vectors
# An approximate index knows what was there when it was made; what came since is looked
# at one by one, up to this share.
_MOST_NEW = 0.1
_TABLE = "clips"
_META = b"tfavmae"


@dataclasses.dataclass(frozen=True)
class Row:
    """A window that was found, and how near it is.

    Attributes:
        file: path of its file.
        start_seconds, end_seconds: its place there.
        content: hash of the file.
        similarity: cosine similarity to the query.
    """

    file: str
    start_seconds: float
    end_seconds: float
    content: str
    similarity: float


@dataclasses.dataclass(frozen=True)
class Approximation:
    """How an approximate search is done.

    Attributes:
        probes: parts of the space that are looked at.
        recall: measured share of the ten nearest that it finds.
        num_vectors: in the index when it was measured.
    """

    probes: int
    recall: float
    num_vectors: int


class VectorStore:
    """An open index; see `create` and `open_store`.

    Args:
        address: directory, or `s3://`, `gs://` and the like.
        table: of LanceDB.
    """

    def __init__(self, address: str, table: Any) -> None:
        self.address, self._table = address, table
        with table_errors(address):
            self.facts = _facts_of(address, table.schema.metadata or {})
        self.sizes: dict[str, int] = self.facts["sizes"]

    # --- Reading ---

    def refresh(self) -> None:
        """Takes note of what other processes have written."""
        with table_errors(self.address):
            self._table.checkout_latest()

    def files(self) -> dict[str, FileState]:
        """What is known of each file, by its path."""
        names = ["file", "content", "size_bytes", "modified_ns", "window", "problem"]
        columns = self._columns(names)
        found: dict[str, FileState] = {}
        for file, content, size, modified, window, problem in zip(
            *columns, strict=True
        ):
            before = found.get(file)
            count = (before.num_windows if before else 0) + (window >= 0)
            problem = problem or (before.problem if before else "")
            found[file] = FileState(content, size, modified, count, problem)
        return found

    def num_windows(self) -> int:
        """Windows in the index."""
        with table_errors(self.address):
            return self._table.count_rows("window >= 0")

    def search(
        self, vector: np.ndarray, column: str, top: int, *, is_exact: bool = False
    ) -> list[Row]:
        """The windows that are most similar to a vector.

        Args:
            vector: float `(hidden_dim,)`.
            column: of `vector_rows.VECTORS`, which to compare.
            top: how many.
            is_exact: whether to look at every vector, however many there are.

        Raises:
            UserError: the index is damaged.
        """
        query = self._query(vector, column, top)
        approximation = self.approximation(column)
        if is_exact or approximation is None:
            query = query.bypass_vector_index()
        else:
            query = query.nprobes(approximation.probes).refine_factor(_REFINE)
        names = ["file", "start_seconds", "end_seconds", "content", "_distance"]
        with table_errors(self.address):
            found = query.select(names).to_arrow().to_pydict()
        rows = zip(*(found[name] for name in names), strict=True)
        return [
            Row(file, start, end, content, min(1.0, 1.0 - far))
            for file, start, end, content, far in rows
        ]

    def rows(self, file: str) -> "pa.Table":
        """All that is known of a file, in the order of its windows.

        Args:
            file: its path.
        """
        with table_errors(self.address):
            query = self._table.search().where(f"file = {_quoted(file)}").limit(None)
            names = [field.name for field in schema_of(self.sizes)]
            return query.select(names).to_arrow().sort_by("window")

    def vectors_at(self, file: str, start_seconds: float) -> dict[str, np.ndarray]:
        """The vectors of a window by column, those that it has.

        Args:
            file: path of its file.
            start_seconds: where it begins there.

        Raises:
            UserError: there is no such window.
        """
        for row in self.rows(file).to_pylist():
            if row["start_seconds"] == start_seconds and row["window"] >= 0:
                return {
                    name: np.asarray(row[name], "float32")
                    for name in self.sizes
                    if row[name] is not None
                }
        raise UserError(f"{self.address}: has no window of {file} at {start_seconds:g}")

    def count(self, column: str) -> int:
        """Windows that have a vector in a column."""
        with table_errors(self.address):
            return self._table.count_rows(f"{column} IS NOT NULL")

    def approximation(self, column: str) -> Approximation | None:
        """How a column is searched approximately; None where every vector counts."""
        metadata = self._table.schema.field(column).metadata or {}
        text = metadata.get(_META)
        return Approximation(**json.loads(text)) if text else None

    def _columns(self, names: Sequence[str]) -> list[list[Any]]:
        with table_errors(self.address):
            query = self._table.search().select(list(names)).limit(None)
            found = query.to_arrow()
        return [found[name].to_pylist() for name in names]

    def _query(self, vector: np.ndarray, column: str, top: int) -> Any:
        values = np.asarray(vector, "float32")
        query = self._table.search(values, vector_column_name=column)
        return query.distance_type("cosine").limit(top)

    # --- Writing ---

    def replace(self, rows: "pa.Table", files: Iterable[str]) -> None:
        """Replaces all that is known of some files.

        An indexing that is stopped in between leaves the files out, and the next one
        takes them up again.

        Args:
            rows: from `vector_rows.rows_of`, of these files.
            files: their paths.
        """
        with self.writing():
            known = set(self._columns(["file"])[0])
            self._delete(sorted(known.intersection(files)))
            with table_errors(self.address):
                self._table.add(rows)

    def remove(self, files: Iterable[str]) -> None:
        """Removes all that is known of some files."""
        with self.writing():
            self._delete(sorted(files))

    def _delete(self, files: list[str]) -> None:
        for first in range(0, len(files), 500):
            names = ", ".join(map(_quoted, files[first : first + 500]))
            with table_errors(self.address):
                self._table.delete(f"file IN ({names})")

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Waits for other indexers' changes, and makes one on top of them.

        On object storage there is no lock: LanceDB itself tries a change again when
        another one came first.
        """
        if is_remote(self.address):
            yield
            return
        lock = pathlib.Path(self.address) / "write.lock"
        with exclusive(lock, "indexing", wait=True):
            self.refresh()
            yield

    def tidy(self) -> None:
        """Merges small files of the table, and what is new into approximate indexes."""
        with self.writing(), table_errors(self.address):
            self._table.optimize()

    def approximate(self, threshold: int = EXACT_BELOW) -> dict[str, Approximation]:
        """Makes approximate indexes of the columns that are large, and measures them.

        Args:
            threshold: vectors of a column from which on it gets one.

        Returns:
            By column those that were made or made again now.
        """
        from lancedb.index import IvfSq

        made = {}
        for column in self.sizes:
            count, before = self.count(column), self.approximation(column)
            if count < threshold:
                continue
            if before and count - before.num_vectors <= _MOST_NEW * count:
                continue
            # A byte for each number; products of shorter codes take many times as long
            # to train.
            kind = IvfSq(
                distance_type="cosine",
                # As many as there are vectors to train them on.
                num_partitions=max(1, min(round(count**0.5), count // 256)),
                sample_rate=64,
                max_iterations=20,
            )
            with self.writing(), table_errors(self.address):
                self._table.create_index(column, config=kind)
            made[column] = self._measure(column, count)
        return made

    def _measure(self, column: str, count: int) -> Approximation:
        """Looks at as many parts of the space as the wanted recall takes."""
        queries = self._sample(column)
        exact = [self._neighbours(q, column, None) for q in queries]
        for probes in _PROBES:
            found = [self._neighbours(q, column, probes) for q in queries]
            hits = sum(len(a & b) for a, b in zip(exact, found, strict=True))
            recall = hits / sum(map(len, exact))
            if recall >= RECALL:
                break
        measured = Approximation(probes, recall, count)
        text = json.dumps(dataclasses.asdict(measured))
        with self.writing(), table_errors(self.address):
            update = {"path": column, "metadata": {_META.decode(): text}}
            self._table.update_field_metadata(update)
        return measured

    def _sample(self, column: str) -> list[np.ndarray]:
        with table_errors(self.address):
            count = self._table.count_rows()
            offsets = np.linspace(0, count - 1, min(_NUM_MEASURED, count)).astype(int)
            query = self._table.take_offsets(offsets.tolist()).select([column])
            rows = query.to_arrow()[column].to_pylist()
        return [np.asarray(row, "float32") for row in rows if row is not None]

    def _neighbours(
        self, vector: np.ndarray, column: str, probes: int | None
    ) -> set[int]:
        """Row numbers of the ten nearest but one: the vector is in the table itself."""
        query = self._query(vector, column, 11).with_row_id(True)
        if probes is None:
            query = query.bypass_vector_index()
        else:
            query = query.nprobes(probes).refine_factor(_REFINE)
        with table_errors(self.address):
            found = query.select(["_rowid", "_distance"]).to_arrow()
        return set(found["_rowid"].to_pylist()[1:])


def create(address: str, facts: dict[str, Any], sizes: dict[str, int]) -> VectorStore:
    """Makes an empty index, or opens the one that another process has just made.

    Args:
        address: directory, or `s3://`, `gs://` and the like.
        facts: what the index says of itself.
        sizes: length of the vectors of each column.

    Raises:
        UserError: it cannot be written.
    """
    import pyarrow as pa

    facts = {**facts, "format": FORMAT, "sizes": sizes}
    schema = schema_of(sizes).with_metadata({_META: json.dumps(facts)})
    with contextlib.ExitStack() as stack:
        if not is_remote(address):
            lock = pathlib.Path(address) / "write.lock"
            stack.enter_context(exclusive(lock, "indexing", wait=True))
        with table_errors(address):
            database = connect(address)
            empty = pa.Table.from_pylist([], schema=schema)
            table = database.create_table(_TABLE, empty, exist_ok=True)
    return VectorStore(address, table)


def exists(address: str) -> bool:
    """Whether there is an index, or what is left of one."""
    if not is_remote(address):
        return (pathlib.Path(address) / f"{_TABLE}.lance").exists()
    with table_errors(address):
        return _TABLE in connect(address).table_names()


def open_store(address: str) -> VectorStore:
    """Opens an index.

    Raises:
        UserError: there is none, or it is damaged.
    """
    if not exists(address):
        raise UserError(
            f"{address}: no index here; make one with `tfavmae index FOLDER --workdir "
            f"RUN --index {address}`"
        )
    with table_errors(address):
        table = connect(address).open_table(_TABLE)
    return VectorStore(address, table)


def _facts_of(address: str, metadata: dict[bytes, bytes]) -> dict[str, Any]:
    facts = json.loads(metadata.get(_META, b"{}"))
    if facts.get("format") != FORMAT:
        raise UserError(
            f"{address}: has the format {facts.get('format')} of another version of "
            f"tfavmae; this one reads {FORMAT}. Index the files again, elsewhere."
        )
    return facts


def _quoted(text: str) -> str:
    """A string of the store's SQL."""
    return "'" + text.replace("'", "''") + "'"
