"""Presets: a model with its weights and what it was trained for, in a folder.

The layout is KerasHub's, with `preprocessing.json` for what our commands need to ask
the model about media files, and a card for people in `README.md`. Whoever gets a folder
need not trust it: everything is plain data, and no code of it runs.
"""

import datetime
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import h5py
import keras
import ml_dtypes  # noqa: F401 - NumPy knows `bfloat16` by it
import numpy as np

from tfavmae import __version__, files
from tfavmae.errors import UserError, shown
from tfavmae.models.keras_file import MAX_CONFIG_BYTES, check_classes
from tfavmae.models.preset_address import (
    CARD,
    CONFIG,
    FILES,
    METADATA,
    PREPROCESSING,
    TASK,
    WEIGHTS,
    is_preset,
    is_remote,
    local_folder,
)
from tfavmae.private_hooks import shapes_only


def write(
    model: keras.Model,
    folder: str | os.PathLike,
    card: str,
    task: Mapping[str, Any],
    preprocessing: Mapping[str, Any] | None = None,
) -> None:
    """Writes a preset, all of it or nothing.

    Args:
        model: a model of ours, which is stored uncompiled.
        folder: to make, or an earlier preset to replace.
        card: content of `README.md`.
        task: content of `task.json`: stage, labels, metrics.
        preprocessing: content of `preprocessing.json`: how clips become inputs.

    Raises:
        UserError: there is something other than a preset, the disk is full, or the
            folder cannot be written.
    """
    folder = pathlib.Path(folder)
    _check_replaceable(folder)
    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    metadata = {
        "keras_version": keras.__version__,
        "tfavmae_version": __version__,
        "parameter_count": model.count_params(),
        "date_saved": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    contents = {CONFIG: config, METADATA: metadata, TASK: task}
    if preprocessing is not None:
        contents[PREPROCESSING] = preprocessing
    with files.replacing(folder) as temporary:
        temporary.mkdir()
        for name, content in contents.items():
            text = json.dumps(content, indent=1, allow_nan=False)
            (temporary / name).write_text(text + "\n", encoding="utf-8")
        (temporary / CARD).write_text(card, "utf-8", "backslashreplace")
        model.save_weights(temporary / WEIGHTS)


def _check_replaceable(folder: pathlib.Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder}: is not a folder; choose another name.")
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if not found or (is_preset(folder) and found <= set(FILES)):
        return
    other = min(found - set(FILES), default=min(found))
    raise UserError(
        f"{folder}: holds {shown(other)} and would be replaced as a whole; choose "
        "another folder for the preset."
    )


class PresetFolder:
    """A preset that is read.

    Args:
        address: see `preset_address.local_folder`.

    Attributes:
        address: as it was given, for messages.
        path: of the folder.

    Raises:
        UserError: there is no such preset.
    """

    def __init__(self, address: str | os.PathLike) -> None:
        self.address = os.fspath(address)
        self.path = local_folder(address)
        # Hugging Face's cache has links to files that lie beside the snapshots.
        self._root = self.path.parents[1] if is_remote(self.address) else self.path
        if not is_preset(self.path):
            raise UserError(
                f"{self.address}: no such preset; its folder holds {CONFIG} and "
                f"{WEIGHTS}."
            )

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Content of a JSON file of the folder, `None` if it is not there.

        Raises:
            UserError: it is damaged, too big, or lies elsewhere.
        """
        path = self.path / name
        if not path.is_file():
            return None
        path = self._inside(name)
        try:
            if path.stat().st_size > MAX_CONFIG_BYTES:
                raise ValueError(f"it has {path.stat().st_size} bytes")
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError("it is not a mapping")
        except (OSError, ValueError, RecursionError) as error:
            raise self.damaged(name, error) from error
        return content

    def read_model(self) -> keras.Model:
        """The model with its weights, uncompiled.

        Raises:
            UserError: a file is damaged, `config.json` asks for a class that is not
                ours, or the weights are those of another model.
        """
        config = self.read_json(CONFIG)
        assert config is not None  # `is_preset` has seen it
        weights = self._inside(WEIGHTS)
        try:
            check_classes(config, self.path / CONFIG)
            config.pop("compile_config", None)
            with shapes_only():
                needed = _num_bytes(keras.saving.deserialize_keras_object(config))
            stored = weights.stat().st_size
            # Keras does not compress: a smaller file cannot hold them.
            if needed > stored:
                raise ValueError(
                    f"the model of {CONFIG} has {needed} bytes of weights and "
                    f"{WEIGHTS} {stored} bytes"
                )
            _check_hdf5(weights)
            model = keras.saving.deserialize_keras_object(config)
            model.load_weights(weights)
        except UserError:
            raise
        # The errors of HDF5 and Keras, and those of a class that gets values which it
        # was not made for.
        except Exception as error:
            raise self.damaged(f"{CONFIG} or {WEIGHTS}", error) from error
        return model

    def damaged(self, name: str, error: BaseException) -> UserError:
        """The error for a file that does not hold what it should."""
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[-1] if "Example error message" in lines[0] else lines[0]
        return UserError(
            f"{self.address}: {name} is damaged ({reason[:300].rstrip('.')}); get the "
            "preset again."
        )

    def _inside(self, name: str) -> pathlib.Path:
        """The file, which must not be a link that leads out of the folder."""
        path = (self.path / name).resolve()
        if not path.is_relative_to(self._root.resolve()):
            raise UserError(
                f"{self.address}: refused, because {name} is a link out of the folder."
            )
        return path


def _num_bytes(model: keras.Model) -> int:
    """Size of the weights, of a model that may have none yet."""
    return sum(math.prod(v.shape) * np.dtype(v.dtype).itemsize for v in model.weights)


def _check_hdf5(path: pathlib.Path) -> None:
    """Refuses numbers that lie elsewhere, or that HDF5 would make up.

    Newer versions of Keras refuse most of that too; they read up to 4 GiB that are not
    in the file.
    """

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            if item.is_virtual or item.external:
                raise ValueError(f"{shown(name)} is in another file")
            if item.nbytes > item.id.get_storage_size():
                raise ValueError(f"{shown(name)} is not stored in full")

    with h5py.File(path, "r") as file:
        # Follows no link; Keras refuses links.
        file.visititems(visit)
