"""MAViL's second view."""

import numpy as np
import pytest
from mavil_models import AUDIO_TOKENS, VIDEO_TOKENS, clips, losses, mavil

from tfavmae.models.transfer import copy_matching_weights


@pytest.fixture(scope="module")
def stage_1():
    return mavil()


def test_second_view_is_what_a_first_view_with_its_noise_is(stage_1):
    """Views encoded as one batch are the views encoded one by one."""
    rng = np.random.default_rng(3)
    noise = {
        f"{m}_noise{v}": rng.uniform(size=(4, n)).astype("float32")
        for m, n in (("audio", AUDIO_TOKENS), ("video", VIDEO_TOKENS))
        for v in ("", "_2")
    }
    swapped = {
        name.removesuffix("_2") if name.endswith("_2") else f"{name}_2": x
        for name, x in noise.items()
    }
    ours, theirs = (
        stage_1(clips() | noise, masked=True),
        stage_1(clips() | swapped, masked=True),
    )
    for m in ("audio", "video"):
        assert not np.array_equal(ours[f"{m}_is_masked"], ours[f"{m}_is_masked_2"])
        for name in ("embedding", "unimodal_tokens", "is_masked"):
            np.testing.assert_allclose(
                np.asarray(ours[f"{m}_{name}"], "float32"),
                np.asarray(theirs[f"{m}_{name}_2"], "float32"),
                atol=1e-6,
            )


def test_hashed_views_differ_from_each_other_and_from_clip_to_clip(stage_1):
    outputs = stage_1(clips(), masked=True)
    for m in ("audio", "video"):
        first, second = (np.asarray(outputs[f"{m}_order{v}"]) for v in ("", "_2"))
        assert not (first == second).all(axis=1).any()
        assert len(np.unique(first, axis=0)) == len(first)


@pytest.mark.parametrize("m, other", [("audio", "video"), ("video", "audio")])
def test_embeddings_of_both_views_do_not_leak(stage_1, m, other):
    batch = clips()
    changed = {**batch, other: batch[other] + 1}
    ours, theirs = stage_1(batch, masked=True), stage_1(changed, masked=True)
    for name in (f"{m}_embedding", f"{m}_embedding_2"):
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert not np.array_equal(ours[f"{m}_tokens"], theirs[f"{m}_tokens"])


def test_decoding_the_second_view_averages_both():
    model = mavil(decode_second_view=True)
    batch = clips()
    outputs = model(batch, masked=True)
    single = mavil()
    copy_matching_weights(model, single)
    np.testing.assert_allclose(
        outputs["audio_prediction"],
        single(batch, masked=True)["audio_prediction"],
        atol=1e-6,
    )
    errors = [
        np.mean(
            (
                outputs[f"audio_masked_prediction{v}"]
                - outputs[f"audio_masked_target{v}"]
            )
            ** 2
        )
        for v in ("", "_2")
    ]
    assert errors[0] != errors[1]
    loss = losses(model, batch)["reconstruction_audio"]
    assert loss == pytest.approx(np.mean(errors), rel=1e-6)


def test_intra_contrast_counts_present_clips_only(stage_1):
    batch = clips(size=5)
    batch["audio_present"] = np.array([1, 1, 1, 1, 0], "float32")
    ours = losses(stage_1, batch)
    few = losses(stage_1, {name: x[:4] for name, x in clips(size=5).items()})
    all_five = losses(stage_1, clips(size=5))
    assert ours["intra_contrast_audio"] == pytest.approx(few["intra_contrast_audio"])
    assert ours["intra_contrast_video"] == pytest.approx(
        all_five["intra_contrast_video"]
    )


def test_intra_contrast_of_both_directions_is_their_mean():
    model = mavil(intra_contrast={"bidirectional": True})
    batch = clips()
    outputs = {
        k: np.asarray(v, "float64") for k, v in model(batch, masked=True).items()
    }

    def one_way(x, y):
        x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
        scores = np.exp(x @ y.T)
        return -np.mean(np.log(np.diag(scores) / scores.sum(axis=1)))

    pair = outputs["video_embedding"], outputs["video_embedding_2"]
    expected = (one_way(*pair) + one_way(*pair[::-1])) / 2
    ours = losses(model, batch)["intra_contrast_video"]
    assert ours == pytest.approx(expected, rel=1e-5)
    assert one_way(*pair) != pytest.approx(one_way(*pair[::-1]), rel=1e-4)
