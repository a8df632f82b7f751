"""Forward passes over evaluation batches, and means over the views of a clip."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfavmae.errors import UserError
from tfavmae.layers.gradients import forward_only

MODALITIES = ("audio", "video")


# A batch of the pipeline: NumPy arrays or tensors by name.
Batch = dict[str, Any]


def forward(
    model: keras.Model,
    batches: Iterable[Batch],
    outputs: Sequence[str],
    keep: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """Outputs of `model`, of all tokens, for every row that is not padding.

    Args:
        model: a pretraining model or a classifier.
        batches: evaluation batches; rows with `sample_weight` 0 are padding and
            dropped.
        outputs: names of the model's outputs to return; those that it does not have
            are left out. Of a dict of heads, each comes as `{name}_{head}`.
        keep: names of batch entries to return beside them.

    Returns:
        Dict of arrays with one row per view of a clip, in the order of the batches;
        the outputs as float32.

    Raises:
        UserError: there is no row at all.
    """
    chunks: dict[str, list] = {}
    for rows in forward_batches(model, batches, outputs, keep):
        for name, value in rows.items():
            chunks.setdefault(name, []).append(value)
    if not chunks:
        raise UserError("there are no clips to evaluate; check the name of the split.")
    return {name: np.concatenate(parts) for name, parts in chunks.items()}


def forward_batches(
    model: keras.Model,
    batches: Iterable[Batch],
    outputs: Sequence[str],
    keep: Sequence[str] = (),
    step: Callable[[Batch], dict[str, tf.Tensor]] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """As `forward`, batch by batch; a batch of padding alone gives nothing.

    Args:
        model, batches, outputs, keep: as of `forward`.
        step: of `step_of`, if it was traced before.
    """
    step = step or step_of(model, outputs)
    for batch in batches:
        batch = {key: tf.convert_to_tensor(value) for key, value in batch.items()}
        rows = batch["sample_weight"].numpy() > 0
        if rows.any():
            found = step(batch) | {k: batch[k] for k in keep}
            yield {name: value.numpy()[rows] for name, value in found.items()}


def step_of(
    model: keras.Model, outputs: Sequence[str]
) -> Callable[[Batch], dict[str, tf.Tensor]]:
    """A graph function of a batch to some outputs of a model; see `forward`."""

    # Not `model.predict`: it returns all outputs, the largest of which (tokens,
    # predictions) would fill the memory over a whole split.
    @tf.function
    def step(batch: Batch) -> dict[str, tf.Tensor]:
        with forward_only():
            named = model(batch, training=False)
        found: dict[str, tf.Tensor] = {}
        for k in outputs:
            if isinstance(named.get(k), dict):
                found |= {f"{k}_{head}": x for head, x in named[k].items()}
            elif k in named:
                found[k] = named[k]
        return {k: tf.cast(x, "float32") for k, x in found.items()}

    return step


def only_with(
    batches: Iterable[Batch], modality: str, modalities: Sequence[str]
) -> Iterator[Batch]:
    """Batches that say of every modality but one that their clips lack it.

    Args:
        batches: evaluation batches.
        modality: the one that stays.
        modalities: those that the model reads.

    Raises:
        UserError: the model does not read the modality, or nothing but it.
    """
    if modality not in modalities or len(modalities) < 2:
        raise UserError(
            f"one of two modalities can be hidden from a model that reads both; this "
            f"one reads {' and '.join(modalities)}."
        )
    # What is marked as absent is not read: the other modality may stay in the batch.
    hidden = [f"{m}_present" for m in modalities if m != modality]
    for batch in batches:
        yield {k: tf.zeros_like(x) if k in hidden else x for k, x in batch.items()}


def check_finite(values: np.ndarray, what: str) -> None:
    """Stops a command whose figures would come from a model that diverged.

    Args:
        values: what the model gave.
        what: these are, for the message.

    Raises:
        UserError: one of them is infinite or NaN.
    """
    if not np.isfinite(values).all():
        raise UserError(
            f"{what} are not finite: the training diverged. Lower "
            "optimizer.learning_rate and train again."
        )


def clips_present(
    rows: dict[str, np.ndarray], modalities: Sequence[str] = MODALITIES
) -> dict[str, np.ndarray]:
    """By modality whether a clip has it, bool `(clips,)`.

    Args:
        rows: of `forward`, with `example_index` and `{modality}_present`.
        modalities: those to tell of.
    """
    index = rows["example_index"]
    return {m: first_views(rows[f"{m}_present"], index) > 0 for m in modalities}


def mean_over_views(values: np.ndarray, example_index: np.ndarray) -> np.ndarray:
    """Mean of the rows of each clip: `(views, ...)` -> `(clips, ...)`, float64.

    Args:
        values: `(views, ...)`.
        example_index: int `(views,)`, the clip of each row; clips are returned in the
            order of their index.
    """
    _, group = np.unique(example_index, return_inverse=True)
    sums = np.zeros((group.max() + 1, *values.shape[1:]), "float64")
    np.add.at(sums, group, values)
    counts = np.bincount(group).reshape(-1, *[1] * (values.ndim - 1))
    return sums / counts


def first_views(values: np.ndarray, example_index: np.ndarray) -> np.ndarray:
    """The first row of each clip, for entries that are the same in all its views.

    Args:
        values: `(views, ...)`.
        example_index: int `(views,)`, as in `mean_over_views`.
    """
    return values[np.unique(example_index, return_index=True)[1]]
