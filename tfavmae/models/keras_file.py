"""Models in `.keras` files, which may come from somebody else."""

import json
import os
import zipfile
from collections.abc import Iterator
from typing import Any

import keras

from tfavmae.errors import UserError, shown

_MAX_CONFIG_BYTES = 2**24  # some 8,000 times as many as ours have


def load_model(path: str | os.PathLike) -> keras.Model:
    """Loads a model, uncompiled.

    Keras makes whatever object of Keras a file asks for, and ways to have it run code
    by that were found more than once (CVE-2025-1550, CVE-2026-1462). Here a file may
    ask only for classes that are registered in this process: ours, and the user's own
    if their module has been imported.

    Args:
        path: a `.keras` file.

    Raises:
        UserError: it is damaged, asks for another class, or its values do not fit.
    """
    path = os.fspath(path)
    try:
        # Keras says of a file that is not a ZIP archive that it is not there.
        if os.path.exists(path) and not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("it was cut short, or is not a Keras file")
        with zipfile.ZipFile(path) as archive:
            config = archive.getinfo("config.json")
            if config.file_size > _MAX_CONFIG_BYTES:
                raise ValueError(f"config.json has {config.file_size} bytes")
            foreign = next(_foreign_classes(json.loads(archive.read(config))), None)
        if foreign is None:
            model = keras.saving.load_model(path, compile=False)
    # The errors of ZIP, JSON, HDF5 and Keras, and those of a class that gets values
    # which it was not made for.
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{path}: is damaged ({lines[0]}); restore it, or remove it and run the "
            "same training command again, which continues from the newest checkpoint."
        ) from error
    if foreign is not None:
        raise UserError(
            f"{path}: refused, because it asks for {shown(foreign)}, which is not a "
            "class of tfavmae. If it is your own, register it with Keras and import "
            "its module first."
        )
    return model


def _foreign_classes(value: Any) -> Iterator[str]:
    """Names of the objects in a model's config that are not registered."""
    if isinstance(value, list):
        for inner in value:
            yield from _foreign_classes(inner)
    elif isinstance(value, dict):
        # Nothing is compiled, so Keras passes over the optimizer and the losses.
        inner = {k: v for k, v in value.items() if k != "compile_config"}
        if "class_name" in value and not _is_known(value):
            yield f"{value.get('module')}.{value['class_name']}"
        for part in inner.values():
            yield from _foreign_classes(part)


def _is_known(value: dict[str, Any]) -> bool:
    """Whether Keras makes an object of a registered class, or a dtype policy, of it."""
    name, module = value["class_name"], value.get("module")
    if (module, name) in (("keras", "DTypePolicy"), ("keras", "DTypePolicyMap")):
        return value.get("registered_name") is None
    registered = keras.saving.get_registered_object(value.get("registered_name"))
    # The two names must agree: Keras goes by the one or the other.
    return registered is not None and registered.__name__ == name
