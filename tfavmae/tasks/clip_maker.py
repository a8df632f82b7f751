"""From a clip as it is stored to what a model reads of it."""

import dataclasses
import functools
from typing import Any

import tensorflow as tf

from tfavmae.data import clip_sampling
from tfavmae.data.clip_spec import ClipSpec
from tfavmae.media.options import DecodeOptions


@dataclasses.dataclass(frozen=True)
class ClipMaker:
    """How clips become inputs of a model, as in the evaluation of its training.

    Args:
        spec: length and frames of a clip.
        stored_as: the form in which its training clips were stored.
    """

    spec: ClipSpec
    stored_as: DecodeOptions = dataclasses.field(default_factory=DecodeOptions)

    @functools.cached_property
    def read_stored(self) -> Any:
        """A graph function of a stored clip to the inputs of a model.

        Its arguments: audio int16 `(samples,)`, frames string `(n,)` (JPEG), and their
        rate, float32. It returns what the pipeline returns of one clip, by name.
        """
        key, view = tf.zeros([2], tf.int64), tf.constant(0, tf.int64)

        @tf.function(
            input_signature=[
                tf.TensorSpec([None], tf.int16),
                tf.TensorSpec([None], tf.string),
                tf.TensorSpec([], tf.float32),
            ]
        )
        def read(
            audio: tf.Tensor, frames: tf.Tensor, frame_rate: tf.Tensor
        ) -> dict[str, tf.Tensor]:
            example = {"audio": audio, "frames": frames, "frame_rate": frame_rate}
            window = clip_sampling.choose(self.spec, example, key, view, 1)
            place = (tf.constant("the file"), tf.constant(0))
            return {
                **clip_sampling.cut_audio(self.spec, audio, window, key),
                **clip_sampling.cut_video(self.spec, frames, window, key, *place),
            }

        return read
