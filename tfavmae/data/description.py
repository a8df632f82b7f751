"""Checks of a data set's description, made before TFDS reads it."""

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from tfavmae.errors import UserError

# Not all of `tensorflow_datasets`: importing some of its scripts and tests does things.
_FEATURE_CLASSES = "tensorflow_datasets.core.features."
# The keys of a feature's class, as protobuf reads them and in TFDS's old form.
_CLASS_KEYS = ("pythonClassName", "python_class_name", "type")


def check_features(directory: str) -> None:
    """Checks that `features.json` names no class but TFDS's own features.

    TFDS (4.9.10) imports the module of each class that the file names, whatever it is:
    a data set from somebody else could run any module that Python finds.

    Args:
        directory: folder or URL of the data set.

    Raises:
        UserError: it names another class.
        Exception: it is missing, or not JSON.
    """
    path = f"{directory.rstrip('/')}/features.json"
    with tf.io.gfile.GFile(path) as file:
        names = _class_names(json.loads(file.read()))
    foreign = sorted({n for n in names if not n.startswith(_FEATURE_CLASSES)})
    if foreign:
        raise UserError(
            f"{path}: refused, because reading it would import {foreign[0]!r}; only "
            f"classes of {_FEATURE_CLASSES.rstrip('.')} are allowed. Build the data "
            "set yourself with `tfavmae data build`."
        )


def check_shards(directory: str, paths: Sequence[str]) -> None:
    """Checks that the files of a split lie in the folder of its data set.

    Their names follow from a template in `dataset_info.json`, which could be a path to
    anything, such as a device that never ends.

    Raises:
        UserError: one lies elsewhere.
    """
    root = os.path.join(os.path.normpath(directory), "")
    for path in paths:
        if not os.path.normpath(path).startswith(root):
            raise UserError(
                f"{directory}: refused, because its dataset_info.json names a file of "
                f"another folder, {path}; build the data set again."
            )


def _class_names(value: Any) -> Iterator[str]:
    """The names of classes in a description, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in _CLASS_KEYS and isinstance(inner, str):
                yield inner
            else:
                yield from _class_names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _class_names(inner)
    elif isinstance(value, str):
        # TFDS reads features also from JSON in a string (`JsonFeature`).
        try:
            inner = json.loads(value)
        except ValueError:
            return
        yield from _class_names(inner)
