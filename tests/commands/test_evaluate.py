"""`evaluate`, `ensemble` and `finetune --folds` on a run of two steps."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tone_sets

from tfavmae.cli import main
from tfavmae.tasks.scores import Scores


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three data sets, and in `runs` a cross-validation on one of them."""
    folder = tmp_path_factory.mktemp("tones")
    tone_sets.build(folder)
    (folder / "recipe.yaml").write_text(tone_sets.RECIPE)
    assert main(folds_command(folder)) == 0
    return folder


def folds_command(folder):
    words = ["finetune", "--folds", "--config", folder / "recipe.yaml"]
    words += ["--workdir", folder / "runs", "--set", f"data.data_dir={folder}"]
    return [str(word) for word in words]


@pytest.fixture
def evaluate(folder, cli):
    def command(*words, fold=1):
        return cli("evaluate", "--workdir", folder / "runs" / f"fold_{fold}", *words)

    return command


def read(path):
    return json.loads(path.read_text())


# --- Folds ---


def test_each_fold_is_held_out_once(folder):
    summary = read(folder / "runs" / "folds.json")
    counts = {name: one["num_clips"] for name, one in summary["folds"].items()}
    assert counts == {"fold_1": 6, "fold_2": 9}
    assert summary["num_clips"] == 15
    values = [one["accuracy"]["value"] for one in summary["folds"].values()]
    assert summary["accuracy"]["mean"] == pytest.approx(np.mean(values))
    assert summary["accuracy"]["std"] == pytest.approx(np.std(values, ddof=1))
    for name, trained_on in (("fold_1", "fold_2"), ("fold_2", "fold_1")):
        data = read(folder / "runs" / name / "run.json")["data"]
        assert data["train"]["split"] == trained_on
        assert data["validation"]["split"] == name
        own = read(folder / "runs" / name / f"evaluation_{name}.json")
        assert own["accuracy"]["value"] == summary["folds"][name]["accuracy"]["value"]


def test_the_same_command_continues_with_what_is_missing(folder, cli):
    before = read(folder / "runs" / "folds.json")
    finished, missing = (folder / "runs" / f"fold_{k}" for k in (1, 2))
    time = (finished / "model.keras").stat().st_mtime_ns
    (missing / "model.keras").unlink()
    shutil.rmtree(missing / "checkpoints")
    done = cli(*folds_command(folder))
    assert done.status == 0 and done.err.count("nothing to do") == 1
    assert (finished / "model.keras").stat().st_mtime_ns == time
    assert (missing / "model.keras").is_file()
    assert read(folder / "runs" / "folds.json") == before
    assert "mean" in done.out and "fold_2" in done.out and "folds.json" in done.out
    assert json.loads(cli(*folds_command(folder), "--json").out) == before


# --- Figures ---


def test_every_figure_has_its_n_and_every_class_a_row(evaluate):
    done = evaluate("--per-class", fold=2)
    assert done.status == 0
    rows = [line.split("│") for line in done.out.split("\n") if "│" in line]
    cells = {row[1].strip(): [cell.strip() for cell in row[2:-1]] for row in rows}
    assert cells["accuracy"][1] == "9"
    for name in ("mAP", "AUC", "d-prime"):
        assert cells[name][1] == "9, 3 classes"
    assert cells["accuracy with audio and video"][1] == "8"
    assert cells["accuracy with audio only"][1] == "1"
    classes = {name: cells[name] for name in ("bell", "drum", "flute")}
    assert all(row[0] == "3" for row in classes.values())
    order = [float(classes[row[1].strip()][1]) for row in rows[-3:]]
    assert order == sorted(order, reverse=True)


def test_views_are_averaged_as_asked_and_json_alone_is_printed(evaluate, folder):
    done = evaluate("--views", "4", "--mean", "logits", "--json")
    assert done.status == 0
    printed = json.loads(done.out)
    assert printed == read(folder / "runs" / "fold_1" / "evaluation_fold_1.json")
    assert (printed["num_views"], printed["mean"]) == (4, "logits")
    assert [one["name"] for one in printed["classes"]] == ["bell", "drum", "flute"]
    assert [one["num_clips"] for one in printed["classes"]] == [2, 2, 2]


# --- Classes ---


def test_predictions_are_restricted_to_some_classes(evaluate, tmp_path, folder):
    listed, path = tmp_path / "names.txt", tmp_path / "scores.npz"
    listed.write_text("flute\nbell\n")
    done = evaluate("--classes", listed, "--save-scores", path, "--json")
    assert done.status == 0, done
    found = json.loads(done.out)
    assert [one["name"] for one in found["classes"]] == ["flute", "bell"]
    assert (found["num_clips"], found["num_left_out"]) == (4, 2)
    assert (folder / "runs" / "fold_1" / "evaluation_2_classes_fold_1.json").is_file()
    done = evaluate("--save-scores", tmp_path / "all.npz")
    restricted, whole = Scores.read(path), Scores.read(tmp_path / "all.npz")
    np.testing.assert_allclose(
        restricted.logits["label"], whole.logits["label"][:, [2, 0]]
    )
    total = restricted.probabilities["label"].sum(1)
    np.testing.assert_allclose(total, 1, rtol=1e-6)
    expected = {0: 1, 1: -1, 2: 0}
    assert restricted.targets["label"].tolist() == [
        expected[k] for k in whole.targets["label"].tolist()
    ]


def test_classes_of_another_data_set_are_found_by_name(evaluate, folder, tmp_path):
    other = ("--set", "data.dataset=pair", "--split", "test")
    done = evaluate(*other, "--save-scores", tmp_path / "pair.npz", "--json")
    assert done.status == 0
    assert "warning" in done.err and "by name" in done.err
    scores = Scores.read(tmp_path / "pair.npz")
    # Flute and bell in turn, which the run knows as 2 and 0 of 3.
    found = dict(
        zip(scores.ids.tolist(), scores.targets["label"].tolist(), strict=True)
    )
    assert found == {"test-0": 2, "test-1": 0, "test-2": 2, "test-3": 0}
    assert scores.probabilities["label"].shape == (4, 3)
    other = ("--set", "data.dataset=sirens", "--split", "test")
    done = evaluate(*other)
    assert done.status == 2 and "no class 'siren' (1 of 3 are missing)" in done.err
    # What is left of the classes of `pair` is one of three.
    done = evaluate(*other, "--classes", "pair", "--json")
    restricted = json.loads(done.out)
    assert (restricted["num_clips"], restricted["num_left_out"]) == (2, 4)


@pytest.mark.parametrize(
    "classes, complaint",
    [
        ("bell,drumm", "no class 'drumm'; did you mean 'drum'?"),
        ("bell,bell", "at least two different classes"),
        ("bell", "data set 'bell' was not found"),
    ],
)
def test_wrong_classes_are_one_line(classes, complaint, evaluate):
    done = evaluate("--classes", classes)
    assert done.status == 2 and done.err.count("\n") == 1
    assert complaint in done.err


# --- Ensembles ---


@pytest.fixture(scope="module")
def saved(folder):
    """Scores of the two runs on clips that neither was trained on."""
    paths = [folder / f"{k}.npz" for k in (1, 2)]
    for k, path in enumerate(paths, 1):
        words = ["--workdir", folder / "runs" / f"fold_{k}", "--save-scores", path]
        words = ["evaluate", "--split", "extra", *words]
        assert main([str(word) for word in words]) == 0
    return paths


def test_an_ensemble_averages_what_evaluate_saved(saved, cli, tmp_path):
    runs = [Scores.read(path) for path in saved]
    assert sorted(runs[0].ids.tolist()) == ["extra-0", "extra-1", "extra-2"]
    with np.load(saved[0]) as arrays:
        metrics = json.loads(str(arrays["metrics"]))
    assert metrics["num_clips"] == 3
    done = cli("ensemble", *saved, "--json", "--output", tmp_path / "mean.json")
    assert done.status == 0
    result = json.loads(done.out)
    assert result == read(tmp_path / "mean.json")
    mean = np.mean([run.probabilities["label"] for run in runs], axis=0)
    right = mean.argmax(1) == runs[0].targets["label"]
    assert result["accuracy"]["value"] == pytest.approx(right.mean())
    assert (result["num_clips"], result["num_runs"]) == (3, 2)
    done = cli("ensemble", *saved, "--per-class")
    assert "1 views a clip of each of 2 runs" in " ".join(done.out.split())
    assert "flute" in done.out


def test_an_ensemble_needs_files_of_the_same_clips(saved, cli, tmp_path):
    other = Scores.read(saved[1])
    other = dataclasses.replace(other, ids=np.char.add(other.ids, "x"))
    np.savez(tmp_path / "other.npz", **other.to_arrays())
    done = cli("ensemble", saved[0], tmp_path / "other.npz")
    assert done.status == 2 and done.err.count("\n") == 1
    assert "other.npz: lacks the clip 'extra-0'" in done.err
    done = cli("ensemble", saved[0], saved[0])
    assert done.status == 2 and "two or more different files" in done.err
    done = cli("ensemble", saved[0], tmp_path / "none.npz")
    assert done.status == 2 and "there is no such file" in done.err


def test_scores_are_npz(evaluate, tmp_path):
    done = evaluate("--save-scores", tmp_path / "scores.csv")
    assert done.status == 2 and "must end in .npz" in done.err


# --- Nearest neighbours ---


def test_nearest_training_clips_classify(evaluate, folder):
    done = evaluate("--knn", "3", "--json")
    assert done.status == 0, done
    result = json.loads(done.out)
    assert result["num_clips"] == 6
    assert 0.0 <= result["accuracy"]["value"] <= 1.0
    done = evaluate("--knn", "999")
    assert done.status == 2 and "clips that can vote; --knn must be less" in done.err
    done = evaluate("--knn", "3", "--complete")
    assert done.status == 2 and "--complete does not apply to --knn" in done.err
