"""Facts about a run that come from a file, of others perhaps, and are checked."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from tfavmae.errors import UserError, shown
from tfavmae.training.factory import Labels


@contextlib.contextmanager
def facts_of(source: object) -> Iterator[None]:
    """Turns the `ValueError`s of this module into an error that names the source.

    Raises:
        UserError: the block raised one.
    """
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise UserError(
            f"{source}: is damaged ({error}); get it again, or restore it."
        ) from error


def labels_of(value: Any) -> Labels | None:
    """What a classifier tells apart, from the fields of `Labels`; `None` from `None`.

    Raises:
        ValueError: something else is there, or the names do not fit the classes.
    """
    if value is None:
        return None
    wanted = {"num_classes", "multi_label", "names", "num_segments"}
    if not isinstance(value, Mapping) or value.keys() != wanted:
        raise ValueError(f"labels are {shown(value)}")
    classes, names = value["num_classes"], value["names"]
    is_mapping = isinstance(classes, Mapping)
    by_label = classes if is_mapping else {"": classes}
    names_of = (names or {}) if is_mapping else {"": names}
    if not isinstance(names_of, Mapping) or not names_of.keys() <= by_label.keys():
        raise ValueError(f"names of classes are {shown(names)}")
    for label, count in by_label.items():
        own = names_of.get(label)
        if type(count) is not int or count < 1:
            raise ValueError(f"a number of classes is {shown(count)}")
        if own is None:
            continue
        if not isinstance(own, list) or not all(isinstance(x, str) for x in own):
            raise ValueError(f"names of classes are {shown(own)}")
        if len(own) != count:
            raise ValueError(f"{len(own)} names for {count} classes")
    if type(value["multi_label"]) is not bool or type(value["num_segments"]) is not int:
        raise ValueError(f"labels are {shown(value)}")
    return Labels(**value)


def check_fits(labels: Labels | None, model: keras.Model) -> None:
    """Checks that labels are of the classes that a model has.

    Raises:
        ValueError: they are of others.
    """
    classes = getattr(model, "num_classes", None)
    if labels is not None and labels.num_classes != classes:
        raise ValueError(
            f"its labels have {shown(labels.num_classes)} classes and its model has "
            f"{shown(classes)}"
        )


def data_of(value: Any) -> dict[str, dict[str, Any]]:
    """What `TrainingData.facts` said of each split.

    Raises:
        ValueError: something else is there.
    """
    if not isinstance(value, dict):
        raise ValueError(f"data are {shown(value)}")
    for split, facts in value.items():
        if not isinstance(facts, dict) or not isinstance(
            facts.get("stored_as", {}), dict
        ):
            raise ValueError(f"data of {shown(split)} are {shown(facts)}")
    return value


def step_of(value: Any) -> int:
    """A number of steps.

    Raises:
        ValueError: it is not one.
    """
    if type(value) is not int or value < 0:
        raise ValueError(f"the step is {shown(value)}")
    return value


def metrics_of(value: Any) -> list[dict[str, Any]]:
    """Figures of a preset: `name`, `split`, `n`, `value` and perhaps `low`, `high`.

    Raises:
        ValueError: something else is there.
    """
    kinds = {"name": str, "split": str, "n": int, "value": float | int}
    if not isinstance(value, list):
        raise ValueError(f"metrics are {shown(value)}")
    for one in value:
        if not isinstance(one, dict) or not all(
            isinstance(one.get(key), kind) for key, kind in kinds.items()
        ):
            raise ValueError(f"a metric is {shown(one)}")
    return value
