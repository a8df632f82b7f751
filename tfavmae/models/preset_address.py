"""Addresses of presets: folders, and repositories of Hugging Face and Kaggle."""

import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from tfavmae import extras
from tfavmae.errors import UserError, shown

CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
TASK = "task.json"
METADATA = "metadata.json"
PREPROCESSING = "preprocessing.json"
CARD = "README.md"
FILES = (CONFIG, WEIGHTS, TASK, METADATA, PREPROCESSING, CARD)

# A part begins with a letter, a digit or `_`: none is `..`.
_PART = r"\w[\w.-]*"
_HUGGING_FACE = re.compile(rf"hf://({_PART}/{_PART})(?:@({_PART}(?:/{_PART})*))?")
_KAGGLE = re.compile(rf"kaggle://({_PART}(?:/{_PART}){{3,4}})")
_SCHEMES = ("hf://", "kaggle://")


def is_remote(address: str | os.PathLike) -> bool:
    """Whether an address is one of Hugging Face or Kaggle."""
    return os.fspath(address).startswith(_SCHEMES)


def is_preset(address: str | os.PathLike) -> bool:
    """Whether an address is remote, or a folder that holds a preset."""
    folder = pathlib.Path(address)
    return is_remote(address) or all((folder / x).is_file() for x in (CONFIG, WEIGHTS))


def local_folder(
    address: str | os.PathLike, files: Sequence[str] = FILES
) -> pathlib.Path:
    """The folder of a preset, downloaded into the cache of its service if need be.

    Args:
        address: a folder, `hf://USER/REPO`, `hf://USER/REPO@REVISION` or
            `kaggle://USER/MODEL/FRAMEWORK/VARIATION`, which may end in `/VERSION`.
        files: those that are fetched of a repository.

    Raises:
        UserError: the address is malformed, the service's package is not installed, or
            there is no such preset.
    """
    text = os.fspath(address)
    if not is_remote(text):
        return pathlib.Path(text).expanduser()
    if found := _HUGGING_FACE.fullmatch(text):
        client = extras.load("huggingface_hub", "hub", text)
        # No other file of the repository is fetched.
        arguments = {"revision": found[2], "allow_patterns": list(files)}
        return _download(client.snapshot_download, text, found[1], **arguments)
    if found := _KAGGLE.fullmatch(text):
        return _download(
            extras.load("kagglehub", "hub", text).model_download, text, found[1]
        )
    raise UserError(
        f"{shown(text)}: an address is hf://USER/REPO, hf://USER/REPO@REVISION or "
        "kaggle://USER/MODEL/FRAMEWORK/VARIATION."
    )


def _download(function: Any, address: str, *names: str, **options: Any) -> pathlib.Path:
    try:
        return pathlib.Path(function(*names, **options))
    # Each client has errors of its own, those of its HTTP library among them.
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[0][:200].rstrip(".")
        raise UserError(
            f"{address}: cannot be fetched: {reason}. Check the address, the network, "
            "and whether it needs a login."
        ) from error
