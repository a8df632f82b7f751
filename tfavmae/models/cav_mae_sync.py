"""CAV-MAE Sync: frames and the audio around each (Araujo et al., CVPR 2025)."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfavmae.layers.embedding import audio_grid, video_grid
from tfavmae.layers.masking import TokenMasking
from tfavmae.models.cav_mae import CAVMAE, cav_mae_classifier_encoder
from tfavmae.models.classifier import AudioVisualClassifier
from tfavmae.models.encoders import AudioVisualEncoder
from tfavmae.models.inputs import AudioInput, VideoInput, as_input
from tfavmae.models.paper_model import FineTuning, Published
from tfavmae.objectives.base import Objective, Term

PRESENCE = ("audio_present", "video_present")
# The paper's global token: it runs along in each modality's encoder and is contrasted.
GLOBAL_TOKENS = {"class_token": True, "fuse_class_token": False}


@dataclasses.dataclass(frozen=True)
class SegmentsInput(AudioInput):
    """Segments of `segment_frames` out of a clip of `num_frames`, one per video frame.

    Segment i is centred on the middle of the i-th of `num_segments` equal parts, where
    the pipeline takes its frame, and moved inwards where it would leave the clip.
    """

    segment_frames: int = 416
    num_segments: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.segment_frames > self.num_frames:
            raise ValueError(
                "`segment_frames` must be at most the clip's `num_frames`. Received: "
                f"segment_frames={self.segment_frames}, num_frames={self.num_frames}."
            )

    @property
    def grid(self) -> tuple[int, ...]:
        return audio_grid(self.segment_frames, self.num_mel_bins, self.patch_size)

    @property
    def starts(self) -> list[int]:
        centers = (np.arange(self.num_segments) + 0.5) * self.num_frames
        starts = centers / self.num_segments - self.segment_frames / 2
        last = self.num_frames - self.segment_frames
        return np.clip(np.round(starts), 0, last).astype(int).tolist()

    def read(
        self, front_end: keras.Layer, batch: Mapping[str, Any]
    ) -> keras.KerasTensor:
        """Segments `(batch * segments, time, frequency)`, a clip's side by side."""
        clips = super().read(front_end, batch)
        segments = [clips[:, s : s + self.segment_frames] for s in self.starts]
        shape = (-1, self.segment_frames, self.num_mel_bins)
        return ops.reshape(ops.stack(segments, axis=1), shape)


class FramesInput(VideoInput):
    """A clip's frames, each by itself: `(batch * frames, 1, height, width, 3)`."""

    @property
    def grid(self) -> tuple[int, ...]:
        return video_grid(1, self.height, self.width, self.tubelet_size)

    def read(
        self, front_end: keras.Layer, batch: Mapping[str, Any]
    ) -> keras.KerasTensor:
        frames = super().read(front_end, batch)
        return ops.reshape(frames, (-1, 1, self.height, self.width, 3))


def _per_pair(
    batch: Mapping[str, Any], names: Sequence[str], num_pairs: int
) -> dict[str, Any]:
    """What the batch has of `names`, each clip's value for all its pairs."""
    return {
        name: ops.repeat(batch[name], num_pairs, axis=0)
        for name in names
        if batch.get(name) is not None
    }


def pairs_of(
    audio: Mapping[str, Any], video: Mapping[str, Any], segment_frames: int
) -> dict[str, AudioInput | VideoInput]:
    """Dict of modality to the inputs of pairs, from the fields of a clip's inputs."""
    frames = FramesInput(**video)
    clip = dataclasses.asdict(as_input("audio", audio))
    segments = SegmentsInput(
        **clip, segment_frames=segment_frames, num_segments=frames.num_frames
    )
    return {"audio": segments, "video": frames}


def sync_classifier_encoder(modality: str, **options: Any) -> AudioVisualEncoder:
    """CAV-MAE's encoder with the global tokens of pretraining."""
    return cav_mae_classifier_encoder(modality, **GLOBAL_TOKENS, **options)


@keras.saving.register_keras_serializable(package="tfavmae")
class SyncClassifier(AudioVisualClassifier):
    """Classifies a clip by the mean of its pairs' logits.

    The paper averages the figures of a clip's frames; the code of its fine-tuning is
    not published, so that pooling over patches and head are CAV-MAE's.

    Args:
        segment_frames: spectrogram frames of a segment.
        audio, video: dicts of the fields of `AudioInput` and `VideoInput`, for the
            clip: `video["num_frames"]` is the number of pairs.
        encoder, hidden_dim, num_classes, **kwargs: see `AudioVisualClassifier`.

    Returns:
        dict with `logits` `(batch, num_classes)`, and with the encoder's outputs for
        all pairs `(batch * pairs, ...)`.
    """

    def __init__(
        self,
        encoder: AudioVisualEncoder,
        hidden_dim: int,
        num_classes: int,
        segment_frames: int = 416,
        audio: Mapping[str, Any] | None = None,
        video: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(num_classes, int) or kwargs.get("num_segments"):
            raise ValueError(
                "A clip's pairs are averaged to the logits of one label of the clip. "
                f"Received: num_classes={num_classes}, "
                f"num_segments={kwargs.get('num_segments')}."
            )
        inputs = pairs_of(audio or {}, video or {}, segment_frames)
        super().__init__(encoder, hidden_dim, num_classes, **inputs, **kwargs)
        self.segment_frames = segment_frames
        # What a clip's input is, also of the modality that this classifier leaves out.
        self.clip_inputs = {"audio": audio, "video": video}
        self.num_pairs = inputs["video"].num_frames

    def call(
        self, inputs: Mapping[str, Any], training: bool = False
    ) -> dict[str, keras.KerasTensor]:
        outputs = super().call(inputs, training=training)
        shape = (-1, self.num_pairs, self.num_classes)
        outputs["logits"] = ops.mean(ops.reshape(outputs["logits"], shape), axis=1)
        return outputs

    def absence(
        self, inputs: Mapping[str, Any], tokens: Mapping[str, keras.KerasTensor]
    ) -> dict[str, keras.KerasTensor] | None:
        return super().absence(_per_pair(inputs, PRESENCE, self.num_pairs), tokens)

    def get_config(self) -> dict[str, Any]:
        own = {"segment_frames": self.segment_frames, **self.clip_inputs}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="tfavmae")
class CAVMAESync(CAVMAE):
    """CAV-MAE whose examples are pairs of a frame and the audio around it.

    Each pair is masked and reconstructed as CAV-MAE does its clip. Contrast is between
    all pairs of the batch, those of the same clip included, and reads a token of its
    own in each modality (the paper's global token), which stays out of the joint stream
    and so leaves the patches' tokens to reconstruction. Register tokens are left out.

    Args:
        segment_frames: spectrogram frames of a segment; 4 of the clip's 10 seconds.
        audio, video: dicts of the fields of `AudioInput` and `VideoInput`, for the
            clip: `video["num_frames"]` is the number of pairs.
        **kwargs: see `CAVMAE`.

    Call arguments:
        inputs: of clips; noise `(batch, tokens)` serves all pairs of a clip.

    Returns:
        What `MaskedAutoencoder` does, with pairs in place of clips. Unless `masked`,
        `{modality}_embedding` `(batch, hidden_dim)` is the mean over a clip's pairs and
        `{modality}_segment_embedding` `(batch, pairs, hidden_dim)` has them all.
    """

    PRESET = "cav_mae_sync"
    # As many pairs of a frame and its audio as CAV-MAE extracts frames.
    INPUTS = {"audio": {}, "video": {"num_frames": 10}}
    PUBLISHED = {
        "base": Published(
            "R@1 without fine-tuning, video to audio and back: AudioSet 35.2, 27.9; "
            "VGGSound 27.9, 23.2",
            "project page of CAV-MAE Sync, CVPR 2025",
        )
    }
    FINE_TUNING = FineTuning(
        sync_classifier_encoder,
        encoder_options=CAVMAE.FINE_TUNING.encoder_options,
        arguments=CAVMAE.FINE_TUNING.arguments,
        model=SyncClassifier,
    )

    encoder_options = GLOBAL_TOKENS

    def __init__(
        self,
        segment_frames: int = 416,
        audio: Mapping[str, Any] | None = None,
        video: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        inputs = pairs_of(
            {**self.INPUTS["audio"], **(audio or {})},
            {**self.INPUTS["video"], **(video or {})},
            segment_frames,
        )
        self.num_pairs = inputs["video"].num_frames
        super().__init__(**inputs, **kwargs)

    def call(
        self,
        inputs: Mapping[str, Any],
        masked: bool | None = None,
        training: bool = False,
    ) -> dict[str, keras.KerasTensor]:
        masked = self.drops_tokens(masked, training)
        outputs = super().call(self._of_pairs(inputs), masked=masked, training=training)
        return outputs if masked else outputs | self._clip_embeddings(outputs)

    def reconstruct(
        self,
        inputs: Mapping[str, Any],
        maskings: Mapping[str, TokenMasking | None],
    ) -> dict[str, keras.KerasTensor]:
        """Outputs of pairs `(batch * pairs, ...)`; see `MaskedAutoencoder`."""
        return super().reconstruct(self._of_pairs(inputs), maskings)

    def _of_pairs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs, with noise and numbers of examples for each pair."""
        found = {
            **inputs,
            **_per_pair(inputs, ("audio_noise", "video_noise"), self.num_pairs),
        }
        rows = inputs.get("example_index")
        if rows is not None:
            pair = ops.arange(self.num_pairs, dtype="int32")
            rows = ops.cast(rows, "int32")[:, None] * self.num_pairs + pair
            found["example_index"] = ops.reshape(rows, (-1,))
        return found

    def encode(
        self,
        tokens: Mapping[str, keras.KerasTensor],
        training: bool = False,
        views: int = 1,
        **options: Any,
    ) -> dict[str, keras.KerasTensor]:
        outputs = super().encode(tokens, training, views, **options)
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

    def compute_terms(
        self,
        batch: Mapping[str, Any],
        outputs: Mapping[str, Any],
        objectives: Sequence[Objective] | None = None,
    ) -> dict[str, Term]:
        weights = _per_pair(batch, (*PRESENCE, "sample_weight"), self.num_pairs)
        return super().compute_terms({**batch, **weights}, outputs, objectives)
