"""Reports of files that could not be built."""

import csv
import os


def read_bad_files(path: str | os.PathLike) -> list[tuple[str, str]]:
    """`(path, reason)` of each file that a build left out.

    Args:
        path: of `bad_files.csv`, a builder's `bad_files_path`.
    """
    # A data set that was copied here need not have brought the report along.
    if not os.path.exists(path):
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [(row["path"], row["reason"]) for row in csv.DictReader(file)]
