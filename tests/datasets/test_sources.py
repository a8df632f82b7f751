"""Sources of all published data sets, on annotations of `dummy_data` and others."""

import importlib
import pathlib
import shutil

import pytest

from tfavmae.building.annotations import Annotations
from tfavmae.building.audit import audit
from tfavmae.building.source import Source
from tfavmae.commands.data import published_data
from tfavmae.errors import UserError
from tfavmae_datasets.vggsound.source import VGGSound, stat_order

ROOT = pathlib.Path(__file__).resolve().parents[2]
SELECTIONS = [
    (name, selection)
    for name in published_data.NAMES
    for selection in published_data.source_of(name).SELECTIONS
]


def dummy(name) -> tuple[pathlib.Path, pathlib.Path]:
    """Folders of annotations and of media."""
    folder = ROOT / "datasets" / name / "dummy_data"
    media = folder / "media"
    annotations = folder / "annotations"
    return annotations if annotations.is_dir() else media, media


def clips(name, selection=None, annotations=None, **options) -> dict:
    """All clips by id; those with a problem by where they stand."""
    source = published_data.source_of(name)(selection, **options)
    found, media = dummy(name)
    return {
        clip.key: clip
        for clip in source.clips(Annotations(annotations or found), media)
    }


def labels(name, key, **options) -> dict:
    return clips(name, **options)[key].labels


def copy(name, tmp_path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(dummy(name)[0], tmp_path / "annotations"))


def test_the_list_of_names_is_that_of_the_folders():
    folders = {path.parent.name for path in ROOT.glob("datasets/*/source.py")}
    assert set(published_data.NAMES) == folders


@pytest.mark.parametrize("name", published_data.NAMES)
def test_a_data_set_has_all_that_belongs_to_it(name):
    folder = ROOT / "datasets" / name
    readme = (folder / "README.md").read_text()
    for words in ("Size on disk", "Licence", f"tfavmae data build {name} "):
        assert words in readme, words
    assert (folder / "CITATIONS.bib").read_text().startswith("@")
    assert "content.data-type.audio" in (folder / "TAGS.txt").read_text().split()
    assert f"`{name}`" in (ROOT / "docs" / "data.md").read_text()


def test_sources_do_not_need_tensorflow(fresh_python):
    fresh_python(
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(f'tfavmae_datasets.{name}').Source()",
        *published_data.NAMES,
        blocked=("tensorflow", "tensorflow_datasets", "keras"),
    )


@pytest.mark.parametrize(
    "name, selection", SELECTIONS, ids=[f"{name}/{s}" for name, s in SELECTIONS]
)
def test_dummy_data_are_audited_without_surprise(name, selection, tmp_path):
    source = published_data.source_of(name)
    options = {"list": "as500k.txt"} if selection == "as500k" else {}
    made = audit(
        source(selection, **options), *dummy(name), tmp_path, thorough=False,
        num_workers=1,
    )  # fmt: skip
    rows = list(made.rows())
    assert {row.status for row in rows} <= {"ok", "missing", "bad_row"}
    usable = [row for row in rows if row.status == "ok"]
    assert usable and all(row.template for row in usable)
    keys = {tuple(sorted(row.labels)) for row in rows if row.status != "bad_row"}
    assert len(keys) == 1  # all examples have the same features
    for label, names in made.facts["label_names"].items():
        assert len(set(names)) == len(names)
        for row in usable:
            value = row.labels[label]
            values = value if isinstance(value, list) else [value]
            assert all(v in names or v == -1 or type(v) is int for v in values)


@pytest.mark.parametrize("name", published_data.NAMES)
def test_missing_annotations_are_explained(name, tmp_path):
    source = published_data.source_of(name)()
    with pytest.raises(UserError) as error:
        list(source.clips(Annotations(tmp_path), tmp_path))
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_wrong_selections_and_options_are_named():
    with pytest.raises(
        UserError, match=r"vggsound has no selection 'small'; known: stat,"
    ):
        VGGSound("small")
    with pytest.raises(
        UserError, match="vggsound has no option 'seed'; none are known"
    ):
        VGGSound(seed=1)


def test_a_source_needs_its_clips():
    with pytest.raises(TypeError, match="abstract"):
        Source()


# --- VGGSound -------------------------------------------------------------------------


def test_vggsounds_label_map_is_the_authors():
    names = stat_order()
    assert len(names) == len(set(names)) == 309
    assert sum("," in name for name in names) == 23
    assert (names[0], names[1], names[308]) == (
        "ambulance siren",
        "basketball bounce",
        "air horn",
    )
    assert "extending ladders" not in names
    annotations = Annotations(dummy("vggsound")[0])
    alphabetical = VGGSound("alphabetical").label_names(annotations)["label"]
    assert alphabetical == sorted(names) and alphabetical[0] == "air conditioning noise"


def test_vggsounds_extra_label_is_reported():
    bad = clips("vggsound")["vggsound.csv line 4"]
    assert "'extending ladders' is not in the label map" in bad.problem


def test_the_retrieval_subset_is_the_first_five_of_each_class(tmp_path):
    """Of a file of the official form and size: CRLF, no header, 50 rows a class."""
    names = stat_order()
    rows = []
    for turn in range(50):
        for number, label in enumerate(names):
            quoted = f'"{label}"' if "," in label else label
            rows.append(f"-{turn:03d}{number:07d}_{turn:06d}.mp4,{quoted}")
    (tmp_path / "test.csv").write_bytes("\r\n".join(rows).encode())
    found = clips("vggsound", "retrieval", tmp_path)
    assert len(found) == 1545
    assert {key[1:4] for key in found} == {"000", "001", "002", "003", "004"}
    counts = {}
    for clip in found.values():
        counts[clip.labels["label"]] = counts.get(clip.labels["label"], 0) + 1
    assert set(counts.values()) == {5} and len(counts) == 309
    clip = found["-0020000007_000002"]
    assert (clip.fields["id"], clip.start_seconds, clip.end_seconds) == (
        "-0020000007",
        2,
        12,
    )


# --- AudioSet -------------------------------------------------------------------------


def test_audiosets_selections():
    def ids(selection, split, **options):
        found = clips("audioset", selection, **options).values()
        return [c.key for c in found if c.split == split and not c.problem]

    balanced = ["--PJHxphWEs_30.000", "--ZhevVpy1s_50.000", "--aE2O5G5WE_0.000"]
    assert ids("balanced", "train") == balanced
    assert ids("full", "train") == [*balanced, "---1_cCGK4M_0.000"]
    wanted = ids("as500k", "train", list="as500k.txt")
    assert wanted == ["--ZhevVpy1s_50.000", "---1_cCGK4M_0.000"]
    assert ids("eval", "train") == []
    assert ids("eval", "eval") == ["--4gqARaEJE_0.000"]
    with pytest.raises(
        UserError, match=r"needs the list of its YouTube ids.*list=None"
    ):
        clips("audioset", "as500k")


def test_audiosets_labels_are_names():
    events = labels("audioset", "--ZhevVpy1s_50.000")["events"]
    assert events == ["Male speech, man speaking"]
    bad = clips("audioset", "full")["unbalanced_train_segments.csv line 5"]
    assert "'/m/unknown' is not in class_labels_indices.csv" in bad.problem


def test_audiosets_class_list_must_count_up(tmp_path):
    folder = copy("audioset", tmp_path)
    path = folder / "class_labels_indices.csv"
    path.write_text(path.read_text().replace("2,/t/dd00088", "3,/t/dd00088"))
    with pytest.raises(UserError, match="do not count from 0"):
        clips("audioset", annotations=folder)


def test_classes_of_the_same_name_stay_apart(tmp_path):
    folder = copy("audioset", tmp_path)
    path = folder / "class_labels_indices.csv"
    path.write_text(path.read_text().replace("Gargling", "Speech"))
    source = published_data.source_of("audioset")()
    names = source.label_names(Annotations(folder))["events"]
    assert names == [
        "Speech (/m/09x0r)",
        "Male speech, man speaking",
        "Speech (/t/dd00088)",
    ]


# --- Kinetics-Sounds ------------------------------------------------------------------


def test_kinetics_sounds_takes_its_classes_of_all():
    found = clips("kinetics_sounds")
    assert "_dbcJuKJQNs_000040_000050" not in found  # air drumming
    assert found["UTZNGD-TvvY_000061_000071"].labels["label"] == "bowling"
    source = published_data.source_of("kinetics_sounds")()
    names = source.label_names(Annotations(dummy("kinetics_sounds")[0]))
    assert len(names["label"]) == 32 and names["label"] == sorted(names["label"])
    assert "air drumming" in names["label_k400"]


def test_lists_of_numbered_classes_are_read_too(tmp_path):
    for split in ("train", "val", "test"):
        line = f"{split}/-{split}-_vvY_000061_000071.mp4,13\n"
        (tmp_path / f"{split}_data_path.csv").write_text(line)
    (tmp_path / "train_data_path.csv").open("a").write(
        "train/x.mp4,2\ntrain/a_1_2.mp4,32\n"
    )
    found = clips("kinetics_sounds", annotations=tmp_path)
    clip = found["-val-_vvY_000061_000071"]
    assert clip.labels == {"label": "playing harmonica", "label_k400": -1}
    assert clip.split == "validation" and clip.fields["short_split"] == "val"
    assert "not a file name" in found["train_data_path.csv line 2"].problem
    assert "no class 32" in found["train_data_path.csv line 3"].problem


def test_a_test_split_without_labels_is_reported(tmp_path):
    folder = copy("kinetics_sounds", tmp_path)
    rows = "youtube_id,time_start,time_end,split\n0tickling-0,3,13,test\n"
    (folder / "test.csv").write_text(rows)
    bad = clips("kinetics_sounds", annotations=folder)["test.csv line 2"]
    assert "has no label" in bad.problem and bad.split == "test"


def test_kinetics_400_has_all_classes_and_clips_without_one():
    found = clips("kinetics400")
    assert found["_dbcJuKJQNs_000040_000050"].labels == {"label": "air drumming"}
    unlabelled = found["0unknown-00_000003_000013"]
    assert (unlabelled.split, unlabelled.labels["label"]) == ("test", -1)
    assert found["0yoga-00-00_000003_000013"].fields["short_split"] == "val"
    assert found["train.csv line 5"].problem  # ends where it begins
    source = published_data.source_of("kinetics400")()
    names = source.label_names(Annotations(dummy("kinetics400")[0]))
    assert names["label"] == ["air drumming", "bowling", "playing piano", "yoga"]


# --- EPIC-KITCHENS-100 ----------------------------------------------------------------


def test_segments_of_kitchens():
    found = clips("epic_kitchens_100")
    clip = found["P01_11_1"]
    assert (clip.start_seconds, clip.end_seconds) == (2.0, 4.25)
    assert clip.labels["narration"] == "put plate, board"
    assert clip.labels["all_nouns"] == [2, 1] and clip.labels["action"] == 302
    held_out = found["P18_01_0"].labels
    assert held_out["is_unseen_participant"]
    assert held_out["is_tail_verb"] and held_out["is_tail_noun"]
    assert found["P18_01_9"].labels["verb"] == -1
    assert "zero length" in found["EPIC_100_train.csv line 4"].problem


def test_the_second_version_of_the_nouns_is_refused(tmp_path):
    folder = copy("epic_kitchens_100", tmp_path)
    rows = "".join(f'"{i}","n{i}","[]","x"\n' for i in range(305))
    path = folder / "EPIC_100_noun_classes.csv"
    path.write_text('"id","key","instances","category"\n' + rows)
    with pytest.raises(UserError, match="has 305 classes"):
        clips("epic_kitchens_100", annotations=folder)


# --- Text -----------------------------------------------------------------------------


def test_msr_vtts_retrieval_split():
    found = clips("msr_vtt", "9k")
    assert found["video4"].labels == {
        "captions": ["sentence 8, spoken", "sentence 9, spoken"],
        "query": "a cat, and nothing is heard",
        "category": 4,
    }
    assert [c.split for c in found.values()] == ["train"] * 3 + ["test"] * 2
    assert len(clips("msr_vtt", "7k")) == 4
    splits = [c.split for c in clips("msr_vtt", "official").values()]
    assert splits == ["train", "train", "validation", "test", "test"]


@pytest.mark.parametrize("head", ["", "video_id\n"])
def test_msr_vtts_lists_with_and_without_header(head, tmp_path):
    folder = copy("msr_vtt", tmp_path)
    (folder / "MSRVTT_train.9k.csv").write_text(f"{head}video0\nvideo77\n")
    found = clips("msr_vtt", annotations=folder)
    line = 2 + bool(head)
    assert "video0" in found
    bad = found[f"MSRVTT_train.9k.csv line {line}"]
    assert bad.problem == "video77 is in no JSON file"


@pytest.mark.parametrize("separator", ["\t", ", "])
def test_msr_vtts_categories_are_named_if_a_file_does(separator, tmp_path):
    lines = [f"news/events{separator}1", f"music{separator}0"]
    (tmp_path / "category.txt").write_text("\r\n".join(lines))
    source = published_data.source_of("msr_vtt")()
    names = source.label_names(Annotations(tmp_path))["category"]
    assert names == ["music", "news/events"]


def test_a_broken_json_is_one_line(tmp_path):
    (tmp_path / "youcookii_annotations_trainval.json").write_text('{"database": {')
    with pytest.raises(UserError, match="is not JSON"):
        clips("youcook2", annotations=tmp_path)
    (tmp_path / "youcookii_annotations_trainval.json").write_text("{}")
    with pytest.raises(UserError, match="has no 'database'"):
        clips("youcook2", annotations=tmp_path)


def test_steps_of_recipes():
    found = clips("youcook2")
    clip = found["-Ld3aX16zBg_1"]
    assert (clip.start_seconds, clip.end_seconds, clip.split) == (4, 6, "train")
    assert clip.labels["recipe_type"] == "113"
    assert clip.labels["caption"] == "spread 1, on bread"
    bad = found["youcookii_annotations_trainval.json -Ld3aX16zBg 2"]
    assert "zero length" in bad.problem


def test_captions_of_a_clip_are_gathered():
    found = clips("audiocaps")
    assert found["1vtLXIdQhUg_10"].labels["captions"] == [
        f"caption {k}" for k in range(5)
    ]
    assert found["-6BJ455B1aU_30"].labels == {
        "captions": ["A rocket flies by, followed by a loud explosion"],
        "audiocap_ids": ["103548"],
    }


def test_clothos_metadata_in_iso_8859_1(tmp_path):
    found = labels("clotho", "development/Distorted AM Radio noise.wav")
    assert found["captions"][0] == "It rains, hard" and len(found["captions"]) == 5
    assert found["keywords"] == ["noise", "Åre"] and found["sound_id"] == "Not found"
    assert found["start_end_samples"] == [1200, 4000]
    folder = copy("clotho", tmp_path)
    (folder / "clotho_metadata_evaluation.csv").unlink()  # some releases have none
    alone = labels("clotho", "evaluation/Late night.wav", annotations=folder)
    assert alone["sound_id"] == "" and alone["start_end_samples"] == []


# --- Sounds ---------------------------------------------------------------------------


def test_events_second_by_second(tmp_path):
    found = clips("ave")
    clip = found["-ale_speech_Male speech, man speaking_1_2"]
    seconds = clip.labels["second_labels"]
    assert seconds == ["background", "Male speech, man speaking"] + ["background"] * 8
    assert "zero length" in found["trainSet.txt line 2"].problem
    folder = copy("ave", tmp_path)
    for path in folder.glob("*Set.txt"):
        path.unlink()
    assert {c.split for c in clips("ave", annotations=folder).values()} == {"all"}
    (folder / "valSet.txt").write_text("Church bell&x&good&0&10\n")
    with pytest.raises(UserError, match=r"no trainSet.txt, testSet.txt"):
        clips("ave", annotations=folder)


def test_the_folds_of_esc_50():
    found = clips("esc50")
    assert found["2-10002-A-36"].labels["label"] == "vacuum_cleaner"
    assert found["2-10002-A-36"].split == "fold_2"
    assert {c.labels["label"] for c in clips("esc50", "esc10").values()} == {"dog"}


def test_the_twelve_classes_of_speech_commands():
    found = clips("speech_commands")
    splits = {key: (c.split, c.labels["label"]) for key, c in found.items()}
    assert splits["bed/0a_nohash_0.wav"] == ("train", "_unknown_")
    assert splits["yes/0b_nohash_0.wav"] == ("validation", "yes")
    assert splits["_background_noise_/white_noise.wav@0.5"] == ("train", "_silence_")
    assert splits["_background_noise_/running_tap.wav@0"][0] == "validation"
    assert splits["test/_silence_/0d_nohash_0.wav"] == ("test", "_silence_")
    assert "no/0c_nohash_1.wav" not in found  # the archive of test clips replaces it


def test_without_the_test_archive_the_list_says_what_is_tested(tmp_path):
    media = shutil.copytree(dummy("speech_commands")[1], tmp_path / "media")
    shutil.rmtree(media / "speech_commands_test_set_v0.01")
    (media / "testing_list.txt").write_text("no/0c_nohash_1.wav\nno/gone.wav\n")
    source = published_data.source_of("speech_commands")()
    made = audit(source, media, media, tmp_path / "out", thorough=False, num_workers=1)
    tested = {row.id: row.status for row in made.rows("test")}
    assert tested == {"no/0c_nohash_1.wav": "ok", "no/gone.wav": "missing"}


def test_random_clips_of_how_to_videos():
    keys = [c.key for c in clips("howto100m", clips_per_video=2, seed=3).values()]
    assert keys[:2] == ["nVbIUDjzWY4_3_0", "nVbIUDjzWY4_3_1"]
    (first, *_) = clips("howto100m", clip_seconds=4.0).values()
    assert first.random_seconds == 4 and first.key == "nVbIUDjzWY4_0"
    with pytest.raises(UserError, match="must be positive"):
        importlib.import_module("tfavmae_datasets.howto100m").Source(clips_per_video=0)
