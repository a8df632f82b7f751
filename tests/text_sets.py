"""Small data sets of tones with captions, a vocabulary with merges, and a recipe."""

import json

import numpy as np
import small_models as small
import tensorflow_datasets as tfds
from clock_clips import RATE, grey

from tfavmae.building.features import example_features
from tfavmae.data.text import Vocabulary
from tfavmae.models.text_aligned import build_text_aligned

PITCHES = {"low": 200.0, "high": 1600.0}
SHADES = {"dark": 20, "bright": 220}


class Captioned(tfds.core.GeneratorBasedBuilder):
    """Four kinds of clips, whose captions say pitch and shade.

    Of every five clips, the last has no caption, and the one before it no video.
    """

    VERSION = tfds.core.Version("1.0.0")
    name = "captioned"

    def _info(self):
        text = tfds.features.Text()
        labels = {"captions": tfds.features.Sequence(text), "query": text}
        return tfds.core.DatasetInfo(builder=self, features=example_features(labels))

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(name) for name in ("train", "test")}

    def _generate_examples(self, split):
        for number in range(20 if split == "train" else 10):
            pitch, shade = list(PITCHES)[number % 2], list(SHADES)[number // 2 % 2]
            time = np.arange(int(0.4 * RATE)) / RATE
            tone = 8000 * np.sin(2 * np.pi * PITCHES[pitch] * time)
            texts = [f"a {pitch} tone, {shade}", "", f"{shade}: {pitch} {number}"]
            has_caption = number % 5 != 4
            yield (
                number,
                {
                    "id": f"{split}-{number}",
                    "audio": (tone + number).astype(np.int16),
                    "frames": [grey(SHADES[shade] + number, 16, 16)] * 4,
                    "frame_rate": 10.0,
                    "has_audio": True,
                    "has_video": number % 5 != 3,
                    "captions": texts if has_caption else [],
                    "query": texts[0] if has_caption else "",
                },
            )


RECIPE = """
stage: finetune
model:
  name: mavil
  size: tiny
  audio: {num_frames: 32, num_mel_bins: 16, patch_size: [8, 8]}
  video: {num_frames: 2, height: 16, width: 16, tubelet_size: [2, 8, 8]}
  text:
    {hidden_dim: 16, num_heads: 2, mlp_dim: 24, num_layers: 1, max_tokens: 24,
     num_positions: 32}
  options:
    {hidden_dim: 16, num_heads: 2, mlp_dim: 32, num_layers: 1, projection_dim: 12}
data:
  dataset: captioned
  validation_split: test
  batch_size: 8
  clip_seconds: 0.35
  captions: captions
  validation_captions: query
optimizer: {learning_rate: 3.0e-3, warmup_steps: 1}
trainer: {num_steps: 4, steps_per_epoch: 2, checkpoint_every_steps: 2, strategy: none}
"""


def build(folder):
    """Builds the data set in `folder`."""
    tfds.disable_progress_bar()
    Captioned(data_dir=folder).download_and_prepare()


def small_vocabulary():
    """The bytes, and merges to the word "dog" after a space and to "12"."""
    space = "Ġ"
    merges = (f"{space} d", "o g", f"{space}d og", f"{space} 1", f"{space}1 2")
    merged = tuple(merge.replace(" ", "") for merge in merges)
    return Vocabulary((*Vocabulary.byte_level().tokens[:-1], *merged), merges)


TEXT = dict(
    zip(("vocabulary", "merges"), small_vocabulary().to_text(), strict=True)
) | {
    "hidden_dim": 8,
    "num_heads": 2,
    "mlp_dim": 12,
    "num_layers": 1,
    "num_positions": 20,
    "max_tokens": 12,
}


def text_model(name="mavil", modality="audio_video", projection_dim=6, **options):
    """A model of text at a size for tests."""
    video = small.PICTURE if name == "cav_mae" else small.CLIP
    sizes = small.ENCODER | {"audio": small.AUDIO, "video": video}
    sizes |= {"num_fusion_layers": 1} if name == "av_mae" else {}
    model = build_text_aligned(
        name, "tiny", modality, TEXT, **sizes, projection_dim=projection_dim, **options
    )
    return small.with_random_weights(model)


def write_vocabulary(folder, vocabulary):
    """The two files of a vocabulary, as KerasHub has them."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = {token: i for i, token in enumerate(vocabulary.tokens)}
    (folder / "vocabulary.json").write_text(json.dumps(ids), encoding="utf-8")
    lines = ["#version: 0.2", *vocabulary.merges]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
