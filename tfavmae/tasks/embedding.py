"""Embeddings of all clips of a split."""

from collections.abc import Iterable, Sequence

import keras
import numpy as np

from tfavmae.tasks.forward import (
    MODALITIES,
    Batch,
    first_views,
    forward,
    mean_over_views,
)


def embed(
    model: keras.Model, batches: Iterable[Batch], *, labels: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Embeds each clip once; the embeddings of its views are averaged.

    Args:
        model: a model with the output `audio_embedding`, `video_embedding` or both.
        batches: evaluation batches; rows with `sample_weight` 0 are dropped.
        labels: names of label entries of the batches to return as well.

    Returns:
        Dict of arrays with one row per clip, ordered by `example_index`:
        `example_index` int32 `(clips,)`; for each modality `*_embedding` float32
        `(clips, hidden_dim)` and `*_present` bool `(clips,)`; the labels.

    Raises:
        UserError: the batches hold no clip.
    """
    names = [f"{modality}_embedding" for modality in MODALITIES]
    present = [f"{modality}_present" for modality in MODALITIES]
    rows = forward(model, batches, names, ["example_index", *present, *labels])
    index = rows["example_index"]
    result = {k: first_views(rows[k], index) for k in ("example_index", *labels)}
    for modality in MODALITIES:
        has = first_views(rows[f"{modality}_present"], index) > 0
        result[f"{modality}_present"] = has
        if f"{modality}_embedding" in rows:
            means = mean_over_views(rows[f"{modality}_embedding"], index)
            # The model embeds the zeros of a missing modality like any input: NaN
            # cannot be mistaken for an embedding.
            means[~has] = np.nan
            result[f"{modality}_embedding"] = means.astype("float32")
    return result
