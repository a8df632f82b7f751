"""Embeddings of a split: one row per clip, views averaged, gaps as NaN."""

import numpy as np
import pytest
import tensorflow as tf

from tfavmae.errors import UserError
from tfavmae.tasks import embedding, forward


def stand_in(batch, training):
    """Embeddings that tell which clip they are of."""
    assert not training

    def mean(x):
        return tf.reduce_mean(tf.cast(x, "float32"), range(1, len(x.shape)))

    audio, video = mean(batch["audio"]), mean(batch["video"])
    return {
        "audio_embedding": tf.stack([audio, -audio], -1),
        "video_embedding": tf.stack([video, 2 * video, 3 * video], -1),
        "audio_tokens": batch["audio"],
    }


def batch_of(values, index, weight=None, audio_present=None):
    values = np.asarray(values)
    ones = np.ones(len(values), "float32")
    return {
        "audio": np.repeat(values[:, None], 8, 1).astype("int16"),
        "video": np.ones((len(values), 1, 2, 2, 3), "uint8")
        * values[:, None, None, None, None].astype("uint8"),
        "audio_present": ones if audio_present is None else np.float32(audio_present),
        "video_present": ones,
        "sample_weight": ones if weight is None else np.float32(weight),
        "example_index": np.int32(index),
        "label": np.int32(index),
    }


def test_padding_is_dropped_and_clips_come_in_order():
    batches = [
        batch_of([30, 10], [3, 1]),
        batch_of([20, 99], [2, 0], weight=[1, 0]),
    ]
    result = embedding.embed(stand_in, batches, labels=["label"])
    assert result["example_index"].tolist() == [1, 2, 3]
    assert result["label"].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(
        result["audio_embedding"], [[10, -10], [20, -20], [30, -30]]
    )
    assert result["video_embedding"].shape == (3, 3)
    assert result["audio_embedding"].dtype == np.float32
    assert "audio_tokens" not in result


def test_views_of_a_clip_are_averaged():
    batches = [batch_of([10, 20, 40], [5, 5, 6]), batch_of([60], [5])]
    result = embedding.embed(stand_in, batches)
    assert result["example_index"].tolist() == [5, 6]
    np.testing.assert_array_equal(result["video_embedding"][:, 0], [30, 40])


def test_an_absent_modality_is_said_and_never_a_number():
    result = embedding.embed(
        stand_in, [batch_of([10, 20], [0, 1], audio_present=[1, 0])]
    )
    assert result["audio_present"].tolist() == [True, False]
    assert result["video_present"].tolist() == [True, True]
    assert np.isnan(result["audio_embedding"][1]).all()
    assert np.isfinite(result["video_embedding"]).all()


def test_an_empty_split_is_refused():
    with pytest.raises(UserError, match="no clips to evaluate"):
        embedding.embed(stand_in, [batch_of([1], [0], weight=[0])])


def test_mean_over_views_keeps_trailing_axes():
    values = np.arange(12.0).reshape(3, 2, 2)
    means = forward.mean_over_views(values, np.array([4, 2, 4]))
    np.testing.assert_array_equal(means, [values[1], (values[0] + values[2]) / 2])
