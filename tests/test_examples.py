"""The examples: each is short, runs as it is, and does what it says."""

import pathlib
import runpy

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
# They set a backend or devices, which a process does once.
ALONE = ("on_jax", "two_replicas")
# Takes minutes: tests/test_notebook.py runs it.
SLOW = ("notebook",)
LONGEST = 40


def run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return runpy.run_path(str(ROOT / "examples" / f"{name}.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_listed(path):
    text = path.read_text()
    if path.stem not in SLOW:
        assert len(text.splitlines()) <= LONGEST
    assert f"(../examples/{path.name})" in (ROOT / "docs" / "examples.md").read_text()


def falls(history, name="loss"):
    return history[name][-1] < history[name][0]


def test_pretrain_from_arrays(tmp_path, monkeypatch):
    import keras

    found = run("pretrain_arrays", tmp_path, monkeypatch)
    assert falls(found["history"])
    again = keras.models.load_model(tmp_path / "cav_mae.keras")
    assert again.count_params() == found["model"].count_params()


def test_pretrain_from_tf_data(tmp_path, monkeypatch):
    found = run("own_tf_data", tmp_path, monkeypatch)
    assert falls(found["history"])
    (batch,) = found["data"].take(1)
    assert batch["video"].shape == (8, 4, 32, 32, 3)
    # 8 rows of 8 columns, in each frame, 6 columns further.
    assert (batch["video"][0].numpy()[..., 0] > 0).sum((1, 2)).tolist() == [49] * 4


def test_finetune(tmp_path, monkeypatch):
    found = run("finetune", tmp_path, monkeypatch)
    assert falls(found["history"])
    assert len(found["report"].copied) > 50
    assert found["accuracy"] > 0.9


def test_custom_objective(tmp_path, monkeypatch):
    found = run("custom_objective", tmp_path, monkeypatch)
    assert falls(found["history"], "agreement")
    terms = found["model"].compute_losses(
        found["clips"], found["model"](found["clips"], masked=True)
    )
    weights = {"agreement": 0.5, "reconstruction_audio": 1, "reconstruction_video": 1}
    expected = sum(weight * float(terms[name]) for name, weight in weights.items())
    assert float(terms["loss"]) == pytest.approx(expected, rel=1e-5)


def test_custom_encoder(tmp_path, monkeypatch):
    found = run("custom_encoder", tmp_path, monkeypatch)
    assert falls(found["history"])
    addresses = [weight.path for weight in found["model"].trainable_weights]
    assert sum("/gate/" in path or "/dense" in path for path in addresses) >= 2
    config = found["model"].get_config()
    assert config["encoder"]["class_name"] == "GatedEncoder"


def test_embeddings_into_scikit_learn(tmp_path, monkeypatch):
    scores = run("embeddings_sklearn", tmp_path, monkeypatch)["scores"]
    assert scores["audio"] > 0.9
    assert scores["video"] < 0.6


def test_mixed_precision(tmp_path, monkeypatch):
    found = run("mixed_precision", tmp_path, monkeypatch)
    assert falls(found["history"])
    assert found["dtypes"] == {
        "weights": {"float32"},
        "tokens": "bfloat16",
        "log-mel": "float32",
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE)
def test_an_example_that_needs_a_process_of_its_own(name, fresh_python):
    code = "import runpy, sys; found = runpy.run_path(sys.argv[1])\n"
    code += "loss = found['history']['loss']; print(loss[-1] < loss[0], len(loss))"
    out = fresh_python(code, ROOT / "examples" / f"{name}.py")
    assert out.strip().splitlines()[-1] == "True 2"
