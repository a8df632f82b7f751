"""Embeddings of a whole split."""

from collections.abc import Iterable, Sequence

import numpy as np

from tfavmae.tasks.forward import MODALITIES, first_views, forward, mean_over_views


def embed(
    model, batches: Iterable[dict], *, labels: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Embeds each clip once; the embeddings of its views are averaged.

    Args:
        model: returns `audio_embedding` and/or `video_embedding`.
        batches: evaluation batches; padded rows (`sample_weight` 0) are dropped.
        labels: names of the label entries of the batches to return as well.

    Returns:
        Dict of arrays with one row per clip, ordered by `example_index`:
        `example_index` int32 `(clips,)`; for each modality `*_embedding` float32
        `(clips, hidden_dim)` and `*_present` bool `(clips,)`; the labels asked for.
        The embedding of a modality that a clip does not have is NaN: it can't be
        mistaken for an answer.
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
            means[~has] = np.nan
            result[f"{modality}_embedding"] = means.astype("float32")
    return result
