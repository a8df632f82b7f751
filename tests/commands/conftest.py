"""A run of a few steps on a few generated clips, for commands that ask models."""

import dataclasses

import pytest
import tensorflow_datasets as tfds

from tfavmae.cli import main
from tfavmae_datasets.sounding_shapes import config
from tfavmae_datasets.sounding_shapes import sounding_shapes_dataset_builder as shapes

RECIPE = """
stage: pretrain
model:
  name: cav_mae
  size: tiny
  audio: {num_frames: 96, num_mel_bins: 32, patch_size: [16, 16], mean: -8.0, std: 6.0}
  video: {height: 32, width: 32, tubelet_size: [1, 8, 8]}
  options:
    hidden_dim: 16
    num_heads: 2
    mlp_dim: 32
    num_layers: 2
    decoder: {hidden_dim: 16, num_heads: 2, mlp_dim: 32, num_layers: 1}
data:
  dataset: sounding_shapes/few
  train_split: train
  validation_split: validation
  batch_size: 4
  clip_seconds: 1.0
optimizer: {learning_rate: 1.0e-2, warmup_steps: 1}
trainer: {num_steps: 2, strategy: none}
"""


@pytest.fixture(scope="session")
def shapes_run(tmp_path_factory):
    """The folder `run`, beside the data set that it was trained on."""
    folder = tmp_path_factory.mktemp("shapes")
    tfds.disable_progress_bar()
    settings = dataclasses.replace(
        config.DEMO,
        name="few",
        clip_seconds=1.0,
        frame_size=48,
        missing_audio=0.2,
        num_train_clips=12,
        num_validation_clips=15,
    )
    shapes.Builder(
        config=shapes.builder_config(settings), data_dir=folder, num_workers=1
    ).download_and_prepare()
    (folder / "recipe.yaml").write_text(RECIPE)
    words = ["pretrain", "--config", folder / "recipe.yaml"]
    words += ["--workdir", folder / "run", "--set", f"data.data_dir={folder}"]
    assert main([str(word) for word in words]) == 0
    return folder / "run"
