"""CAV-MAE Sync: frames and the sound around each (Araujo et al., CVPR 2025)."""

import dataclasses

import keras
import numpy as np
from keras import ops

from tfavmae.layers.embedding import audio_grid, video_grid
from tfavmae.models.cav_mae import CAVMAE
from tfavmae.models.inputs import AudioInput, VideoInput, as_input
from tfavmae.paper_inputs import PAPER_INPUTS

INPUTS = PAPER_INPUTS["cav_mae_sync"]


@dataclasses.dataclass(frozen=True)
class SegmentsInput(AudioInput):
    """Segments of `segment_frames` out of a clip of `num_frames`, one per video frame.

    Segment i is centred on the middle of the i-th of `num_segments` equal parts, where
    the pipeline takes its frame, and moved inwards where it would leave the clip.
    """

    segment_frames: int = 416
    num_segments: int = 10

    def __post_init__(self):
        super().__post_init__()
        if self.segment_frames > self.num_frames:
            raise ValueError(
                "`segment_frames` must be at most the clip's `num_frames`. Received: "
                f"segment_frames={self.segment_frames}, num_frames={self.num_frames}."
            )

    @property
    def grid(self):
        return audio_grid(self.segment_frames, self.num_mel_bins, self.patch_size)

    @property
    def starts(self):
        centers = (np.arange(self.num_segments) + 0.5) * self.num_frames
        starts = centers / self.num_segments - self.segment_frames / 2
        last = self.num_frames - self.segment_frames
        return np.clip(np.round(starts), 0, last).astype(int).tolist()

    def read(self, front_end, batch):
        """Segments `(batch * segments, time, frequency)`, a clip's side by side."""
        clips = super().read(front_end, batch)
        segments = [clips[:, s : s + self.segment_frames] for s in self.starts]
        shape = (-1, self.segment_frames, self.num_mel_bins)
        return ops.reshape(ops.stack(segments, axis=1), shape)


class FramesInput(VideoInput):
    """A clip's frames, each by itself: `(batch * frames, 1, height, width, 3)`."""

    @property
    def grid(self):
        return video_grid(1, self.height, self.width, self.tubelet_size)

    def read(self, front_end, batch):
        frames = super().read(front_end, batch)
        return ops.reshape(frames, (-1, 1, self.height, self.width, 3))


@keras.saving.register_keras_serializable(package="tfavmae")
class CAVMAESync(CAVMAE):
    """CAV-MAE whose examples are pairs of a frame and the sound around it.

    Each pair is masked and reconstructed as CAV-MAE does its clip. Contrast is between
    all pairs of the batch, those of the same clip included, and reads a token of its
    own in each modality (the paper's global token), which stays out of the joint stream
    and so leaves the patches' tokens to reconstruction. Register tokens are left out.

    Args:
        segment_frames: spectrogram frames of a segment; 4 of the clip's 10 seconds.
        audio, video: dicts of the fields of `AudioInput` and `VideoInput`, for the
            clip: `video["num_frames"]` is the number of pairs.
        Others: see `CAVMAE`.

    Call arguments:
        inputs: of clips; noise `(batch, tokens)` serves all pairs of a clip.

    Returns:
        What `MaskedAutoencoder` does, with pairs in place of clips. Unless `masked`,
        `{modality}_embedding` `(batch, hidden_dim)` is the mean over a clip's pairs and
        `{modality}_segment_embedding` `(batch, pairs, hidden_dim)` has them all.
    """

    encoder_options = {"class_token": True, "fuse_class_token": False}

    def __init__(self, segment_frames=416, audio=None, video=None, **kwargs):
        frames = FramesInput(**{**INPUTS["video"], **(video or {})})
        self.num_pairs = frames.num_frames
        clip = dataclasses.asdict(as_input("audio", audio or {}))
        segments = SegmentsInput(
            **clip, segment_frames=segment_frames, num_segments=self.num_pairs
        )
        super().__init__(audio=segments, video=frames, **kwargs)
        own = {"segment_frames": segment_frames, "audio": audio, "video": video}
        self._arguments.update(own)

    def call(self, inputs, masked=True, training=False):
        inputs = {**inputs, **self._per_pair(inputs, ("audio_noise", "video_noise"))}
        rows = inputs.get("example_index")
        if rows is not None:
            pair = ops.arange(self.num_pairs, dtype="int32")
            rows = ops.cast(rows, "int32")[:, None] * self.num_pairs + pair
            inputs["example_index"] = ops.reshape(rows, (-1,))
        outputs = super().call(inputs, masked=masked, training=training)
        return outputs if masked else outputs | self._clip_embeddings(outputs)

    def _per_pair(self, batch, names):
        """What the batch has of `names`, each clip's value for all its pairs."""
        return {
            name: ops.repeat(batch[name], self.num_pairs, axis=0)
            for name in names
            if batch.get(name) is not None
        }

    def encode(self, tokens, training=False, views=1):
        outputs = super().encode(tokens, training, views)
        for m in tokens:
            token = outputs[f"{m}_unimodal_class_token"]
            outputs[f"{m}_embedding"] = ops.cast(token, "float32")
        return outputs

    def _clip_embeddings(self, outputs):
        clips = {}
        for m in self.modalities:
            if f"{m}_embedding" in outputs:
                shape = (-1, self.num_pairs, self.hidden_dim)
                pairs = ops.reshape(outputs[f"{m}_embedding"], shape)
                clips[f"{m}_segment_embedding"] = pairs
                clips[f"{m}_embedding"] = ops.mean(pairs, axis=1)
        return clips

    def compute_terms(self, batch, outputs, objectives=None):
        weights = ("audio_present", "video_present", "sample_weight")
        return super().compute_terms(
            {**batch, **self._per_pair(batch, weights)}, outputs, objectives
        )
