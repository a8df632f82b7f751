"""Learning rates against the papers' formulas."""

import math

import keras
import numpy as np
import pytest

from tfavmae.training.schedules import (
    ConstantSchedule,
    CosineSchedule,
    MultistepSchedule,
)


def rates(schedule, steps):
    return [float(schedule(step)) for step in steps]


def test_cosine_is_the_formula_of_av_mae():
    peak, total, warmup = 3e-4, 134_400, 1_344.5
    steps = [0, 1, 10, 672, 1_343, 1_344, 1_345, 33_600, 120_960, 134_399]
    expected = [
        peak
        * min(1, s / warmup)
        * 0.5
        * (1 + math.cos(math.pi * max(0, s - warmup) / (total - int(warmup))))
        for s in steps
    ]
    got = rates(CosineSchedule(peak, total, warmup), steps)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-12)
    assert got[0] == 0.0


def test_cosine_of_mae_and_mavil_ends_at_its_minimum_and_stays():
    peak, low, total, warmup = 4e-4, 1e-6, 20, 4
    steps = range(warmup, total + 1)
    expected = [
        low
        + (peak - low) * 0.5 * (1 + math.cos(math.pi * (s - warmup) / (total - warmup)))
        for s in steps
    ]
    schedule = CosineSchedule(peak, total, warmup, minimum=low)
    np.testing.assert_allclose(rates(schedule, steps), expected, rtol=2e-6)
    assert rates(schedule, [2, 20, 21, 999]) == pytest.approx([2e-4, low, low, low])


def test_cyclic_cosine_returns_to_its_peak_as_the_authors_code_does():
    assert float(CosineSchedule(0.8, 100, 10, cyclic=True)(100)) == pytest.approx(0.8)


def test_multistep_halves_at_the_epochs_of_cav_mae():
    # Epochs counted from 1: 1-10 full, 11-15 half, 16-20 a quarter, 21-25 an eighth.
    schedule = MultistepSchedule(1.0, 7, decay_start_epoch=10, decay_every_epochs=5)
    got = [rates(schedule, [7 * (e - 1), 7 * e - 1]) for e in range(1, 26)]
    expected = [1.0] * 10 + [0.5] * 5 + [0.25] * 5 + [0.125] * 5
    assert got == [[e, e] for e in expected]
    # Fine-tuning on AS-20K: constant to epoch 5, then 0.5 ** (e - 5).
    schedule = MultistepSchedule(1.0, 3, decay_start_epoch=5)
    got = [float(schedule(3 * (e - 1))) for e in range(1, 16)]
    assert got == [1.0] * 5 + [0.5 ** (e - 5) for e in range(6, 16)]


def test_multistep_keeps_its_boundaries_far_out():
    epoch = 38_690  # AS-2M at batch 48: products are beyond float32's whole numbers
    schedule = MultistepSchedule(1.0, epoch, 1_000)
    assert rates(schedule, [1_000 * epoch - 1, 1_000 * epoch]) == [1.0, 0.5]


def test_constant_after_warm_up():
    assert rates(ConstantSchedule(2.0, 4), [0, 1, 4, 100]) == [0.0, 0.5, 2.0, 2.0]
    assert rates(ConstantSchedule(2.0), [0, 5]) == [2.0, 2.0]


@pytest.mark.parametrize(
    "schedule",
    [
        ConstantSchedule(0.1, 3),
        CosineSchedule(0.1, 100, 2.5, minimum=1e-3, cyclic=True),
        MultistepSchedule(0.1, 5, 2, 3, 0.3, 4),
    ],
    ids=lambda s: type(s).__name__,
)
def test_schedules_are_serialisable(schedule):
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(schedule)
    )
    assert again.get_config() == schedule.get_config()
    assert rates(again, range(30)) == rates(schedule, range(30))


def test_a_warm_up_longer_than_the_run():
    with pytest.raises(ValueError, match="`total_steps` must be greater"):
        CosineSchedule(0.1, 10, 10)
