"""CAV-MAE Sync: pairs of a frame and the sound around it."""

import json

import keras
import numpy as np
import pytest
import small_models as small
import tensorflow as tf

from tfavmae.models.cav_mae_sync import CAVMAESync, SegmentsInput
from tfavmae.models.presets import build_pretraining
from tfavmae.models.transfer import copy_matching_weights

BATCH, PAIRS = 3, 4


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return build_pretraining(
        "cav_mae_sync",
        "tiny",
        hidden_dim=16,
        num_heads=2,
        mlp_dim=24,
        num_layers=2,
        decoder=dict(hidden_dim=12, num_heads=3, mlp_dim=20, num_layers=1),
        segment_frames=16,
        contrast={"weight": 0.1},
        audio=dict(num_frames=40, num_mel_bins=8, patch_size=(4, 4)),
        video=dict(num_frames=PAIRS, height=16, width=16, tubelet_size=(1, 4, 4)),
    )


def clips(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "audio": rng.normal(size=(BATCH, 40, 8)).astype("float32"),
        "video": rng.normal(size=(BATCH, PAIRS, 16, 16, 3)).astype("float32"),
        "example_index": np.arange(BATCH, dtype="int32"),
    }


def test_segments_are_centred_on_their_frames_and_stay_inside():
    starts = SegmentsInput(num_frames=1024, segment_frames=416).starts
    assert starts[0] == 0 and starts[-1] == 1024 - 416
    centers = [s + 208 for s in starts[2:8]]
    assert centers == [round(1024 * (i + 0.5) / 10) for i in range(2, 8)]


def test_each_frame_is_beside_its_segment(model):
    batch, outputs = clips(), model(clips(), masked=True)
    starts = model.inputs_by_modality["audio"].starts
    assert starts == [0, 7, 17, 24]
    for clip in range(BATCH):
        for i, start in enumerate(starts):
            pair = clip * PAIRS + i
            segment = batch["audio"][clip, start : start + 16]
            np.testing.assert_array_equal(outputs["audio_input"][pair], segment)
            frame = batch["video"][clip, i]
            np.testing.assert_array_equal(outputs["video_input"][pair, 0], frame)


def test_a_waveform_is_cut_after_the_front_end(model):
    rng = np.random.default_rng(0)
    waveform = rng.normal(size=(2, 8000)).astype("float32") / 8
    whole = model.audio_front_end(waveform)
    segments = model.read({"audio": waveform})["audio_input"]
    assert segments.shape == (2 * PAIRS, 16, 8)
    np.testing.assert_array_equal(segments[PAIRS + 1], whole[1, 7:23])


def test_contrast_is_between_all_pairs_and_reads_a_token_of_its_own(model):
    outputs = model(clips(), masked=True)
    audio, video = (
        np.asarray(outputs[f"{m}_unimodal_class_token"], "float64")
        for m in ("audio", "video")
    )
    assert audio.shape == (BATCH * PAIRS, 16)
    audio, video = (
        x / np.linalg.norm(x, axis=1, keepdims=True) for x in (audio, video)
    )
    scores = np.exp(audio @ video.T / 0.05)
    # As in CAV-MAE: for each frame, a soft-max over all segments.
    expected = -np.mean(np.log(np.diag(scores) / scores.sum(axis=0)))
    losses = model.compute_losses(clips(), outputs)
    assert float(losses["contrast"]) == pytest.approx(expected, rel=1e-5)
    # The joint stream and the decoder know patches only.
    kept = model.audio_masking.num_kept
    assert outputs["audio_tokens"].shape[1] == kept
    assert "audio_class_token" not in outputs


def test_pairs_of_a_clip_have_masks_of_their_own(model):
    order = np.asarray(model(clips(), masked=True)["audio_order"])
    assert len(np.unique(order, axis=0)) == BATCH * PAIRS
    one = {name: x[1:2] for name, x in clips().items()}
    alone = np.asarray(model(one, masked=True)["audio_order"])
    np.testing.assert_array_equal(alone, order[PAIRS : 2 * PAIRS])


def test_embeddings_of_a_clip_are_means_over_its_pairs(model):
    outputs = model(clips(), masked=False)
    segments = np.asarray(outputs["audio_segment_embedding"])
    assert segments.shape == (BATCH, PAIRS, 16)
    np.testing.assert_allclose(
        outputs["audio_embedding"], segments.mean(axis=1), atol=1e-6
    )
    alone = model({"audio": clips()["audio"]}, masked=False)
    assert "video_embedding" not in alone
    np.testing.assert_allclose(
        alone["audio_embedding"], outputs["audio_embedding"], atol=1e-5
    )


def test_a_clip_without_sound_leaves_the_contrast_with_all_its_pairs(model):
    batch = clips() | {"audio_present": np.array([1, 0, 1], "float32")}
    outputs = model(batch, masked=True)
    terms = model.compute_terms(batch, outputs)
    assert float(terms["contrast"].denominator) == 2 * PAIRS
    num_masked = outputs["audio_masked_target"].shape[1]
    assert float(terms["reconstruction_audio"].denominator) == 2 * PAIRS * num_masked


def test_a_segment_longer_than_its_clip_is_refused():
    with pytest.raises(ValueError, match="segment_frames=416, num_frames=192"):
        CAVMAESync(audio={"num_frames": 192})


def test_misspelled_options_are_named():
    with pytest.raises(ValueError, match="did you mean 'contrast'"):
        build_pretraining("cav_mae_sync", "tiny", contrast_wait=1)


def test_trains_and_round_trips(model, tmp_path):
    batch = clips()
    model.compile(optimizer=keras.optimizers.Adam(1e-2), run_eagerly=True)
    batches = tf.data.Dataset.from_tensors(batch).repeat()
    history = model.fit(batches, epochs=4, steps_per_epoch=1, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert isinstance(again, CAVMAESync)
    assert json.dumps(again.get_config()) == json.dumps(model.get_config())
    np.testing.assert_array_equal(
        again(batch, masked=True)["video_prediction"],
        model(batch, masked=True)["video_prediction"],
    )


@pytest.mark.parametrize("modality", ["audio_video", "audio", "video"])
def test_a_clip_is_classified_by_the_mean_over_its_pairs(modality):
    options = {"segment_frames": 8, "video": small.PICTURE | {"num_frames": 2}}
    model = small.classifier("cav_mae_sync", modality, **options)
    batch = small.batch_for(model)
    outputs = model(batch)
    assert outputs["logits"].shape == (4, 3)
    pooled = np.concatenate(
        [outputs[f"{m}_tokens"] for m in modality.split("_")], axis=1
    ).mean(axis=1)
    logits = np.asarray(model.head(model.head_norm(pooled)))
    expected = logits.reshape(4, 2, 3).mean(axis=1)
    np.testing.assert_allclose(outputs["logits"], expected, rtol=1e-5, atol=1e-6)
    again = type(model).from_config(model.get_config())
    assert again.get_config() == model.get_config()
    assert {v.path for v in again.weights} == {v.path for v in model.weights}


def test_the_classifier_takes_all_of_the_pretrained_encoder():
    options = {"segment_frames": 8, "video": small.PICTURE | {"num_frames": 2}}
    source = small.pretraining("cav_mae_sync")
    target = small.classifier("cav_mae_sync", **options)
    report = copy_matching_weights(source, target)
    assert {a.split("/")[0] for a in report.missing_in_source} == {"head", "head_norm"}
    unused = {a.split("/")[0] for a in report.unused_in_source}
    assert unused == {"decoder"}
