"""`build_clip_folder`: the builder as one function call."""

import dataclasses
import difflib
import errno
import os
from pathlib import Path

import tensorflow as tf
import tensorflow_datasets as tfds

from tfavmae.building import decoding
from tfavmae.errors import UserError
from tfavmae_datasets.clip_folder import listing as listing_lib
from tfavmae_datasets.clip_folder.clip_folder_dataset_builder import Builder
from tfavmae_datasets.clip_folder.options import ClipFolderConfig


def build_clip_folder(videos, data_dir, *, overwrite: bool = False, **options):
    """Makes a data set of a folder of media files, unless that has been done already.

    Args:
        videos: the folder; searched with all its subfolders.
        data_dir: where data sets live; this one goes to
            `data_dir/clip_folder/<name>/1.0.0`.
        overwrite: build it again if other files or options made the one that is there.
        **options: the fields of `ClipFolderConfig`.

    Returns:
        The TFDS builder. `builder.info.metadata["summary"]` has the counts,
        `builder.bad_files_path` the report of files that were left out.

    Raises:
        UserError: if nothing can be built; one line says why.

    Example:

    >>> builder = build_clip_folder("~/holiday", "data", clip_seconds=4.0)
    >>> train = tfds.load("clip_folder", split="train", data_dir="data")
    """
    _check_names(options)
    videos = Path(videos).expanduser()
    data_dir = Path(data_dir).expanduser()
    config = ClipFolderConfig(videos=os.fspath(videos), **options)
    builder = Builder(config=config, data_dir=data_dir)
    if builder.data_path.exists() and _is_same(builder, config, videos, overwrite):
        return builder
    _prepare(builder, overwrite)
    return builder


def _check_names(options):
    known = [field.name for field in dataclasses.fields(ClipFolderConfig)]
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)
            raise UserError(
                f"`{name}` is no option of clip_folder. Did you mean `{near[0]}`?"
            )


def _is_same(builder, config, videos, overwrite) -> bool:
    fingerprint = config.fingerprint(listing_lib.list_folder(videos).digest)
    if builder.info.metadata.get("fingerprint") == fingerprint:
        return True
    if overwrite:
        return False
    raise UserError(
        f"{builder.data_path}: was built from other files or with other options. Build "
        "it again with overwrite, or beside it under another name or data_dir."
    )


def _prepare(builder, overwrite):
    mode = tfds.GenerateMode.REUSE_DATASET_IF_EXISTS
    if overwrite:
        mode = tfds.GenerateMode.REUSE_CACHE_IF_EXISTS
    download_config = tfds.download.DownloadConfig(download_mode=mode)
    try:
        builder.download_and_prepare(download_config=download_config)
    except Exception as error:
        if _is_of_full_disk(error):
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise decoding.disk_error(full, builder.data_path) from error
        raise


def _is_of_full_disk(error: BaseException | None) -> bool:
    """TFDS and TensorFlow wrap what the system said in errors of their own."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(error, tf.errors.ResourceExhaustedError):
            return "space" in error.message
        error = error.__cause__ or error.__context__
    return False
