"""Models of several frames: whether a decoder tells times apart, and what it is worth.

With the public code's tiling of 2-D positions over time, mask tokens at one place and
different times are the same token, so that their predictions are.
"""

import keras
import numpy as np
import pytest
import small_models as small

CASES = ("av_mae", "mavil", "mavil_stage_2")


def moving_clips(size=8):
    """Clips whose frames differ: dark in the first half, then bright."""
    video = np.zeros((size, 4, 12, 8, 3), "float32")
    video[:, 2:] = 1.0
    return video


def masked_alike(model, batch):
    """Largest difference between predictions of one place at different times."""
    outputs = model(batch, masked=True)
    prediction = np.asarray(outputs["video_prediction"])
    hidden = np.asarray(outputs["video_is_masked"])
    grid = model.inputs_by_modality["video"].grid
    prediction = prediction.reshape(len(prediction), grid[0], -1, prediction.shape[-1])
    both = hidden.reshape(len(hidden), grid[0], -1).all(axis=1)
    assert both.any()
    return np.abs(prediction[:, 0] - prediction[:, 1])[both].max()


@pytest.mark.parametrize("case", CASES)
def test_masked_patches_of_different_times_are_predicted_differently(case):
    model = small.pretraining(case)
    batch = small.batch_for(model, 8) | {"video": moving_clips()}
    assert masked_alike(model, batch) > 1e-3


def test_the_public_codes_tiling_predicts_them_alike():
    video = small.CLIP | {"time_positions": "none"}
    model = small.pretraining("mavil", video=video)
    batch = small.batch_for(model, 8) | {"video": moving_clips()}
    assert masked_alike(model, batch) < 1e-6


def loss_after_training(time_positions):
    keras.utils.set_random_seed(0)
    video = small.CLIP | {"time_positions": time_positions}
    no_contrast = {"contrast": {"weight": 0.0}, "intra_contrast": {"weight": 0.0}}
    masking = {"audio": {"ratio": 0.6}, "video": {"ratio": 0.8}}
    model = small.pretraining("mavil", video=video, masking=masking, **no_contrast)
    model.compile(keras.optimizers.Adam(1e-2))
    batch = small.batch_for(model, 8) | {"video": moving_clips()}
    history = model.fit(batch, batch_size=8, epochs=60, verbose=0).history
    return np.mean(history["reconstruction_video"][-10:])


def test_only_who_tells_times_apart_reconstructs_what_changes():
    """The best guess without times is grey, whose squared error is 0.25."""
    assert loss_after_training("none") > 0.15
    assert loss_after_training("sincos") < 0.1
    assert loss_after_training("learned") < 0.1
