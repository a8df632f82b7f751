"""Batches from TFRecords: what is in them, when in the clip, in which order."""

import dataclasses
import io
import warnings

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from clock_clips import (
    FRAME_RATE,
    NUM_TRAIN,
    RATE,
    SECONDS,
    SPEC,
    assert_same,
    batches,
    column,
    examples,
    start_and_frame,
)

from tfavmae.data import sampling
from tfavmae.data.augment import Augmentation
from tfavmae.data.pipeline import ClipSpec, open_split
from tfavmae.errors import InputWarning

EVERYTHING = Augmentation(
    crop_scale=(0.3, 1.0),
    flip_probability=0.5,
    brightness=0.2,
    contrast=0.3,
    saturation=0.3,
    hue=0.1,
    roll_probability=0.5,
    gain_db=6.0,
    noise_snr_db=(5.0, 20.0),
)


# --- What a batch holds ---


def test_batches_are_numbers_of_static_shape(split):
    spec = dataclasses.replace(SPEC, num_frames=2, labels=("label", "tags", "events"))
    expected = {
        "audio": ((4, RATE), tf.int16),
        "audio_samples": ((4,), tf.int32),
        "video": ((4, 2, 24, 32, 3), tf.uint8),
        "audio_present": ((4,), tf.float32),
        "video_present": ((4,), tf.float32),
        "sample_weight": ((4,), tf.float32),
        "example_index": ((4,), tf.int32),
        "label": ((4,), tf.int32),
        "tags": ((4, 3), tf.float32),
        "events": ((4, 3), tf.float32),
    }
    for dataset in (
        split.training_batches(spec, 4, seed=0),
        split.evaluation_batches(spec, 4),
    ):
        found = {k: (tuple(s.shape), s.dtype) for k, s in dataset.element_spec.items()}
        assert found == expected


def test_cardinality_is_known(split):
    assert (
        split.training_batches(SPEC, 4, seed=0).cardinality()
        == tf.data.INFINITE_CARDINALITY
    )
    assert split.training_batches(SPEC, 4, seed=0, num_steps=9).cardinality() == 9
    assert split.evaluation_batches(SPEC, 4).cardinality() == 6


def test_only_the_modalities_asked_for(split):
    spec = dataclasses.replace(SPEC, modalities=("audio",), labels=())
    keys = set(split.evaluation_batches(spec, 4).element_spec)
    assert keys == {
        "audio",
        "audio_samples",
        "audio_present",
        "sample_weight",
        "example_index",
    }


def test_labels_belong_to_the_clip(split):
    spec = dataclasses.replace(SPEC, labels=("label", "tags", "events"))
    numbers = np.array([int(i[-3:]) for i in split.ids()])
    found = batches(split.training_batches(spec, 7, seed=3, num_steps=4))
    number = numbers[column(found, "example_index")]
    np.testing.assert_array_equal(column(found, "label"), number % 4)
    np.testing.assert_array_equal(column(found, "events"), np.eye(3)[number % 3])
    tags = np.where(number[:, None] % 2, [[1, 0, 1]], [[0, 0, 0]])
    np.testing.assert_array_equal(column(found, "tags"), tags)
    np.testing.assert_array_equal(split.labels("label"), numbers % 4)
    np.testing.assert_array_equal(split.labels("events"), np.eye(3)[numbers % 3])
    np.testing.assert_array_equal(split.labels("tags").sum(1), numbers % 2 * 2)
    assert split.label_names("label") == ("a", "b", "c", "d")
    numbers = split.labels("label")
    words = ["abcd"[i] if i >= 0 else "" for i in numbers]
    assert split.class_of_clips() == words
    assert split.class_of_clips("tags") is None  # several a clip
    assert split.class_of_clips("absent") is None
    assert split.label_names("tags") == ("x", "y", "z")
    assert (split.num_classes("label"), split.num_classes("events")) == (4, 3)


def test_a_missing_modality_is_said(split):
    spec = dataclasses.replace(SPEC, clip_seconds=SECONDS)
    found = batches(split.evaluation_batches(spec, 5))
    real = column(found, "sample_weight") == 1
    number = np.array([int(i[-3:]) for i in split.ids()])
    silent, blind = number == 21, number == 22
    np.testing.assert_array_equal(column(found, "audio_present")[real], ~silent)
    np.testing.assert_array_equal(column(found, "video_present")[real], ~blind)
    samples = column(found, "audio_samples")[real]
    np.testing.assert_array_equal(samples, np.where(silent, 0, SECONDS * RATE))
    assert not column(found, "audio")[real][silent].any()
    assert not column(found, "video")[real][blind].any()
    kept = column(
        batches(split.evaluation_batches(spec, 7, keep=("audio", "video"))),
        "example_index",
    )
    np.testing.assert_array_equal(kept, np.flatnonzero(~silent & ~blind))
    np.testing.assert_array_equal(split.present("audio"), ~silent)


def test_augmentation_of_a_missing_modality(split):
    spec = dataclasses.replace(SPEC, augmentation=EVERYTHING)
    found = batches(split.training_batches(spec, 23, seed=0, num_steps=1))
    for name in ("audio", "video"):
        absent = column(found, f"{name}_present") == 0
        assert absent.sum() == 1 and not column(found, name)[absent].any()


def numbers_of(video):
    """Numbers of the frames of clips, read off their grey: `(batch, frames)`."""
    return np.rint(video.mean(axis=(2, 3, 4)) / 8).astype(int)


# 8 frames, every fourth one: 29 of the 24 that a clip has.
TOO_LONG = dataclasses.replace(
    SPEC, clip_seconds=5.0, num_frames=8, frame_stride_seconds=0.5
)


@pytest.mark.parametrize(
    ("short_video", "expected"),
    [("hold", [0, 4, 8, 12, 16, 20, 23, 23]), ("loop", [0, 4, 8, 12, 16, 20, 0, 4])],
)
def test_a_short_video_holds_its_last_frame_or_loops(split, short_video, expected):
    spec = dataclasses.replace(TOO_LONG, short_video=short_video)
    (batch,) = batches(split.evaluation_batches(spec, 2, indices=[0, 1]))
    np.testing.assert_array_equal(numbers_of(batch["video"]), [expected] * 2)


def test_a_loop_starts_anywhere_in_training(split):
    spec = dataclasses.replace(TOO_LONG, short_video="loop")
    indices = np.flatnonzero(split.present("video"))
    found = split.training_batches(spec, 22, seed=0, num_steps=4, indices=indices)
    frames = numbers_of(column(batches(found), "video"))
    np.testing.assert_array_equal(np.diff(frames) % 24, 4)
    assert len(set(frames[:, 0])) > 12 and frames.max() == 23


def test_a_loop_changes_no_clip_that_is_long_enough(split):
    spec = dataclasses.replace(TOO_LONG, clip_seconds=2.5, num_frames=4)
    for name in ("training_batches", "evaluation_batches"):
        options = {"seed": 0, "num_steps": 3} if name == "training_batches" else {}
        both = [
            batches(getattr(split, name)(s, 7, **options))
            for s in (
                spec,
                dataclasses.replace(spec, short_video="loop", short_audio="loop"),
            )
        ]
        assert_same(*both)


def test_short_audio_loops(split):
    spec = dataclasses.replace(SPEC, clip_seconds=7.0, short_audio="loop")
    (batch,) = batches(split.evaluation_batches(spec, 23))
    has_audio = split.present("audio")
    stored = np.arange(int(SECONDS * RATE)) // 2
    expected = np.tile(stored, 3)[: 7 * RATE]
    for audio in batch["audio"][has_audio]:
        np.testing.assert_array_equal(audio, expected)
    # Nothing follows nothing: a clip without audio stays without.
    assert not batch["audio"][~has_audio].any()
    np.testing.assert_array_equal(batch["audio_samples"], has_audio * 7 * RATE)
    np.testing.assert_array_equal(batch["audio_present"], has_audio)


def test_audio_wraps_round_in_training(split):
    """AV-MAE's loader: one share says where the audio and the frames begin."""
    spec = dataclasses.replace(TOO_LONG, clip_seconds=2.0, num_frames=3)
    spec = dataclasses.replace(spec, short_audio="wrap")
    indices = np.flatnonzero(split.present("audio") & split.present("video"))
    found = batches(
        split.training_batches(spec, 10, seed=0, num_steps=6, indices=indices)
    )
    audio, video = column(found, "audio"), column(found, "video")
    stored = np.arange(int(SECONDS * RATE)) // 2
    starts = audio[:, 0].astype(int) * 2  # two samples have the same value
    for clip, start in zip(audio, starts, strict=True):
        wrapped = [np.roll(stored, -start - i)[: 2 * RATE] for i in (0, 1)]
        assert any(np.array_equal(clip, x) for x in wrapped)
    assert starts.max() > (SECONDS - 2) * RATE and starts.min() < 0.2 * RATE
    # 24 frames, of which 9 are spanned: 16 places.
    shares = starts / (SECONDS * RATE)
    np.testing.assert_allclose(numbers_of(video)[:, 0], shares * 16, atol=1.01)
    (still,) = batches(split.evaluation_batches(spec, 2, indices=indices[:2]))
    loop = dataclasses.replace(spec, short_audio="loop")
    (same,) = batches(split.evaluation_batches(loop, 2, indices=indices[:2]))
    np.testing.assert_array_equal(still["audio"], same["audio"])


@pytest.mark.parametrize(
    ("stride", "num_frames", "words"),
    [
        (
            0.16,
            16,
            ("8 frames per second", "=0.16", "1, 2, 1, 1, 1", "frame_rate=12.5"),
        ),
        (
            0.08,
            32,
            ("8 frames per second", "=0.08", "1, 0, 1, 1, 0", "frame_rate=12.5"),
        ),
        (0.3, 3, ("8 frames per second", "=0.3", "2, 3", "frame_rate=10")),
        (0.125, 16, None),
        (0.5, 4, None),
        (0.16, 1, None),
    ],
)
def test_a_stride_between_stored_frames_is_said_once(built, stride, num_frames, words):
    spec = dataclasses.replace(
        SPEC, num_frames=num_frames, frame_stride_seconds=stride, labels=()
    )
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("default", InputWarning)
        for name in ("train", "other", "train"):
            split = open_split(str(built), name)
            split.training_batches(spec, 4, seed=0)
            split.evaluation_batches(spec, 4)
    messages = [str(w.message) for w in found if w.category is InputWarning]
    assert len(messages) == (words is not None)
    for word in words or ():
        assert word in messages[0]


def test_a_short_clip_is_padded_and_says_so(split):
    spec = dataclasses.replace(SPEC, clip_seconds=5.0)
    (batch,) = batches(split.evaluation_batches(spec, 2, indices=[0, 1]))
    true = int(SECONDS * RATE)
    assert batch["audio"].shape == (2, 5 * RATE)
    np.testing.assert_array_equal(batch["audio_samples"], [true, true])
    np.testing.assert_array_equal(batch["audio"][0, :true], np.arange(true) // 2)
    assert not batch["audio"][:, true:].any()


def test_frames_are_the_stored_jpegs(built):
    split = open_split(str(built), "other")
    stored = examples("other")[0]["frames"]
    spec = ClipSpec(SECONDS, num_frames=9, frame_size=(40, 50))
    (batch,) = batches(split.evaluation_batches(spec, 1, indices=[0]))
    expected = [np.asarray(PIL.Image.open(io.BytesIO(j))) for j in stored]
    np.testing.assert_array_equal(batch["video"][0], expected)
    np.testing.assert_array_equal(split.example(0)["frames"], expected)


def test_evaluation_shows_the_resized_centre(built):
    split = open_split(str(built), "other")
    frame = PIL.Image.open(io.BytesIO(examples("other")[0]["frames"][4]))
    for method, filter in (("bilinear", "BILINEAR"), ("bicubic", "BICUBIC")):
        spec = ClipSpec(SECONDS, frame_size=(16, 16), interpolation=method)
        (batch,) = batches(split.evaluation_batches(spec, 1, indices=[0]))
        resized = frame.resize((20, 16), PIL.Image.Resampling[filter])
        expected = np.asarray(resized.crop((2, 0, 18, 16))).astype(int)
        difference = np.abs(batch["video"][0, 0] - expected)
        # The chroma beside the part that was decoded differs by rounding.
        assert difference.max() <= 2 and difference.mean() < 0.2


def test_an_example_can_be_looked_at(split):
    example = split.example(5)
    assert example["id"].decode() == split.ids()[5]
    assert (
        example["audio"].dtype == np.int16 and len(example["audio"]) == SECONDS * RATE
    )
    assert example["frames"].shape == (24, 24, 32, 3)


# --- Time ---


def test_audio_and_frame_lie_in_one_window(split):
    dataset = split.training_batches(
        SPEC, 21, seed=1, num_steps=10, keep=("audio", "video")
    )
    starts, frames = zip(*(start_and_frame(b) for b in batches(dataset)), strict=True)
    starts, frames = np.concatenate(starts), np.concatenate(frames)
    seen_at = frames / FRAME_RATE * RATE
    assert (starts <= seen_at).all() and (seen_at < starts + RATE).all()
    # Windows reach both ends of the clip, frames all of the window.
    assert starts.min() < 0.1 * RATE and starts.max() > 1.9 * RATE
    assert set(np.rint(seen_at - starts).astype(int) * 8 // RATE) == set(range(8))


def test_evaluation_takes_the_middle_frame_of_the_centred_window(split):
    keep = ("audio", "video")
    (batch,) = batches(split.evaluation_batches(SPEC, 21, keep=keep))
    starts, frames = start_and_frame(batch)
    assert set(starts) == {RATE} and set(frames) == {8 + 4}
    spec = dataclasses.replace(SPEC, clip_seconds=SECONDS)
    (batch,) = batches(split.evaluation_batches(spec, 21, keep=keep))
    assert set(start_and_frame(batch)[1]) == {24 // 2}


def test_a_single_frame_is_uniform_in_training(split):
    spec = dataclasses.replace(SPEC, clip_seconds=SECONDS)
    dataset = split.training_batches(
        spec, 24, seed=1, num_steps=60, keep=("audio", "video")
    )
    frames = np.concatenate([start_and_frame(b)[1] for b in batches(dataset)])
    counts = np.bincount(frames, minlength=24)
    # 60 draws each; chi-square of 23 degrees of freedom, 99.9 % point.
    assert ((counts - 60) ** 2 / 60).sum() < 49.7


def test_frames_keep_their_stride(split):
    spec = dataclasses.replace(SPEC, num_frames=3, frame_stride_seconds=0.25)
    dataset = split.training_batches(spec, 21, seed=1, num_steps=3, keep=("video",))
    for batch in batches(dataset):
        there = batch["audio_present"] == 1
        frames = np.rint(batch["video"].mean(axis=(2, 3, 4)) / 8).astype(int)
        np.testing.assert_array_equal(np.diff(frames, axis=1), 2)
        starts = batch["audio"][there, 0].astype(int) * 2
        seconds = frames[there] / FRAME_RATE - starts[:, None] / RATE
        assert seconds.min() >= 0 and seconds.max() < 1


def test_spread_frames_cover_the_window(split):
    spec = dataclasses.replace(SPEC, clip_seconds=SECONDS, num_frames=4)
    (batch,) = batches(split.evaluation_batches(spec, 1, indices=[0]))
    frames = np.rint(batch["video"][0].mean(axis=(1, 2, 3)) / 8)
    np.testing.assert_array_equal(frames, [3, 9, 15, 21])


def test_views_spread_over_the_clip(split):
    (row,) = np.flatnonzero(np.array(split.ids()) == "clip-004")
    found = batches(split.evaluation_batches(SPEC, 4, indices=[row], num_views=3))
    (batch,) = found
    np.testing.assert_array_equal(batch["example_index"], [row, row, row, -1])
    np.testing.assert_array_equal(batch["sample_weight"], [1, 1, 1, 0])
    starts, frames = start_and_frame(batch)
    np.testing.assert_array_equal(starts[:3], [0, RATE, 2 * RATE])
    np.testing.assert_array_equal(frames[:3], [1, 8 + 4, 16 + 6])
    # Ten frames of ten, as CAV-MAE is tested: every frame once.
    spec = dataclasses.replace(SPEC, clip_seconds=SECONDS)
    (batch,) = batches(split.evaluation_batches(spec, 24, indices=[row], num_views=24))
    np.testing.assert_array_equal(start_and_frame(batch)[1], np.arange(24))


def test_views_of_frames_at_a_stride_reach_from_end_to_end(split):
    """AV-MAE's four clips: windows and the frames in them, over the whole clip."""
    (row,) = np.flatnonzero(np.array(split.ids()) == "clip-004")
    spec = dataclasses.replace(SPEC, num_frames=3, frame_stride_seconds=0.25)
    views = split.evaluation_batches(spec, 4, indices=[row], num_views=4)
    (batch,) = batches(views)
    starts, _ = start_and_frame(batch)
    np.testing.assert_allclose(starts, np.linspace(0, 2 * RATE, 4), atol=2)
    frames = np.rint(batch["video"].mean(axis=(2, 3, 4)) / 8)
    np.testing.assert_array_equal(frames[:, 0], [0, 7, 13, 19])
    np.testing.assert_array_equal(np.diff(frames, axis=1), 2)
    assert frames.max() == 24 - 1


def test_ten_views_of_a_whole_clip_share_its_audio(split):
    """MAViL, appendix B.3: ten stretches of video beside the same audio."""
    (row,) = np.flatnonzero(np.array(split.ids()) == "clip-004")
    spec = dataclasses.replace(
        SPEC, clip_seconds=SECONDS, num_frames=4, frame_stride_seconds=0.25
    )
    (batch,) = batches(split.evaluation_batches(spec, 10, indices=[row], num_views=10))
    np.testing.assert_array_equal(batch["audio"], batch["audio"][:1].repeat(10, 0))
    frames = np.rint(batch["video"].mean(axis=(2, 3, 4)) / 8)
    np.testing.assert_array_equal(frames[:, 0], [0, 2, 4, 6, 8, 10, 12, 14, 16, 17])
    assert frames.max() == 24 - 1


# --- Order ---


def test_every_clip_once_per_epoch(split):
    found = batches(split.training_batches(SPEC, 4, seed=5, num_steps=23))
    rows = column(found, "example_index").reshape(4, NUM_TRAIN)
    np.testing.assert_array_equal(np.sort(rows), [np.arange(NUM_TRAIN)] * 4)
    assert len({tuple(epoch) for epoch in rows}) == 4


@pytest.mark.parametrize("batch_size, num_views", [(1, 1), (4, 2), (23, 1), (64, 1)])
def test_evaluation_takes_every_clip_once(split, batch_size, num_views):
    spec = dataclasses.replace(SPEC, modalities=("audio",))
    found = batches(split.evaluation_batches(spec, batch_size, num_views=num_views))
    rows, weight = column(found, "example_index"), column(found, "sample_weight")
    real = np.repeat(np.arange(NUM_TRAIN), num_views)
    np.testing.assert_array_equal(rows[weight == 1], real)
    assert (rows[weight == 0] == -1).all()
    np.testing.assert_array_equal(weight, np.arange(len(rows)) < len(real))


@pytest.mark.parametrize("weighted", ["epochs", "replacement", "no replacement"])
def test_any_step_can_be_the_first(split, weighted):
    options, spec = {"seed": 7}, dataclasses.replace(SPEC, augmentation=EVERYTHING)
    if weighted != "epochs":
        spec = dataclasses.replace(SPEC, modalities=("audio",))
        options["sampling_weights"] = sampling.balanced_weights(split.labels("label"))
        options["replacement"] = weighted == "replacement"
    whole = batches(split.training_batches(spec, 6, num_steps=11, **options))
    for start in (1, 9):
        rest = split.training_batches(spec, 6, start_step=start, num_steps=2, **options)
        assert_same(batches(rest), whole[start : start + 2])


def test_parallelism_and_repetition_change_nothing(split):
    spec = dataclasses.replace(SPEC, augmentation=EVERYTHING)
    runs = [
        batches(
            split.training_batches(
                spec, 6, seed=7, num_steps=5, num_parallel_calls=parallel
            )
        )
        for parallel in (1, 4, tf.data.AUTOTUNE)
    ]
    for run in runs[1:]:
        assert_same(run, runs[0])


def test_another_seed_is_another_stream(split):
    first, second = (
        column(batches(split.training_batches(SPEC, 23, seed=s, num_steps=1)), "audio")
        for s in (0, 1)
    )
    assert (first != second).any(axis=1).mean() > 0.8


@pytest.mark.parametrize("weighted", [False, True])
def test_the_hosts_batches_make_up_the_batch(split, weighted):
    options = {"seed": 2, "start_step": 3, "num_steps": 4}
    if weighted:
        options["sampling_weights"] = np.arange(NUM_TRAIN) + 1.0
        options["replacement"] = False
    whole = batches(split.training_batches(SPEC, 6, **options))
    halves = [
        batches(split.training_batches(SPEC, 6, host_index=h, host_count=2, **options))
        for h in range(2)
    ]
    joined = [
        {k: np.concatenate([a[k], b[k]]) for k in a}
        for a, b in zip(*halves, strict=True)
    ]
    assert_same(joined, whole)


def test_evaluation_is_shared_by_hosts(split):
    whole = column(batches(split.evaluation_batches(SPEC, 6)), "example_index")
    halves = [
        column(
            batches(split.evaluation_batches(SPEC, 6, host_index=h, host_count=2)),
            "example_index",
        ).reshape(-1, 3)
        for h in range(2)
    ]
    np.testing.assert_array_equal(np.concatenate(halves, axis=1).ravel(), whole)


def test_a_subset_keeps_the_rows_of_the_split(split):
    indices = [3, 19, 7, 11]
    dataset = split.training_batches(SPEC, 4, seed=0, num_steps=2, indices=indices)
    for batch in batches(dataset):
        np.testing.assert_array_equal(np.sort(batch["example_index"]), [3, 7, 11, 19])
    dataset = split.evaluation_batches(SPEC, 4, indices=indices)
    np.testing.assert_array_equal(column(batches(dataset), "example_index"), indices)


def test_balanced_draws_follow_the_weights(split):
    spec = dataclasses.replace(SPEC, modalities=("audio",), clip_seconds=0.01)
    weights = sampling.balanced_weights(split.labels("label"))
    dataset = split.training_batches(
        spec, 200, seed=0, num_steps=20, sampling_weights=weights
    )
    counts = np.bincount(column(batches(dataset), "example_index"), minlength=NUM_TRAIN)
    expected = 4000 * weights / weights.sum()
    # chi-square of 22 degrees of freedom, 99.9 % point.
    assert ((counts - expected) ** 2 / expected).sum() < 48.3


def test_shuffled_pairs_take_the_frames_of_their_partners(split):
    """One clip lacks audio and one video: what is there tells whose it is."""
    found = split.training_batches(SPEC, NUM_TRAIN, seed=3, shuffle_pairs=True)
    partner = sampling.shuffled_pairs(np.arange(NUM_TRAIN), 3)
    has_audio, has_video = split.present("audio"), split.present("video")
    for batch in found.take(2).as_numpy_iterator():
        rows = batch["example_index"]
        np.testing.assert_array_equal(batch["audio_present"], has_audio[rows])
        np.testing.assert_array_equal(batch["video_present"], has_video[partner[rows]])
        np.testing.assert_array_equal(batch["label"], split.labels("label")[rows])
        (silent_film,) = np.flatnonzero(~has_video[partner[rows]])
        assert has_video[rows[silent_film]]
        assert batch["video"][silent_film].max() == 0


def test_shuffled_pairs_start_at_any_step(split):
    options = {"seed": 5, "shuffle_pairs": True}
    all_steps = split.training_batches(SPEC, 4, num_steps=6, **options)
    late = split.training_batches(SPEC, 4, start_step=4, num_steps=2, **options)
    assert_same(batches(late), batches(all_steps)[4:])
