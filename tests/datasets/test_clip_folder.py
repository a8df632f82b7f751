"""`clip_folder`: from a folder of real files to `tfds.load`."""

import csv
import io
import itertools
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import media_files
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from tfavmae.building import decoding
from tfavmae.building.clip_cache import PreparedClips
from tfavmae.building.progress import Progress
from tfavmae.building.worker_pool import WorkerPool
from tfavmae.errors import UserError
from tfavmae.files import exclusive
from tfavmae.media import decode
from tfavmae_datasets.clip_folder import Builder, ClipFolderConfig, build_clip_folder

DUMMY_DATA = Path(sys.modules[Builder.__module__].__file__).parent / "dummy_data"
RAW = {"frames": tfds.decode.SkipDecoding()}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Twelve good files in two folders, and bad ones."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "more" / "deep").mkdir(parents=True)
    for index in range(8):
        sound = media_files.sine(200 + 100 * index)
        media_files.write_clip(folder / f"clip_{index}.mp4", 1.0, sound=sound)
    media_files.write_clip(folder / "more" / "deep" / "long film.webm", 5.3)
    media_files.write_clip(folder / "more" / "MUTE.MKV".lower(), 1.0, audio=None)
    media_files.write_clip(folder / "more" / "blind.mp4", 1.0, video=None)
    media_files.write_clip(folder / "more" / "ünï.mov", 1.0)
    media_files.write_text(folder / "text.mp4")
    media_files.write_clip(folder / "blink.mp4", 0.2)
    media_files.write_truncated(folder / "cut.mp4", seconds=1.9)
    (folder / "empty.mp4").touch()
    (folder / "notes.txt").write_text("not a medium")
    (folder / ".hidden.mp4").write_text("not looked at")
    return folder


@pytest.fixture(scope="module")
def built(videos, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("data")
    builder = build_clip_folder(videos, data_dir, clip_seconds=2.0, num_workers=2)
    return builder, data_dir


def load(data_dir, split, name="clip_folder"):
    """Stored examples by id, frames as bytes."""
    examples = tfds.load(name, split=split, data_dir=data_dir, decoders=RAW)
    return {e["id"].decode(): e for e in tfds.as_numpy(examples)}


def report(builder) -> dict[str, str]:
    with open(builder.bad_files_path, newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["path", "reason"]
    return {Path(path).name: reason for path, reason in lines}


def test_every_good_clip_is_there_bit_for_bit(built, videos):
    _, data_dir = built
    examples = load(data_dir, "train") | load(data_dir, "validation")
    long = "more/deep/long film.webm"
    expected = {f"clip_{index}.mp4" for index in range(8)}
    expected |= {"more/mute.mkv", "more/blind.mp4", "more/ünï.mov"}
    assert set(examples) == expected | {long, f"{long}@2", f"{long}@4"}
    for key, example in examples.items():
        file, _, start = key.partition("@")
        start = float(start or 0)
        clip = decode.decode(videos / file, start, start + 2.0)
        np.testing.assert_array_equal(
            example["audio"], [] if clip.audio is None else clip.audio
        )
        assert list(example["frames"]) == clip.frames
        assert example["frame_rate"] == 8.0 and example["label"] == -1
        assert example["has_audio"] == (file != "more/mute.mkv")
        assert example["has_video"] == (file != "more/blind.mp4")


def test_frames_decode_in_tensorflow(built):
    example = next(iter(tfds.load("clip_folder", split="train", data_dir=built[1])))
    assert example["frames"].shape[1:] == (48, 64, 3) or not example["has_video"]
    assert example["audio"].dtype == tf.int16


def test_bad_files_are_reported_with_their_reasons(built):
    reasons = report(built[0])
    assert set(reasons) == {"text.mp4", "blink.mp4", "cut.mp4", "empty.mp4"}
    assert "not a media file" in reasons["text.mp4"]
    assert "too short: 0.20 s, the minimum is 0.5 s" in reasons["blink.mp4"]
    assert "cut off" in reasons["cut.mp4"] and "empty" in reasons["empty.mp4"]


def test_metadata_has_the_counts(built):
    metadata = tfds.builder("clip_folder", data_dir=built[1]).info.metadata
    summary = metadata["summary"]
    assert (summary["num_ok"], summary["num_bad"]) == (14, 4)
    assert (summary["num_without_audio"], summary["num_without_video"]) == (1, 1)
    assert metadata["num_files"] == 16 and metadata["ignored"] == {".txt": 1}
    assert metadata["options"]["clip_seconds"] == 2.0


def test_clips_of_a_file_share_a_split(videos, tmp_path):
    build_clip_folder(videos, tmp_path, clip_seconds=0.5, validation_fraction=0.4)
    files = [
        {key.partition("@")[0] for key in load(tmp_path, split)}
        for split in ("train", "validation")
    ]
    assert not files[0] & files[1] and all(len(names) > 1 for names in files)


def test_the_files_alone_say_how_to_read_them(built):
    builder = tfds.builder_from_directory(built[0].data_path)
    assert not isinstance(builder, Builder)
    example = next(iter(builder.as_dataset("train")))
    assert example["audio"].dtype == tf.int16 and example["frames"].dtype == tf.uint8


def test_it_is_built_once_and_again_only_on_request(built, videos, tmp_path):
    builder, data_dir = built
    record = Path(next(builder.data_path.glob("*.tfrecord*")))
    before = record.stat().st_mtime_ns
    again = build_clip_folder(videos, data_dir, clip_seconds=2.0, num_workers=1)
    assert record.stat().st_mtime_ns == before
    assert again.info.splits["train"].num_examples > 0
    with pytest.raises(
        UserError, match=r"was built with other clip_seconds\..*--overwrite"
    ):
        build_clip_folder(videos, data_dir, clip_seconds=3.0)
    other = build_clip_folder(videos, data_dir, clip_seconds=3.0, name="other")
    assert other.info.full_name == "clip_folder/other/1.0.0"
    assert load(data_dir, "train", "clip_folder/other")
    build_clip_folder(videos, data_dir, clip_seconds=4.0, name="other", overwrite=True)
    assert load(data_dir, "train", "clip_folder/other")


def state_of(folder) -> dict[str, tuple[int, int]]:
    """Size and time of every file below a folder."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_two_builds_at_once_are_refused(built, videos, tmp_path):
    """The second one leaves everything of the first as it is."""
    builder, data_dir = built
    folder = tmp_path / "clip_folder" / "default"
    kept = folder / "prepared-1" / "train.clips"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"of the first build")
    with exclusive(folder / "build.lock"):
        before = state_of(tmp_path)
        with pytest.raises(UserError, match="another build is running") as error:
            build_clip_folder(videos, tmp_path, clip_seconds=2.0, num_workers=1)
        assert "\n" not in str(error.value)
        assert state_of(tmp_path) == before
    # A finished data set is read without the lock.
    with exclusive(builder.work_folder / "build.lock"):
        build_clip_folder(videos, data_dir, clip_seconds=2.0)


def test_a_finished_data_set_is_read_by_its_name_alone(built, videos):
    """Whatever it was built from; a folder or options that differ are refused."""
    _, data_dir = built
    assert load(data_dir, "train")
    builder = Builder(config=ClipFolderConfig(videos=str(videos)), data_dir=data_dir)
    with pytest.raises(UserError, match="was built with other clip_seconds"):
        builder.download_and_prepare()


def test_other_files_are_noticed(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    media_files.write_clip(folder / "a.mp4", 1.0)
    build_clip_folder(folder, tmp_path, num_workers=1)
    media_files.write_clip(folder / "b.mp4", 1.0)
    with pytest.raises(UserError, match=r"was built with other files\..*--overwrite"):
        build_clip_folder(folder, tmp_path, num_workers=1)


# --- labels ---------------------------------------------------------------------------


def test_labels_from_a_csv(tmp_path):
    builder = build_clip_folder(
        DUMMY_DATA, tmp_path, labels=str(DUMMY_DATA / "labels.csv"), num_workers=2
    )
    assert builder.info.features["label"].names == ["high", "low"]
    examples = load(tmp_path, "train") | load(tmp_path, "validation")
    found = {key: int(example["label"]) for key, example in examples.items()}
    assert found == {
        "bounce.mp4": 1,
        "high.mp4": 0,
        "long.webm": 1,
        "mute.mkv": 1,
        "tone.ogg": 0,
    }
    reasons = report(builder)
    assert set(reasons) == {"text.mp4", "nowhere.mp4"}
    assert "named in line 8 of" in reasons["nowhere.mp4"]
    names = tfds.builder("clip_folder", data_dir=tmp_path).info.features["label"].names
    assert names == ["high", "low"]


@pytest.mark.parametrize("unlabelled, count", [("skip", 2), ("keep", 5)])
def test_files_without_a_label(tmp_path, unlabelled, count):
    labels = tmp_path / "some.csv"
    labels.write_text("name,class\r\n./bounce.mp4,b\r\nhigh.mp4,a\r\n", "utf-8-sig")
    build_clip_folder(
        DUMMY_DATA,
        tmp_path,
        labels=str(labels),
        file_column="name",
        label_column="class",
        unlabelled=unlabelled,
        num_workers=2,
    )
    examples = load(tmp_path, "train") | load(tmp_path, "validation")
    found = [int(example["label"]) for example in examples.values()]
    assert sorted(found) == [-1] * (count - 2) + [0, 1]


# --- bad input ------------------------------------------------------------------------


def test_an_empty_folder(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "notes.txt").touch()
    with pytest.raises(UserError, match=r"videos: no media files.*\.mp4 .*\.webm"):
        build_clip_folder(tmp_path / "videos", tmp_path)
    with pytest.raises(UserError, match="nowhere: no such folder"):
        build_clip_folder(tmp_path / "nowhere", tmp_path)


def test_a_folder_of_bad_files_only(tmp_path):
    (tmp_path / "videos").mkdir()
    media_files.write_text(tmp_path / "videos" / "text.mp4")
    with pytest.raises(UserError, match=r"none of its 1 media files.*bad_files\.csv"):
        build_clip_folder(tmp_path / "videos", tmp_path, num_workers=1)


def test_one_file_is_enough_and_one_bad_file_does_not_empty_a_split(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    media_files.write_clip(folder / "a.mp4", 1.0)
    builder = build_clip_folder(folder, tmp_path, name="one", num_workers=1)
    assert set(builder.info.splits) == {"train"}
    media_files.write_truncated(folder / "b.mp4", seconds=1.0)
    builder = build_clip_folder(folder, tmp_path, name="two", num_workers=1)
    assert set(builder.info.splits) == {"train"}
    assert builder.info.metadata["num_files_stored"] == {"train": 1}
    assert builder.info.metadata["remarks"] == [
        "there is no split validation: train has the only file"
    ]


def test_strict(videos, tmp_path):
    with pytest.raises(UserError, match=r"\.mp4: .*strict"):
        build_clip_folder(videos, tmp_path, strict=True, num_workers=1)


def test_misspelt_and_impossible_options(videos, tmp_path):
    with pytest.raises(
        UserError, match=r"'clip_second'; did you mean 'clip_seconds'\?"
    ):
        build_clip_folder(videos, tmp_path, clip_second=1.0)
    for options in (
        {"validation_fraction": 1.0},
        {"unlabelled": "drop"},
        {"clip_seconds": 0.1},
        {"channels": "both"},
        {"frame_rate": -1.0},
    ):
        with pytest.raises(UserError, match="must be"):
            build_clip_folder(videos, tmp_path, **options)


def test_a_full_disk_while_tfds_writes(videos, tmp_path, monkeypatch):
    def full(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.io.TFRecordWriter, "write", full)
    with pytest.raises(UserError, match="the disk is full") as error:
        build_clip_folder(videos, tmp_path, clip_seconds=2.0, num_workers=2)
    assert "\n" not in str(error.value)
    monkeypatch.undo()
    builder = build_clip_folder(videos, tmp_path, clip_seconds=2.0, num_workers=2)
    assert builder.num_taken_over >= 10  # `train`, and the first of `validation`


def test_a_three_hour_file_is_cut_by_seeking(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    media_files.write_clip(
        folder / "hours.mp4",
        3 * 3600.0,
        audio=None,
        frame_times=np.arange(0, 3 * 3600, 4.0),
        keyframe_every=15,
        size=(32, 32),
        picture=lambda seconds, w, h: np.full((h, w, 3), seconds // 60, np.uint8),
    )
    options = {"frame_rate": 0.1, "num_workers": 2}
    whole = {"clip_seconds": None, "name": "whole", **options}
    with pytest.raises(UserError, match="none of its 1 media files"):
        build_clip_folder(folder, tmp_path, **whole)
    with open(tmp_path / "clip_folder" / "whole" / "bad_files.csv") as file:
        assert "too long to be one clip: 10796 s" in file.read()
    build_clip_folder(folder, tmp_path, clip_seconds=60.0, **options)
    examples = load(tmp_path, "train")
    assert len(examples) == 180
    for minute in (0, 90, 179):
        key = "hours.mp4" + (f"@{60 * minute}" if minute else "")
        shade = media_files.to_pixels(examples[key]["frames"][2]).mean()
        assert abs(shade - minute) < 3


# --- what a folder holds besides films ------------------------------------------------


def test_hostile_names_do_not_stop_a_build(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    media_files.write_clip(folder / "-a.mp4", 1.0)
    media_files.write_clip(folder / "--help.wav", 1.0)
    media_files.write_clip(folder / "%d@2.mp4", 1.0)
    os.link(folder / "-a.mp4", os.fsencode(folder) + b"/caf\xe9.mp4")
    os.link(folder / "-a.mp4", folder / "a\u2028b.mp4")
    (folder / "gone.mp4").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.mkv")
    builder = build_clip_folder(folder, tmp_path, num_workers=1)
    examples = load(tmp_path, "train") | load(tmp_path, "validation")
    assert set(examples) == {"-a.mp4", "--help.wav", "%d@2.mp4"}
    assert not examples["--help.wav"]["has_video"]
    assert report(builder) == {
        "a\u2028b.mp4": "its name has the control character U+2028; rename it",
        "caf\\udce9.mp4": "its name is not UTF-8; rename it",
        "gone.mp4": "a link to nothing",
        "pipe.mkv": "not a regular file",
    }


@pytest.fixture
def mixed(tmp_path):
    """A film, a silent one, a still one, a sound and pictures."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    media_files.write_clip(folder / "film.mp4", 1.0)
    media_files.write_clip(
        folder / "silent.mp4", 1.0, sound=lambda times: np.zeros((1, times.size))
    )
    media_files.write_clip(
        folder / "still.mp4", 1.0, picture=lambda t, w, h: np.full((h, w, 3), 9, "u1")
    )
    media_files.write_clip(folder / "sound.flac", 1.0)
    Image.new("RGB", (40, 30), (200, 30, 30)).save(folder / "red.png")
    turned = Image.new("RGB", (400, 300), (30, 30, 200))
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned.save(folder / "blue.JPG", "JPEG", exif=exif)
    media_files.write_text(folder / "text.png")
    return folder


def test_pictures_are_clips_of_one_frame_on_request(mixed, tmp_path):
    builder = build_clip_folder(mixed, tmp_path, name="films", num_workers=1)
    assert builder.info.metadata["summary"]["num_ok"] == 4
    assert builder.info.metadata["remarks"][0] == (
        "3 pictures were left out; pictures=true makes each a clip of one frame"
    )
    builder = build_clip_folder(
        mixed, tmp_path, name="all", pictures=True, shorter_side=150, num_workers=1
    )
    examples = load(tmp_path, "train", "clip_folder/all")
    examples |= load(tmp_path, "validation", "clip_folder/all")
    assert len(examples) == 6 and set(report(builder)) == {"text.png"}
    for name, size, colour in (
        ("red.png", (30, 40), (200, 30, 30)),
        ("blue.JPG", (200, 150), (30, 30, 200)),
    ):
        example = examples[name]
        assert example["has_video"] and not example["has_audio"]
        (frame,) = example["frames"]
        pixels = media_files.to_pixels(frame)
        assert pixels.shape == (*size, 3) and abs(pixels - np.array(colour)).max() <= 3


@pytest.mark.parametrize(
    "skip, left",
    [
        (("silent",), {"film.mp4", "still.mp4", "sound.flac", "red.png", "blue.JPG"}),
        (("still", "no_video"), {"film.mp4", "silent.mp4", "red.png", "blue.JPG"}),
        (("no_audio",), {"film.mp4", "silent.mp4", "still.mp4", "sound.flac"}),
    ],
)
def test_clips_can_be_skipped(mixed, tmp_path, skip, left):
    (mixed / "text.png").unlink()
    options = {"pictures": True, "strict": True, "validation_fraction": 0.0}
    builder = build_clip_folder(mixed, tmp_path, skip=skip, num_workers=1, **options)
    assert set(load(tmp_path, "train")) == left
    summary = builder.info.metadata["summary"]
    assert (summary["num_skipped"], summary["num_bad"]) == (6 - len(left), 0)
    reasons = report(builder)
    assert len(reasons) == 6 - len(left)
    assert all(reason.endswith("(skip) (clip 0-10 s)") for reason in reasons.values())
    with pytest.raises(UserError, match="`skip` must be among silent, still"):
        ClipFolderConfig(skip=("loud",))


def write_lying(path, seconds, stated_seconds):
    """A Matroska film whose header states another length."""
    media_files.write_clip(path, seconds, size=(32, 32), frame_rate=4)
    content = path.read_bytes()
    at = content.index(b"\x44\x89\x88") + 3  # Duration, 8 bytes
    stated = struct.pack(">d", 1000 * stated_seconds)
    path.write_bytes(content[:at] + stated + content[at + 8 :])


def test_a_stated_length_is_not_believed(tmp_path, monkeypatch):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a", "lies", "z"):
        write_lying(folder / f"{name}.mkv", 4.0, 10**9 if name == "lies" else 4.0)
    made = []
    plain = decoding.Row
    monkeypatch.setattr(decoding, "Row", lambda *a: made.append(a) or plain(*a))
    options = {"clip_seconds": 1.0, "frame_rate": 4.0, "num_workers": 1}
    builder = build_clip_folder(folder, tmp_path, **options)
    assert len(made) <= 4 * 3 + 8  # the clips, and what the workers had been given
    examples = load(tmp_path, "train") | load(tmp_path, "validation")
    expected = {f"{name}.mkv{at}" for name in "az" for at in ("", "@1", "@2", "@3")}
    assert {key for key in examples if "lies" not in key} == expected
    assert {key for key in examples if "lies" in key} >= {"lies.mkv", "lies.mkv@1"}
    (reason,) = (r for name, r in report(builder).items() if name == "lies.mkv")
    assert reason.endswith("the rest of the file is left out")
    with open(builder.bad_files_path) as file:
        assert len(file.readlines()) <= 3


def test_kept_clips_of_a_file_that_ended_are_taken_over(tmp_path):
    """The workers had been given more of it than the next build makes rows of."""
    path = tmp_path / "kept.clips"
    films = [tmp_path / "lies.mkv", tmp_path / "z.mkv"]
    for film in films:
        write_lying(film, 3.0, 10**6)

    def rows(ended):
        for film in films:
            for start in range(10**6):
                if str(film) in ended:
                    break
                yield decoding.Row(f"{film.name}@{start}", film, start, start + 1)

    with WorkerPool(2) as pool:
        for function in (decoding.DECODE, "nowhere:decode"):
            ended = set()
            decoded = decoding.decode_rows(
                rows(ended),
                pool=pool,
                prepared=PreparedClips(path, decode.Clip),
                ended=ended,
                function=function,
            )
            assert len(list(decoded)) >= 4 and len(ended) == 2
            assert 2 <= decoded.summary.num_bad <= 4
    assert decoded.num_taken_over == decoded.summary.num_rows


# --- splits ---------------------------------------------------------------------------


def test_each_class_is_in_both_splits_and_what_is_missing_is_said(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for index in range(9):
        media_files.write_clip(folder / f"{index}.wav", 1.0)
    labels = tmp_path / "labels.csv"
    names = dict(zip("012345", "aabbbc", strict=True))
    lines = "".join(f"{file}.wav,{name}\n" for file, name in names.items())
    labels.write_text(f"file,label\n{lines}")
    options = {"labels": str(labels), "num_workers": 1}
    builder = build_clip_folder(folder, tmp_path, **options)
    found = {
        split: [int(e["label"]) for e in load(tmp_path, split).values()]
        for split in ("train", "validation")
    }
    assert sorted(found["validation"]) == [0, 1]
    assert sorted(found["train"]) == [0, 1, 1, 2]
    metadata = builder.info.metadata
    assert metadata["num_files_stored"] == {"train": 4, "validation": 2}
    assert metadata["num_unlabelled"] == 3
    assert metadata["remarks"] == [
        f"3 of 9 files have no label in {labels} and were left out: 6.wav, 7.wav, "
        "8.wav",
        "validation has no clip of 1 of 3 classes: c",
    ]


# --- what a build says ----------------------------------------------------------------


def test_a_build_speaks_of_clips_alone(cli, videos, tmp_path):
    """Without a terminal: a line for each step, nothing of TFDS, no scratch folders."""
    tfds.enable_progress_bar()  # another test may have turned it off
    done = cli(
        *("data", "build", "clip_folder", "--videos", videos, "--data-dir", tmp_path),
        *("--workers", 2, "--clip-seconds", 2),
    )
    assert done.status == 0, done
    steps = [line.partition(":")[0] for line in done.err.splitlines()]
    assert list(dict.fromkeys(steps)) == ["reading headers", "decoding"]
    assert "15/15 files" not in done.err and "16/16 files" in done.err
    assert "incomplete" not in done.err + done.out
    assert "Unknown size" not in done.out and "Shuffling" not in done.err
    assert f"files left out, with reasons: {tmp_path}" in done.out
    good = tmp_path / "good"
    good.mkdir()
    for index in range(3):
        media_files.write_clip(good / f"{index}.mp4", 1.0)
    done = cli("data", "build", "clip_folder", "--videos", good, "--data-dir", good)
    assert done.status == 0 and "left out" not in done.out, done
    assert "note: validation has clips of one file only" in done.out


def test_a_terminal_gets_one_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal, now = Terminal(), itertools.count()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    monkeypatch.setenv("TERM", "xterm")
    with Progress() as progress:
        for done in range(1, 31):
            progress("decoding", done, 60)
        progress._bar.refresh()
    shown = terminal.getvalue()
    assert "decoding" in shown and "30/60" in shown and "clips/s" in shown
    assert shown.count("\n") <= 2  # it redraws its line


def test_elsewhere_a_line_says_it_every_ten_seconds(capfd, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Progress() as progress:
        for done in range(101):
            now[0] = done / 4
            progress("decoding", done, 200)
    assert capfd.readouterr().err.splitlines() == [
        "decoding: 40/200 clips, 4.0 clips/s, 0:00:40 left",
        "decoding: 80/200 clips, 4.0 clips/s, 0:00:30 left",
        "decoding: 100/200 clips, 4.0 clips/s, 0:00:25 left",
    ]


# --- interruption ---------------------------------------------------------------------

BUILD = """
import sys
from tfavmae_datasets.clip_folder import build_clip_folder
build_clip_folder(sys.argv[1], sys.argv[2], clip_seconds=0.5, num_workers=2)
"""


def test_a_build_stopped_by_ctrl_c_goes_on_where_it_was(tmp_path, monkeypatch):
    folder, data_dir = tmp_path / "videos", tmp_path / "data"
    folder.mkdir()
    for index in range(4):
        media_files.write_clip(folder / f"{index}.mp4", 30.0, frame_rate=8)
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD, folder, data_dir], stderr=subprocess.PIPE
    )
    wait_for_clips(data_dir, process, 500_000)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode != 0 and b"KeyboardInterrupt" in errors

    # As TFDS leaves one behind where it is killed outright.
    left = data_dir / "clip_folder" / "default"
    (left / "incomplete.ABC_1.0.0").mkdir()
    (left / "prepared-of-other-options").mkdir()

    # The next start removes what is of no use, even if it fails.
    with monkeypatch.context() as patch:
        patch.setattr(tf.io.TFRecordWriter, "write", None)
        with pytest.raises(TypeError):
            build_clip_folder(folder, data_dir, clip_seconds=0.5, num_workers=2)
    folders = [p.name.partition("-")[0] for p in left.iterdir() if p.is_dir()]
    assert folders == ["prepared"]

    builder = build_clip_folder(folder, data_dir, clip_seconds=0.5, num_workers=2)
    assert 20 < builder.num_taken_over <= 240
    assert [p.name for p in builder.data_path.parent.iterdir() if p.is_dir()] == [
        builder.data_path.name
    ]
    other = build_clip_folder(folder, tmp_path / "other", clip_seconds=0.5)
    assert other.num_taken_over == 0
    for split in ("train", "validation"):
        assert contents(builder, split) == contents(other, split)


def wait_for_clips(data_dir, process, num_bytes):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if sum(path.stat().st_size for path in data_dir.rglob("*.clips")) > num_bytes:
            return
        time.sleep(0.01)
    raise AssertionError(f"ended before it could be interrupted: {process.poll()}")


def contents(builder, split) -> list[bytes]:
    return [
        record
        for path in sorted(builder.data_path.glob(f"*-{split}.tfrecord*"))
        for record in tf.data.TFRecordDataset(os.fspath(path)).as_numpy_iterator()
    ]


def test_a_config_of_ones_own_through_tfds_load(tmp_path):
    config = ClipFolderConfig(name="mine", videos=str(DUMMY_DATA), num_workers=2)
    examples = tfds.load(
        "clip_folder",
        split="train",
        data_dir=tmp_path,
        builder_kwargs={"config": config},
    )
    assert examples.cardinality() == 4
    assert load(tmp_path, "train", "clip_folder/mine").keys()
