"""Training on a folder: what follows from its files, in numbers."""

import clock_clips
import media_files
import pytest

from tfavmae import own_videos
from tfavmae.commands import recipes
from tfavmae.errors import UserError


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """23 training clips of 3 s, of which 21 have audio and video; no validation."""
    return str(clock_clips.build(tmp_path_factory.mktemp("built")))


def recipe(stage="pretrain", *changes):
    return recipes.load(f"own_videos/{stage}.yaml", None, changes)


def chosen(clips, config, seconds=2.0, **options):
    stored = {"clip_seconds": seconds}
    found = own_videos.choose(config, stored, clips, "data", **options)
    assert all(choice.reason for choice in found)
    return {choice.key: choice.value for choice in found}


def test_batch_steps_and_schedule_follow_from_the_number_of_clips(clips):
    values = chosen(clips, recipe())
    assert values["data.batch_size"] == 8  # the power of two below 23 / 2
    assert values["optimizer.learning_rate"] == 0.00071  # 2e-3 * sqrt(8 / 64)
    assert values["trainer.num_steps"] == 172  # 60 passes of 23 / 8 steps
    assert values["trainer.steps_per_epoch"] == 17
    assert values["optimizer.warmup_steps"] == 17
    assert values["data.validation_split"] is None
    assert "trainer.monitor" not in values
    values = chosen(clips, recipe("finetune"))
    assert values["data.batch_size"] == 4  # the power of two below 23 / 4
    assert values["model.modality"] == "audio_video"


def test_what_the_user_sets_stays_and_the_rest_follows_from_it(clips):
    config = recipe("pretrain", "trainer.num_steps=50", "data.batch_size=16")
    given = {"trainer.num_steps", "data.batch_size"}
    values = chosen(clips, config, given=given)
    assert not given & values.keys()
    assert values["trainer.steps_per_epoch"] == 5
    assert "optimizer.learning_rate" not in values
    config = recipe("pretrain", "trainer.num_epochs=4")
    values = chosen(clips, config, given={"trainer.num_epochs"})
    assert values["trainer.num_steps"] == 12  # 4 passes of 23 / 8 steps, rounded up


def test_a_recipe_of_the_user_keeps_its_length(clips):
    values = chosen(clips, recipe(), keeps_length=True)
    assert values["data.batch_size"] == 8
    assert not [key for key in values if key.startswith("trainer.")]


def test_the_spectrogram_follows_from_the_clips(clips):
    values = chosen(clips, recipe(), seconds=0.6)
    assert values["data.clip_seconds"] == 0.6
    assert values["model.audio.num_frames"] == 48  # 58 windows of 25 ms fit: 3 patches
    assert values["model.audio.mean"] != -5.08  # that of AudioSet
    values = chosen(clips, recipe(), keeps_inputs=True)
    assert not [key for key in values if key.startswith("model.audio")]


def test_overrides_are_read_back_as_they_were(clips):
    choices = own_videos.choose(recipe(), {"clip_seconds": 0.6}, clips, "data")
    changed = recipe("pretrain", *[choice.override for choice in choices])
    assert changed.data.dataset == clips and changed.data.validation_split is None
    assert changed.model.audio.num_frames == 48


def test_inputs_of_a_run_are_taken_over():
    source = recipe("pretrain", "model.audio.mean=-7.5", "model.video.height=48")
    taken = recipe("finetune", *own_videos.inputs_of(source))
    assert taken.model.audio == source.model.audio
    assert taken.model.video == source.model.video


@pytest.fixture
def sounds(tmp_path):
    """Nine files of 0.5 s and one of 4 s."""
    for i in range(9):
        media_files.write_clip(tmp_path / f"{i}.wav", seconds=0.5)
    media_files.write_clip(tmp_path / "long.wav", seconds=4.0)
    return tmp_path


def test_short_files_make_short_clips(sounds):
    options = own_videos.storage_options(sounds, recipe())
    assert 0.5 <= options["clip_seconds"] <= 0.9
    assert options["min_seconds"] == options["clip_seconds"] / 4
    assert options["name"] == "videos" and "labels" not in options
    fixed = own_videos.storage_options(
        sounds, recipe(), "labels.csv", is_length_fixed=True
    )
    assert fixed["clip_seconds"] == 2.0 and fixed["min_seconds"] == 0.5
    assert fixed["name"] == "labelled" and fixed["labels"] == "labels.csv"


def test_frames_are_stored_at_a_rate_that_gives_the_stride(sounds):
    strided = recipe("pretrain", "data.frame_stride_seconds=0.16")
    rate = own_videos.storage_options(sounds, strided)["frame_rate"]
    assert rate == 12.5 and rate * 0.16 == 2


def test_a_folder_without_media_is_refused(tmp_path):
    media_files.write_text(tmp_path / "notes.mp4")
    with pytest.raises(UserError, match=r"notes\.mp4"):
        own_videos.storage_options(tmp_path, recipe())
