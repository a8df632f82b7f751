"""Small data sets of tones and grey frames with named classes, and a recipe."""

import numpy as np
import tensorflow_datasets as tfds
from clock_clips import RATE, grey

from tfavmae.building.features import example_features

PITCHES = {"bell": 1600.0, "drum": 100.0, "flute": 500.0, "siren": 2500.0}


class ToneSet(tfds.core.GeneratorBasedBuilder):
    """A base; a subclass has the `name`, the classes and the clips of each split."""

    VERSION = tfds.core.Version("1.0.0")
    CLASSES: list[str]
    SPLITS: dict[str, int]

    def _info(self):
        labels = {"label": tfds.features.ClassLabel(names=self.CLASSES)}
        return tfds.core.DatasetInfo(builder=self, features=example_features(labels))

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(name) for name in self.SPLITS}

    def _generate_examples(self, split):
        for number in range(self.SPLITS[split]):
            name = self.CLASSES[number % len(self.CLASSES)]
            time = np.arange(int(0.4 * RATE)) / RATE
            tone = 8000 * np.sin(2 * np.pi * PITCHES[name] * time)
            shade = 60 * list(PITCHES).index(name) + 3 * number
            yield (
                number,
                {
                    "id": f"{split}-{number}",
                    "audio": tone.astype(np.int16),
                    "frames": [grey(shade, 16, 16)] * 4,
                    "frame_rate": 10.0,
                    "has_audio": True,
                    # One clip of every split is heard only.
                    "has_video": number != 1,
                    "label": number % len(self.CLASSES),
                },
            )


class Bells(ToneSet):
    """Three classes in two folds."""

    name = "bells"
    CLASSES = ["bell", "drum", "flute"]
    SPLITS = {"fold_2": 9, "fold_1": 6, "extra": 3}


class Pair(ToneSet):
    """Two of the classes of `Bells`, in another order."""

    name = "pair"
    CLASSES = ["flute", "bell"]
    SPLITS = {"test": 4}


class Sirens(ToneSet):
    """A class that `Bells` does not have."""

    name = "sirens"
    CLASSES = ["siren", "bell", "drum"]
    SPLITS = {"test": 6}


RECIPE = """
stage: finetune
model:
  name: cav_mae
  size: tiny
  audio: {num_frames: 32, num_mel_bins: 16, patch_size: [8, 8]}
  video: {height: 16, width: 16, tubelet_size: [1, 8, 8]}
  options: {hidden_dim: 16, num_heads: 2, mlp_dim: 32, num_layers: 2}
data:
  dataset: bells
  train_split: fold_1
  validation_split: fold_2
  batch_size: 6
  clip_seconds: 0.35
  label: label
optimizer: {learning_rate: 1.0e-2, warmup_steps: 1}
trainer: {num_steps: 2, strategy: none}
"""


def build(folder):
    """Builds the three data sets in `folder`."""
    tfds.disable_progress_bar()
    for builder in (Bells, Pair, Sirens):
        builder(data_dir=folder).download_and_prepare()
