"""Export: signatures, parity in a fresh process, versions and failures."""

import pathlib
import subprocess

import numpy as np
import pytest
import tensorflow as tf

from tfavmae import files
from tfavmae.errors import UserError
from tfavmae.models import presets
from tfavmae.serving import c_loader, signatures, verification
from tfavmae.serving import client as client_file
from tfavmae.serving import export as exporting
from tfavmae.serving.client import SavedModelClient, newest_version
from tfavmae.serving.export import export
from tfavmae.serving.preprocessing import ClipForm
from tfavmae.serving.signatures import blank_inputs, example_inputs, signatures_of
from tfavmae.serving.verification import verify_export

LABELS = ["wood, dull", "mé\u2028tal", "glass"]


AUDIO = {"num_frames": 32, "num_mel_bins": 32, "patch_size": (16, 16)}
VIDEO = {"num_frames": 1, "height": 16, "width": 24, "tubelet_size": (1, 8, 8)}
SIZE = {"hidden_dim": 16, "num_heads": 2, "mlp_dim": 32, "num_layers": 2}
NUM_SAMPLES = 5360  # 32 frames of 10 ms; the last window is 25 ms long


def make_batch(num_clips=6):
    rng = np.random.default_rng(0)
    return {
        "audio": rng.integers(-(2**15), 2**15, (num_clips, NUM_SAMPLES)).astype(
            "int16"
        ),
        "video": rng.integers(0, 256, (num_clips, 1, 16, 24, 3)).astype("uint8"),
    }


def make_pretrained():
    decoder = {"decoder": {"hidden_dim": 16, "num_heads": 2, "mlp_dim": 32}}
    return presets.build_pretraining(
        "cav_mae", "tiny", audio=AUDIO, video=VIDEO, **SIZE, **decoder
    )


def make_classifier(**options):
    return presets.build_classifier(
        "cav_mae", "tiny", num_classes=3, audio=AUDIO, video=VIDEO, **SIZE, **options
    )


@pytest.fixture(scope="module")
def pretrained():
    return make_pretrained()


@pytest.fixture(scope="module")
def classifier():
    return make_classifier()


@pytest.fixture(scope="module")
def exported(classifier, tmp_path_factory):
    return export(classifier, tmp_path_factory.mktemp("export") / "tiny", labels=LABELS)


@pytest.fixture(scope="module")
def client(exported):
    return SavedModelClient(exported)


@pytest.fixture(scope="module")
def loaded(exported):
    """The export through the C API, in this process."""
    return c_loader.SavedModel(exported)


def test_a_fresh_process_without_keras_gives_the_same_answers(classifier, exported):
    report = verify_export(exported, classifier, make_batch())
    outputs = {
        "classify": ("logits", "probabilities"),
        "embed": ("audio_embedding", "video_embedding"),
        "embed_audio": ("audio_embedding",),
        "embed_video": ("video_embedding",),
        "similarity": ("score", "audio_map", "video_map"),
    }
    wanted = {f"{s}{end}/{k}" for s, x in outputs.items() for k in x for end in ENDS}
    wanted |= {"serving_default/logits", "serving_default/probabilities"}
    assert set(report.max_abs_difference) == wanted
    assert report.worst < 1e-5


ENDS = ("", "_encoded")


@pytest.fixture
def answers_here(loaded, monkeypatch):
    """Verification runs in this process; what is put here is answered as well."""
    extra = {}

    def run(path, inputs):
        return extra | {
            f"{name}/{k}": x
            for name, one in loaded.signatures.items()
            for k, x in loaded.run(name, {k: inputs[k] for k in one.inputs}).items()
        }

    monkeypatch.setattr(verification, "_run_through_c_api", run)
    return extra


def test_verification_notices_other_weights(exported, answers_here):
    with pytest.raises(RuntimeError, match=r"answers differently: .*classify/logits"):
        verify_export(exported, make_classifier(), make_batch())


def test_verification_notices_an_answer_too_many(classifier, exported, answers_here):
    answers_here["other/logits"] = np.zeros(3)
    with pytest.raises(RuntimeError, match=r"other/logits is not the model's"):
        verify_export(exported, classifier, make_batch())


def test_one_bin_of_silence_is_not_a_wrong_target():
    wanted = np.zeros((1, 4, 25), "float32")
    silent, shifted = wanted.copy(), wanted + 3e-4
    silent[0, 0, 0] = 3e-4
    compare = verification.difference
    assert compare("reconstruct/audio_target", silent, wanted) == pytest.approx(3e-5)
    assert compare("reconstruct/audio_target", shifted, wanted) == pytest.approx(3e-4)
    assert compare("reconstruct/prediction", silent, wanted) == pytest.approx(3e-4)


def test_what_stops_the_fresh_process_is_quoted(classifier, exported, monkeypatch):
    def stopped(command, **options):
        return subprocess.CompletedProcess(command, 1, "", "Traceback\nwhy\n")

    monkeypatch.setattr(verification.subprocess, "run", stopped)
    with pytest.raises(RuntimeError, match=r"not run by itself: why$"):
        verify_export(exported, classifier, make_batch())


def test_signatures_name_their_inputs_and_take_any_batch_size(client):
    specs = {k: (x.dtype, x.shape.as_list()) for k, x in client.inputs("embed").items()}
    assert specs == {
        "audio": (tf.float32, [None, None]),
        "audio_samples": (tf.int32, [None]),
        "video": (tf.uint8, [None, None, 16, 24, 3]),
    }
    presence = {"audio_present", "video_present"}
    assert set(client.inputs("classify")) == set(specs) | presence
    assert set(client.inputs("embed_audio")) == {"audio", "audio_samples"}
    assert set(client.inputs("embed_video")) == {"video"}
    assert set(client.inputs("embed_encoded")) == {"audio_bytes", "video_bytes"}
    for size in (1, 5):
        inputs = example_inputs(make_batch(), size)
        answers = client.predict(**inputs)
        assert answers["logits"].shape == (size, 3)
        np.testing.assert_allclose(answers["probabilities"].sum(-1), 1, rtol=1e-6)
        embedding = client.predict("embed_video", video=inputs["video"])
        lengths = np.linalg.norm(embedding["video_embedding"], axis=-1)
        np.testing.assert_allclose(lengths, 1, rtol=1e-6)


def test_the_client_says_that_clips_are_whole(client):
    clips = example_inputs(make_batch(), 3)
    brief = {k: clips[k] for k in ("audio", "video")}
    np.testing.assert_array_equal(
        client.predict(**brief)["logits"], client.predict(**clips)["logits"]
    )


def test_the_score_of_a_clip_is_the_cosine_of_its_embeddings(client):
    clips = example_inputs(make_batch(), 3)
    clips = {k: clips[k] for k in ("audio", "audio_samples", "video")}
    vectors, found = (
        client.predict("embed", **clips),
        client.predict("similarity", **clips),
    )
    cosines = (vectors["audio_embedding"] * vectors["video_embedding"]).sum(-1)
    np.testing.assert_allclose(found["score"], cosines, atol=1e-6)
    assert found["video_map"].shape == (3, 1, 2, 3)
    assert found["audio_map"].shape == (3, 2, 2)
    # Each value is a cosine of its own, and they are not all alike.
    assert np.abs(found["video_map"]).max() <= 1 + 1e-6
    assert found["video_map"].std(axis=(1, 2, 3)).min() > 1e-4


def test_labels_travel_with_the_model(exported):
    assert SavedModelClient(exported.parent).labels == LABELS


def test_a_clip_does_not_depend_on_its_neighbours(client):
    inputs = example_inputs(make_batch(), 4)
    together = client.predict(**inputs)["logits"]
    alone = [
        client.predict(**{k: v[i : i + 1] for k, v in inputs.items()})["logits"][0]
        for i in range(4)
    ]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_multi_label_classifier_answers_with_sigmoids():
    model, inputs = (
        make_classifier(multi_label=True),
        example_inputs(make_batch()),
    )
    answers = signatures.answer(model, signatures_of(model, inputs)[0], inputs)
    np.testing.assert_allclose(
        answers["probabilities"], 1 / (1 + np.exp(-answers["logits"])), rtol=1e-5
    )


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_a_model_of_one_modality_has_one_input(modality):
    model = make_classifier(modality=modality)
    found = signatures_of(model, blank_inputs(model, ClipForm.of_model(model)))
    assert [signature.name for signature in found] == ["classify", f"embed_{modality}"]
    for signature in found:
        assert signature.modalities == (modality,) and not signature.may_lack


def test_a_pretrained_model_embeds(pretrained):
    inputs = blank_inputs(pretrained, ClipForm.of_model(pretrained))
    found = signatures_of(pretrained, inputs)
    assert [s.name for s in found] == [
        *("embed", "embed_audio", "embed_video", "similarity")
    ]


def fake_write(model, path, signatures, form, weights):
    (path / "saved_model.pb").write_bytes(b"model")


def test_clips_longer_than_those_of_the_export_are_refused(pretrained, tmp_path):
    batch = make_batch(2)
    batch["audio"] = np.tile(batch["audio"], 2)
    with pytest.raises(UserError, match="10720 samples, those of the export 5360"):
        export(pretrained, tmp_path / "short", batch=batch)


def test_a_version_is_never_overwritten_unasked(pretrained, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_write_saved_model", fake_write)
    first = export(pretrained, tmp_path / "tiny")
    with pytest.raises(UserError, match=r"tiny/1 exists already"):
        export(pretrained, tmp_path / "tiny", version=1)
    (first / "mine.txt").touch()
    assert export(pretrained, tmp_path / "tiny", version=1, overwrite=True) == first
    assert not (first / "mine.txt").exists()
    twelfth = export(pretrained, tmp_path / "tiny", version=12)
    assert newest_version(tmp_path / "tiny") == twelfth
    assert export(pretrained, tmp_path / "tiny").name == "13"
    assert export(pretrained, tmp_path / "tiny", overwrite=True).name == "13"
    assert names_in(tmp_path / "tiny") == [exporting.LOCK, "1", "12", "13"]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_export_left_is_removed(pretrained, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_write_saved_model", fake_write)
    left = tmp_path / "tiny" / f"{files.PARTIAL}123-1"
    left.mkdir(parents=True)
    (left / "saved_model.pb").write_bytes(b"half of a mod")
    export(pretrained, tmp_path / "tiny")
    assert names_in(tmp_path / "tiny") == [exporting.LOCK, "1"]


def test_one_export_at_a_time(pretrained, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_write_saved_model", fake_write)
    other = tmp_path / "tiny" / f"{files.PARTIAL}123-1"
    with files.exclusive(tmp_path / "tiny" / exporting.LOCK):
        other.mkdir()
        with pytest.raises(UserError, match="another export is running here"):
            export(pretrained, tmp_path / "tiny", version=2)
    assert names_in(tmp_path / "tiny") == [exporting.LOCK, other.name]


def test_a_failed_export_leaves_the_old_version(pretrained, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_write_saved_model", fake_write)
    path = export(pretrained, tmp_path / "tiny")

    def full_disk(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(exporting.warmup, "write_requests", full_disk)
    with pytest.raises(UserError, match="disk is full"):
        export(pretrained, tmp_path / "tiny", overwrite=True)
    assert (path / "saved_model.pb").read_bytes() == b"model"
    assert names_in(tmp_path / "tiny") == [exporting.LOCK, "1"]


def test_labels_that_do_not_fit_are_refused(pretrained, classifier, tmp_path):
    with pytest.raises(UserError, match="2 labels for 3 classes"):
        export(classifier, tmp_path, labels=["a", "b"])
    with pytest.raises(UserError, match=r"must be one line; received 'b\\nc'"):
        export(classifier, tmp_path, labels=["a", "b\nc", "d"])
    with pytest.raises(UserError, match="model without classes"):
        export(pretrained, tmp_path, labels=["a", "b"])


def test_the_client_file_needs_nothing_of_ours():
    source = pathlib.Path(client_file.__file__).read_text(encoding="utf-8")
    assert "import tfavmae" not in source and "from tfavmae" not in source
