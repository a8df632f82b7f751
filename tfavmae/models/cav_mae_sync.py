"""CAV-MAE Sync: contrast of frames and their own stretch of sound (Araujo et al., 2025)."""

import dataclasses

import keras
import numpy as np
from keras import ops

from tfavmae.models.base import MaskedAutoencoder
from tfavmae.models.cav_mae import LAYER_NORM_EPSILON, cav_mae_encoder
from tfavmae.models.decoders import AudioVisualDecoder
from tfavmae.models.inputs import AudioInput, VideoInput
from tfavmae.objectives.contrastive import InterModalContrast
from tfavmae.objectives.reconstruction import Reconstruction


@dataclasses.dataclass(frozen=True)
class SegmentsInput(AudioInput):
    """Segments of `num_frames` out of a clip of `clip_frames`, one for each video frame.

    Segment i is centred on the middle of the i-th of `num_segments` equal parts, where
    the pipeline takes its frame, and moved inwards where it would leave the clip.
    """

    clip_frames: int = 1024
    num_segments: int = 10

    def front_end(self):
        return AudioInput.front_end(
            dataclasses.replace(self, num_frames=self.clip_frames)
        )

    @property
    def starts(self):
        last = self.clip_frames - self.num_frames
        centers = (np.arange(self.num_segments) + 0.5) * self.clip_frames
        starts = centers / self.num_segments - self.num_frames / 2
        return np.clip(np.round(starts), 0, last).astype(int).tolist()

    def read(self, front_end, batch):
        """Segments `(batch * segments, time, frequency)`, a clip's side by side."""
        clips = super().read(front_end, batch)
        segments = [clips[:, s : s + self.num_frames] for s in self.starts]
        shape = (-1, self.num_frames, self.num_mel_bins)
        return ops.reshape(ops.stack(segments, axis=1), shape)


class FramesInput(VideoInput):
    """A clip's frames, each by itself: `(batch * frames, 1, height, width, 3)`."""

    def read(self, front_end, batch):
        frames = super().read(front_end, batch)
        return ops.reshape(frames, (-1, 1, self.height, self.width, 3))


@keras.saving.register_keras_serializable(package="tfavmae")
class CAVMAESync(MaskedAutoencoder):
    """CAV-MAE whose examples are pairs of a frame and the sound around it.

    Each pair is masked and reconstructed as CAV-MAE does its clip. Contrast is between
    all pairs of the batch, those of the same clip included, and reads a token of its own
    in each modality (the paper's global token), which stays out of the joint stream and
    so leaves the patches' tokens to reconstruction. Register tokens are left out.

    Args:
        segment_frames: spectrogram frames of a segment; 4 of the clip's 10 seconds.
        audio, video: dicts of the fields of `AudioInput` and `VideoInput`, for the clip:
            `video["num_frames"]` is the number of pairs.
        Others: see `CAVMAE`.

    Returns:
        What `MaskedAutoencoder` does, with pairs in place of clips. Unless `masked`,
        `{modality}_embedding` `(batch, hidden_dim)` is the mean over a clip's pairs and
        `{modality}_segment_embedding` `(batch, pairs, hidden_dim)` has them all.
    """

    def __init__(
        self,
        hidden_dim=768,
        num_heads=12,
        mlp_dim=3072,
        num_layers=12,
        num_joint_layers=1,
        decoder_hidden_dim=512,
        decoder_num_heads=16,
        decoder_mlp_dim=2048,
        decoder_num_layers=8,
        segment_frames=416,
        audio=None,
        video=None,
        masking=None,
        contrast_weight=0.01,
        temperature=0.05,
        bidirectional=True,
        seed=0,
        **kwargs,
    ):
        given = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self._arguments = {k: v for k, v in given.items() if k != "kwargs"}
        clip, frames = AudioInput(**(audio or {})), {"num_frames": 10, **(video or {})}
        self.num_pairs = frames["num_frames"]
        values = dataclasses.asdict(clip) | {"num_frames": segment_frames}
        inputs = {
            "audio": SegmentsInput(
                **values, clip_frames=clip.num_frames, num_segments=self.num_pairs
            ),
            "video": FramesInput(**{**frames, "num_frames": 1}),
        }
        decoder_block = dict(num_heads=decoder_num_heads, mlp_dim=decoder_mlp_dim)
        super().__init__(
            cav_mae_encoder(
                num_layers, num_joint_layers, num_heads, mlp_dim,
                class_token=True, fuse_class_token=False,
            ),
            hidden_dim,
            AudioVisualDecoder(
                decoder_hidden_dim,
                decoder_num_layers,
                {**decoder_block, "layer_norm_epsilon": LAYER_NORM_EPSILON},
                grids={m: x.grid for m, x in inputs.items()},
                patch_values={m: x.patch_values for m, x in inputs.items()},
                share_projection=True,
                positions={m: x.positions for m, x in inputs.items()},
                modality_embedding=True,
                name="decoder",
            ),
            masking=masking,
            objectives=[
                Reconstruction(),
                InterModalContrast(contrast_weight, temperature, bidirectional),
            ],
            modality_embedding=True,
            seed=seed,
            **inputs,
            **kwargs,
        )

    def call(self, inputs, masked=True, training=False):
        rows = inputs.get("example_index")
        if rows is not None:
            pair = ops.arange(self.num_pairs, dtype="int32")
            rows = ops.cast(rows, "int32")[:, None] * self.num_pairs + pair
            inputs = {**inputs, "example_index": ops.reshape(rows, (-1,))}
        outputs = super().call(inputs, masked=masked, training=training)
        return outputs if masked else outputs | self._clip_embeddings(outputs)

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

    def compute_terms(self, batch, outputs):
        weights = ("audio_present", "video_present", "sample_weight")
        repeated = {
            name: ops.repeat(batch[name], self.num_pairs, axis=0)
            for name in weights
            if batch.get(name) is not None
        }
        return super().compute_terms({**batch, **repeated}, outputs)

    def get_config(self):
        return {**keras.Model.get_config(self), **self._arguments}

    @classmethod
    def from_config(cls, config):
        return cls(**config)
