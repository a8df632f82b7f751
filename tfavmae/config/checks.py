"""Checks of nested values against config dataclasses: keys, types, ranges, pairs."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping

from official.modeling.hyperparams import Config

from tfavmae.errors import UserError, did_you_mean

_NUMBER_RULES = {
    "above": (lambda value, bound: value > bound, "be greater than"),
    "minimum": (lambda value, bound: value >= bound, "be at least"),
    "below": (lambda value, bound: value < bound, "be less than"),
    "maximum": (lambda value, bound: value <= bound, "be at most"),
}


def checked(kind: type[Config], values, prefix: str) -> dict:
    """`values` with every key known, every value of its field's type and range."""
    if not isinstance(values, Mapping):
        name = prefix.rstrip(".")
        raise UserError(f"{name} must be a mapping of keys. Received: {values!r}.")
    if kind is Config:  # free options: their names are not ours to know
        return dict(values)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    annotations = typing.get_type_hints(kind)
    result = {}
    for key, value in values.items():
        if key not in fields:
            known = [f"{prefix}{name}" for name in fields]
            hint = did_you_mean(f"{prefix}{key}", known)
            raise UserError(f"Unknown key {prefix}{key}; {hint}")
        name, annotation = f"{prefix}{key}", annotations[key]
        if isinstance(annotation, type) and issubclass(annotation, Config):
            result[key] = checked(annotation, value or {}, f"{name}.")
        else:
            result[key] = _converted(name, value, annotation)
            check_rules(name, result[key], fields[key])
    return result


def _converted(name: str, value, annotation):
    """`value` as `annotation` says: bool, int, float, str, a list, or None."""
    if isinstance(annotation, types.UnionType):
        if value is None:
            return None
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) is list:
        if not isinstance(value, list | tuple):
            raise UserError(f"{name} must be a list. Received: {value!r}.")
        (element,) = typing.get_args(annotation)
        return [_converted(f"{name}[{i}]", v, element) for i, v in enumerate(value)]
    if annotation is float:
        return _as_float(name, value)
    # bool is an int in Python, and `batch_size: true` is not a number.
    if type(value) is not annotation:
        raise UserError(f"{name} must be {annotation.__name__}. Received: {value!r}.")
    return value


def _as_float(name: str, value) -> float:
    # A bool is an int in Python.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise UserError(f"{name} must be a finite number. Received: {value!r}.")
    return float(value)


def check_rules(name: str, value, field: dataclasses.Field) -> None:
    rules = field.metadata
    if value is None:
        return
    if "choices" in rules and value not in rules["choices"]:
        choices = ", ".join(rules["choices"])
        raise UserError(f"{name} must be one of {choices}. Received: {value!r}.")
    if "length" in rules and len(value) != rules["length"]:
        raise UserError(
            f"{name} must have {rules['length']} numbers. Received: {value}."
        )
    for rule, (holds, words) in _NUMBER_RULES.items():
        numbers = value if isinstance(value, list) else [value]
        if rule in rules and not all(holds(n, rules[rule]) for n in numbers):
            raise UserError(f"{name} must {words} {rules[rule]}. Received: {value!r}.")


def check_combinations(config) -> None:
    """Values that are possible alone and impossible together."""
    _check_length(config)
    optimizer, trainer = config.optimizer, config.trainer
    if config.stage == "finetune" and not config.data.label:
        raise UserError("data.label must name the label to fine-tune on, e.g. label.")
    if config.data.sampling == "balanced" and not config.data.label:
        raise UserError("data.sampling=balanced needs data.label.")
    if optimizer.schedule == "multistep" and optimizer.decay_start_epoch is None:
        raise UserError("optimizer.decay_start_epoch is needed by schedule=multistep.")
    if trainer.strategy == "tpu" and not trainer.tpu:
        raise UserError("trainer.tpu must name the TPU that trainer.strategy=tpu uses.")
    if trainer.monitor and not config.data.validation_split:
        raise UserError("trainer.monitor needs data.validation_split to be set.")
    if trainer.profile_steps and trainer.profile_steps[0] >= trainer.profile_steps[1]:
        raise UserError("trainer.profile_steps must be a first and a later last step.")


def _check_length(config) -> None:
    optimizer, trainer = config.optimizer, config.trainer
    if trainer.num_steps is None and trainer.num_epochs is None:
        raise UserError("trainer.num_steps or trainer.num_epochs must be set.")
    if optimizer.warmup_steps is not None and optimizer.warmup_epochs is not None:
        raise UserError(
            "optimizer.warmup_steps and optimizer.warmup_epochs exclude each other;"
            " set one of them to null."
        )
