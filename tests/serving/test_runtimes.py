"""Exports for other runtimes: each runs there and answers as the model."""

import json

import numpy as np
import pytest
import small_models

from tfavmae.commands import export as command
from tfavmae.errors import UserError
from tfavmae.serving import runtimes

LABELS = ["one", "two", "three"]


def batch(model, samples=3000):
    rng = np.random.default_rng(0)
    found = {"audio": rng.integers(-(2**15), 2**15, (2, 3440)).astype("int16")}
    found["audio"][:, samples:] = 0
    found["video"] = rng.integers(0, 256, (2, 1, 12, 8, 3), "uint8")
    return {k: x for k, x in found.items() if k in model.modalities}


def exported(kind, folder, model, **options):
    return runtimes.export(model, folder, kind, batch=batch(model), **options)


def check(kind, folder, model, **options):
    """Exports, and asks the file about another clip than the one it was checked on."""
    written = exported(kind, folder, model, **options)
    assert written.worst < 1e-5
    rng = np.random.default_rng(1)
    clip = {
        "audio": rng.uniform(-1, 1, (1, 3440)).astype("float32"),
        "video": rng.integers(0, 256, (1, 1, 12, 8, 3), "uint8"),
    }
    clip = {m: clip[m] for m in model.modalities}
    found = runtimes.RUNTIMES[kind].load(written.path)(clip)
    named = model(clip, training=False)
    if written.signature == "classify":
        wanted = {"logits": named["logits"]}
    else:
        names = [f"{m}_embedding" for m in model.modalities]
        vectors = {k: np.asarray(named[k]) for k in names}
        wanted = {k: x / np.linalg.norm(x) for k, x in vectors.items()}
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], np.asarray(value), atol=1e-5)
    return written


@pytest.fixture(scope="module")
def heard():
    return small_models.classifier("cav_mae", "audio")


@pytest.fixture(scope="module")
def litert(heard, tmp_path_factory):
    folder = tmp_path_factory.mktemp("litert")
    return check("litert", folder, heard, labels=LABELS, card={"model_card.md": "me"})


def test_an_audio_classifier_runs_in_litert(litert):
    assert litert.signature == "classify"
    assert litert.path.name == "model.tflite"
    assert (litert.path.with_name("labels.txt")).read_text() == "one\ntwo\nthree\n"
    constants = json.loads(litert.path.with_name("preprocessing.json").read_text())
    assert constants["max_samples"] == 3440
    assert litert.path.with_name("model_card.md").read_text() == "me"


def test_litert_needs_none_of_tensorflows_operations(litert):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(litert.path))
    names = {x["op_name"] for x in interpreter._get_ops_details()}
    assert not any(name.startswith("Flex") for name in names)
    # Of weights that are constants, and of GELU as one operation.
    assert not any("VARIABLE" in name for name in names) and "GELU" in names


def test_a_file_is_not_replaced_unasked(heard, litert):
    before = litert.path.stat().st_mtime_ns
    with pytest.raises(UserError, match=r"model\.tflite exists already"):
        exported("litert", litert.path.parent, heard)
    assert litert.path.stat().st_mtime_ns == before
    exported("litert", litert.path.parent, heard, overwrite=True)
    assert litert.path.stat().st_mtime_ns > before


def test_another_answer_is_refused_and_nothing_is_written(heard, tmp_path):
    with pytest.raises(UserError, match=r"--format litert: `\w+` .* differs .* by"):
        exported("litert", tmp_path / "new", heard, tolerance=0.0)
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_converted_is_said(heard, tmp_path, monkeypatch):
    def fail(self, *args, **options):
        raise RuntimeError("no such operation: Erf\nand more")

    monkeypatch.setattr(runtimes.Answering, "export", fail)
    with pytest.raises(UserError, match=r"\('no such operation: Erf'\); serve the"):
        exported("litert", tmp_path / "new", heard)
    assert not (tmp_path / "new").exists()


def test_a_missing_package_is_said(monkeypatch):
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"--format onnx needs tf2onnx, onnxruntime: pip"
    ):
        runtimes.check_installed("onnx")


def test_the_command_knows_the_runtimes(cli):
    assert tuple(runtimes.RUNTIMES) == command.RUNTIMES
    done = cli("export", "--workdir", "x", "--format", "litert", "--version", "3")
    assert done.status == 2 and "--version does not apply to --format" in done.err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["both", "embeddings"])
def test_other_models_run_in_litert(kind, tmp_path):
    make = {"both": small_models.classifier, "embeddings": small_models.pretraining}
    check("litert", tmp_path, make[kind]("cav_mae"))


@pytest.mark.runtimes
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
@pytest.mark.parametrize("modality", ["audio", "audio_video"])
def test_classifiers_run_in_other_runtimes(kind, modality, tmp_path):
    check(kind, tmp_path, small_models.classifier("cav_mae", modality), labels=LABELS)


@pytest.mark.runtimes
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_embeddings_in_other_runtimes(kind, tmp_path):
    written = check(kind, tmp_path, small_models.pretraining("cav_mae"))
    assert set(written.max_abs_difference) == {"audio_embedding", "video_embedding"}
