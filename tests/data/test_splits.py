"""Opening a data set, the index beside its files, and what bad files do."""

import dataclasses
import os
import pathlib
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from clock_clips import NUM_TRAIN, SPEC, batches

from tfavmae.data import index as index_lib
from tfavmae.data import splits
from tfavmae.data.pipeline import naming_damage, open_split
from tfavmae.errors import UserError
from tfavmae_datasets.clip_folder.listing import clip_id

# --- Opening ---


def test_a_dataset_is_found_by_name_and_by_path(built):
    data_dir = str(built.parents[1])
    for name in ("clips", "clips:1.0.0"):
        assert open_split(name, "train", data_dir).num_examples == NUM_TRAIN
    assert open_split(str(built.parent), "train").num_examples == NUM_TRAIN


def test_slices_of_a_split(built, split):
    ids = split.ids()
    first, rest = (open_split(str(built), f"train[{s}]") for s in (":9", "9:"))
    assert first.ids() + rest.ids() == ids
    assert first.fingerprint != rest.fingerprint
    np.testing.assert_array_equal(rest.labels("tags"), split.labels("tags")[9:])
    (batch,) = batches(rest.evaluation_batches(SPEC, 14))
    np.testing.assert_array_equal(batch["label"], split.labels("label")[9:])


def test_the_fingerprint_is_that_of_the_content(built, split, copy):
    assert open_split(str(copy), "train").fingerprint == split.fingerprint
    assert open_split(str(built), "other").fingerprint != split.fingerprint


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ("nothing/demo", "train"),
            r"'nothing/demo' was not found \(looked in .*data "
            r"build nothing/demo",
        ),
        (("clips", "valid"), r"no split 'valid'; there are: other, train"),
        (("clips", "train[:0%]"), r"the split 'train\[:0%\]' has no clips"),
        (("clips", "train[:1%]"), r"the split 'train\[:1%\]' has no clips"),
        (("clips", "train["), r"no split 'train\['; there are: other, train"),
        (("clips", "train[5:99]"), r"no split 'train\[5:99\]'; there are"),
    ],
)
def test_what_is_not_there_is_named(built, arguments, message):
    with pytest.raises(UserError, match=message):
        open_split(*arguments, data_dir=str(built.parents[1]))


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
@pytest.mark.parametrize(
    "content",
    [None, "", "{}", "[]", "null", '{"a": 1}', "\udcff", '{"featuresDict": {'],
)
def test_a_damaged_description_is_one_line(copy, name, content):
    if content is None:
        (copy / name).unlink()
    else:
        (copy / name).write_text(content, errors="surrogateescape")
    with pytest.raises(UserError) as error:
        open_split(str(copy), "train")
    assert str(copy) in str(error.value) and "\n" not in str(error.value)
    if name == "features.json":
        assert "missing or damaged" in str(error.value)


def test_a_config_must_be_chosen(built, tmp_path):
    for config in ("demo", "standard"):
        shutil.copytree(built, tmp_path / "clips" / config / "1.0.0")
    with pytest.raises(UserError, match=r"several configs.*: demo, standard"):
        open_split("clips", "train", str(tmp_path))
    assert open_split("clips/demo", "train", str(tmp_path)).num_examples == NUM_TRAIN


@pytest.mark.parametrize("label", ["verb", "moments", "caption", "id"])
def test_a_label_that_is_not_there_is_named(split, label):
    spec = dataclasses.replace(SPEC, labels=(label,))
    with pytest.raises(UserError, match=f"'{label}'.*it has: events, label, tags"):
        split.evaluation_batches(spec, 4)


def test_an_empty_choice_is_an_error(built):
    other = open_split(str(built), "train[:1]")
    with pytest.raises(UserError, match="no clip"):
        other.evaluation_batches(SPEC, 4, indices=[])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"clip_seconds": 0.0}, "`clip_seconds` must be at least one sample"),
        ({"clip_seconds": 1e-9}, "`clip_seconds` must be at least one sample"),
        ({"clip_seconds": float("nan")}, "`clip_seconds` must be at least one sample"),
        ({"short_audio": "hold"}, "`short_audio` must be one of"),
        ({"num_frames": 0}, "`num_frames` must be at least 1"),
        ({"modalities": ("sound",)}, "`modalities` must be some of"),
        ({"sample_rate_hz": 8000}, "`sample_rate_hz` must be 16000"),
        ({"interpolation": "box"}, "`interpolation` must be one of"),
    ],
)
def test_an_impossible_spec_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SPEC, **change)


def test_impossible_batches_are_refused(split):
    with pytest.raises(ValueError, match="multiple of `host_count`"):
        split.training_batches(SPEC, 5, seed=0, host_count=2)
    with pytest.raises(ValueError, match="`indices` must be in"):
        split.training_batches(SPEC, 5, seed=0, indices=[NUM_TRAIN])


# --- The index beside the files ---


def cache_of(directory):
    (path,) = directory.glob("tfavmae_index*.npz")
    return path


def test_a_damaged_index_is_made_again(copy, split, monkeypatch):
    assert open_split(str(copy), "train").ids() == split.ids()
    cache = cache_of(copy)
    content = cache.read_bytes()
    monkeypatch.setattr(index_lib, "_write_cache", lambda *_: None)
    scans = []
    monkeypatch.setattr(index_lib, "_scan", lambda *_: scans.append(1) or split.index)
    # Cut short anywhere, or a byte changed: in the arrays, which have checksums, and in
    # the entries of the archive, which have none.
    cuts = [content[: len(content) * k // 12] for k in range(12)]
    entries = [m.start() for m in re.finditer(b"PK", content)]
    places = [e + k for e in entries for k in (6, 8, 10, 18, 26, 28, 42, 46, 47)]
    flips = [
        content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
        for place in places
        if place < len(content)
        for bit in (1, 128)
    ]
    assert len(flips) > 200
    for damaged in cuts + flips:
        cache.write_bytes(damaged)
        index = open_split(str(copy), "train").index
        np.testing.assert_array_equal(index.offset, split.index.offset)
        np.testing.assert_array_equal(index.columns["id"], split.index.columns["id"])
        assert index.columns.keys() == split.index.columns.keys()
    assert len(cuts) < len(scans) <= len(cuts + flips)


def test_the_index_is_kept_and_renewed(copy, split, monkeypatch):
    expected = split.index
    open_split(str(copy), "train")
    written = cache_of(copy).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(index_lib, "_scan", None)  # a scan would fail
        again = open_split(str(copy), "train").index
    for name in ("shard", "record", "offset", "length"):
        np.testing.assert_array_equal(getattr(again, name), getattr(expected, name))
    tags = again.columns["tags"].to_list()
    assert tags == expected.columns["tags"].to_list()
    cache_of(copy).write_bytes(written[:100])
    assert open_split(str(copy), "train").ids() == split.ids()
    os.utime(next(copy.glob("*train*00000-of*")), (1, 1))
    assert open_split(str(copy), "train").ids() == split.ids()
    assert cache_of(copy).read_bytes() != written
    assert not list(copy.glob("*.partial"))


def test_a_folder_that_cannot_be_written_to_is_no_obstacle(copy, split, monkeypatch):
    def full(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "no space left")

    monkeypatch.setattr(index_lib.tf.io.gfile, "rename", full)
    assert open_split(str(copy), "train").ids() == split.ids()
    assert not list(copy.glob("*tfavmae*"))


# --- Damage ---


def flip_byte(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def record_position(split, row):
    index = split.index
    path = pathlib.Path(index.files[index.shard[row]])
    return path, int(index.offset[row] + index.length[row] // 2)


def test_a_flipped_byte_is_found_when_the_dataset_is_opened(copy, split):
    path, position = record_position(split, 4)
    flip_byte(copy / path.name, position)
    expected = rf"{path.name}: record {split.index.record[4]} is damaged"
    with pytest.raises(UserError, match=expected):
        open_split(str(copy), "train")


def test_a_byte_that_flips_later_is_found_when_it_is_read(copy):
    split = open_split(str(copy), "train")
    path, position = record_position(split, 4)
    flip_byte(path, position)
    record = split.index.record[4]
    expected = rf"{path}: the record is damaged or its file is gone \(record {record}\)"
    with pytest.raises(UserError, match=expected), naming_damage():
        batches(split.evaluation_batches(SPEC, 4))
    with pytest.raises(tf.errors.InvalidArgumentError, match=str(path)):
        batches(split.training_batches(SPEC, 4, seed=0, num_steps=6))


def test_a_file_that_vanishes_later_ends_the_reading(copy):
    split = open_split(str(copy), "train")
    path, _ = record_position(split, 4)
    path.unlink()
    expected = rf"{path}: the record is damaged or its file is gone"
    with pytest.raises(UserError, match=expected), naming_damage():
        batches(split.evaluation_batches(SPEC, 4))


def test_a_file_cut_short_is_found(copy):
    path = next(copy.glob("*train*00000-of*"))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match=rf"{path.name}: record \d+ is damaged"):
        open_split(str(copy), "train")


def test_a_record_that_went_missing_is_found(copy, split):
    path = next(copy.glob("*train*00000-of*"))
    first = split.index.length[0] + index_lib.RECORD_OVERHEAD
    path.write_bytes(path.read_bytes()[first:])
    with pytest.raises(UserError, match=rf"{path.name}: has \d+ records where"):
        open_split(str(copy), "train")


def test_a_missing_file_is_named(copy):
    path = next(copy.glob("*train*00001-of*"))
    path.unlink()
    with pytest.raises(UserError, match=f"{path.name}: this file .* is missing"):
        open_split(str(copy), "train")


def change_frames(copy, change):
    """Writes the records of the split "other" again with other frames."""
    for path in copy.glob("*other*"):
        records = [r.numpy() for r in tf.data.TFRecordDataset(str(path))]
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records:
                example = tf.train.Example.FromString(record)
                frames = example.features.feature["frames"].bytes_list.value
                for k in range(len(frames)):
                    frames[k] = change(frames[k])
                writer.write(example.SerializeToString())


@pytest.mark.parametrize("num_frames", [1, 3])
def test_a_jpeg_cut_in_half_is_named(copy, num_frames):
    change_frames(copy, lambda jpeg: jpeg[: len(jpeg) // 2])
    split = open_split(str(copy), "other")
    spec = dataclasses.replace(SPEC, num_frames=num_frames)
    expected = r"other.*: a JPEG frame is damaged \(record 0\)"
    with pytest.raises(UserError, match=expected), naming_damage():
        batches(split.evaluation_batches(spec, 1))
    # Who does not look at the frames is not stopped by them.
    spec = dataclasses.replace(SPEC, modalities=("audio",))
    assert batches(split.evaluation_batches(spec, 1))[0]["audio_present"] == 1


@pytest.mark.parametrize("jpeg", [b"", b"\xd9", b"no JPEG at all"])
def test_frames_that_are_no_jpegs_are_named(copy, jpeg):
    change_frames(copy, lambda _: jpeg)
    split = open_split(str(copy), "other")
    expected = r"other.*: a JPEG frame is damaged \(record 0\)"
    with pytest.raises(UserError, match=expected), naming_damage():
        batches(split.evaluation_batches(SPEC, 1))


def test_a_jpeg_without_its_start_is_one_line(copy):
    change_frames(copy, lambda jpeg: jpeg[20:])
    split = open_split(str(copy), "other")
    with (
        pytest.raises(UserError, match="JPEG frame cannot be decoded"),
        naming_damage(),
    ):
        batches(split.evaluation_batches(SPEC, 1))


def test_other_errors_pass_through():
    with pytest.raises(tf.errors.InvalidArgumentError), naming_damage():
        tf.reshape(tf.zeros([3]), [2])


def test_looking_for_a_data_set_does_not_search_the_disk(tmp_path, monkeypatch):
    """Configs and versions lie one and two folders deep; a link to `.` is a trap."""
    for number in range(5):
        deep = tmp_path / f"folder_{number}" / "a" / "b" / "c"
        deep.mkdir(parents=True)
    for folder in (tmp_path, *tmp_path.glob("folder_*"), *tmp_path.glob("*/a")):
        (folder / "self").symlink_to(".")
    (tmp_path / "folder_1" / "a" / "b" / "c" / "dataset_info.json").touch()
    asked = []
    listdir = tf.io.gfile.listdir
    monkeypatch.setattr(
        tf.io.gfile, "listdir", lambda path: asked.append(path) or listdir(path)
    )
    with pytest.raises(UserError, match="was not found"):
        splits.find_dataset(str(tmp_path))
    assert len(asked) <= 2 * (1 + 6)  # itself and its folders, looked for twice
    (tmp_path / "one" / "default" / "1.0.0").mkdir(parents=True)
    info = tmp_path / "one" / "default" / "1.0.0" / "dataset_info.json"
    info.touch()
    assert splits.find_dataset("one", str(tmp_path)) == str(info.parent)


def test_files_of_clips():
    ids = ["b.mp4", "a/x@2.wav", "b.mp4@10", "a/x@2.wav@1.5", "b.mp4@100000.5", "id_7"]
    assert splits.files_of(ids).tolist() == [1, 0, 1, 0, 1, 2]


@pytest.mark.parametrize(
    ("name", "start"),
    [("a@b.mp4", 0.0), ("a.mp4", 12.5), ("a.mp4@2", 4.0), ("a.mp4", 100000.5)],
)
def test_places_of_clips_are_read_back(name, start):
    assert splits.place_of(clip_id(name, start)) == (name, start)
