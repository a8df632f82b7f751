"""The text encoder of a config: its sizes, its vocabulary and its first weights."""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from tfavmae.config.experiment import ModelConfig
from tfavmae.config.text import TextConfig
from tfavmae.data.text import MERGES, VOCABULARY, Tokenizer, Vocabulary
from tfavmae.errors import UserError, shown
from tfavmae.models import text_aligned
from tfavmae.models.preset_address import CONFIG, WEIGHTS, local_folder
from tfavmae.models.text_aligned import TextAlignedModel

# RoBERTa-base (Liu et al., 2019): what MAViL's text encoder starts from.
_SIZES = {
    "hidden_dim": 768,
    "num_heads": 12,
    "mlp_dim": 3072,
    "num_layers": 12,
    "num_positions": 512,
}
# Their names in the config of KerasHub's preset.
_NAMES_THERE = {
    "hidden_dim": "hidden_dim",
    "num_heads": "num_heads",
    "mlp_dim": "intermediate_dim",
    "num_layers": "num_layers",
    "num_positions": "max_sequence_length",
}
_FILES = (
    CONFIG,
    WEIGHTS,
    f"assets/tokenizer/{VOCABULARY}",
    f"assets/tokenizer/{MERGES}",
)


def build(model: ModelConfig, **options: Any) -> TextAlignedModel:
    """The untrained model of a config with captions.

    Args:
        model: the config's `model` section.
        **options: of `text_aligned.build_text_aligned`.

    Raises:
        UserError: the preset or the vocabulary is missing or damaged.
        ValueError: for an unknown option.
    """
    return text_aligned.build_text_aligned(
        model.name, model.size, model.modality, encoder_arguments(model.text), **options
    )


def encoder_arguments(text: TextConfig) -> dict[str, Any]:
    """Arguments of `TextEncoder`.

    Args:
        text: the config's section `model.text`.

    Raises:
        UserError: the preset or the vocabulary is missing or damaged, or sizes are
            given that are not the preset's.
    """
    given = {k: getattr(text, k) for k in _SIZES if getattr(text, k) is not None}
    sizes = {**_SIZES, **given}
    if text.preset:
        sizes = _sizes_of_preset(text.preset)
        for key, value in given.items():
            if value != sizes[key]:
                raise UserError(
                    f"model.text.{key}={value} is not that of the preset "
                    f"{text.preset}, {sizes[key]}; leave it out."
                )
    tokens, merges = vocabulary_of(text).to_text()
    return {
        "vocabulary": tokens,
        "merges": merges,
        **sizes,
        "max_tokens": text.max_tokens,
        "dropout_rate": text.dropout_rate,
    }


def vocabulary_of(text: TextConfig) -> Vocabulary:
    """The vocabulary of a config: the preset's, a folder's, or the bytes.

    Raises:
        UserError: it is missing or damaged.
    """
    if text.preset:
        _sizes_of_preset(text.preset)  # says what a preset is, where it is none
        return Vocabulary.read(local_folder(text.preset, _FILES))
    return (
        Vocabulary.read(text.vocabulary)
        if text.vocabulary
        else (Vocabulary.byte_level())
    )


def tokenizer_of(text: TextConfig) -> Tokenizer:
    """The tokenizer of a config.

    Raises:
        UserError: the vocabulary is missing or damaged, or `keras-hub` is.
    """
    return Tokenizer(vocabulary_of(text), text.max_tokens)


def load_weights(
    model: TextAlignedModel, text: TextConfig, report: Callable[[str], Any]
) -> None:
    """Gives the text encoder the weights of its preset, if the config names one.

    Raises:
        UserError: the file of weights is missing, damaged or of another model.
    """
    if not text.preset:
        return
    path = local_folder(text.preset, _FILES) / WEIGHTS
    try:
        model.text_encoder.backbone.load_weights(path)
    # HDF5's own errors, and Keras' about layers and shapes.
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"model.text.preset: {path}: {lines[0][:200]}") from error
    report(f"text encoder from {text.preset}")


def _sizes_of_preset(preset: str) -> dict[str, int]:
    path = local_folder(preset, _FILES) / CONFIG
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        config = content["config"]
        if content["class_name"] != "RobertaBackbone":
            raise ValueError(f"it is of a {shown(content['class_name'])}")
        sizes = {k: config[there] for k, there in _NAMES_THERE.items()}
        if not isinstance(config, Mapping) or any(
            type(x) is not int or x < 1 for x in sizes.values()
        ):
            raise ValueError("a size is no number")
        return sizes
    except FileNotFoundError as error:
        raise UserError(
            f"model.text.preset: {preset}: no preset of KerasHub, {CONFIG} is missing; "
            "give the folder of `RobertaBackbone.save_to_preset`, a kaggle:// or hf:// "
            "address, or start afresh: --set model.text.preset=null"
        ) from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"model.text.preset: {path}: no preset of a RobertaBackbone ({error})"
        ) from error
