"""Data sets behind a URL: what TFDS needs lies here, the TFRecords stay there.

TensorFlow reads `gs://` by itself; `s3://`, `az://`, `hdfs://` and `http://` need the
extra `io`, which works with TensorFlow 2.16 only. TFDS reads its descriptions of a data
set through a library of its own that knows fewer places, so these few small files are
copied into a temporary folder.
"""

import json
import os
import tempfile

import tensorflow as tf

from tfavmae.errors import UserError

_OF_THE_EXTRA = ("s3", "az", "azfs", "hdfs", "viewfs", "http", "https", "oss")


def scheme(path):
    """`"http"` of `"http://..."`; `None` of a local path."""
    name, found, _ = str(path).partition("://")
    return name.lower() if found else None


def enable(path):
    """Makes TensorFlow able to read a path, if an extra is needed for it.

    Raises:
        UserError: if the extra is not there, or not for this TensorFlow.
    """
    if scheme(path) not in _OF_THE_EXTRA:
        return
    remedy = (
        "install tfavmae[io] into an environment of its own, with TensorFlow 2.16, or "
        "copy the data set to a local disk"
    )
    if not tf.__version__.startswith("2.16."):
        raise UserError(
            f"{path}: TensorFlow {tf.__version__} cannot read such a path; {remedy}"
        )
    try:
        import tensorflow_io  # noqa: F401 - registers the file systems
    except ImportError as error:
        raise UserError(f"{path}: tensorflow-io is missing; {remedy}") from error


def local_description(directory):
    """A folder with the files that describe the data set, for TFDS to read.

    That is the directory itself unless it lies where only TensorFlow can read.
    """
    if scheme(directory) not in _OF_THE_EXTRA:
        return directory
    folder = tempfile.mkdtemp(prefix="tfavmae-description-")
    copied = [
        _copy(directory, folder, n) for n in ("dataset_info.json", "features.json")
    ]
    features = json.loads(copied[1]).get("featuresDict", {}).get("features", {})
    _copy(directory, folder, "metadata.json", is_optional=True)
    for name in features:
        _copy(directory, folder, f"{name}.labels.txt", is_optional=True)
    return folder


def _copy(directory, folder, name, is_optional=False):
    source = f"{str(directory).rstrip('/')}/{name}"
    if is_optional and not tf.io.gfile.exists(source):
        return None
    with tf.io.gfile.GFile(source, "rb") as file:
        content = file.read()
    with open(os.path.join(folder, name), "wb") as file:
        file.write(content)
    return content
