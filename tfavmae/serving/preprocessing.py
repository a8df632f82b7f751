"""From what a request carries to what a model reads: in the served graph, or before it.

Arrays and encoded files are read by the graph; the media files that the local server
takes are decoded before it, by the functions of the training pipeline.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tfavmae.data import clip_sampling
from tfavmae.data.clip_spec import ClipSpec
from tfavmae.media.options import DecodeOptions
from tfavmae.serving import picture, wav
from tfavmae.serving.refusals import checked
from tfavmae.tasks.clip_maker import ClipMaker

if TYPE_CHECKING:
    import keras

# Of a training clip only: what a server does with a clip does not depend on them.
_OF_TRAINING = ("train", "labels", "augmentation", "modalities")


@dataclasses.dataclass(frozen=True)
class ClipForm(ClipMaker):
    """How clips become inputs of an exported model: stored clips, arrays and files."""

    @classmethod
    def of_model(cls, model: "keras.Model") -> "ClipForm":
        """The form of clips of the sizes that a model was built for."""
        inputs = model.inputs_by_modality
        fields: dict[str, Any] = {"clip_seconds": 10.0}
        if "audio" in inputs:
            fields["clip_seconds"] = inputs["audio"].clip_seconds
            fields["sample_rate_hz"] = inputs["audio"].sample_rate_hz
        if "video" in inputs:
            fields["num_frames"] = inputs["video"].num_frames
            fields["frame_size"] = (inputs["video"].height, inputs["video"].width)
        return cls(ClipSpec(**fields, train=False))

    def constants(self) -> dict[str, Any]:
        """What `assets/preprocessing.json` says, as plain data."""
        clip = dataclasses.asdict(self.spec)
        return {
            "clip": {k: x for k, x in clip.items() if k not in _OF_TRAINING},
            "stored_as": dataclasses.asdict(self.stored_as),
            "max_samples": self.spec.num_samples,
            "sample_rates_hz": [wav.LOWEST_RATE_HZ, wav.HIGHEST_RATE_HZ],
        }

    @classmethod
    def of_constants(cls, constants: Mapping[str, Any]) -> "ClipForm":
        """The form that `constants` describe.

        Raises:
            KeyError, TypeError: they are not such constants.
        """
        clip = {**constants["clip"], "train": False, "labels": ()}
        clip["frame_size"] = tuple(clip["frame_size"])
        return cls(ClipSpec(**clip), DecodeOptions(**constants["stored_as"]))

    # --- Arrays ---

    def fit_audio(
        self, audio: tf.Tensor, audio_samples: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Waveforms of any length as those of the pipeline.

        Args:
            audio: float32 `(batch, samples)`.
            audio_samples: int32 `(batch,)`, the length of each, 0 of one that is not
                there. What lies behind is not read.

        Returns:
            float32 `(batch, num_samples)` and the length of what is not padding,
            int32 `(batch,)`. In the graph, NaN, infinity and too many samples are
            errors.
        """
        wanted, given = self.spec.num_samples, tf.shape(audio)[1]
        audio_samples = tf.clip_by_value(audio_samples, 0, given)
        is_read = tf.range(given)[None] < audio_samples[:, None]
        audio = tf.where(is_read, audio, 0.0)
        audio = checked(
            audio,
            tf.reduce_all(audio_samples <= wanted),
            f"`audio` has more than {wanted} samples ({self.spec.clip_seconds:g} s); "
            "cut it into windows.",
        )
        audio = checked(
            audio,
            tf.reduce_all(tf.math.is_finite(audio)),
            "`audio` must be finite; it holds NaN or infinity.",
        )[:, :wanted]
        if self.spec.short_audio != "pad":
            # An empty clip repeats nothing.
            period = tf.maximum(audio_samples, 1)[:, None]
            audio = tf.pad(audio, [[0, 0], [0, tf.maximum(1 - given, 0)]])
            place = tf.range(wanted)[None] % period
            audio = tf.gather(audio, place, batch_dims=1)
            audio_samples = tf.where(audio_samples > 0, wanted, 0)
        audio = tf.pad(audio, [[0, 0], [0, wanted - tf.shape(audio)[1]]])
        return tf.ensure_shape(audio, [None, wanted]), audio_samples

    def choose_frames(self, count: tf.Tensor) -> tf.Tensor:
        """int32 `(num_frames,)`, which of `count` given frames a model is shown.

        Frames are even steps of the clip, or `frame_stride_seconds` apart.
        """
        stride = self.spec.frame_stride_seconds
        rate = tf.constant(1 / stride if stride else 1.0, tf.float64)
        last = tf.maximum(tf.cast(count, tf.float64) - 1, 0)
        return clip_sampling.spread_frames(
            self.spec, tf.zeros_like(last), last, rate, tf.constant(0.5, tf.float64)
        )

    def fit_video(self, video: tf.Tensor) -> tf.Tensor:
        """uint8 `(batch, frames, height, width, 3)` with the model's frame count."""
        count = tf.shape(video)[1]
        chosen = self.choose_frames(count)
        # Without frames there is nothing to choose; the result is not looked at then.
        padding = [[0, 0], [0, tf.maximum(1 - count, 0)], [0, 0], [0, 0], [0, 0]]
        return tf.gather(tf.pad(video, padding), chosen, axis=1)

    # --- Files ---

    def read_audio(self, contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """WAV files as `fit_audio` takes them.

        Args:
            contents: string `(batch,)`; an empty one is a clip without audio.
        """
        spec = self.spec

        def read(file: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            def decode() -> tf.Tensor:
                channels = self.stored_as.channels
                samples, rate = wav.decode_wav(file, channels, spec.clip_seconds)
                return wav.resample(samples, rate, spec.sample_rate_hz)

            is_there = tf.strings.length(file) > 0
            samples = tf.cond(is_there, decode, lambda: tf.zeros([0]))
            samples = samples[: spec.num_samples]
            count = tf.size(samples)
            padded = tf.pad(samples, [[0, spec.num_samples - count]])
            return tf.ensure_shape(padded, [spec.num_samples]), count

        return tf.map_fn(
            read,
            contents,
            fn_output_signature=(
                tf.TensorSpec([spec.num_samples], tf.float32),
                tf.TensorSpec([], tf.int32),
            ),
        )

    def read_frames(self, contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """JPEG and PNG files as frames of the model.

        Args:
            contents: string `(batch, frames)`; empty ones at the end are no frames.

        Returns:
            uint8 `(batch, num_frames, height, width, 3)`, black where there is none,
            and float32 `(batch,)`, whether there is one.
        """
        spec = self.spec
        shape = [*spec.frame_size, 3]

        def read(file: tf.Tensor) -> tf.Tensor:
            decode = lambda: picture.decode_picture(file, spec, self.stored_as)  # noqa: E731
            is_there = tf.strings.length(file) > 0
            return tf.cond(is_there, decode, lambda: tf.zeros(shape, tf.uint8))

        is_file = tf.cast(tf.strings.length(contents) > 0, tf.int32)
        counts = tf.reduce_sum(is_file, axis=1)
        # A row of no columns has nothing to choose from.
        contents = tf.pad(contents, [[0, 0], [0, 1]], constant_values="")
        places = tf.map_fn(
            self.choose_frames,
            counts,
            fn_output_signature=tf.TensorSpec([spec.num_frames], tf.int32),
        )
        chosen = tf.reshape(tf.gather(contents, places, batch_dims=1), [-1])
        frames = tf.map_fn(
            read, chosen, fn_output_signature=tf.TensorSpec(shape, tf.uint8)
        )
        frames = tf.reshape(frames, [-1, spec.num_frames, *shape])
        return frames, tf.cast(counts > 0, tf.float32)
