"""Building of a `clip_folder` data set as one function call."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tfavmae.errors import UserError, did_you_mean
from tfavmae_datasets.clip_folder.clip_folder_dataset_builder import Builder
from tfavmae_datasets.clip_folder.options import ClipFolderConfig


def build_clip_folder(
    videos: str | os.PathLike,
    data_dir: str | os.PathLike,
    *,
    overwrite: bool = False,
    **options: Any,
) -> Builder:
    """Makes a data set of a folder of media files, unless that has been done already.

    Args:
        videos: the folder; searched with all its subfolders.
        data_dir: the folder of data sets; this one goes to
            `data_dir/clip_folder/<name>/1.0.0`.
        overwrite: build it again if the existing data set was made from other files or
            with other options.
        **options: the fields of `ClipFolderConfig`.

    Returns:
        The TFDS builder. `builder.info.metadata["summary"]` has the counts,
        `builder.bad_files_path` the report of files that were left out.

    Raises:
        UserError: nothing can be built, or the existing data set differs and
            `overwrite` is not set.

    Example:

    >>> builder = build_clip_folder("~/holiday", "data", clip_seconds=4.0)
    >>> train = tfds.load("clip_folder", split="train", data_dir="data")
    """
    known = [field.name for field in dataclasses.fields(ClipFolderConfig)]
    for name in options:
        if name not in known:
            raise UserError(
                f"clip_folder has no option {name!r}; {did_you_mean(name, known)}"
            )
    config = ClipFolderConfig(videos=os.fspath(Path(videos).expanduser()), **options)
    builder = Builder(config=config, data_dir=Path(data_dir).expanduser())
    mode = tfds.GenerateMode.REUSE_DATASET_IF_EXISTS
    if overwrite and builder.data_path.exists() and builder.changes():
        mode = tfds.GenerateMode.REUSE_CACHE_IF_EXISTS
    download_config = tfds.download.DownloadConfig(download_mode=mode)
    builder.download_and_prepare(download_config=download_config)
    return builder
