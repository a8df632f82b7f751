"""First guesses of somebody who knows Keras and has not read our documentation."""

import keras
import numpy as np
import pytest
import small_models as small

from tfavmae.models.presets import build_pretraining


@pytest.mark.parametrize("case", ["av_mae", "cav_mae", "cav_mae_sync", "mavil"])
def test_predict_encodes_every_token(case):
    model = small.pretraining(case)
    batch = small.batch_for(model)
    expected = model(batch, masked=False)
    for found in (model(batch), model.predict(batch, verbose=0)):
        assert set(found) == set(expected)
        for name in ("audio_embedding", "video_embedding"):
            np.testing.assert_allclose(found[name], expected[name], atol=1e-5)
    assert "audio_prediction" in model(batch, training=True)
    assert "audio_prediction" in model(batch, masked=True)


def test_evaluate_measures_the_loss_of_a_masked_forward_pass():
    model = small.compiled(small.pretraining("cav_mae"))
    batch = small.batch_for(model)
    losses = model.compute_losses(batch, model(batch, masked=True))
    found = model.evaluate(batch, batch_size=4, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(float(losses["loss"]), rel=1e-5)


@pytest.fixture
def labelled():
    model = small.classifier()
    model.compile(optimizer="adam")
    x = small.batch_for(model)
    return model, x, x.pop("label")


def test_labels_beside_the_inputs_or_among_them(labelled):
    model, x, y = labelled
    beside = model.evaluate(x, y, verbose=0, return_dict=True)
    among = model.evaluate({**x, "label": y}, verbose=0, return_dict=True)
    assert beside == pytest.approx(among)
    first_only = np.array([1, 0, 0, 0], "float32")
    weighted = model.evaluate(x, y, sample_weight=first_only, verbose=0)
    one = {name: value[:1] for name, value in x.items()}
    assert weighted == pytest.approx(model.evaluate(one, y[:1], verbose=0))
    history = model.fit(x, y, sample_weight=first_only, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


def test_a_failed_fit_does_not_spoil_the_model(labelled):
    model, x, y = labelled
    with pytest.raises(ValueError, match="must have the label `label`"):
        model.fit(x, verbose=0)
    history = model.fit(x, y, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


def test_labels_that_nothing_reads_are_refused():
    model = small.compiled(small.pretraining("cav_mae"))
    batch = small.batch_for(model)
    with pytest.raises(ValueError, match="`y` must be the labels of a classifier"):
        model.fit(batch, np.zeros(4), verbose=0)


def test_wrong_inputs_are_named_with_the_expectation():
    model = small.pretraining("cav_mae")
    batch = small.batch_for(model)
    audio, video = batch["audio"], batch["video"]
    cases = {
        r"Missing: audio; received: \['video', 'waveform'\]": dict(
            waveform=audio, video=video
        ),
        "Missing: audio, video; received": {},
        r"`video` must be \(batch, 1, 12, 8, 3\)": dict(video=video[:, :, :8]),
        r"waveform \(batch, samples\) or a spectrogram \(batch, 20, 12\)": dict(
            audio=audio[:, :3]
        ),
    }
    for message, inputs in cases.items():
        with pytest.raises(ValueError, match=message):
            model(inputs)
    assert set(model({"audio": audio})) == {
        "audio_input",
        "audio_tokens",
        "audio_unimodal_tokens",
        "audio_embedding",
    }


def test_an_unknown_model_says_which_there_are():
    with pytest.raises(ValueError, match=r"did you mean 'cav_mae'\? Known: .*mavil"):
        build_pretraining("cavmae")
    with pytest.raises(ValueError, match="Unknown size of cav_mae 'huge'"):
        build_pretraining("cav_mae", "huge")


def test_the_summary_shows_shapes(capsys):
    small.pretraining("cav_mae").summary()
    text = capsys.readouterr().out
    assert "?" not in text
    assert "(None, 20, 12)" in text and "(None, 1, 12, 8, 3)" in text


def test_warm_start_from_a_model_or_a_file(tmp_path):
    source = small.pretraining("cav_mae")
    target = small.classifier()
    report = target.load_pretrained(source)
    assert len(report.copied) > 30
    path = tmp_path / "model.keras"
    source.save(path)
    again = small.classifier()
    for weight in again.weights:
        weight.assign(0 * weight)
    assert again.load_pretrained(path) == report
    for a, b in zip(again.encoder.weights, target.encoder.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="shares none"):
        target.load_pretrained(keras.Sequential([keras.layers.Dense(2)]))


LOAD = """
import sys
{imports}
model = keras.models.load_model(sys.argv[1])
print(type(model).__name__, type(model.optimizer).__name__)
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import tfavmae, keras",
        "import keras, tfavmae",
        "from keras.saving import load_model; import tfavmae, keras",
        "import tfavmae, tensorflow, keras.models",
        # Whether Keras is installed, as other libraries ask.
        "import tfavmae, importlib.util; importlib.util.find_spec('keras')\n"
        "import keras",
    ],
)
def test_load_model_finds_our_classes(imports, tmp_path, fresh_python):
    from tfavmae.training.optimizers import PathAdam

    model = small.pretraining("cav_mae")
    model.compile(optimizer=PathAdam(1e-3, decay=0.1, decay_paths=["kernel$"]))
    model.fit(small.batch_for(model), batch_size=4, verbose=0)
    path = tmp_path / "model.keras"
    model.save(path)
    out = fresh_python(LOAD.format(imports=imports), path)
    assert out.split() == ["CAVMAE", "PathAdam"]


def test_a_preset_loads_whatever_was_imported(tmp_path, fresh_python):
    small.pretraining("cav_mae").save_to_preset(tmp_path / "preset")
    out = fresh_python(
        "import sys\n"
        "from tfavmae.models.preset_folder import PresetFolder\n"
        "print(type(PresetFolder(sys.argv[1]).read_model()).__name__)",
        tmp_path / "preset",
    )
    assert out.strip() == "CAVMAE"


def test_looking_for_keras_leaves_no_trace(fresh_python):
    out = fresh_python(
        "import importlib.util, sys, tfavmae\n"
        "before = list(sys.meta_path)\n"
        "assert '_AfterKeras' in {type(x).__name__ for x in before}\n"
        "assert importlib.util.find_spec('keras').name == 'keras'\n"
        "assert sys.meta_path == before and 'keras' not in sys.modules\n"
        "import keras\n"
        "print('_AfterKeras' in {type(x).__name__ for x in sys.meta_path})"
    )
    assert out.strip() == "False"


def test_importing_tfavmae_imports_neither_keras_nor_tensorflow(fresh_python):
    out = fresh_python(
        "import sys, tfavmae\n"
        "print(sorted({'keras', 'tensorflow', 'numpy'} & set(sys.modules)))"
    )
    assert out.strip() == "[]"
