"""Files that PyTorch, Flax and safetensors wrote, and ours that they read."""

import argparse
import collections

import numpy as np
import pytest

from tfavmae.errors import UserError
from tfavmae.weights.safetensors_file import write_safetensors
from tfavmae.weights.torch_writer import write_torch
from tfavmae.weights.weight_file import open_weights

pytestmark = pytest.mark.weights


def equal(tensor, array):
    assert tensor.shape == array.shape
    np.testing.assert_array_equal(np.asarray(tensor.read(), "f8"), array)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_checkpoint_of_a_training_loop(tmp_path, is_zip):
    import torch

    layer = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    saved = {
        "model": layer.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 7,
        "best": np.float64(0.25),
        "args": argparse.Namespace(lr=1e-3, model="vit", sizes=(1, 2), x=None),
    }
    path = tmp_path / "checkpoint"
    torch.save(saved, path, _use_new_zipfile_serialization=is_zip)
    file = open_weights(path)
    assert file.format == ("torch zip" if is_zip else "torch legacy")
    assert list(file.tensors) == list(layer.state_dict())
    for name, tensor in layer.state_dict().items():
        equal(file.tensors[name], tensor.numpy())
    args = {"lr": 1e-3, "model": "vit", "sizes": [1, 2], "x": None}
    assert file.metadata == {"epoch": 7, "best": 0.25, "args": args}


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_views_and_kinds_of_numbers(tmp_path, is_zip, protocol):
    import torch

    whole = torch.arange(24.0)
    tensors = collections.OrderedDict(
        whole=whole,
        part=whole[3:9].reshape(2, 3),
        turned=whole.reshape(4, 6).T,
        scalar=torch.tensor(3),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(torch.ones(2)),
        **{
            str(kind): torch.arange(5).to(kind)
            for kind in (
                *(torch.float64, torch.float16, torch.bfloat16, torch.int8),
                *(torch.uint8, torch.int16, torch.int32, torch.bool),
            )
        },
    )
    path = tmp_path / "file"
    torch.save(
        tensors,
        path,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=is_zip,
    )
    file = open_weights(path)
    assert list(file.tensors) == list(tensors)
    for name, tensor in tensors.items():
        equal(file.tensors[name], tensor.detach().double().numpy())


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_whole_module_is_refused_by_name(tmp_path, is_zip):
    import torch

    path = tmp_path / "file"
    module = torch.nn.Linear(2, 2)
    torch.save(module, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(UserError, match=r"torch\.nn\.modules\.linear\.Linear"):
        open_weights(path)


def test_pytorch_and_safetensors_read_what_we_write(tmp_path):
    import ml_dtypes
    import safetensors.torch
    import torch

    ours = {
        "a.weight": np.arange(6, dtype="f4").reshape(2, 3),
        "count": np.array(3, "i8"),
        "half": np.arange(4).astype("f2"),
        "brain": np.arange(4).astype(ml_dtypes.bfloat16),
        "empty": np.zeros((0, 2), "f4"),
    }
    write_torch(tmp_path / "a.pth", ours)
    write_safetensors(tmp_path / "a.safetensors", ours)
    for theirs in (
        torch.load(tmp_path / "a.pth", weights_only=True),
        safetensors.torch.load_file(tmp_path / "a.safetensors"),
    ):
        assert set(theirs) == set(ours)
        for name, array in ours.items():
            assert tuple(theirs[name].shape) == array.shape
            np.testing.assert_array_equal(theirs[name].double().numpy(), array)


def test_flax(tmp_path, monkeypatch):
    import flax.serialization
    import jax.numpy as jnp

    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 64)
    state = {
        "params": {
            "encoder": {
                "kernel": np.arange(40, dtype="f4").reshape(4, 10),  # in chunks
                "bias": np.arange(3, dtype="f4"),
                "brain": jnp.arange(4, dtype=jnp.bfloat16),
            }
        },
        "global_step": np.int64(9),
    }
    path = tmp_path / "checkpoint"
    path.write_bytes(flax.serialization.msgpack_serialize(state, in_place=False))
    file = open_weights(path)
    assert file.format == "flax msgpack"
    assert file.metadata == {"global_step": 9}
    for name, array in state["params"]["encoder"].items():
        equal(file.tensors[f"encoder/{name}"], np.asarray(array, "f8"))
