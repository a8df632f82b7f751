"""Builders of published data sets, from manifests and from media that changed."""

import csv
import dataclasses
import os
import pathlib
import shutil

import media_files
import pytest
import tensorflow_datasets as tfds

from tfavmae.building.audit import audit
from tfavmae.building.manifest import Manifest
from tfavmae.data.pipeline import open_split
from tfavmae.errors import UserError
from tfavmae.files import exclusive
from tfavmae_datasets.audioset.audioset_dataset_builder import Builder as AudioSet
from tfavmae_datasets.esc50.esc50_dataset_builder import Builder as ESC50
from tfavmae_datasets.msr_vtt.msr_vtt_dataset_builder import Builder as MSRVTT

ROOT = pathlib.Path(__file__).resolve().parents[2]


def dummy(name) -> pathlib.Path:
    return ROOT / "datasets" / name / "dummy_data"


def builder_of(kind, data_dir, **options):
    config = dataclasses.replace(kind.BUILDER_CONFIGS[0], num_workers=2, **options)
    return kind(config=config, data_dir=data_dir)


def build(kind, data_dir, overwrite=False, **options):
    mode = tfds.GenerateMode.REUSE_DATASET_IF_EXISTS
    if overwrite:
        mode = tfds.GenerateMode.REUSE_CACHE_IF_EXISTS
    builder = builder_of(kind, data_dir, **options)
    download_config = tfds.download.DownloadConfig(download_mode=mode)
    builder.download_and_prepare(download_config=download_config)
    return builder


def left_out(builder) -> dict[str, str]:
    with open(builder.bad_files_path, newline="") as file:
        rows = list(csv.reader(file))
    return {pathlib.Path(path).name: reason for path, reason in rows[1:]}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """ESC-50's dummy data, its audit, and what was built from that."""
    folder = tmp_path_factory.mktemp("esc50")
    shutil.copytree(dummy("esc50"), folder, dirs_exist_ok=True)
    source = ESC50.SOURCE()
    audit(source, folder / "annotations", folder / "media", folder / "audit")
    return folder, build(ESC50, folder / "data", manifest=str(folder / "audit"))


@pytest.fixture
def copy(sounds, tmp_path):
    """The same for a test to change: media and manifest, nothing built yet."""
    for name in ("annotations", "media", "audit"):
        shutil.copytree(sounds[0] / name, tmp_path / name)
    return tmp_path


def test_the_manifest_goes_along_with_the_data(sounds):
    folder, builder = sounds
    manifest = Manifest(folder / "audit")
    metadata = tfds.builder("esc50", data_dir=folder / "data").info.metadata
    assert metadata["manifest_fingerprint"] == manifest.fingerprint
    assert metadata["manifest"]["splits"]["fold_1"]["ok"] == 2
    assert metadata["manifest"]["annotations"] == manifest.facts["annotations"]
    assert metadata["summary"]["num_ok"] == 7 and metadata["summary"]["num_bad"] == 0
    assert not list(builder.work_folder.glob("prepared-*"))


def test_the_fingerprint_of_a_split_depends_on_the_manifest(sounds, monkeypatch):
    folder, _ = sounds
    first = open_split("esc50", "fold_1", folder / "data")
    assert first.metadata["manifest_fingerprint"]
    info = first.info
    changed = {**first.metadata, "manifest_fingerprint": "another"}
    monkeypatch.setattr(type(info), "metadata", changed)
    assert type(first)(info, "fold_1").fingerprint != first.fingerprint


def test_a_build_from_a_manifest_never_lists_the_disk(copy, monkeypatch):
    shutil.rmtree(copy / "annotations")
    scandir = os.scandir

    def watched(path="."):
        if isinstance(path, str | os.PathLike):
            assert not pathlib.Path(path).is_relative_to(copy / "media"), path
        return scandir(path)

    monkeypatch.setattr(os, "scandir", watched)
    builder = build(
        ESC50, copy / "data", manifest=str(copy / "audit"), media=str(copy / "media")
    )
    assert builder.info.splits.total_num_examples == 7


def test_media_that_changed_since_the_manifest_are_reported(copy):
    audio = copy / "media" / "audio"
    media_files.write_clip(audio / "1-10001-A-0.wav", 0.7)
    (audio / "2-10002-A-0.wav").unlink()
    same_size = bytearray((audio / "2-10002-A-36.wav").read_bytes())
    same_size[-1] ^= 1
    (audio / "2-10002-A-36.wav").write_bytes(same_size)
    os.utime(audio / "3-10003-A-0.wav", (1, 1))  # only touched: still the same
    options = {"manifest": str(copy / "audit"), "media": str(copy / "media")}
    builder = build(ESC50, copy / "data", **options)
    reasons = left_out(builder)
    assert set(reasons) == {"1-10001-A-0.wav", "2-10002-A-0.wav", "2-10002-A-36.wav"}
    assert "bytes, were" in reasons["1-10001-A-0.wav"]
    assert "No such file" in reasons["2-10002-A-0.wav"]
    assert "another hash" in reasons["2-10002-A-36.wav"]
    assert sorted(builder.info.splits) == ["fold_1", "fold_3", "fold_4", "fold_5"]
    assert builder.info.metadata["summary"]["num_bad"] == 3
    with pytest.raises(UserError, match="changed since the manifest"):
        build(ESC50, copy / "strict", strict=True, **options)


@pytest.mark.parametrize("character", ["\n", "\x0b", "\x85", "\u2028"])
def test_a_class_name_is_one_line(copy, character):
    path = copy / "annotations" / "esc50.csv"
    text = path.read_text()
    assert ",dog," in text
    path.write_text(text.replace(",dog,", f',"do{character}g",'), newline="")
    with pytest.raises(UserError, match=r"label 'do.*g' in esc50\.csv has the control"):
        audit(ESC50.SOURCE(), copy / "annotations", copy / "media", copy / "again")
    assert not (copy / "again").exists()


def test_two_builds_at_once_are_refused(copy):
    builder = builder_of(ESC50, copy / "data", manifest=str(copy / "audit"))
    with (
        exclusive(builder.work_folder / "build.lock"),
        pytest.raises(UserError, match="another build is running here"),
    ):
        builder.download_and_prepare()
    builder.download_and_prepare()
    assert builder.info.splits.total_num_examples == 7


def test_other_options_or_another_manifest_need_overwriting(sounds, copy):
    shutil.copytree(sounds[0] / "data", copy / "data")
    manifest = str(copy / "audit")
    build(ESC50, copy / "data", manifest=manifest)  # the same: nothing to do
    with pytest.raises(UserError, match=r"with other channels\..*--overwrite"):
        build(ESC50, copy / "data", manifest=manifest, channels="downmix")
    media_files.write_clip(copy / "media/audio/1-10001-A-0.wav", 0.7)
    folders = copy / "annotations", copy / "media"
    audit(ESC50.SOURCE(), *folders, copy / "audit", num_workers=1)
    with pytest.raises(UserError, match=r"with other manifest\..*--overwrite"):
        build(ESC50, copy / "data", manifest=manifest)
    again = build(ESC50, copy / "data", overwrite=True, manifest=manifest)
    fresh = tfds.builder("esc50", data_dir=copy / "data").info.metadata
    assert fresh["manifest_fingerprint"] == Manifest(manifest).fingerprint
    assert again.info.splits["fold_1"].num_examples == 2


def test_a_data_set_of_an_older_version_is_refused(sounds, copy):
    shutil.copytree(sounds[0] / "data", copy / "data")
    builder = builder_of(ESC50, copy / "data", manifest=str(copy / "audit"))
    (builder.data_path / "metadata.json").unlink()
    with pytest.raises(UserError, match=r"by an older version.*--overwrite"):
        build(ESC50, copy / "data", manifest=str(copy / "audit"))


def test_a_manifest_of_another_data_set_is_refused(sounds, tmp_path):
    with pytest.raises(UserError, match="of esc50/default, not of audioset/balanced"):
        build(AudioSet, tmp_path, manifest=str(sounds[0] / "audit"))


def test_clips_with_flags_can_be_left_out(copy, tmp_path):
    with pytest.raises(UserError, match="`skip` must be among silent, still"):
        builder_of(ESC50, tmp_path, skip=("quiet",))
    audio = copy / "media" / "audio"
    shutil.copy(audio / "1-10001-A-0.wav", audio / "4-10004-A-0.wav")
    folders = copy / "annotations", copy / "media"
    audit(ESC50.SOURCE(), *folders, copy / "audit", thorough=False, num_workers=1)
    options = {"manifest": str(copy / "audit")}
    with pytest.raises(UserError, match=r"quick audit, which does not detect.*silent"):
        build(ESC50, copy / "data", skip=("silent",), **options)
    builder = build(ESC50, copy / "data", skip=("duplicate",), **options)
    assert "fold_4" not in builder.info.splits


def test_an_interrupted_build_goes_on_where_it_was(copy, monkeypatch):
    folders = {"annotations": copy / "annotations", "media": copy / "media"}
    options = {name: str(path) for name, path in folders.items()}

    def interrupt(example):
        if example["id"].startswith("2-"):
            raise KeyboardInterrupt
        return example

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ESC50, "finish_example", staticmethod(interrupt))
        build(ESC50, copy / "data", **options)
    made = (copy / "data/esc50/default/audit/manifest.csv").stat().st_mtime_ns
    builder = build(ESC50, copy / "data", **options)
    assert sum(decoded.num_taken_over for decoded in builder._decoded) >= 2
    assert (builder.work_folder / "audit/manifest.csv").stat().st_mtime_ns == made
    assert builder.info.splits.total_num_examples == 7


def test_nothing_to_build_says_where_to_look(copy):
    shutil.rmtree(copy / "media" / "audio")
    options = {"annotations": str(copy / "annotations"), "media": str(copy / "media")}
    with pytest.raises(UserError, match="of 7 annotated clips none could be stored"):
        build(ESC50, copy / "data", **options)


def test_several_classes_become_multi_hot(tmp_path):
    options = {name: str(dummy("audioset") / name) for name in ("annotations", "media")}
    build(AudioSet, tmp_path, **options)
    split = open_split("audioset/balanced", "train", tmp_path)
    assert split.label_names("events") == (
        "Speech",
        "Male speech, man speaking",
        "Gargling",
    )
    rows = dict(zip(split.ids(), split.labels("events").tolist(), strict=True))
    assert rows == {"--PJHxphWEs_30.000": [1, 0, 1], "--ZhevVpy1s_50.000": [0, 1, 0]}


def test_test_clips_without_sound_count_as_misses(tmp_path):
    options = {name: str(dummy("msr_vtt") / name) for name in ("annotations", "media")}
    build(MSRVTT, tmp_path, **options)
    split = open_split("msr_vtt/9k", "test", tmp_path)
    misses = dict(zip(split.ids(), split.labels("counts_as_miss"), strict=True))
    assert misses == {"video3": 0, "video4": 1}


# --- the command line -----------------------------------------------------------------


def test_from_annotations_to_records_by_command(cli, tmp_path):
    data, out = tmp_path / "data", tmp_path / "audit"
    folders = [f"--{n}={dummy('vggsound') / n}" for n in ("annotations", "media")]
    done = cli("data", "audit", "vggsound", *folders, "--out", out, "--workers", 2)
    assert done.status == 0, done
    assert "train: 4 clips: 2 ok, 1 missing, 1 bad_row, 2 shortened" in done.out
    assert f"next: tfavmae data build vggsound/stat --manifest {out}" in done.out
    assert "auditing vggsound/stat: 5/5 clips" in done.err
    manifest = ("--manifest", out, "--data-dir", data, "--workers", 2)
    done = cli("data", "build", "vggsound", *manifest, "--set", "frame_rate=2")
    assert done.status == 0, done
    assert "num ok: 3" in done.out and "vggsound/stat/1.0.0 is in" in done.out
    assert "train: 4 clips: 2 ok, 1 missing, 1 bad_row, 2 shortened" in done.out
    done = cli("data", "build", "vggsound", *manifest, "--set", "frame_rate=1")
    assert done.status == 2 and "built with other frame_rate" in done.err
    assert "--overwrite" in done.err and done.err.count("\n") == 1
    done = cli("data", "describe", "vggsound/stat", "--data-dir", data)
    assert done.status == 0 and "309" in done.out, done


def test_manual_directories_and_options_by_command(cli, tmp_path):
    arguments = ("--manual-dir", dummy("audioset"), "--data-dir", tmp_path)
    done = cli(
        *("data", "build", "audioset/as500k", *arguments, "--workers", 2),
        *("--set", "list=as500k.txt", "--set", "frame_rate=1"),
    )
    assert done.status == 0 and "num ok: 3" in done.out, done


def test_overwriting_by_command(cli, tmp_path):
    videos = ("--videos", dummy("clip_folder"), "--data-dir", tmp_path, "--workers", 2)
    assert cli("data", "build", "clip_folder", *videos).status == 0
    done = cli("data", "build", "clip_folder", *videos, "--clip-seconds", 1)
    assert done.status == 2 and "with other clip_seconds" in done.err
    done = cli(
        "data", "build", "clip_folder", *videos, "--clip-seconds", 1, "--overwrite"
    )
    assert done.status == 0, done


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("build", "vggsond"), "did you mean 'vggsound'?"),
        (("build", "vggsound"), "vggsound needs --manifest DIR"),
        (("build", "vggsound/small", "--manual-dir", "."), "stat, alphabetical"),
        (("build", "vggsound", "--videos", "."), "--videos does not apply to vggsound"),
        (
            ("build", "esc50", "--manual-dir", ".", "--manifest", "."),
            "exclude each other",
        ),
        (
            ("build", "esc50", "--manual-dir", ".", "--set", "fold=1"),
            "no setting is named 'fold'",
        ),
        (("build", "clip_folder", "--manifest", "."), "--manifest does not apply to"),
        (("audit", "nope", "--annotations", ".", "--media", "."), "named 'nope'"),
        (("audit", "esc50", "--annotations", "none", "--media", "."), "no such folder"),
        (("audit", "esc50", "--annotations", ".", "--media", "none"), "no media"),
        (
            ("audit", "esc50", "--annotations", ".", "--media", ".", "--set", "x=1"),
            "esc50 has no option 'x'; none are known",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_use_is_one_line(arguments, words, cli, tmp_path):
    done = cli("data", *arguments)
    assert done.status == 2 and words in done.err, done
    assert done.err.count("\n") == 1
