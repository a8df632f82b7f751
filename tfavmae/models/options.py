"""Arguments of models that are a name or a group of settings."""

from collections.abc import Mapping
from typing import Any

from tfavmae.errors import did_you_mean

MODALITIES = ("audio", "video")


def settings(
    name: str, defaults: Mapping[str, Any], given: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Settings that are one argument of a constructor: the given ones over `defaults`.

    Args:
        name: of the argument, for the error message.
        defaults: all settings that there are.
        given: those to change.

    Raises:
        ValueError: for an unknown setting; names the nearest.
    """
    for key in given or {}:
        if key not in defaults:
            raise ValueError(
                f"Unknown `{name}` setting {key!r}; {did_you_mean(key, defaults)}"
            )
    return {**defaults, **(given or {})}


def modalities_of(modality: str) -> tuple[str, ...]:
    """`audio_video` as `("audio", "video")`; `audio` and `video` alone.

    Raises:
        ValueError: for any other name.
    """
    if modality not in ("audio_video", *MODALITIES):
        raise ValueError(
            "`modality` must be 'audio', 'video' or 'audio_video'. "
            f"Received: {modality!r}."
        )
    return tuple(modality.split("_"))
