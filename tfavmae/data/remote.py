"""Data sets behind a URL: the description is copied, the TFRecords are read in place.

TensorFlow reads `gs://` by itself; `s3://`, `az://`, `hdfs://` and `http://` need the
extra `io`, which works with TensorFlow 2.16 only. TFDS reads its description of a data
set through a library of its own that knows fewer places, so these few small files are
copied into a temporary folder.
"""

import json
import os
import tempfile

import tensorflow as tf

from tfavmae.errors import UserError

# Schemes that tensorflow-io 0.37, the last release, registers.
_OF_THE_EXTRA = ("s3", "az", "azfs", "hdfs", "viewfs", "http", "https", "oss")


def scheme(path: str | os.PathLike) -> str | None:
    """`"http"` of `"http://..."`; `None` of a local path."""
    name, found, _ = str(path).partition("://")
    return name.lower() if found else None


def enable(path: str | os.PathLike) -> None:
    """Registers the file system of a path with TensorFlow, if an extra provides it.

    Raises:
        UserError: the extra is not installed, or not made for this TensorFlow.
    """
    if scheme(path) not in _OF_THE_EXTRA:
        return
    remedy = (
        "install tfavmae[io] into an environment of its own, with TensorFlow 2.16, or "
        "copy the data set to a local disk."
    )
    # A binary extension: with another TensorFlow the import ends in a linker error.
    if not tf.__version__.startswith("2.16."):
        raise UserError(
            f"{path}: TensorFlow {tf.__version__} cannot read such a path; {remedy}"
        )
    try:
        import tensorflow_io  # noqa: F401 - registers the file systems
    except ImportError as error:
        raise UserError(f"{path}: tensorflow-io is missing; {remedy}") from error


def local_description(directory: str) -> str:
    """A folder from which TFDS can read the description of a data set.

    Args:
        directory: folder or URL of the data set.

    Returns:
        `directory`, or a temporary folder with copies where TFDS cannot read it.
    """
    if scheme(directory) not in _OF_THE_EXTRA:
        return directory
    folder = tempfile.mkdtemp(prefix="tfavmae-description-")
    _copy(directory, folder, "dataset_info.json")
    description = _copy(directory, folder, "features.json")
    # Class names lie in a file for each label. HTTP has no folders to list, so every
    # feature is asked for one.
    features = json.loads(description).get("featuresDict", {}).get("features", {})
    # With a slash, a name would be a path out of the folder; TFDS does the same.
    labels = [f"{feature.replace('/', '.')}.labels.txt" for feature in features]
    for name in ("metadata.json", *labels):
        if tf.io.gfile.exists(_join(directory, name)):
            _copy(directory, folder, name)
    return folder


def _join(directory, name):
    return f"{directory.rstrip('/')}/{name}"


def _copy(directory, folder, name):
    with tf.io.gfile.GFile(_join(directory, name), "rb") as file:
        content = file.read()
    with open(os.path.join(folder, name), "wb") as file:
        file.write(content)
    return content
