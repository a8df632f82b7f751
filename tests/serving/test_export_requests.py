"""Requests to an export through TensorFlow's C API: answers, and bad ones refused."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import small_models

from tfavmae.errors import UserError
from tfavmae.serving import c_loader, check, signatures
from tfavmae.serving.export import export
from tfavmae.serving.preprocessing import ClipForm
from tfavmae.serving.signatures import (
    answer,
    blank_inputs,
    example_inputs,
    signatures_of,
)
from tfavmae.serving.stored_weights import StoredWeights

NUM_SAMPLES = 3440  # 20 windows of 25 ms, 10 ms apart
LABELS = {"verb": ["take", "put"], "noun": ["cup", "knife", "pan"]}


@pytest.fixture(scope="module")
def model():
    return small_models.classifier("cav_mae", num_classes={"verb": 2, "noun": 3})


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    return export(model, tmp_path_factory.mktemp("export") / "tiny", labels=LABELS)


@pytest.fixture(scope="module")
def loaded(path):
    return c_loader.SavedModel(path)


def clips(count=2, samples=NUM_SAMPLES, frames=1):
    rng = np.random.default_rng(0)
    return {
        "audio": rng.uniform(-1, 1, (count, samples)).astype("float32"),
        "audio_samples": np.full(count, samples, "int32"),
        "audio_present": np.ones(count, "float32"),
        "video": rng.integers(0, 256, (count, frames, 12, 8, 3), "uint8"),
        "video_present": np.ones(count, "float32"),
    }


def wanted(model, batch, name="classify"):
    kinds = {x.name: x for x in signatures_of(model, batch)}
    return {k: np.asarray(x) for k, x in answer(model, kinds[name], batch).items()}


def only(batch, *names):
    return {k: batch[k] for k in names}


def test_heads_and_their_pairs(loaded, model):
    batch = clips(7)
    found = loaded.run("classify", batch)
    for key, value in wanted(model, batch).items():
        np.testing.assert_allclose(found[key], value, atol=1e-5)
    verb, noun = found["verb_probabilities"], found["noun_probabilities"]
    products = np.sort((verb[:, :, None] * noun[:, None]).reshape(7, 6))[:, ::-1]
    np.testing.assert_allclose(found["action_probabilities"], products[:, :5], 1e-5)
    first = verb[range(7), found["action_verb"][:, 0]]
    first = first * noun[range(7), found["action_noun"][:, 0]]
    np.testing.assert_allclose(first, products[:, 0], 1e-5)


def test_labels_of_heads_have_a_file_each(path):
    for head, names in LABELS.items():
        text = (path / "assets" / f"labels_{head}.txt").read_text()
        assert text.split("\n")[:-1] == names
    constants = json.loads((path / "assets" / "preprocessing.json").read_text())
    assert constants["max_samples"] == NUM_SAMPLES
    assert constants["clip"]["frame_size"] == [12, 8]
    assert constants["stored_as"]["shorter_side"] == 256


@pytest.mark.parametrize("samples", [0, 1, 399, 1000, NUM_SAMPLES])
def test_short_audio_is_that_of_training_whatever_follows(loaded, model, samples):
    batch = clips(2)
    batch["audio"][:, samples:] = np.nan
    batch["audio_samples"][:] = samples
    padded = batch["audio"].copy()
    padded[:, samples:] = 0
    training = batch | {"audio": padded}
    training["audio_present"] = np.full(2, samples > 0, "float32")
    value = wanted(model, training)["verb_logits"]
    assert np.isfinite(value).all()
    found = loaded.run("classify", batch)["verb_logits"]
    np.testing.assert_allclose(found, value, atol=1e-5)
    # Not contiguous, which the loader has to copy.
    cut = batch | {"audio": batch["audio"][:, :samples]}
    found = loaded.run("classify", cut)["verb_logits"]
    np.testing.assert_allclose(found, value, atol=1e-5)


def test_a_clip_may_lack_what_the_model_can_do_without(loaded, model):
    batch = clips(3)
    batch["audio_present"][1] = batch["video_present"][2] = 0
    found, value = loaded.run("classify", batch), wanted(model, batch)
    np.testing.assert_allclose(found["noun_logits"], value["noun_logits"], atol=1e-5)
    silent = batch | {"audio_samples": np.array([NUM_SAMPLES, 0, NUM_SAMPLES], "int32")}
    silent["audio_present"] = np.ones(3, "float32")
    again = loaded.run("classify", silent)["noun_logits"]
    np.testing.assert_allclose(again, found["noun_logits"], atol=1e-5)


def test_any_number_of_frames(loaded):
    batch = clips(2, frames=5)
    middle = batch["video"][:, 2:3]
    found = loaded.run("embed_video", only(batch, "video"))["video_embedding"]
    alone = loaded.run("embed_video", {"video": middle})["video_embedding"]
    np.testing.assert_allclose(found, alone, atol=1e-6)


def test_no_clips_have_no_answers(loaded):
    found = loaded.run("classify", clips(0))
    assert found["verb_logits"].shape == (0, 2)
    assert found["action_noun"].shape == (0, 5)
    nothing = {
        "audio_bytes": np.zeros(0, object),
        "video_bytes": np.zeros((0, 0), object),
    }
    assert loaded.run("embed_encoded", nothing)["audio_embedding"].shape == (0, 16)


BAD = {
    "NaN": (lambda x: x["audio"].__setitem__((1, 5), np.nan), "must be finite"),
    "infinity": (lambda x: x["audio"].__setitem__((0, 0), np.inf), "must be finite"),
    "too long": (lambda x: x.update(clips(samples=9999)), "more than 3440 samples"),
    "nothing": (
        lambda x: x.update(
            audio_present=np.zeros(2, "f4"), video_present=x["audio"][:, 0] * 0
        ),
        "must have audio or video",
    ),
    "rank": (lambda x: x.update(audio=x["audio"][0]), "same number of clips|[Rr]ank"),
    "dtype": (lambda x: x.update(video=x["video"].astype("int32")), "int32|uint8"),
    "size": (lambda x: x.update(video=x["video"][:, :, :-1]), "[Ss]hape|[Dd]im|size"),
    "name": (lambda x: x.update(sound=x.pop("audio")), "classify takes"),
    "rows": (lambda x: x.update(video=x["video"][:1]), "[Ss]hape|[Dd]im|must"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_is_refused_with_the_reason(loaded, case):
    damage, reason = BAD[case]
    request = clips()
    damage(request)
    with pytest.raises(c_loader.LoaderError, match=reason):
        loaded.run("classify", request)
    # The model answers the next one.
    assert loaded.run("classify", clips())["verb_logits"].shape == (2, 2)


def test_embeddings_need_their_modality(loaded):
    silent = only(clips(), "audio", "audio_samples") | {
        "audio_samples": np.zeros(2, "i4")
    }
    with pytest.raises(c_loader.LoaderError, match="must have audio"):
        loaded.run("embed_audio", silent)


# --- serve-check ---


def test_the_check_passes_and_knows_the_latency(path):
    report = check.check(path.parent, (1, 3))
    assert report.faults == [] and report.path == path
    assert set(report.signatures) == {
        f"{name}{end}"
        for name in ("classify", "embed", "embed_audio", "embed_video", "similarity")
        for end in ("", "_encoded")
    }
    own = report.signatures["classify"]
    assert own["outputs"]["verb_logits"] == ["float32", [-1, 2]]
    assert own["latency_ms"]["3"] > 0 and report.memory_mib > 100
    report.raise_for_faults()
    faulty = dataclasses.replace(report, faults=["embed: differs"])
    with pytest.raises(UserError, match=r"1 faults: .*embed: differs"):
        faulty.raise_for_faults()


def test_what_the_check_finds(loaded, path, tmp_path):
    requests = path / "assets.extra" / "tf_serving_warmup_requests"
    asked = c_loader.read_requests(requests)
    name, inputs = asked[0]
    faults = []
    c_loader._replay(loaded, name, inputs, (1, 2), faults)
    assert faults == []

    class Restless(c_loader.SavedModel):
        def __init__(self):
            self.signatures, self.count = loaded.signatures, 0

        def run(self, *request):
            self.count += 1
            outputs = loaded.run(*request)
            return {
                k: x + np.float32(self.count).astype(x.dtype)
                for k, x in outputs.items()
            }

    c_loader._replay(Restless(), name, inputs, (1,), faults)
    assert any("differs between equal requests" in x for x in faults)
    empty = tmp_path / "requests"
    empty.write_bytes(b"")
    report = c_loader.check(str(path), str(empty), (1,))
    assert "embed: has no warm-up request" in report["faults"]


def test_what_cannot_be_checked(tmp_path):
    with pytest.raises(UserError, match="tfavmae export"):
        check.check(tmp_path)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"half")
    with pytest.raises(UserError, match=r"has no assets\.extra"):
        check.check(tmp_path)


def test_operations_of_others_are_noticed(loaded):
    assert loaded.unregistered() == []
    graph = loaded.meta_graph.graph_def
    graph.node.add(name="ours", op="OurOwnOp")
    try:
        assert loaded.unregistered() == ["OurOwnOp"]
    finally:
        del graph.node[-1]


def test_the_loader_imports_neither_keras_nor_us(path):
    code = (
        "import runpy, sys; sys.argv = ['x', 'answer']\n"
        f"m = runpy.run_path({c_loader.__file__!r}, run_name='loader')\n"
        f"model = m['SavedModel']({str(path)!r})\n"
        "assert model.unregistered() == []\n"
        "ours = ('keras', 'tfavmae', 'tensorflow.python')\n"
        "print([x for x in ours if x in sys.modules])"
    )
    command = [sys.executable, "-I", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- Weights in fewer bits ---


@pytest.mark.parametrize(
    ("kind", "least", "most"), [("int8", 1e-5, 0.05), ("bfloat16", 1e-4, 0.1)]
)
def test_weights_in_fewer_bits_change_little(model, kind, least, most):
    batch, weights = clips(4), StoredWeights(model, kind)
    before = wanted(model, batch)["verb_probabilities"]
    with weights.scope():
        served = wanted(model, batch)["verb_probabilities"]
    assert least < np.abs(before - served).max() < most
    np.testing.assert_array_equal(wanted(model, batch)["verb_probabilities"], before)


@pytest.mark.slow
def test_int8_is_stored_in_a_quarter(model, tmp_path):
    sizes = {}
    for kind in ("float32", "int8"):
        weights = StoredWeights(model, kind)
        folder = export(model, tmp_path / kind, weights=weights)
        sizes[kind] = (
            (folder / "variables/variables.data-00000-of-00001").stat().st_size
        )
        batch = clips(2)
        with weights.scope():
            value = wanted(model, batch)["verb_logits"]
        found = c_loader.SavedModel(folder).run("classify", batch)["verb_logits"]
        np.testing.assert_allclose(found, value, atol=1e-5)
    assert sizes["int8"] < 0.6 * sizes["float32"]


# --- Signatures ---


def test_a_model_of_segments_has_events():
    model = small_models.classifier("cav_mae", num_segments=5)
    form = ClipForm.of_model(model)
    inputs = blank_inputs(model, form)
    kinds = signatures_of(model, inputs)
    assert kinds[0].name == "events"
    found = signatures.answer(model, kinds[0], inputs)
    assert found["probabilities"].shape == (1, 5, 3)


def test_lengths_follow_a_batch_of_the_pipeline():
    batch = {"audio": np.zeros((3, 8), "int16"), "audio_samples": np.array([8, 2, 0])}
    batch["audio_present"] = np.array([1, 1, 0])
    found = example_inputs(batch, 2)
    assert found["audio_samples"].tolist() == [8, 2]
    assert found["audio_present"].dtype == np.float32
