"""Models in `.keras` files, which may come from somebody else."""

import json
import os
import zipfile
from collections.abc import Iterator
from typing import Any

import keras

from tfavmae.errors import UserError, shown
from tfavmae.registration import register

# Some 8,000 times as many as ours have.
MAX_CONFIG_BYTES = 2**24


def load_model(path: str | os.PathLike) -> keras.Model:
    """Loads a model, uncompiled.

    Args:
        path: a `.keras` file.

    Raises:
        UserError: it is damaged, asks for a class that is not ours (see
            `check_classes`), or its values do not fit.
    """
    path = os.fspath(path)
    try:
        # Keras says of a file that is not a ZIP archive that it is not there.
        if os.path.exists(path) and not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("it was cut short, or is not a Keras file")
        with zipfile.ZipFile(path) as archive:
            config = archive.getinfo("config.json")
            if config.file_size > MAX_CONFIG_BYTES:
                raise ValueError(f"config.json has {config.file_size} bytes")
            check_classes(json.loads(archive.read(config)), path)
        return keras.saving.load_model(path, compile=False)
    except UserError:
        raise
    # The errors of ZIP, JSON, HDF5 and Keras, and those of a class that gets values
    # which it was not made for.
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{path}: is damaged ({lines[0]}); restore it, or remove it and run the "
            "same training command again, which continues from the newest checkpoint."
        ) from error


def check_classes(config: Any, path: str | os.PathLike) -> None:
    """Checks that a model's config asks only for classes that are registered.

    Keras makes whatever object of Keras a config asks for, and ways to have it run code
    by that were found more than once (CVE-2025-1550, CVE-2026-1462). Here a config may
    ask only for classes that are registered in this process: ours, and the user's own
    if their module has been imported.

    Args:
        config: of a model that is loaded without being compiled.
        path: of the file, for the error message.

    Raises:
        UserError: it asks for another class; names it.
    """
    # Nothing may depend on what the process happens to have imported of ours.
    register()
    if isinstance(config, dict):
        # Keras passes over the optimizer and the losses of the model itself, not over
        # those of a model inside it.
        config = {k: v for k, v in config.items() if k != "compile_config"}
    foreign = next(_foreign_classes(config), None)
    if foreign is not None:
        raise UserError(
            f"{path}: refused, because it asks for {shown(foreign)}, which is not a "
            "class of tfavmae. If it is your own, register it with Keras and import "
            "its module first."
        )


def _foreign_classes(value: Any) -> Iterator[str]:
    """Names of the objects in a model's config that are not registered."""
    if isinstance(value, list):
        for inner in value:
            yield from _foreign_classes(inner)
    elif isinstance(value, dict):
        if "class_name" in value and not _is_known(value):
            yield f"{value.get('module')}.{value['class_name']}"
        for inner in value.values():
            yield from _foreign_classes(inner)


def _is_known(value: dict[str, Any]) -> bool:
    """Whether Keras makes an object of a registered class, or a dtype policy, of it."""
    name, module = value["class_name"], value.get("module")
    if (module, name) in (("keras", "DTypePolicy"), ("keras", "DTypePolicyMap")):
        return value.get("registered_name") is None
    registered = keras.saving.get_registered_object(value.get("registered_name"))
    # The two names must agree: Keras goes by the one or the other.
    return registered is not None and registered.__name__ == name
