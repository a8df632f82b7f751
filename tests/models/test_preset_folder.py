"""Presets in Python: `from_preset` and `save_to_preset`."""

import json

import keras
import numpy as np
import pytest
import small_models as small
import yaml

import tfavmae
from tfavmae.errors import UserError
from tfavmae.models.presets import classes, papers

TINY = {"audio": small.AUDIO, "video": small.PICTURE, **small.ENCODER, **small.DECODER}


@pytest.mark.parametrize("case", [*small.MODELS, "classifier", "mbt"])
def test_every_model_comes_back(case, tmp_path):
    make = {"classifier": small.classifier, "mbt": small.mbt}
    model = make[case]() if case in make else small.pretraining(case)
    model.save_to_preset(tmp_path / "preset")
    again = type(model).from_preset(tmp_path / "preset")
    assert type(again) is type(model)
    assert json.dumps(again.get_config()) == json.dumps(model.get_config())
    for old, new in zip(model.weights, again.weights, strict=True):
        assert old.path == new.path
        np.testing.assert_array_equal(old, new)
    # Its class need not be known.
    either = tfavmae.AudioVisualClassifier if case in make else papers()["cav_mae"]
    if isinstance(model, either):
        assert type(either.from_preset(tmp_path / "preset")) is type(model)


def test_sizes_are_architectures():
    model = tfavmae.CAVMAE.from_preset("cav_mae_tiny", seed=3, **TINY)
    assert (type(model).__name__, model.seed, model.hidden_dim) == ("CAVMAE", 3, 16)
    options = {"audio": small.AUDIO, "video": small.PICTURE, "num_classes": 3}
    classifier = tfavmae.AudioVisualClassifier.from_preset("cav_mae_tiny", **options)
    assert classifier.num_classes == 3 and classifier.hidden_dim == 128
    fusion = {"first_layer": 1, "num_bottlenecks": 2}
    options |= {"video": small.CLIP, "stream_fusion": fusion}
    mbt = tfavmae.MBT.from_preset("av_mae_tiny", **options)
    assert type(mbt) is tfavmae.MBT
    with pytest.raises(ValueError, match="Unknown model option 'masks'"):
        tfavmae.CAVMAE.from_preset("cav_mae_tiny", masks=1)


def test_the_wrong_class_names_the_right_one(tmp_path):
    small.pretraining("cav_mae").save_to_preset(tmp_path / "preset")
    for preset in ("cav_mae_tiny", tmp_path / "preset"):
        with pytest.raises(UserError, match=r"class CAVMAE, not MAViL; call CAVMAE\.f"):
            tfavmae.MAViL.from_preset(preset)
    with pytest.raises(UserError, match=r"call CAVMAE\.from_preset"):
        tfavmae.AudioVisualClassifier.from_preset(tmp_path / "preset")
    with pytest.raises(UserError, match=r"call AudioVisualClassifier\.from_preset"):
        tfavmae.MBT.from_preset("cav_mae_tiny", num_classes=2)


def test_no_such_preset(tmp_path):
    with pytest.raises(UserError, match=r"neither a folder.* did you mean 'mavil_base"):
        tfavmae.MAViL.from_preset("mavil_bass")
    with pytest.raises(UserError, match=r"no such preset; its folder holds config\.j"):
        tfavmae.MAViL.from_preset(tmp_path)
    small.pretraining("mavil").save_to_preset(tmp_path / "preset")
    with pytest.raises(UserError, match=r"has weights.*leave out num_layers, seed"):
        tfavmae.MAViL.from_preset(tmp_path / "preset", seed=1, num_layers=2)


def test_a_preset_replaces_a_preset_and_nothing_else(tmp_path):
    folder = tmp_path / "preset"
    folder.mkdir()  # an empty one will do
    small.pretraining("cav_mae").save_to_preset(folder)
    other = small.pretraining("mavil")
    other.save_to_preset(folder)
    assert type(tfavmae.MAViL.from_preset(folder)) is tfavmae.MAViL
    (folder / "notes.txt").write_text("mine")
    before = sorted(folder.iterdir())
    with pytest.raises(UserError, match=r"preset: holds 'notes\.txt' and would be"):
        other.save_to_preset(folder)
    assert sorted(folder.iterdir()) == before
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(folder)
    for name in ("file", "link"):
        with pytest.raises(UserError, match=f"{name}: is not a folder"):
            other.save_to_preset(tmp_path / name)
    assert not list(tmp_path.glob(".partial*"))


def test_a_failed_save_leaves_the_old_preset(tmp_path, monkeypatch):
    model = small.pretraining("cav_mae")
    model.save_to_preset(tmp_path / "preset")
    before = {p: p.read_bytes() for p in (tmp_path / "preset").iterdir()}

    def no_space(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "save_weights", no_space)
    with pytest.raises(UserError, match="the disk is full"):
        model.save_to_preset(tmp_path / "preset", license="MIT")
    assert {p: p.read_bytes() for p in (tmp_path / "preset").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["preset"]


def test_a_compiled_model_is_stored_without_its_optimizer(tmp_path):
    small.compiled(small.pretraining("cav_mae")).save_to_preset(tmp_path / "preset")
    config = json.loads((tmp_path / "preset" / "config.json").read_text())
    assert "compile_config" not in config
    assert not tfavmae.CAVMAE.from_preset(tmp_path / "preset").compiled


def test_precision_comes_back(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small.pretraining("cav_mae")
    finally:
        keras.config.set_dtype_policy("float32")
    model.save_to_preset(tmp_path / "preset")
    again = tfavmae.CAVMAE.from_preset(tmp_path / "preset")
    assert again.dtype_policy.name == "mixed_bfloat16"
    np.testing.assert_array_equal(again.weights[-1], model.weights[-1])


def test_the_card_of_a_model_alone(tmp_path):
    small.classifier().save_to_preset(tmp_path / "shapes & <b>")
    text = (tmp_path / "shapes & <b>" / "README.md").read_text()
    _, front_matter, body = text.split("---\n", 2)
    assert yaml.safe_load(front_matter)["license"] == "unknown"
    assert "video-classification" in yaml.safe_load(front_matter)["tags"]
    assert "# shapes &amp; &lt;b&gt;" in body
    assert "The data are not known" in body and "Not stated." in body
    assert "tfavmae.AudioVisualClassifier.from_preset(" in body
    assert "tfavmae.load" not in body  # it does not say how clips become inputs


def test_a_paper_that_the_package_does_not_list_is_found(monkeypatch):
    monkeypatch.delitem(tfavmae._HOME_OF, "AVSiam")
    assert tfavmae.AVSiam is papers()["av_siam"]
    with pytest.raises(AttributeError, match="has no attribute 'AVSiames'"):
        tfavmae.AVSiames  # noqa: B018


def test_every_class_that_a_card_names_is_public():
    assert {"CAVMAE", "MBT", "AudioVisualClassifier"} < set(classes())
    for name, kind in classes().items():
        assert getattr(tfavmae, name) is kind
