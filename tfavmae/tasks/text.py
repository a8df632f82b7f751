"""Embeddings of text."""

from collections.abc import Iterable, Sequence

import keras
import numpy as np
import tensorflow as tf
from rich.progress import track

from tfavmae.data.text import Tokenizer, Vocabulary
from tfavmae.errors import UserError
from tfavmae.models.text_aligned import TextAlignedModel

_BATCH = 64
# More texts than this take long enough for a progress bar.
_MANY = 1000


def embed(model: keras.Model, texts: Sequence[str], where: str) -> np.ndarray:
    """Embeds texts with the text encoder of a model.

    Args:
        model: any model.
        texts: sentences or words.
        where: what to call the model in messages.

    Returns:
        float32 `(texts, projection_dim)`, comparable with the model's other embeddings.

    Raises:
        UserError: the model has no text encoder, or a text is empty.
    """
    if not isinstance(model, TextAlignedModel):
        raise UserError(
            f"{where}: has no text encoder; fine-tune it on captions, see docs/text.md"
        )
    if any(not text.strip() for text in texts):
        raise UserError("a text must have words; received an empty one")
    encoder = model.text_encoder
    vocabulary = Vocabulary.of_text(encoder.vocabulary, encoder.merges)
    tokenizer = Tokenizer(vocabulary, encoder.max_tokens)

    @tf.function(reduce_retracing=True)
    def step(ids: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        return model.embed_text(ids, mask)

    starts: Iterable[int] = range(0, len(texts), _BATCH)
    if len(texts) > _MANY:
        starts = track(starts, "texts", transient=True)
    found = [np.zeros((0, model.embedding_dim), "float32")]
    for start in starts:
        rows = tokenizer(texts[start : start + _BATCH])
        found.append(step(rows["text_ids"], rows["text_mask"]).numpy())
    return np.concatenate(found)
