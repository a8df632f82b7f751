"""Cards of presets: what a model is, what trained it, what it is for."""

from collections.abc import Mapping
from typing import Any

import keras
import markupsafe
import yaml

from tfavmae.pages import rendering

PRETRAINED, FINE_TUNED = "pretrain", "finetune"


def task_of(model: keras.Model) -> dict[str, Any]:
    """Content of `task.json`, as far as the model itself knows."""
    is_classifier = hasattr(model, "num_classes")
    return {"stage": FINE_TUNED if is_classifier else PRETRAINED}


def render(
    model: keras.Model,
    task: Mapping[str, Any],
    name: str,
    license: str | None = None,
    *,
    data: Mapping[str, Mapping[str, Any]] | None = None,
    recipe: str | None = None,
) -> str:
    """The card as Markdown, with the front matter that Hugging Face reads.

    Args:
        model: that the card is about.
        task: content of `task.json`: `stage`, and what is known of `labels`, `step`,
            `origin` and `metrics`.
        name: title of the card.
        license: of the weights, by its SPDX name; `None` says that it is not stated.
        data: by split: `dataset`, `split`, `num_examples` and `fingerprint`.
        recipe: the config as YAML.
    """
    front_matter = {
        "license": license.lower() if license else "unknown",
        "library_name": "keras",
        "tags": [
            "keras",
            "tfavmae",
            "audio-visual",
            "masked-autoencoder",
            *(["audio-classification", "video-classification"] * _classifies(task)),
        ],
    }
    labels = task.get("labels") or {}
    # Of several labels, a dict of names by label.
    names = labels.get("names")
    return rendering.render(
        "model_card.md",
        # In an indented block and in front matter, nothing is markup.
        front_matter=markupsafe.Markup(yaml.safe_dump(front_matter, sort_keys=False)),
        recipe=recipe and markupsafe.Markup(recipe),
        name=name,
        license=license,
        model_class=type(model).__name__,
        modalities=" and ".join(model.modalities),
        num_parameters=model.count_params(),
        classifies=_classifies(task),
        answers=recipe is not None or not _classifies(task),
        class_names=names if isinstance(names, Mapping) else {"": names or []},
        data=data or {},
        step=task.get("step"),
        origin=task.get("origin"),
        metrics=task.get("metrics") or [],
    )


def _classifies(task: Mapping[str, Any]) -> bool:
    return task["stage"] == FINE_TUNED
