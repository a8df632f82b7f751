"""`tfavmae weights import` and `export`, and files in the place of runs."""

import json

import media_files
import numpy as np
import published_files
import pytest
import tone_sets

import tfavmae
from tfavmae.weights.torch_writer import write_torch
from tfavmae.weights.weight_file import open_weights
from tfavmae_datasets.vggsound.source import stat_order

SHAPE, DECODER = (24, 40, 2), (12, 20, 1)
HEADS = ("--set", "model.options.num_heads=3")


@pytest.fixture
def classifier(tmp_path):
    """A file like CAV-MAE's of VGGSound, small, and its tensors."""
    shapes = published_files.cav_mae_classifier(SHAPE, (32, 16), 309)
    values = published_files.values(shapes)
    write_torch(path := tmp_path / "vgg_65.5.pth", values)
    return path, values


@pytest.fixture
def clip(tmp_path):
    media_files.write_clip(path := tmp_path / "clip.mp4", seconds=2.0)
    return path


def test_a_preset_answers_as_the_file_does(cli, classifier, clip, tmp_path):
    path, _ = classifier
    preset = tmp_path / "preset"
    done = cli(
        "weights", "import", path, "--as", "cav_mae_base", "--out", preset, *HEADS
    )
    assert (done.status, done.out) == (0, f"{preset}\n")
    assert "CAV-MAE, fine-tuned, a ViT 24 wide" in done.err
    assert "warning: " in done.err and "Assumed: fine-tuned on both" in done.err
    card = (preset / "README.md").read_text()
    assert "Imported from vgg_65.5.pth: CAV-MAE, fine-tuned" in card
    assert "license: unknown" in card
    loaded = tfavmae.load(preset)
    assert loaded.run.labels.names == list(stat_order())
    answers = [
        json.loads(cli("predict", clip, *which, "--json").out)
        for which in (("--workdir", preset), ("--from", path, *HEADS))
    ]
    assert answers[0] == answers[1]
    vectors = cli("embed", clip, "--from", preset, "--output", tmp_path / "x.npz")
    assert vectors.status == 0


def test_authors_names_come_back(cli, classifier, tmp_path):
    path, values = classifier
    preset = tmp_path / "preset"
    cli("weights", "import", path, "--out", preset, *HEADS)
    for form in ("torch", "safetensors", "npz"):
        out = tmp_path / f"back.{form}"
        assert cli("weights", "export", preset, "--to", form, "--out", out).status == 0
        back = open_weights(out).tensors
        # Of the norms that a block makes, only some are used.
        assert set(back) < set(values)
        assert {"module.mlp_head.1.weight", "module.blocks_u.0.norm1_a.bias"} < set(
            back
        )
        for name, tensor in back.items():
            np.testing.assert_allclose(tensor.read(), values[name], rtol=0, atol=1e-7)
    out = tmp_path / "ours.npz"
    cli("weights", "export", preset, "--to", "npz", "--names", "ours", "--out", out)
    assert "encoder/joint/block_0/attention/qkv/kernel" in open_weights(out).tensors


def test_hf_is_a_preset(cli, classifier, tmp_path):
    path, _ = classifier
    cli("weights", "import", path, "--out", first := tmp_path / "first", *HEADS)
    out = tmp_path / "hf"
    done = cli(
        *("weights", "export", first, "--to", "hf", "--out", out),
        *("--license", "bsd-2-clause"),
    )
    assert done.status == 0
    assert "license: bsd-2-clause" in (out / "README.md").read_text()
    model = tfavmae.AudioVisualClassifier.from_preset(str(out))
    assert model.num_classes == 309


def test_what_does_not_fit_is_one_line(cli, classifier, tmp_path):
    path, _ = classifier
    to = ("--out", tmp_path / "preset")
    done = cli("weights", "import", path, "--as", "mavil_base", *to, *HEADS)
    assert done.status == 2
    assert "which fills cav_mae_base, not mavil_base" in done.err
    (names := tmp_path / "names.txt").write_text("a\nb\n")
    done = cli("weights", "import", path, "--labels", names, *to, *HEADS)
    assert "has 2 names, one a line, and the head has 309 classes" in done.err
    done = cli("weights", "import", tmp_path / "none.pth", *to)
    assert "none.pth: no such file" in done.err
    done = cli("weights", "import", path, *to)
    assert "--set model.options.num_heads=N" in done.err
    assert not (tmp_path / "preset").exists()


def test_the_card_has_the_licence_of_what_is_published(cli, tmp_path):
    shapes = published_files.mae(*SHAPE, 16)
    write_torch(path := tmp_path / "mae.pth", published_files.values(shapes))
    done = cli("weights", "import", path, "--out", preset := tmp_path / "p", *HEADS)
    assert done.status == 0
    assert "license: cc-by-nc-4.0" in (preset / "README.md").read_text()


def test_evaluate_and_retrieve_ask_a_file(cli, tmp_path):
    tone_sets.build(tmp_path)
    data = ["data.dataset=bells", f"data.data_dir={tmp_path}"]
    changes = [x for key in data for x in ("--set", key)]
    shapes = published_files.cav_mae_classifier(SHAPE, (32, 16), 3)
    write_torch(path := tmp_path / "three.pth", published_files.values(shapes))
    asked = ("--from", path, "--split", "fold_1", *HEADS, *changes)
    done = cli("evaluate", *asked, "--json")
    assert done.status == 0, done
    assert json.loads(done.out)["num_clips"] == 6
    shapes = published_files.cav_mae(SHAPE, (32, 16), DECODER)
    write_torch(path := tmp_path / "pretrained.pth", published_files.values(shapes))
    asked = ("--from", path, "--split", "fold_2", *HEADS, *changes)
    done = cli("retrieve", *asked, "--set", "model.options.decoder.num_heads=2")
    assert done.status == 0, done
    assert "R@1" in done.out


@pytest.mark.slow
def test_a_file_is_exported_without_its_data_set(cli, classifier):
    path, _ = classifier
    done = cli("export", "--from", path, *HEADS)
    assert done.status == 0, done
    folder = path.with_name("vgg_65.5.pth-results") / "export" / "model" / "1"
    assert (folder / "saved_model.pb").is_file()
    assert "gives the model's answers in a process without tfavmae" in done.out
    done = cli("export", "--from", path, *HEADS, "--weights", "int8")
    assert done.status == 2 and "data set 'vggsound/stat' was not found" in done.err
