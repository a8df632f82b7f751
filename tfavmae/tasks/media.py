"""Media files as clips that a trained model reads: cut into windows, decoded, stored.

They take the way of the training clips: decoded in worker processes into the stored
form of the data set that the model was trained on, and read by the same pipeline.
"""

import collections
import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from tfavmae.building.bad_files import read_bad_files
from tfavmae.building.decoding import BadFiles, Row, decode_rows, probe_files
from tfavmae.building.features import example_features
from tfavmae.building.worker_pool import WorkerPool
from tfavmae.data.pipeline import ClipSplit, open_split
from tfavmae.errors import UserError
from tfavmae.files import scratch_folder
from tfavmae.media.decode import STILL_EXTENSIONS, DecodeOptions
from tfavmae_datasets.clip_folder.listing import (
    MEDIA_EXTENSIONS,
    clip_id,
    cut,
    list_folder,
)

EXTENSIONS = MEDIA_EXTENSIONS | STILL_EXTENSIONS
_LABELS = {"file": np.int64, "start_seconds": np.float32}


@dataclasses.dataclass(frozen=True)
class MediaFile:
    """A file to ask a model about.

    Attributes:
        name: for people: the path as it was given, or relative to the given folder.
        path: of the file.
    """

    name: str
    path: pathlib.Path


@dataclasses.dataclass(frozen=True)
class MediaClips:
    """The windows of media files as a split.

    Attributes:
        split: one clip for each window, in the order of the files and of time.
        files: names of the files.
        file_of_clip: int `(clips,)`, index into `files`.
        start_seconds: float `(clips,)`, start of each window in its file.
        bad_files: `(path, reason)` of each window that could not be decoded.
    """

    split: ClipSplit
    files: list[str]
    file_of_clip: np.ndarray
    start_seconds: np.ndarray
    bad_files: list[tuple[str, str]]


def find_files(paths: Iterable[str | os.PathLike]) -> list[MediaFile]:
    """The files that are given, and the media files of the folders among them.

    A file that is given by name is taken whatever its extension; in a folder the
    extension decides, as in `clip_folder`.

    Raises:
        UserError: one of them does not exist or is given twice, or a folder holds no
            media file.
    """
    found: list[MediaFile] = []
    for given in map(pathlib.Path, paths):
        path = given.expanduser()
        if path.is_dir():
            names = list_folder(path).files
            found += [MediaFile(name, path / name) for name in names]
        elif path.is_file():
            found.append(MediaFile(str(given), path))
        else:
            raise UserError(f"{given}: no such file or folder")
    counts = collections.Counter(file.name for file in found)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise UserError(f"{twice[0]}: is given twice; name each file once")
    return found


def clock(seconds: float) -> str:
    """Seconds as `h:mm:ss`, with a fraction where there is one.

    >>> clock(3723.5)
    '1:02:03.5'
    """
    minutes, seconds = divmod(round(seconds, 3), 60)
    fraction = f"{seconds % 1:.3f}".rstrip("0").rstrip(".")[1:]
    return f"{minutes // 60:.0f}:{minutes % 60:02.0f}:{int(seconds):02}{fraction}"


@contextlib.contextmanager
def clips_of_files(
    files: Sequence[MediaFile],
    clip_seconds: float,
    options: DecodeOptions,
    *,
    strict: bool = False,
) -> Iterator[MediaClips]:
    """The windows of media files, as a split that exists as long as the block.

    Args:
        files: from `find_files`.
        clip_seconds: length of a window. A longer file is cut into several, as by
            `data build clip_folder`: a rest shorter than half a window is left out.
        options: the stored form of the clips that the model was trained on.
        strict: whether a file that cannot be decoded is an error.

    Raises:
        UserError: nothing can be decoded.
    """
    with scratch_folder() as scratch, WorkerPool() as pool:
        report = BadFiles(scratch / "bad_files.csv", strict=strict)
        ended: set[str] = set()
        decoded = decode_rows(
            _rows(files, clip_seconds, report, pool, ended),
            options,
            pool=pool,
            bad_files=report,
            ended=ended,
        )
        with decoded:
            count = _write_split(scratch / "clips", (example for _, example in decoded))
        bad_files = read_bad_files(scratch / "bad_files.csv")
        if not count:
            path, reason = bad_files[0]
            others = f" (and {len(bad_files) - 1} more)" if len(bad_files) > 1 else ""
            raise UserError(f"{path}: {reason}{others}")
        split = open_split(os.fspath(scratch / "clips"), "train")
        columns = split.index.columns
        yield MediaClips(
            split,
            [file.name for file in files],
            columns["file"],
            columns["start_seconds"],
            bad_files,
        )


def _rows(
    files: Sequence[MediaFile],
    clip_seconds: float,
    report: BadFiles,
    pool: WorkerPool,
    ended: Container[str],
) -> Iterator[Row]:
    """The windows of all files; reports those whose header cannot be read.

    No more are made of a file that is in `ended` by then: its header has lied.
    """
    outcomes = probe_files(pool, [file.path for file in files])
    for index, (file, outcome) in enumerate(zip(files, outcomes, strict=True)):
        if outcome.reason is not None:
            report.add(file.path, outcome.reason)
            continue
        for start, end in cut(outcome.value.duration_seconds or 0.0, clip_seconds):
            if os.fspath(file.path) in ended:
                break
            labels = {"file": index, "start_seconds": start}
            yield Row(clip_id(file.name, start), file.path, start, end, labels)


def _write_split(folder: pathlib.Path, examples: Iterable[dict[str, Any]]) -> int:
    """Writes stored examples as the split `train` of a data set; returns their number.

    Not through a TFDS builder, which would shuffle them, and tell the user about it.
    """
    folder.mkdir()
    features = example_features(_LABELS)
    count, path = 0, folder / "clips-train.tfrecord-00000-of-00001"
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        for example in examples:
            # File names need not be valid UTF-8.
            example["id"] = example["id"].encode("utf-8", "backslashreplace")
            writer.write(features.serialize_example(example))
            count += 1
    if count:
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder,
            dataset_name="clips",
            split="train",
            filetype_suffix="tfrecord",
        )
        split = tfds.core.SplitInfo(
            name="train",
            shard_lengths=[count],
            num_bytes=path.stat().st_size,
            filename_template=template,
        )
        tfds.folder_dataset.write_metadata(
            data_dir=folder,
            features=features,
            split_infos=[split],
            version="1.0.0",
            filename_template=template,
            check_data=False,
        )
    return count
