"""Running a model over evaluation batches: one row per clip comes back."""

from collections.abc import Iterable, Sequence

import numpy as np

from tfavmae.errors import UserError
from tfavmae.models.masked_autoencoder import MaskedAutoencoder

MODALITIES = ("audio", "video")


def call_unmasked(model, inputs: dict) -> dict:
    """Outputs of a pretraining model or a classifier that sees everything."""
    options = {"masked": False} if isinstance(model, MaskedAutoencoder) else {}
    return model(inputs, training=False, **options)


def forward(
    model, batches: Iterable[dict], outputs: Sequence[str], keep: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Unmasked outputs of `model` for every row that is not padding.

    Args:
        model: a `MaskedAutoencoder` or a classifier.
        batches: dicts of arrays; rows with `sample_weight` 0 are padding and dropped.
        outputs: names of the model's outputs wanted; absent ones are left out.
        keep: names of batch entries to return beside them.

    Returns:
        Dict of arrays with one row per view of a clip, in the order of the batches.
    """
    import tensorflow as tf

    @tf.function
    def step(batch):
        named = call_unmasked(model, batch)
        return {k: tf.cast(named[k], "float32") for k in outputs if k in named}

    chunks: dict[str, list] = {}
    for batch in batches:
        batch = {key: tf.convert_to_tensor(value) for key, value in batch.items()}
        rows = batch["sample_weight"].numpy() > 0
        if rows.any():
            for name, value in (step(batch) | {k: batch[k] for k in keep}).items():
                chunks.setdefault(name, []).append(value.numpy()[rows])
    if not chunks:
        raise UserError("no clips to evaluate: the split is empty; check its name.")
    return {name: np.concatenate(parts) for name, parts in chunks.items()}


def mean_over_views(values: np.ndarray, example_index: np.ndarray) -> np.ndarray:
    """Mean of the rows of each clip: `(views, ...)` -> `(clips, ...)`.

    Clips come in the order of their index; `clips_of` gives the indices.
    """
    _, group = np.unique(example_index, return_inverse=True)
    sums = np.zeros((group.max() + 1, *values.shape[1:]), "float64")
    np.add.at(sums, group, values)
    counts = np.bincount(group).reshape(-1, *[1] * (values.ndim - 1))
    return sums / counts


def first_views(values: np.ndarray, example_index: np.ndarray) -> np.ndarray:
    """The first row of each clip, for what is the same in all its views."""
    return values[np.unique(example_index, return_index=True)[1]]
