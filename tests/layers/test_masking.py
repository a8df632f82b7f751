"""Masks: which tokens are kept, how many, in which shape, on which replica."""

import fractions
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from keras import ops

from tfavmae.layers.masking import (
    STRATEGIES,
    TokenMasking,
    gather_tokens,
    hash_noise,
)

BATCH = 3

audio_grids = st.tuples(st.integers(1, 9), st.integers(1, 6))
video_grids = st.tuples(*[st.integers(1, 4)] * 3)
grids = st.one_of(audio_grids, video_grids)
ratios = st.one_of(
    st.floats(0, 0.99), st.sampled_from([0.0, 0.3, 0.5, 0.7, 0.75, 0.8, 0.9, 0.95])
)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def maskings(draw, strategies=STRATEGIES, count_rules=("kept", "masked")):
    """A masking that keeps something, whatever its grid, ratio and strategy."""
    grid, ratio = draw(grids), draw(ratios)
    options = dict(
        strategy=draw(st.sampled_from(strategies)),
        count_rule=draw(st.sampled_from(count_rules)),
        axis_share=draw(st.sampled_from([0.5, 0.7, (0.2, 0.4)])),
    )
    assume(int(math.prod(grid) * (1 - ratio)) >= 1)
    return TokenMasking(grid, ratio, **options)


def noise_for(masking, seed, batch=BATCH):
    noise = np.random.default_rng(seed).random((batch, masking.num_tokens))
    return noise.astype("float32")


def as_lines(masking, is_masked):
    """bool `(batch, times, lines across)`."""
    return np.asarray(is_masked).reshape(BATCH, masking.grid[0], -1)


# --- Which tokens ---------------------------------------------------------------------


@given(maskings(), seeds)
@settings(max_examples=60)
def test_kept_and_masked_tokens_partition_the_sequence(masking, seed):
    order = np.asarray(masking(noise_for(masking, seed)))
    is_masked = np.asarray(masking.is_masked(order))
    everything = np.arange(masking.num_tokens)
    for row, masked in zip(order, is_masked, strict=True):
        kept, removed = row[: masking.num_kept], row[masking.num_kept :]
        np.testing.assert_array_equal(np.sort(row), everything)
        np.testing.assert_array_equal(np.sort(kept), everything[~masked])
        np.testing.assert_array_equal(np.sort(removed), everything[masked])


@given(maskings(strategies=("random",)), seeds)
@settings(max_examples=20)
def test_random_masks_keep_the_least_noise_in_its_order(masking, seed):
    noise = noise_for(masking, seed)
    order = np.asarray(masking(noise))
    np.testing.assert_array_equal(order, np.argsort(noise, axis=1, kind="stable"))


@given(maskings(), seeds)
@settings(max_examples=20)
def test_restoring_inverts_the_split(masking, seed):
    noise = noise_for(masking, seed)
    tokens = np.random.default_rng(seed).normal(size=(BATCH, masking.num_tokens, 2))
    order, kept = masking(noise), masking.num_kept
    parts = [gather_tokens(tokens, x) for x in (order[:, :kept], order[:, kept:])]
    whole = gather_tokens(ops.concatenate(parts, axis=1), ops.argsort(order, axis=1))
    np.testing.assert_array_equal(whole, tokens)


@given(maskings(), seeds, st.permutations(range(BATCH)))
@settings(max_examples=20)
def test_each_example_has_the_mask_of_its_own_noise(masking, seed, permutation):
    noise = noise_for(masking, seed)
    first, second = masking(noise), masking(noise[list(permutation)])
    np.testing.assert_array_equal(np.asarray(first)[list(permutation)], second)


# --- How many -------------------------------------------------------------------------


@given(maskings(count_rules=("kept",)))
@settings(max_examples=60)
def test_kept_tokens_are_counted_as_mae_does(masking):
    """`int(L * (1 - r))` in Python's own floats, whatever the strategy."""
    assert masking.num_kept == int(masking.num_tokens * (1 - masking.ratio))


@given(maskings(strategies=("random",), count_rules=("masked",)))
@settings(max_examples=60)
def test_masked_tokens_are_counted_as_av_mae_does(masking):
    assert masking.num_tokens - masking.num_kept == int(
        masking.ratio * masking.num_tokens
    )


@pytest.mark.parametrize(
    "tokens, ratio, rule, kept",
    [
        (512, 0.75, "kept", 128),  # CAV-MAE
        (196, 0.75, "kept", 49),
        (512, 0.6, "kept", 204),
        (196, 0.8, "kept", 39),
        (196, 0.85, "kept", 29),
        (512, 0.8, "kept", 102),  # MAViL
        (784, 0.8, "kept", 156),
        (1568, 0.9, "masked", 157),  # AV-MAE
        (400, 0.5, "masked", 200),
        (496, 0.7, "masked", 149),
    ],
)
def test_counts_of_the_papers(tokens, ratio, rule, kept):
    assert TokenMasking((tokens, 1), ratio, count_rule=rule).num_kept == kept


@given(maskings(strategies=("time", "frequency"), count_rules=("masked",)), seeds)
@settings(max_examples=40)
def test_one_axis_masks_that_count_what_is_masked_remove_lines_and_no_more(
    masking, seed
):
    times, across = masking.grid[0], masking.num_tokens // masking.grid[0]
    lines, axis = (times, 2) if masking.strategy == "time" else (across, 1)
    is_masked = as_lines(masking, masking.is_masked(masking(noise_for(masking, seed))))
    whole = is_masked.all(axis=axis)
    np.testing.assert_array_equal(
        is_masked, np.broadcast_to(np.expand_dims(whole, axis), is_masked.shape)
    )
    assert whole.sum(axis=1).tolist() == [int(masking.ratio * lines)] * BATCH


# --- In which shape -------------------------------------------------------------------


def lines_at_least(masking):
    """How many lines of time, and of the other axis, a strategy removes whole."""
    two = "_" in masking.strategy
    share = masking.axis_share if two else 1.0
    shares = share if isinstance(share, tuple) else (share, share)
    times, across = masking.grid[0], masking.num_tokens // masking.grid[0]
    wanted = [
        int(n * masking.ratio * s) for n, s in zip((times, across), shares, strict=True)
    ]
    axes = masking.strategy.split("_")
    return wanted[0] * ("time" in axes), wanted[1] * (axes != ["time"])


@st.composite
def line_maskings(draw, *options):
    """Maskings whose lines are no more tokens than may go at all."""
    masking = draw(maskings(*options))
    times, across = lines_at_least(masking)
    rows, columns = masking.grid[0], masking.num_tokens // masking.grid[0]
    union = rows * columns - (rows - times) * (columns - across)
    assume(union <= masking.num_tokens - masking.num_kept)
    return masking


@given(line_maskings(STRATEGIES[1:], ("kept",)), seeds)
@settings(max_examples=50)
def test_structured_masks_remove_whole_lines(masking, seed):
    times, across = lines_at_least(masking)
    is_masked = as_lines(masking, masking.is_masked(masking(noise_for(masking, seed))))
    assert (is_masked.all(axis=2).sum(axis=1) >= times).all()
    assert (is_masked.all(axis=1).sum(axis=1) >= across).all()


@given(line_maskings(("time_frequency", "space_time")), seeds)
@settings(max_examples=40)
def test_two_axis_masks_spend_what_is_left_on_single_tokens(masking, seed):
    noise = noise_for(masking, seed)
    order = np.asarray(masking(noise))
    lines = as_lines(masking, masking.is_masked(order))
    single = ~(lines.all(axis=2, keepdims=True) | lines.all(axis=1, keepdims=True))
    # Among tokens outside the removed lines, those with the most noise went.
    for example, values in enumerate(noise.reshape(lines.shape)):
        outside = np.broadcast_to(single[example], values.shape)
        gone, stayed = outside & lines[example], outside & ~lines[example]
        if gone.any() and stayed.any():
            assert values[gone].min() >= values[stayed].max()


def test_lines_differ_from_example_to_example():
    masking = TokenMasking((16, 4), 0.5, "time")
    order = masking(noise_for(masking, seed=1, batch=8))
    is_masked = np.asarray(masking.is_masked(order)).reshape(8, 16, 4)
    assert len(np.unique(is_masked.all(axis=2), axis=0)) == 8


# --- Noise from a hash ----------------------------------------------------------------

rows = st.integers(0, 2**31 - 1)


@given(rows, st.integers(0, 10**6), st.lists(rows, min_size=2, max_size=6, unique=True))
@settings(max_examples=30)
def test_replicas_draw_different_masks(seed, step, examples):
    """Each replica holds other rows of the dataset; a row's mask is its own."""
    masking = TokenMasking((16, 8), 0.5)
    half = len(examples) // 2
    replicas = examples[:half], examples[half:]
    masks = [
        np.asarray(masking(hash_noise(seed, step, np.array(part), 0, 128)))
        for part in replicas
    ]
    together = masking(hash_noise(seed, step, np.array(examples), 0, 128))
    np.testing.assert_array_equal(np.concatenate(masks), together)
    assert len(np.unique(together, axis=0)) == len(examples)


@given(rows, st.integers(0, 10**6), rows, st.permutations(range(4)))
@settings(max_examples=30)
def test_masks_change_with_seed_step_and_stream(seed, step, row, streams):
    def noise(seed=seed, step=step, stream=streams[0]):
        return np.asarray(hash_noise(seed, step, np.array([row]), stream, 64))[0]

    same, *others = (
        noise(),
        noise(seed=seed + 1),
        noise(step=step + 1),
        noise(stream=streams[1]),
    )
    np.testing.assert_array_equal(same, noise())
    for other in others:
        # Independent uniform numbers: 64 pairs correlate by less than 6 / sqrt(64).
        assert abs(np.corrcoef(same, other)[0, 1]) < 0.75
        assert not np.array_equal(np.argsort(same), np.argsort(other))


def test_hashed_noise_is_uniform():
    noise = np.asarray(hash_noise(7, 3, np.arange(64), 1, 1024)).ravel()
    assert noise.min() >= 0 and noise.max() < 1
    counts = np.histogram(noise, bins=64, range=(0, 1))[0]
    expected = noise.size / 64
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < 120  # 63 degrees of freedom: exceeded once in 70,000
    whole = [fractions.Fraction(float(x)) * 2**24 for x in noise[:100]]
    assert all(x.denominator == 1 for x in whole)


# --- What is refused ------------------------------------------------------------------


@given(grids, st.one_of(st.floats(1, 5), st.floats(-5, -0.01)))
@settings(max_examples=10)
def test_ratios_outside_of_0_to_1_are_refused(grid, ratio):
    with pytest.raises(ValueError, match=r"must be in \[0, 1\)"):
        TokenMasking(grid, ratio)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(strategy="rows"), "`strategy` must be one of"),
        (dict(count_rule="rounded"), "`count_rule` must be"),
        (dict(ratio=0.99), "leaves none of 12 tokens"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TokenMasking((4, 3), **options)
