"""What a run starts from, and how: `initialize_from` and the section `transfer`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tfavmae.errors import UserError, shown
from tfavmae.model_garden import Config
from tfavmae.models.options import MODALITIES


@dataclass
class TransferConfig(Config):
    """How weights are taken over from `initialize_from`.

    What is null is as the model's paper has it, see `models.paper_model.Starting`.

    Attributes:
        positions: what becomes of position tables where the numbers of tokens differ:
            `interpolate`, `trim` to the first times, or `fresh`, the model's own. In
            any case a sin-cos table is computed for the new size.
        fresh: regular expressions of weights that start afresh, whatever the sources
            have. Without their names here, weights that no source has are an error.
        frames: the kernel of a patch of frames, from that of an image: `repeat`,
            `average` or `central`.
        layers: layers after the source's last start from the `last`, or `fresh`.
        audio_head: the head that predicts spectrograms, from that of images: the
            `authors` of CAV-MAE, or `fresh`.
        rows: what the rows of an image become in a spectrogram: `time` or `frequency`.
        absent_modality: what no source has a modality for: `borrow` the weights of the
            other, or train from `scratch`.
    """

    positions: str = field(
        default="interpolate", metadata={"choices": ("interpolate", "trim", "fresh")}
    )
    fresh: list[str] = field(default_factory=list)
    frames: str | None = field(
        default=None, metadata={"choices": ("repeat", "average", "central")}
    )
    layers: str | None = field(default=None, metadata={"choices": ("last", "fresh")})
    audio_head: str | None = field(
        default=None, metadata={"choices": ("authors", "fresh")}
    )
    rows: str | None = field(default=None, metadata={"choices": ("time", "frequency")})
    absent_modality: str | None = field(
        default=None, metadata={"choices": ("borrow", "scratch")}
    )


_KEYS = ("from", "modality", "model")


class SourceConfig(NamedTuple):
    """A source of weights.

    Attributes:
        path: of a run, a preset or a file of weights.
        modality: the only one to take; `None`: all.
        model: keys of the section `model` of the model in a file, for what no tensor
            shows: `{options: {fusion: shared}}`.
    """

    path: str
    modality: str | None = None
    model: Mapping[str, Any] | None = None


def read_sources(name: str, value: Any) -> str | list | None:
    """`initialize_from` as a config holds it: a path, paths, or mappings.

    Args:
        name: of the key.
        value: a path, a mapping of `from` and the other attributes of `SourceConfig`,
            or a list of these.

    Raises:
        UserError: it is something else.
    """
    if value is None or isinstance(value, str):
        return value
    entries = [value] if isinstance(value, Mapping) else value
    if not isinstance(entries, list | tuple) or not entries:
        raise UserError(
            f"{name} must be a path, or a list of paths or of mappings such as "
            f"{{from: PATH, modality: audio}}. Received: {shown(value)}."
        )
    sources = [_read_source(f"{name}[{i}]", x) for i, x in enumerate(entries)]
    if all(x == SourceConfig(x.path) for x in sources):
        return [x.path for x in sources]
    # Model Garden's lists are of one kind.
    return [{"from": x.path, "modality": x.modality, "model": x.model} for x in sources]


def sources(value: Any) -> list[SourceConfig]:
    """The sources of an `initialize_from` that a config holds."""
    value = [value] if isinstance(value, str) else value or []
    plain = [x.as_dict() if isinstance(x, Config) else x for x in value]
    return [_read_source("initialize_from", x) for x in plain]


def _read_source(name: str, value: Any) -> SourceConfig:
    given = {"from": value} if isinstance(value, str) else value
    if not isinstance(given, Mapping) or not isinstance(given.get("from"), str):
        raise UserError(
            f"{name} must be a path or {{from: PATH, modality: audio}}. Received: "
            f"{shown(value)}."
        )
    if unknown := sorted(map(str, given.keys() - set(_KEYS))):
        known = ", ".join(_KEYS)
        raise UserError(f"unknown key {name}.{unknown[0][:80]}; known: {known}.")
    model = given.get("model")
    if model is not None and not isinstance(model, Mapping):
        raise UserError(f"{name}.model must be a mapping. Received: {shown(model)}.")
    modality = given.get("modality")
    if modality not in (None, *MODALITIES):
        raise UserError(
            f"{name}.modality must be one of {', '.join(MODALITIES)}. Received: "
            f"{shown(modality)}."
        )
    return SourceConfig(given["from"], modality, model)
