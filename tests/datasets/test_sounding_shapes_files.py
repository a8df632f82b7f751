"""SoundingShapes: the files it writes, and the data set that TFDS makes of them."""

import dataclasses
import errno
import json
import pathlib
import shutil

import numpy as np
import pytest

from tfavmae.errors import UserError
from tfavmae.media import decode
from tfavmae_datasets.sounding_shapes import __main__ as command
from tfavmae_datasets.sounding_shapes import config, generator

SMALL = dataclasses.replace(
    config.DEMO,
    name="small",
    num_train_clips=24,
    num_validation_clips=12,
    missing_audio=0.15,
    missing_video=0.15,
    ambience_level_db=-60.0,
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder of 40 clips and their rows, written by two workers."""
    folder = tmp_path_factory.mktemp("shapes")
    rows = generator.generate(folder, SMALL, "train", num_clips=40, num_workers=2)
    return folder / "train", rows


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def generate(folder, **options):
    options = {"num_clips": 6, "num_workers": 1, **options}
    return generator.generate(folder, SMALL, "train", **options)


def test_files_hold_what_the_rows_say(clips):
    folder, rows = clips
    assert {(r["has_audio"], r["has_video"]) for r in rows} == {
        (True, True), (True, False), (False, True),
    }  # fmt: skip
    for row in rows:
        info = decode.probe(folder / row["file"])
        assert (info.has_audio, info.has_video) == (row["has_audio"], row["has_video"])
        clip = decode.decode(folder / row["file"], frame_rate=SMALL.frame_rate)
        assert len(clip.frames) == (SMALL.num_frames if row["has_video"] else 0)
        if row["has_audio"]:
            assert len(clip.audio) == SMALL.num_samples
        else:
            assert clip.audio is None


def test_files_are_mp4_with_h264_and_aac(clips):
    folder, rows = clips
    row = next(r for r in rows if r["has_audio"] and r["has_video"])
    info = decode.probe(folder / row["file"])
    assert (info.video_codec, info.audio_codec) == ("h264", "aac")
    assert (info.width, info.height, info.frame_rate) == (64, 64, 8.0)
    assert (info.sample_rate_hz, info.num_channels) == (16000, 1)


def test_impacts_are_heard_within_10_ms_of_their_label_after_aac(clips):
    folder, rows = clips
    errors = []
    for row in rows:
        onsets = [time[0] for time in row["event_times"]]
        is_alone = len(onsets) < 2 or onsets[1] > onsets[0] + 0.05
        if row["has_audio"] and is_alone and 0.05 < onsets[0] < 1.9:
            wave = decode.decode(folder / row["file"]).audio.astype(float)
            errors.append(heard_onset(wave, onsets[0]) - onsets[0])
    assert len(errors) > 15
    assert np.abs(errors).max() < 0.01
    assert np.median(errors) == pytest.approx(0, abs=0.003)


def heard_onset(wave, near, rate=16000):
    first = round((near - 0.04) * rate)
    window = np.abs(wave[first : first + round(0.08 * rate)])
    return (first + np.argmax(window > 0.4 * window.max())) / rate


def test_labels_jsonl_holds_the_rows(clips):
    folder, rows = clips
    lines = (folder / "labels.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows


def test_workers_and_number_of_clips_change_nothing(clips, tmp_path):
    folder, rows = clips
    alone = generate(tmp_path, num_clips=20)
    assert alone == rows[:20]
    expected = contents(folder)
    for name, content in contents(tmp_path / "train").items():
        if name != "labels.jsonl":
            assert content == expected[name], name


def test_a_second_call_writes_only_what_is_missing(tmp_path):
    rows = generate(tmp_path)
    folder = tmp_path / "train"
    before, times = contents(folder), {}
    for k, row in enumerate(rows):
        if k in (1, 4):
            (folder / row["file"]).unlink()
        else:
            times[row["file"]] = (folder / row["file"]).stat().st_mtime_ns
    (folder / ".partial-1-train_000001.mp4").write_bytes(b"half a file")
    reports = []
    generate(tmp_path, progress=lambda *counts: reports.append(counts))
    assert reports == [(4, 6), (6, 6)]
    assert contents(folder) == before
    assert times == {name: (folder / name).stat().st_mtime_ns for name in times}


def test_an_interruption_leaves_complete_files_and_the_next_call_goes_on(tmp_path):
    def stop(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path, num_clips=40, num_workers=2, progress=stop)
    # Killed workers leave partial files, whose names begin with a dot.
    files = sorted((tmp_path / "train").glob("[!.]*.mp4"))
    assert 16 <= len(files) <= 40
    for path in files:
        decode.decode(path)
    rows = generate(tmp_path, num_clips=40, num_workers=2)
    assert all((tmp_path / "train" / row["file"]).exists() for row in rows)


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, monkeypatch):
    write, written = pathlib.Path.write_bytes, []

    def write_until_full(path, content):
        if path.name.startswith(".partial-") and len(written) == 5:
            write(path, content[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        return write(path, content)

    monkeypatch.setattr(pathlib.Path, "write_bytes", write_until_full)
    with pytest.raises(UserError, match=r"train_.*disk is full.*is kept") as error:
        generate(tmp_path)
    assert "\n" not in str(error.value)
    assert len(list((tmp_path / "train").glob("*.mp4"))) == 4
    assert not list((tmp_path / "train").glob(".*"))
    monkeypatch.undo()
    assert len(generate(tmp_path)) == 6


def test_a_worker_passes_its_error_on(tmp_path):
    def remove_folder(done, total):
        if not done:
            shutil.rmtree(tmp_path / "train")
            (tmp_path / "train").touch()  # no clip can be written below a file

    with pytest.raises(UserError, match=r"train_0000.*cannot be written") as error:
        generate(tmp_path, num_clips=40, num_workers=2, progress=remove_folder)
    assert "\n" not in str(error.value)


def test_clips_of_two_recipes_are_not_mixed(tmp_path):
    generate(tmp_path, num_clips=1)
    with pytest.raises(UserError, match=r"another seed.*another folder"):
        generate(tmp_path, num_clips=1, seed=1)


def test_no_clips_are_refused(tmp_path):
    with pytest.raises(UserError, match="`num_clips` must be at least 1; received 0"):
        generate(tmp_path, num_clips=0)


def test_workers_need_no_tensorflow(fresh_python, tmp_path):
    code = (
        "import sys; from tfavmae_datasets.sounding_shapes import config, generator; "
        "generator.generate(sys.argv[1], config.DEMO, 'train', num_clips=1, "
        "num_workers=1); print('tensorflow' in sys.modules)"
    )
    blocked = ("tensorflow", "keras", "tensorflow_datasets")
    assert fresh_python(code, tmp_path, blocked=blocked) == "False\n"


def test_the_command_writes_clips_and_states_the_ceilings(tmp_path, capsys):
    arguments = ["--out", str(tmp_path), "--num_clips", "3", "--workers", "1"]
    assert command.main(arguments) == 0
    assert len(list((tmp_path / "train").glob("*.mp4"))) == 3
    assert "audio 66.7%, video 66.7%, audio_video 100.0%" in capsys.readouterr().out
    assert command.main([*arguments, "--config", "huge"]) == 2
    assert capsys.readouterr().err == (
        "error: sounding_shapes has no configuration 'huge'; known: demo, standard.\n"
    )


# --- The TFDS builder ---


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    from tfavmae_datasets.sounding_shapes import sounding_shapes_dataset_builder as b

    folder = tmp_path_factory.mktemp("tfds")
    builder = b.Builder(
        config=b.builder_config(SMALL), data_dir=folder, media_dir=folder / "media"
    )
    builder.download_and_prepare()
    return folder


def test_prepared_data_hold_every_clip_with_its_labels(prepared):
    import tensorflow_datasets as tfds

    ds = tfds.load("sounding_shapes/small", split="train", data_dir=prepared)
    lines = (prepared / "media/train/labels.jsonl").read_text().splitlines()
    rows = {row["id"]: row for row in map(json.loads, lines)}
    examples = {e["id"].decode(): e for e in ds.as_numpy_iterator()}
    assert set(examples) == set(rows) and len(rows) == 24
    for key, row in rows.items():
        example = examples[key]
        for name in ("label", "verb", "noun", "has_audio", "has_video"):
            assert example[name] == row[name]
        frames = SMALL.num_frames if row["has_video"] else 0
        assert example["frames"].shape == (frames, 64, 64, 3)
        assert example["positions"].shape == (frames, 2)
        assert example["audio"].dtype == np.int16
        assert len(example["audio"]) == (SMALL.num_samples if row["has_audio"] else 0)
        assert np.flatnonzero(example["events"]).tolist() == row["events"]
        np.testing.assert_allclose(
            example["event_times"], row["event_times"], atol=1e-6
        )
        assert example["caption"].decode() == row["caption"]


def test_ceilings_and_names_can_be_read_without_the_builder(prepared, fresh_python):
    code = (
        "import sys, json, tensorflow_datasets as tfds; "
        "info = tfds.builder('sounding_shapes/small', data_dir=sys.argv[1]).info; "
        "print(json.dumps([dict(info.metadata), info.features['label'].names]))"
    )
    printed = fresh_python(code, prepared, blocked=("tfavmae", "tfavmae_datasets"))
    metadata, names = json.loads(printed.splitlines()[-1])
    assert metadata["ceilings"] == generator.ceilings(SMALL)
    assert metadata["ceilings_over_all_clips"] == generator.ceilings(SMALL, over="all")
    assert metadata["settings"]["name"] == "small" and metadata["seed"] == 0
    assert [f"{c['timbre']}_{c['look']}" for c in metadata["classes"]] == names
    assert metadata["label_names"]["events"][:12] == names


def test_changed_settings_may_not_take_a_published_name():
    from tfavmae_datasets.sounding_shapes import sounding_shapes_dataset_builder as b

    with pytest.raises(UserError, match=r"sounding_shapes/demo.*another name"):
        b.builder_config(dataclasses.replace(config.DEMO, num_train_clips=10))
    assert b.builder_config(SMALL, seed=3).name == "small_seed3"
    assert [c.name for c in b.Builder.BUILDER_CONFIGS] == ["demo", "standard"]


def test_published_settings_are_the_published_configuration(tmp_path):
    from tfavmae_datasets.sounding_shapes import sounding_shapes_dataset_builder as b

    asked = b.builder_config(dataclasses.replace(config.DEMO), 0)
    builder = b.Builder(config=asked, data_dir=tmp_path)
    assert builder.info.full_name == "sounding_shapes/demo/1.0.0"
