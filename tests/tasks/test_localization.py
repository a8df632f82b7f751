"""Heat maps and their figures against numbers that can be worked out by hand."""

import numpy as np
import pytest
import small_models
import tensorflow as tf

from tfavmae.data import resizing
from tfavmae.tasks import heat_maps, localization
from tfavmae_datasets.sounding_shapes import config, regions, render, scene


def box(height, width, top, left, bottom, right):
    found = np.zeros((1, height, width), bool)
    found[0, top:bottom, left:right] = True
    return found


# --- Maps ---


def test_a_map_is_the_cosine_of_the_mean_audio_token_with_each_visual_token():
    model = small_models.pretraining("cav_mae")
    batch = small_models.batch_for(model)
    outputs = model(batch)
    found = {k: np.asarray(x) for k, x in heat_maps.similarity(model, outputs).items()}
    audio = np.asarray(outputs["audio_unimodal_tokens"]).mean(1)
    tokens = np.asarray(outputs["video_unimodal_tokens"])
    grid = model.inputs_by_modality["video"].grid
    assert found["video_map"].shape == (4, *grid)
    for clip in range(4):
        for number, token in enumerate(tokens[clip]):
            cosine = audio[clip] @ token
            cosine /= np.linalg.norm(audio[clip]) * np.linalg.norm(token)
            place = np.unravel_index(number, grid)
            assert found["video_map"][(clip, *place)] == pytest.approx(cosine, abs=1e-5)


@pytest.mark.parametrize(("case", "expected"), [("cav_mae", True), ("mavil", True)])
def test_which_models_have_maps(case, expected):
    model = small_models.pretraining(case)
    batch = small_models.batch_for(model)
    outputs = model({"video": batch["video"]})
    assert heat_maps.has_map(model, outputs, "video", 4) == expected


def test_a_model_of_pairs_has_none():
    model = small_models.pretraining("cav_mae_sync")
    batch = small_models.batch_for(model)
    outputs = model({"video": batch["video"]})
    assert not heat_maps.has_map(model, outputs, "video", 4)


def test_maps_are_upsampled_to_the_frame_and_beyond_its_last_patch():
    spec = small_models.pretraining("cav_mae").inputs_by_modality["video"]
    maps = np.arange(6.0).reshape(1, 3, 2)
    found = heat_maps.upsampled(maps, spec)
    assert found.shape == (1, spec.height, spec.width)
    assert found[0, 0, 0] == 0 and found[0, -1, -1] == 5
    assert found[0, 5, 0] == pytest.approx(1.75)  # 3.5 pixels of 4 to the next patch

    class Wider:
        tubelet_size, height, width = (1, 4, 4), 13, 10

    wider = heat_maps.upsampled(maps, Wider)
    assert wider.shape == (1, 13, 10)
    np.testing.assert_array_equal(wider[:, :12, :8], found)
    np.testing.assert_array_equal(wider[:, 12], wider[:, 11])


def test_a_map_between_two_times_is_between_them():
    maps = np.stack([np.zeros((2, 2)), np.ones((2, 2))])
    window = heat_maps.WindowMaps(
        0, np.array([1.0, 2.0]), maps, 0.5, (0.0, 0.25, 1.0, 0.5), 8.0
    )
    assert [window.at(t)[0, 0] for t in (0.0, 1.0, 1.25, 2.0, 9.0)] == [
        0,
        0,
        0.25,
        1,
        1,
    ]
    maps[1, 0, 1] = 3.0
    assert window.peak == (0.25 + 0.5 * 0.75, 0.25)


# --- Figures ---


def test_consensus_iou_of_boxes():
    truth = box(4, 6, 0, 0, 4, 3).astype("float32")  # 12 pixels
    cases = [
        (box(4, 6, 0, 0, 4, 3), 1.0),
        (box(4, 6, 0, 0, 4, 6), 12 / 24),
        (box(4, 6, 0, 0, 2, 3), 6 / 12),
        (box(4, 6, 0, 3, 4, 6), 0.0),
        (box(4, 6, 0, 0, 0, 0), 0.0),
    ]
    for predicted, expected in cases:
        assert localization.consensus_iou(predicted, truth) == pytest.approx(expected)


def test_consensus_weighs_what_few_annotations_have():
    """A pixel that one of two has counts a half, in neither case as wrong."""
    truth = np.array([[[1.0, 0.5, 0.0]]], "float32")
    both = np.array([[[True, True, False]]])
    all_of_it = np.array([[[True, True, True]]])
    assert localization.consensus_iou(both, truth) == pytest.approx(1.0)
    assert localization.consensus_iou(all_of_it, truth) == pytest.approx(1.5 / 2.5)
    one = np.array([[[True, False, False]]])
    assert localization.consensus_iou(one, truth) == pytest.approx(1 / 1.5)


def test_the_rules_cut_a_map_at_the_middle_of_its_range_and_at_its_median():
    heat = np.array([[0.0, 0.1, 0.2, 10.0]])[None]
    assert localization.is_source(heat, "range").sum() == 1
    assert localization.is_source(heat, "median").tolist() == [
        [[False, False, True, True]]
    ]


def test_a_perfect_map_has_full_marks_and_the_box_the_best_it_can():
    rng = np.random.default_rng(0)
    truth = np.zeros((40, 20, 20), "float32")
    for clip in truth:
        top, left = rng.integers(0, 14, 2)
        clip[top : top + 6, left : left + 6] = 1
    maps = {"map": truth + 0.01 * rng.random(truth.shape), "relative": -truth}
    result = localization.score(maps, truth, num_left_out=3)
    scores = result.predictions
    assert scores["map_range"].success.value == scores["map_range"].auc.value == 1
    assert scores["relative_range"].success.value == 0
    # Of an overlap x, thresholds up to x succeed: the area is x, to the step of 0.05.
    assert scores["relative_range"].auc.value == pytest.approx(0.025)
    boxes = [
        localization.consensus_iou(
            np.broadcast_to(localization.centre_box(20, 20, side), truth.shape), truth
        )
        for side in np.linspace(0.05, 1, 20)
    ]
    best = max((x >= 0.5).mean() for x in boxes)
    assert scores["centre_box"].success.value == pytest.approx(best)
    assert result.area == pytest.approx(36 / 400)
    assert "40 clips evaluated, 3 left out" in result.table().caption


# --- Known positions ---


def test_boxes_are_around_what_sounds():
    settings = {k: v for k, v in vars(config.STANDARD).items()}
    found = regions.boxes(settings, 3, "test_000012")
    one = scene.sample(config.STANDARD, 3, "test", 12)
    assert found.shape == (config.STANDARD.num_frames, len(one.sounding), 4)
    for k, body in enumerate(one.sounding):
        centre = (found[:, k, :2] + found[:, k, 2:]) / 2
        np.testing.assert_allclose(centre, one.positions[:, k])
        np.testing.assert_allclose(found[:, k, 2] - found[:, k, 0], 2 * body.radius)


def test_an_object_is_drawn_within_its_box():
    """Two scenes that differ in nothing but their objects differ there alone."""
    import dataclasses

    settings = config.DEMO
    one = scene.sample(settings, 0, "test", 5)
    bare = dataclasses.replace(one, sounding=(), positions=one.positions[:, 1:])
    difference = render.render(one, settings) != render.render(bare, settings)
    y, x = np.nonzero(difference[4].any(-1))
    left, top, right, bottom = regions.boxes(vars(settings), 0, one.id)[4, 0] * 64
    assert left - 4 <= x.min() and x.max() <= right + 4
    assert top - 4 <= y.min() and y.max() <= bottom + 4
    assert x.max() - x.min() > 0.6 * (right - left)


def test_the_shown_part_is_that_of_the_crop():
    box, scale, shift = resizing.centre(120, 320, (50, 50), 60)
    top, left, height, width = resizing.part_shown(120, 320, (50, 50), 60)
    # Output pixel x shows (x + 1/2 - shift) / scale of the box, which begins at box[1].
    first = (0 - shift.numpy()) / scale.numpy() + tf.cast(box[:2], tf.float64).numpy()
    np.testing.assert_allclose((top * 120, left * 320), first)
    assert (height, width) == pytest.approx((50 / 60, 50 / 160))


def test_pixels_of_the_crop_are_compared_with_boxes_of_the_frame():
    boxes = np.array([[0.5, 0.0, 1.0, 0.5]])  # the upper right quarter
    whole = localization._covered(boxes, (0, 0, 1, 1), (4, 4))
    assert whole[:2, 2:].all() and whole.sum() == 4
    right = localization._covered(boxes, (0, 0.5, 1, 0.5), (4, 4))
    assert right[:2].all() and right.sum() == 8
