"""`compare`, `evaluate --html` and contamination, on runs of two steps."""

import json
import re

import numpy as np
import pytest
import tone_sets

from tfavmae.cli import main
from tfavmae.tasks.scores import Scores

PRETRAIN = tone_sets.RECIPE.replace("stage: finetune", "stage: pretrain").replace(
    "  label: label\n", ""
)
DECODER = "{hidden_dim: 16, num_heads: 2, mlp_dim: 32, num_layers: 1}"
PRETRAIN = PRETRAIN.replace("num_layers: 2}", f"num_layers: 2, decoder: {DECODER}}}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data sets, a run pretrained on one fold, and two fine-tuned ones on the other."""
    folder = tmp_path_factory.mktemp("compare")
    tone_sets.build(folder)
    (folder / "pretrain.yaml").write_text(PRETRAIN)
    (folder / "finetune.yaml").write_text(tone_sets.RECIPE)
    data = ["--set", f"data.data_dir={folder}"]
    runs = {
        "pretrained": ["--set", "data.train_split=fold_1"],
        "from_it": ["--set", f"initialize_from={folder}/pretrained"],
        "afresh": ["--set", "optimizer.learning_rate=0.02"],
    }
    for name, changes in runs.items():
        stage = "pretrain" if name == "pretrained" else "finetune"
        if stage == "finetune":
            changes += ["--set", "data.train_split=fold_2"]
            changes += ["--set", "data.validation_split=fold_1"]
        words = [stage, "--config", f"{folder}/{stage}.yaml", "--workdir"]
        assert main([*words, f"{folder}/{name}", *data, *changes]) == 0
    for name in ("from_it", "afresh"):
        assert main(["evaluate", "--workdir", f"{folder}/{name}"]) == 0
    return folder


def read(path):
    return json.loads(path.read_text())


def test_figures_and_differences_of_runs(folder, cli):
    page = folder / "compare.html"
    done = cli("compare", folder / "from_it", folder / "afresh", "--html", page)
    assert done.status == 0, done
    shown = cli("compare", folder / "from_it", folder / "afresh", "--json")
    found = json.loads(shown.out)
    for name in ("from_it", "afresh"):
        own = read(folder / name / "evaluation_fold_1.json")
        figures = found["runs"][name]["figures"]
        assert figures["fold 1: accuracy"] == own["accuracy"]["value"]
        expected = own["mean_average_precision"]
        assert figures["fold 1: mean average precision"] == expected
        assert figures["training: val_loss"] > 0
    assert found["settings"] == {
        "initialize_from": {"from_it": f"{folder}/pretrained", "afresh": None},
        "optimizer.learning_rate": {"from_it": 0.01, "afresh": 0.02},
    }
    text = page.read_text()
    assert text.count("<svg") >= 1 and "optimizer.learning_rate" in text
    assert "from_it" in text and "n = 6" in text


def test_a_run_that_was_not_measured_has_gaps(folder, cli):
    done = cli("compare", folder / "from_it", folder / "pretrained")
    assert done.status == 0 and "–" in done.out and "stage" in done.out


@pytest.mark.parametrize(
    "names, complaint",
    [
        (["afresh"], "two or more different runs"),
        (["afresh", "afresh"], "two or more different runs"),
        (["afresh", "nothing"], "holds no run"),
    ],
)
def test_wrong_runs_are_one_line(names, complaint, folder, cli):
    done = cli("compare", *[folder / name for name in names])
    assert done.status == 2 and done.err.count("\n") == 1 and complaint in done.err


def test_a_damaged_result_is_one_line(folder, cli, tmp_path):
    path = folder / "afresh" / "evaluation_damaged.json"
    path.write_text("{")
    done = cli("compare", folder / "from_it", folder / "afresh")
    path.unlink()
    assert done.status == 2 and done.err.count("\n") == 1
    assert "evaluation_damaged.json: is damaged" in done.err


# --- The page of an evaluation ---


def test_a_page_shows_classes_confusion_and_the_worst_clips(folder, cli, tmp_path):
    page, saved = tmp_path / "page.html", tmp_path / "scores.npz"
    words = ("--workdir", folder / "afresh", "--save-scores", saved, "--html", page)
    done = cli("evaluate", *words)
    assert done.status == 0 and str(page) in done.out, done
    text = page.read_text()
    scores = Scores.read(saved)
    own = scores.probabilities["label"][np.arange(6), scores.targets["label"]]
    losses = [float(x) for x in re.findall(r"loss (\d+\.\d\d)", text)]
    np.testing.assert_allclose(losses, np.sort(-np.log(own))[::-1], atol=0.0051)
    shown = re.findall(r'<span class="name">(fold_1-\d)</span>', text)
    assert shown[0] == scores.ids[own.argmin()] and len(shown) == 6
    assert text.count("<audio ") == 6 and text.count("--film:url(") == 5
    for name in ("bell", "drum", "flute"):
        assert f"<td>{name}</td><td>2</td>" in text
    assert "confusion matrix" in text


# --- Contamination ---


def overlaps(path):
    found = read(path)["contamination"]
    return [(x["run"], x["stage"], x["num_shared"], x["num_clips"]) for x in found]


def test_an_evaluation_says_what_the_runs_have_seen(folder, cli):
    """The pretraining run was trained on the clips that are held out now."""
    held_out = overlaps(folder / "from_it" / "evaluation_fold_1.json")
    assert held_out == [("from_it", "finetune", 0, 6), ("pretrained", "pretrain", 6, 6)]
    assert overlaps(folder / "afresh" / "evaluation_fold_1.json") == [
        ("afresh", "finetune", 0, 6)
    ]
    words = ("--workdir", folder / "from_it", "--split", "fold_2[:4]+fold_1[:2]")
    done = cli("evaluate", *words)
    assert "finetune of from_it (bells/1.0.0 fold_2): 4 of 6 clips" in done.out
    assert "pretrain of pretrained (bells/1.0.0 fold_1): 2 of 6 clips" in done.out


def test_retrieval_says_it_too(folder, cli):
    words = ("--workdir", folder / "pretrained", "--split", "fold_1+extra")
    done = cli("retrieve", *words)
    assert done.status == 0, done
    assert "pretrain of pretrained (bells/1.0.0 fold_1): 6 of 9 clips" in done.out


def test_what_cannot_be_told_is_said(folder, cli):
    words = ("--workdir", folder / "from_it", "--split", "fold_1")
    facts = read(folder / "from_it" / "run.json")
    missing = [{**facts["ancestors"][0], "dataset": "gone/1.0.0"}]
    changed = json.dumps({**facts, "ancestors": missing})
    (folder / "from_it" / "run.json").write_text(changed)
    done = cli("evaluate", *words)
    (folder / "from_it" / "run.json").write_text(json.dumps(facts))
    # The fingerprint alone says that it is the same clips.
    assert "(gone/1.0.0 fold_1): 6 of 6 clips" in done.out
    missing[0]["fingerprint"] = "0" * 64
    changed = json.dumps({**facts, "ancestors": missing})
    (folder / "from_it" / "run.json").write_text(changed)
    done = cli("evaluate", *words)
    (folder / "from_it" / "run.json").write_text(json.dumps(facts))
    assert "cannot be told (that data set is not at hand)" in done.out
