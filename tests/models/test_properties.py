"""What holds for every pretraining model, whatever its clips and its masks."""

import functools

import numpy as np
import pytest
import small_models as small
from hypothesis import given, settings
from hypothesis import strategies as st

BATCH = 4
MODALITIES = ("audio", "video")
OTHER = {"audio": "video", "video": "audio"}

model_of = functools.cache(small.pretraining)

seeds = st.integers(0, 2**32 - 1)
each_model = pytest.mark.parametrize("case", small.MODELS)


def drawn(model, seed):
    return small.batch_for(model, BATCH, seed) | small.noise_for(model, BATCH, seed)


def arrays(outputs):
    return {name: np.asarray(x) for name, x in outputs.items()}


def is_close(ours, theirs, name):
    ours, theirs = (np.asarray(x, "float64") for x in (ours, theirs))
    np.testing.assert_allclose(ours, theirs, atol=2e-5, err_msg=name)


@each_model
@given(seed=seeds, permutation=st.permutations(range(BATCH)))
@settings(max_examples=2)
def test_permuting_the_batch_with_its_noise_permutes_the_outputs(
    case, seed, permutation
):
    model, rows = model_of(case), list(permutation)
    batch = drawn(model, seed)
    shuffled = {name: x[rows] for name, x in batch.items()}
    ours, theirs = (
        arrays(model(shuffled, masked=True)),
        arrays(model(batch, masked=True)),
    )
    assert set(ours) == set(theirs)
    for name, x in theirs.items():
        clips = x.reshape(BATCH, -1, *x.shape[1:])  # CAV-MAE Sync has pairs of a clip.
        is_close(ours[name], clips[rows].reshape(x.shape), name)
    losses = (model.compute_losses(*x) for x in ((shuffled, ours), (batch, theirs)))
    for (name, x), y in zip(next(losses).items(), next(losses).values(), strict=True):
        is_close(x, y, name)


@pytest.mark.parametrize("case", ["cav_mae", "cav_mae_sync", "mavil"])
@given(seed=seeds, permutation=st.permutations(range(BATCH)))
@settings(max_examples=2)
def test_hashed_masks_go_with_the_example_not_with_its_place(case, seed, permutation):
    model, rows = model_of(case), list(permutation)
    batch = small.batch_for(model, BATCH, seed)
    shuffled = {name: x[rows] for name, x in batch.items()}
    ours, theirs = (model(x, masked=True)["audio_order"] for x in (shuffled, batch))
    by_clip = np.asarray(theirs).reshape(BATCH, -1, theirs.shape[1])
    np.testing.assert_array_equal(ours, by_clip[rows].reshape(ours.shape))
    assert len(np.unique(by_clip[:, 0], axis=0)) > 1


@pytest.mark.parametrize("case", [x for x in small.MODELS if x != "av_mae_inpainting"])
@given(seed=seeds)
@settings(max_examples=2)
def test_an_embedding_does_not_change_when_the_other_modality_does(case, seed):
    model = model_of(case)
    batch, other = drawn(model, seed), drawn(model, seed + 1)
    theirs = arrays(model(batch, masked=True))
    for m, o in OTHER.items():
        new = {name: x for name, x in other.items() if name.startswith(o)}
        ours = arrays(model(batch | new, masked=True))
        names = [name for name in theirs if name.startswith(f"{m}_embedding")]
        assert len(names) == model.num_views
        for name in names:
            np.testing.assert_array_equal(ours[name], theirs[name])
        assert not np.array_equal(ours[f"{o}_embedding"], theirs[f"{o}_embedding"])
        # What contrast reads is independent; what is decoded is not.
        assert not np.array_equal(ours[f"{m}_tokens"], theirs[f"{m}_tokens"])


@pytest.mark.parametrize("case", ["av_mae", "cav_mae", "mavil", "mavil_stage_2"])
@given(seed=seeds)
@settings(max_examples=2)
def test_the_loss_is_that_of_masked_tokens(case, seed):
    """From the outputs in token order, of which visible ones may be anything."""
    model = model_of(case)
    batch = drawn(model, seed)
    outputs = model(batch, masked=True)
    losses = model.compute_losses(batch, outputs)
    prefix = "distillation" if model.teacher else "reconstruction"
    for m in MODALITIES:
        names = (f"{m}_prediction", f"{m}_target", f"{m}_is_masked")
        prediction, target, is_masked = (np.asarray(outputs[name]) for name in names)
        garbage = np.where(is_masked[..., None], prediction, np.nan)
        errors = np.square(garbage - target).mean(axis=-1)[is_masked]
        is_close(losses[f"{prefix}_{m}"], errors.mean(dtype="float64"), m)


@pytest.mark.parametrize("case", ["av_mae", "cav_mae", "mavil"])
@given(seed=seeds)
@settings(max_examples=2)
def test_masked_pixels_reach_nothing_but_their_own_targets(case, seed):
    model = model_of(case)
    batch = drawn(model, seed)
    before = arrays(model(batch, masked=True))
    spec = model.inputs_by_modality["audio"]
    is_masked = before["audio_is_masked"].reshape(BATCH, *spec.grid)
    places = np.kron(is_masked, np.ones((1, *spec.patch_size)))
    changed = batch | {"audio": (batch["audio"] + places).astype("float32")}
    after = arrays(model(changed, masked=True))
    for name, x in before.items():
        if "target" not in name and name != "audio_input" and not name.endswith("_2"):
            np.testing.assert_array_equal(x, after[name], err_msg=name)
    assert not np.array_equal(before["audio_target"], after["audio_target"])
