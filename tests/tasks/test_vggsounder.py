"""VGGSounder's measures, by hand and against scikit-learn."""

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, jaccard_score

from tfavmae.errors import UserError
from tfavmae.tasks import vggsounder
from tfavmae.tasks.scores import Scores

NAMES = ["dog", "rain", "guitar", "speech"]
IDS = [f"aaaaaaaaaa{i}_00000{i}" for i in range(5)]
# The last clip is not of VGGSounder.
LABELS = """video_id,label,modality,background_music,static_image,voice_over
aaaaaaaaaa0_000000,dog,AV,False,False,False
aaaaaaaaaa0_000000,rain,A,False,False,False
aaaaaaaaaa1_000001,guitar,AV,True,False,False
aaaaaaaaaa2_000002,speech,A,False,False,True
aaaaaaaaaa2_000002,dog,V,False,False,True
aaaaaaaaaa3_000003,rain,AV,False,True,False
"""
LOGITS = {
    "audio_video": [
        [4, 1, 0, 0],
        [1, 0, 0, 3],
        [0, 5, 0, 1],
        [3, 1, 0, 0],
        [1, 0, 0, 0],
    ],
    "audio": [[0, 4, 1, 0], [0, 0, 3, 1], [0, 0, 0, 4], [0, 3, 1, 0], [1, 0, 0, 0]],
    "video": [[4, 0, 0, 1], [0, 0, 5, 1], [0, 1, 0, 4], [5, 1, 0, 0], [1, 0, 0, 0]],
}


def scores(logits, names=NAMES, ids=IDS):
    logits = np.array(logits, "float64")
    count = len(logits)
    return Scores(
        rows=np.arange(count),
        ids=np.array(ids),
        logits={"label": logits},
        probabilities={"label": 1 / (1 + np.exp(-logits))},
        targets={"label": np.zeros(count, int)},
        present={m: np.ones(count, bool) for m in ("audio", "video")},
        modalities=("audio", "video"),
        activation="softmax",
        class_names={"label": list(names)},
    )


@pytest.fixture
def labels(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(LABELS)
    return path


@pytest.fixture
def result(labels):
    found = {m: scores(x) for m, x in LOGITS.items()}
    return vggsounder.measure(found, vggsounder.read_labels(labels), (1, 2))


def test_each_input_is_measured_by_what_it_can_tell(result):
    assert (result.num_clips, result.num_left_out) == (4, 1)
    counts = {name: one.num_clips for name, one in result.subsets.items()}
    assert counts == {
        "seen and heard": 3,
        "heard": 4,
        "seen": 4,
        "heard only": 2,
        "seen only": 1,
    }
    hits = {name: one.hit[1].value for name, one in result.subsets.items()}
    # Both: dog is right, guitar is not, rain is not. Audio: all four. Video: dog and
    # guitar. Heard only: rain and speech, both. Seen only: speech for a dog.
    assert hits == {
        "seen and heard": 1 / 3,
        "heard": 1.0,
        "seen": 0.5,
        "heard only": 1.0,
        "seen only": 0.0,
    }


def test_figures_are_those_of_scikit_learn(result):
    hot = np.zeros((4, 4), int)
    for row, own in enumerate(([0, 1], [2], [3], [1])):  # what is heard
        hot[row, own] = 1
    logits = np.array(LOGITS["audio"][:4], float)
    for k in (1, 2):
        predicted = np.zeros_like(hot)
        order = np.argsort(-logits, axis=1, kind="stable")[:, :k]
        np.put_along_axis(predicted, order, 1, axis=1)
        one = result.subsets["heard"]
        f1 = f1_score(hot, predicted, average="micro")
        assert one.f1[k] == pytest.approx(f1)
        jaccard = jaccard_score(hot, predicted, average="micro")
        assert one.jaccard[k] == pytest.approx(jaccard)
    occur = hot.any(0)
    expected = np.mean(
        [
            average_precision_score(hot[:, i], logits[:, i])
            for i in np.flatnonzero(occur)
        ]
    )
    assert one.mean_average_precision == pytest.approx(expected)


def test_modality_confusion(result):
    """Clips 1, 2 and 3 are wrong with both inputs; video is right of 1 and 2."""
    values = {m: one.value for m, one in result.confusion.items()}
    assert values == {"audio": 3 / 4, "video": 2 / 4, "audio_video": 2 / 4}


def test_without_single_modalities_there_is_no_confusion(labels):
    known = vggsounder.read_labels(labels)
    found = vggsounder.measure({"audio_video": scores(LOGITS["audio_video"])}, known)
    assert list(found.subsets) == ["seen and heard"] and not found.confusion


def test_the_command_writes_what_it_prints(labels, tmp_path, cli):
    paths = []
    for m, logits in LOGITS.items():
        paths.append(tmp_path / f"{m}.npz")
        np.savez(paths[-1], **scores(logits).to_arrays())
    words = ("--audio", paths[1], "--video", paths[2], "--labels", labels)
    done = cli("vggsounder", paths[0], *words, "--output", tmp_path / "x.json")
    assert done.status == 0, done
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["confusion"]["audio"]["value"] == 0.75
    assert "modality confusion, audio and video: 50.0 %" in done.out


@pytest.mark.parametrize(
    "change, complaint",
    [
        (lambda text: text.replace("video_id", "clip"), "has no column video_id"),
        (lambda text: text.replace(",V,", ",B,"), "line 6 must have .*received 'B'"),
        (lambda text: text.splitlines()[0], "has no labels"),
        (lambda text: text.replace("guitar", "harp"), "no class 'harp'"),
        (lambda text: text.replace("aaaaaaaaaa", "bbbbbbbbbb"), "none of the clips"),
    ],
)
def test_wrong_labels_are_one_line(change, complaint, labels):
    labels.write_text(change(LABELS))
    with pytest.raises(UserError, match=complaint):
        found = {m: scores(x) for m, x in LOGITS.items()}
        vggsounder.measure(found, vggsounder.read_labels(labels))


def test_scores_must_be_of_the_same_clips(labels):
    known = vggsounder.read_labels(labels)
    other = scores(LOGITS["audio"], ids=IDS[::-1])
    with pytest.raises(UserError, match="same clips and classes"):
        vggsounder.measure(
            {"audio_video": scores(LOGITS["video"]), "audio": other}, known
        )


def test_no_labels_say_where_to_get_them(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        vggsounder.read_labels(tmp_path / "none.csv")
