"""PyTorch's yardstick has the weights of our presets, and its steps run.

In processes of their own: PyTorch and TensorFlow do not go well together in one.
"""

import json
import math
import pathlib
import subprocess
import sys

import pytest

from tfavmae.private_hooks import shapes_only

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"
# Trained weights; without position tables, without a teacher.
TRAINED = {
    "av_mae_base": 165_695_488,
    "av_mae_large": 595_849_984,
    "cav_mae_base": 189_961_984,
    "mavil_base": 237_816_576,
    "mavil_base_stage2": 237_685_248,
}


def torch_step(*arguments):
    command = [sys.executable, str(FOLDER / "torch_step.py"), *arguments]
    return subprocess.check_output(command, text=True, timeout=600)


@pytest.mark.parametrize("preset", sorted(TRAINED))
def test_weights_of_our_presets(preset):
    from tfavmae.models import presets

    name, size, *stage = preset.replace("_mae", "-mae").split("_")
    options = {"teacher": {}} if stage else {}
    with shapes_only():
        model = presets.build_pretraining(name.replace("-", "_"), size, **options)
    found = sum(math.prod(v.shape) for v in model.trainable_variables)
    assert found == TRAINED[preset]


@pytest.mark.weights
@pytest.mark.parametrize("preset", sorted(TRAINED))
def test_as_many_in_pytorch(preset):
    assert int(torch_step("--preset", preset, "--parameters")) == TRAINED[preset]


@pytest.mark.weights
@pytest.mark.parametrize(
    "options",
    [
        ["--preset=cav_mae_tiny", "--precision=mixed_bfloat16"],
        ["--preset=cav_mae_tiny", "--form=authors"],
        ["--preset=av_mae_tiny"],
        ["--preset=mavil_tiny"],
        ["--preset=mavil_tiny_stage2"],
    ],
)
def test_a_step_in_pytorch(options):
    out = torch_step(*options, "--batch", "2", "3", "--steps=1", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["batch"] for row in rows] == [2, 3]
    assert all(0 < row["loss"] < 20 for row in rows)
    assert all(row["clips_per_s"] > 0 for row in rows)


@pytest.mark.weights
def test_embeddings_in_pytorch():
    out = torch_step("--preset=cav_mae_tiny", "--embed", "--steps=1")
    assert "cav_mae_tiny, embed, eager, batch 4, float32" in out
