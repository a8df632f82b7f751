"""`tfavmae statistics`: the numbers that a recipe for a new data set needs."""

import clock_clips
import numpy as np
import pytest

from tfavmae.data.pipeline import open_split
from tfavmae.data.statistics import spectrogram_statistics
from tfavmae.layers.spectrogram import LogMelSpectrogram


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return clock_clips.build(tmp_path_factory.mktemp("built"))


@pytest.mark.parametrize("variant, frames", [("kaldi", 298), ("av_mae", 300)])
def test_mean_and_deviation_are_those_of_the_clips_frames(built, variant, frames):
    split = open_split(str(built), "train")
    front_end = LogMelSpectrogram(1000, 128, variant=variant)
    mean, std, num_clips = spectrogram_statistics(split, front_end, 10.0)
    assert num_clips == clock_clips.NUM_TRAIN - 1  # one has no sound
    layer = LogMelSpectrogram(frames, 128, variant=variant)
    waveforms = [split.example(row)["audio"] for row in split.rows(keep=("audio",))]
    values = np.asarray(layer(np.stack(waveforms)), np.float64)
    assert mean == pytest.approx(values.mean(), abs=1e-3)
    assert std == pytest.approx(values.std(), abs=1e-3)


def test_the_command_prints_what_a_recipe_takes(built, cli):
    done = cli("statistics", built, "--clips", "3", "--clip-seconds", "1")
    assert done.status == 0
    assert "3 clips of clips/1.0.0 train\n--set model.audio.mean=" in done.out
    assert cli("statistics", built, "--clips", "0").status == 2
