"""AVSiam: one encoder for both modalities, contrast under several masking ratios."""

import numpy as np
import pytest
import small_models as small

from tfavmae.models.presets import build_pretraining, papers

RATIOS = (0.0, 0.5, 0.8)


@pytest.fixture(scope="module")
def model():
    return small.pretraining("av_siam", contrast_ratios=RATIOS)


def expected(model, batch, rows):
    """Embeddings of clips one at a time, under each ratio: `(ratio, clip, dim)`."""
    outputs = model(batch, masked=True)
    patches = model.patchify(outputs)
    order = model.draw_order(batch, patches, False, view=1)
    found = {}
    for m, x in patches.items():
        counts = [max(1, int(x.shape[1] * (1 - r))) for r in RATIOS]
        found[m] = np.stack(
            [
                np.concatenate(
                    [
                        np.asarray(
                            model.encoder.encode_unimodal(
                                model.tokenize(
                                    {m: x[i : i + 1]}, {m: order[m][i : i + 1, :n]}
                                )
                            )[m]
                        ).mean(axis=1)
                        for i in rows
                    ]
                )
                for n in counts
            ]
        )
    return outputs, found


def test_the_encoder_is_one_for_both_modalities(model):
    stacks = {v.path.split("/")[2] for v in model.encoder.weights}
    assert stacks == {"shared", "shared_norm", "joint"}


def test_each_clip_is_contrasted_under_one_of_the_ratios(model):
    size = 6
    batch = small.batch_for(model, size)
    outputs, one_by_one = expected(model, batch, range(size))
    for m in ("audio", "video"):
        ours = np.asarray(outputs[f"{m}_embedding"])
        distance = np.abs(one_by_one[m] - ours[None]).max(axis=2)  # (ratio, clip)
        assert distance.min(axis=0).max() < 1e-5
        groups = distance.argmin(axis=0)
        # A ratio that keeps as many tokens as another cannot be told from it.
        assert sorted(np.bincount(groups, minlength=3)) == [2, 2, 2]


def test_the_groups_are_drawn_anew_for_other_clips(model):
    batch = small.batch_for(model, 6)
    first = model(batch, masked=True)["audio_embedding"]
    moved = batch | {"example_index": batch["example_index"] + 100}
    assert np.abs(
        np.asarray(first) - model(moved, masked=True)["audio_embedding"]
    ).max()


def test_reconstruction_masks_three_quarters():
    model = build_pretraining("av_siam", "tiny")
    assert model.audio_masking.num_kept == 128 and model.video_masking.num_kept == 49


def test_one_batch_is_learned(model):
    model = small.compiled(small.pretraining("av_siam", contrast_ratios=RATIOS))
    batch = small.batch_for(model, 6)
    losses = [model.train_on_batch(batch, return_dict=True) for _ in range(30)]
    assert losses[-1]["loss"] < 0.7 * losses[0]["loss"]


def test_a_batch_smaller_than_the_ratios(model):
    outputs, one_by_one = expected(model, small.batch_for(model, 2), range(2))
    distance = np.abs(
        one_by_one["audio"] - np.asarray(outputs["audio_embedding"])[None]
    )
    assert sorted(distance.max(axis=2).argmin(axis=0)) == [0, 1]
    small.compiled(model)
    logs = model.train_on_batch(small.batch_for(model, 2), return_dict=True)
    assert np.isfinite(logs["loss"])


@pytest.mark.parametrize("modality", ["audio_video", "audio", "video"])
def test_fine_tuning_takes_the_encoder(modality):
    model = small.classifier("av_siam", modality, video=small.PICTURE)
    assert model(small.batch_for(model))["logits"].shape == (4, 3)
    assert model.pooling == "modalities"
    stacks = {v.path.split("/")[2] for v in model.encoder.weights}
    assert ("joint" in stacks) == (modality == "audio_video")


def test_it_is_a_preset():
    assert "av_siam" in papers()
