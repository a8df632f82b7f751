"""Checks of nested values against config dataclasses: keys, types, ranges, pairs."""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from tfavmae.data.augment import Augmentation
from tfavmae.errors import UserError, did_you_mean, shown
from tfavmae.model_garden import Config
from tfavmae.models.inputs import AudioInput

# Numbers and nesting that no recipe needs, and that Model Garden or Python fails on.
_LARGEST = 2**63
_MAX_DEPTH = 32

_NUMBER_RULES = {
    "above": (lambda value, bound: value > bound, "be greater than"),
    "minimum": (lambda value, bound: value >= bound, "be at least"),
    "below": (lambda value, bound: value < bound, "be less than"),
    "maximum": (lambda value, bound: value <= bound, "be at most"),
}


def checked(kind: type[Config], values: Any, prefix: str) -> dict[str, Any]:
    """`values` with every key known, every value of its field's type and range.

    Args:
        kind: the section's class.
        values: what a recipe says of it; None, an empty section, is the defaults.
        prefix: of the section's keys, such as `model.audio.`.

    Raises:
        UserError: naming the key and what it may be.
    """
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        name = prefix.rstrip(".") or "A recipe"
        raise UserError(f"{name} must be a mapping of keys. Received: {shown(values)}.")
    if kind is Config:  # free options: their names are not ours to know
        return _free_options(values, prefix)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    annotations = typing.get_type_hints(kind)
    result = {}
    for key, value in values.items():
        if key not in fields:
            known = [f"{prefix}{name}" for name in fields]
            hint = did_you_mean(f"{prefix}{key}"[:200], known)
            raise UserError(f"unknown key {prefix}{_shown_key(key)}; {hint}")
        name, annotation = f"{prefix}{key}", annotations[key]
        if "read" in fields[key].metadata:
            result[key] = fields[key].metadata["read"](name, value)
        elif isinstance(annotation, type) and issubclass(annotation, Config):
            result[key] = checked(annotation, value, f"{name}.")
        else:
            result[key] = _converted(name, value, annotation)
            check_rules(name, result[key], fields[key])
    return result


def _free_options(values: Mapping, prefix: str) -> dict[str, Any]:
    """Options without a dataclass, of the kinds that a `Config` can hold."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{_shown_key(key)}"
        # A `Config` keeps its values as attributes, beside its own methods.
        is_usable = isinstance(key, str) and key and not hasattr(Config(), key)
        if not is_usable or key in Config.RESERVED_ATTR:
            raise UserError(f"{name}: an option cannot have this name.")
        if prefix.count(".") > _MAX_DEPTH:
            raise UserError(f"{name[:80]}: values are nested too deeply.")
        if isinstance(value, Mapping):
            result[key] = _free_options(value, f"{name}.")
        elif isinstance(value, list | tuple):
            result[key] = _free_list(name, value)
        else:
            result[key] = _free_scalar(name, value)
    return result


def _free_list(name: str, values: Sequence) -> list:
    """A list of scalars, or of mappings: a `Config` holds no other."""
    names = [f"{name}[{i}]" for i in range(len(values))]
    if all(isinstance(value, Mapping) for value in values):
        return [_free_options(x, f"{n}.") for n, x in zip(names, values, strict=True)]
    return [_free_scalar(n, x) for n, x in zip(names, values, strict=True)]


def _free_scalar(name: str, value: Any) -> Any:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int | float) and -_LARGEST <= value < _LARGEST:
        return value
    raise UserError(
        f"{name} must be a finite number, text, true, false, null, a mapping, or a list"
        f" of one kind of these. Received: {shown(value)}."
    )


def _shown_key(key: object) -> str:
    """A key as in `section.key`, quoted and cut only where it is no such name."""
    if isinstance(key, str) and len(key) < 80 and key.isprintable():
        return key
    return shown(key)


def _converted(name: str, value: Any, annotation: Any) -> Any:
    """`value` as `annotation` says: bool, int, float, str, a list, or None."""
    if isinstance(annotation, types.UnionType):
        if value is None:
            return None
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) is list:
        if not isinstance(value, list | tuple):
            raise UserError(f"{name} must be a list. Received: {shown(value)}.")
        (element,) = typing.get_args(annotation)
        return [_converted(f"{name}[{i}]", v, element) for i, v in enumerate(value)]
    if annotation is float:
        return as_float(name, value)
    # bool is an int in Python, and `batch_size: true` is not a number.
    if type(value) is not annotation:
        raise UserError(
            f"{name} must be {annotation.__name__}. Received: {shown(value)}."
        )
    if annotation is int and abs(value) >= _LARGEST:
        raise UserError(f"{name} must fit into 64 bits. Received: {shown(value)}.")
    return value


def as_float(name: str, value: Any) -> float:
    """`value` as a float.

    Raises:
        UserError: it is no finite number.
    """
    # A bool is an int in Python.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_small = is_number and (isinstance(value, float) or abs(value) < _LARGEST)
    if not is_small or not math.isfinite(value):
        raise UserError(f"{name} must be a finite number. Received: {shown(value)}.")
    return float(value)


def check_rules(name: str, value: Any, field: dataclasses.Field) -> None:
    """Checks the range of a value, as the metadata of its field says.

    Raises:
        UserError: naming the key and the range.
    """
    rules = field.metadata
    if value is None:
        return
    if "choices" in rules and value not in rules["choices"]:
        choices = ", ".join(rules["choices"])
        raise UserError(f"{name} must be one of {choices}. Received: {shown(value)}.")
    if "length" in rules and len(value) != rules["length"]:
        raise UserError(
            f"{name} must have {rules['length']} numbers. Received: {shown(value)}."
        )
    for rule, (holds, words) in _NUMBER_RULES.items():
        numbers = value if isinstance(value, list) else [value]
        if rule in rules and not all(holds(n, rules[rule]) for n in numbers):
            raise UserError(
                f"{name} must {words} {rules[rule]}. Received: {shown(value)}."
            )


def check_combinations(config) -> None:
    """Values that are possible alone and impossible together."""
    _check_length(config)
    _check_patterns(config)
    _check_clip_seconds(config)
    _check_augmentation(config.data.augment.as_dict())
    optimizer, trainer = config.optimizer, config.trainer
    _check_captions(config)
    if config.learns_classes and not config.data.label:
        raise UserError("data.label must name the label to fine-tune on, e.g. label.")
    _check_sampling(config.data)
    is_paired = config.stage == "pretrain" and config.model.modality == "audio_video"
    if config.data.pairing == "shuffled" and not is_paired:
        raise UserError(
            "data.pairing=shuffled is for pretraining on audio and video, not for"
            " labels or one modality; set data.pairing=original."
        )
    if optimizer.schedule == "multistep" and optimizer.decay_start_epoch is None:
        raise UserError("optimizer.decay_start_epoch is needed by schedule=multistep.")
    if trainer.strategy == "tpu" and not trainer.tpu:
        raise UserError("trainer.tpu must name the TPU that trainer.strategy=tpu uses.")
    _check_final_weights(config)
    if trainer.profile_steps and trainer.profile_steps[0] >= trainer.profile_steps[1]:
        raise UserError("trainer.profile_steps must be a first and a later last step.")


def _check_captions(config) -> None:
    """Captions stand for a label, in fine-tuning."""
    data = config.data
    if data.validation_captions and not data.captions:
        raise UserError("data.validation_captions needs data.captions.")
    if not data.captions:
        return
    if config.stage != "finetune":
        raise UserError("data.captions is for fine-tuning; set stage=finetune.")
    if data.label:
        raise UserError(
            "data.captions and data.label exclude each other: a model learns from text "
            f"or from classes. Received: data.label={data.label}."
        )
    if data.services:
        raise UserError("data.services do not tokenize data.captions; leave them out.")
    if config.model.text.preset and config.model.text.vocabulary:
        raise UserError(
            "model.text.preset has a vocabulary of its own; leave out "
            "model.text.vocabulary."
        )


def _check_sampling(data) -> None:
    """Draws by class need one label's classes, and exclude each other."""
    by_class = {
        "data.sampling=balanced": data.sampling == "balanced",
        "data.repeat_classes_to": data.repeat_classes_to is not None,
    }
    for key in (key for key, is_on in by_class.items() if is_on):
        if not data.label:
            raise UserError(f"{key} needs data.label.")
    if all(by_class.values()):
        raise UserError(f"{' and '.join(by_class)} exclude each other.")
    by_class["data.num_train_examples"] = data.num_train_examples is not None
    if any(by_class.values()) and len(data.labels) > 1:
        raise UserError(
            f"{', '.join(by_class)} go by one label's classes; received "
            f"data.label={data.label}."
        )


def _check_final_weights(config) -> None:
    """What `model.keras` will hold: the last weights, the best ones, or a mean."""
    trainer, data = config.trainer, config.data
    if trainer.monitor and not data.validation_split:
        raise UserError("trainer.monitor needs data.validation_split to be set.")
    is_classifier = config.learns_classes and len(data.labels) == 1
    if trainer.monitor == "val_mAP" and not is_classifier:
        raise UserError(
            "trainer.monitor=val_mAP needs a classifier of one label; received "
            f"stage={config.stage}, data.label={data.label}."
        )
    if trainer.average_epochs is None:
        return
    if trainer.average_epochs[0] > trainer.average_epochs[1]:
        raise UserError(
            "trainer.average_epochs must be a first and a last epoch. Received: "
            f"{trainer.average_epochs}."
        )
    if trainer.monitor:
        raise UserError(
            "trainer.average_epochs and trainer.monitor exclude each other: either says"
            " which weights the final model has."
        )


def _check_length(config) -> None:
    optimizer, trainer = config.optimizer, config.trainer
    if trainer.steps_per_epoch is not None and config.data.draws_per_epoch is not None:
        raise UserError(
            "trainer.steps_per_epoch and data.draws_per_epoch exclude each other;"
            " set one of them to null."
        )
    if trainer.num_steps is None and trainer.num_epochs is None:
        raise UserError("trainer.num_steps or trainer.num_epochs must be set.")
    if optimizer.warmup_steps is not None and optimizer.warmup_epochs is not None:
        raise UserError(
            "optimizer.warmup_steps and optimizer.warmup_epochs exclude each other;"
            " set one of them to null."
        )


def _check_patterns(config) -> None:
    """Regular expressions that select variables by their path, and their factors."""
    optimizer = config.optimizer
    factors = optimizer.learning_rate_factors.as_dict()
    patterns = {
        "optimizer.weight_decay_paths": optimizer.weight_decay_paths,
        "optimizer.learning_rate_factors": factors,
        "trainer.freeze": config.trainer.freeze,
        "transfer.fresh": config.transfer.fresh,
    }
    for key, pattern in ((key, x) for key, some in patterns.items() for x in some):
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise UserError(
                f"{key}: {shown(pattern)} is not a regular expression: {error}."
            ) from error
    for pattern, factor in factors.items():
        name = f"optimizer.learning_rate_factors.{_shown_key(pattern)}"
        if as_float(name, factor) < 0:
            raise UserError(f"{name} must be at least 0. Received: {shown(factor)}.")
    if optimizer.layer_decay_form != "depth" and optimizer.layer_decay is None:
        raise UserError("optimizer.layer_decay_form needs optimizer.layer_decay.")
    for modality in ("audio", "video"):
        key = f"{modality}_learning_rate_factor"
        if getattr(optimizer, key) != 1.0 and modality not in config.model.modality:
            raise UserError(
                f"optimizer.{key} needs a model that reads {modality}; received "
                f"model.modality={config.model.modality}."
            )


def _check_augmentation(options: Mapping[str, Any]) -> None:
    """The values of `data.augment`, which its class checks, and their names."""
    known = [field.name for field in dataclasses.fields(Augmentation)]
    for key in options:
        if key not in known:
            near = did_you_mean(key, known)
            raise UserError(f"unknown key data.augment.{_shown_key(key)}; {near}")
    try:
        Augmentation(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"data.augment: {error}") from error


def _check_clip_seconds(config) -> None:
    """The spectrogram holds the audio of a clip, but for less than a patch.

    A longer one is padded, as the papers' 1024 frames for 10 s are. A whole patch less
    would be sound that is read, cut off and never learned from.
    """
    if "audio" not in config.model.modality:
        return
    audio = AudioInput(**config.model.audio.as_dict())
    seconds, patch_frames = config.data.clip_seconds, audio.patch_size[0]
    missing = seconds - audio.clip_seconds
    if missing < 0.01 * patch_frames:
        return
    patches = math.ceil(missing / (0.01 * patch_frames))
    enough = audio.num_frames // patch_frames * patch_frames + patches * patch_frames
    raise UserError(
        f"data.clip_seconds={seconds:g} is longer than the {audio.clip_seconds:g} s of "
        f"audio that model.audio.num_frames={audio.num_frames} holds. Set "
        f"data.clip_seconds={audio.clip_seconds:g}, or model.audio.num_frames={enough}."
    )
