"""`tfavmae weights inspect`."""

import json

import numpy as np
import published_files
from weight_files import ARRAYS, WRITERS, torch_zip

from tfavmae.weights.torch_writer import write_torch


def test_a_file_is_shown(cli, tmp_path):
    write_torch(path := tmp_path / "file.pth", ARRAYS)
    result = cli("weights", "inspect", str(path))
    assert result.status == 0
    assert f"{path}: torch zip" in result.out
    assert "4 tensors, 36 parameters (1 float32, 1 float64, 1 int64" in result.out
    assert "4 × 6" in result.out


def test_the_model_is_told_with_its_licence(cli, tmp_path):
    zeros = {
        name: np.zeros(shape, "f2")
        for name, shape in published_files.mae(384, 1536, 1, 196).items()
    }
    write_torch(path := tmp_path / "file.pth", zeros)
    out = cli("weights", "inspect", str(path)).out
    assert "model: image MAE, ViT-Small with no decoder; fills mavil_base" in out
    assert "note: A supervised ViT without its head looks the same" in out
    assert "CC BY-NC 4.0" in out
    model = json.loads(cli("weights", "inspect", str(path), "--json").out)["model"]
    assert model["published"][0]["source"] == "https://github.com/facebookresearch/mae"


def test_an_unknown_model_is_said_to_be_one(cli, tmp_path):
    write_torch(path := tmp_path / "file.pth", ARRAYS)
    out = cli("weights", "inspect", str(path)).out
    assert "model: 4 tensors of no published model that is known" in out


def test_the_catalogue(cli):
    out = cli("weights", "list").out
    assert "audio_model.21.pth" in out and "CC BY-NC 4.0" in out
    listed = json.loads(cli("weights", "list", "--json").out)
    assert {
        "file",
        "source",
        "licence",
        "family",
        "gives",
        "starts",
        "settings",
    } == set(listed[0])


def test_json_and_metadata(cli, tmp_path):
    WRITERS["flax msgpack"](path := tmp_path / "checkpoint", ARRAYS)
    contents = json.loads(cli("weights", "inspect", str(path), "--json").out)
    assert contents["metadata"] == {"step": 5}
    first = {"name": "a.weight", "shape": [4, 6], "dtype": "float32"}
    assert contents["tensors"][0] == first


def test_many_tensors_are_cut_unless_all_are_wanted(cli, tmp_path):
    write_torch(path := tmp_path / "f", {f"t{i}.": np.ones(2) for i in range(30)})
    short = cli("weights", "inspect", str(path)).out
    assert "10 more, see --all" in short
    assert "t9." in short and "t10." not in short and "t20." in short
    assert "t10." in cli("weights", "inspect", str(path), "--all").out


def test_a_hostile_file_is_one_line(cli, tmp_path):
    torch_zip(path := tmp_path / "file", b"cos\nsystem\n(X\x01\x00\x00\x00xtR.")
    result = cli("weights", "inspect", str(path))
    assert result.status == 2
    assert "it names 'os.system', and only tensors" in result.err


def test_control_characters_do_not_reach_the_terminal(cli, tmp_path):
    write_torch(path := tmp_path / "file", {"\x1b[2Jx": np.ones(2)})
    out = cli("weights", "inspect", str(path)).out
    assert "\x1b[2J" not in out and "\\x1b[2Jx" in out


def test_readers_need_no_tensorflow(fresh_python, tmp_path):
    for kind, write in WRITERS.items():
        write(tmp_path / kind, ARRAYS)
    fresh_python(
        "import sys; from tfavmae.weights.weight_file import open_weights\n"
        "for name in sys.argv[1:]: open_weights(name)",
        *[str(tmp_path / kind) for kind in WRITERS],
        blocked=("tensorflow", "keras", "torch", "flax"),
    )
