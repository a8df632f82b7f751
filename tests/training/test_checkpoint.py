"""Checkpoints: whole or not there, verified when read, exact."""

import json
import os
import resource

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfavmae.errors import UserError
from tfavmae.training.checkpoint import CheckpointStore, collect_variables


def make_model(units=3, name="toy"):
    layers = keras.layers
    inputs = [layers.Input((4,)), layers.Dense(units, name="body")]
    model = keras.Sequential([*inputs, layers.Dropout(0.5, name="drop")], name=name)
    model.compile(keras.optimizers.Adam(name="optimizer"), loss="mse")
    model.optimizer.build(model.trainable_variables)
    return model


def train(model, units=3):
    model.fit(np.ones((8, 4)), np.ones((8, units)), batch_size=4, verbose=0)


def values(model):
    return {k: np.array(v) for k, v in collect_variables(model).items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for address in first:
        np.testing.assert_array_equal(first[address], second[address])


@pytest.fixture
def trained():
    keras.utils.set_random_seed(0)
    model = make_model()
    train(model)
    return model


@pytest.fixture
def store(tmp_path):
    lines = []
    store = CheckpointStore(tmp_path / "checkpoints", keep=2, report=lines.append)
    store.lines = lines
    return store


def save(store, model, step):
    store.save(collect_variables(model), {"step": step})


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_addresses_cover_everything_that_training_changes(trained):
    addresses = set(collect_variables(trained))
    assert {"model/body/kernel", "optimizer/optimizer/iteration"} < addresses
    assert "model/seed_generator/seed_generator_state_0" in addresses
    assert "metrics/loss/total" in addresses


def test_everything_comes_back_bit_for_bit(store, trained):
    saved = values(trained)
    save(store, trained, 2)
    # Another process counts its models differently.
    other = make_model(name="toy_1")
    variables = {
        k.replace("toy_1", "toy"): v for k, v in collect_variables(other).items()
    }
    assert store.restore(variables)["step"] == 2
    assert_same(saved, {k: v.numpy() for k, v in variables.items()})


def test_the_last_ones_are_kept_and_the_newest_is_named(store, trained):
    for step in (1, 2, 3):
        save(store, trained, step)
    assert store.steps() == [3, 2]
    names = sorted(p.name for p in store.directory.iterdir())
    assert names == ["latest", "step-00000002", "step-00000003"]
    assert (store.directory / "latest").read_text() == "step-00000003\n"


def test_nothing_to_restore(store, trained):
    assert store.restore(collect_variables(trained)) is None


@pytest.mark.parametrize(
    "name", ["variables.data-00000-of-00001", "variables.index", "state.json"]
)
def test_a_damaged_checkpoint_is_passed_over(store, trained, name):
    save(store, trained, 1)
    saved = values(trained)
    train(trained)
    save(store, trained, 2)
    flip_a_byte(store.path(2) / name)
    assert store.restore(collect_variables(trained))["step"] == 1
    assert_same(saved, values(trained))
    (line,) = store.lines
    assert (
        f"step-00000002 is damaged ({name} has changed); going back to step 1" in line
    )


@pytest.mark.parametrize("name", ["checksums.json", "variables.index"])
def test_a_file_that_is_gone_is_damage_too(store, trained, name):
    save(store, trained, 1)
    save(store, trained, 2)
    (store.path(2) / name).unlink()
    assert store.restore(collect_variables(trained))["step"] == 1


def test_all_damaged_is_an_error_not_a_new_start(store, trained):
    for step in (1, 2):
        save(store, trained, step)
        flip_a_byte(store.path(step) / "state.json")
    with pytest.raises(UserError, match="None is left to continue from; delete"):
        store.restore(collect_variables(trained))


def test_a_damaged_newer_one_makes_room_when_its_step_is_reached_again(
    tmp_path, trained
):
    store = CheckpointStore(tmp_path, keep=1, report=lambda line: None)
    save(store, trained, 9)
    flip_a_byte(store.path(9) / "state.json")
    save(store, trained, 5)
    assert store.steps() == [5]


def test_what_a_killed_writer_left_is_not_a_checkpoint(store, trained):
    save(store, trained, 1)
    leftover = store.directory / ".partial-1-step-00000002"
    leftover.mkdir()
    (leftover / "variables.index").write_text("half")
    assert store.restore(collect_variables(trained))["step"] == 1
    save(store, trained, 2)
    assert not leftover.exists()


def test_a_checkpoint_of_another_model(store, trained):
    save(store, trained, 1)
    other = make_model(units=5)
    with pytest.raises(UserError) as error:
        store.restore(collect_variables(other))
    assert "model/body/kernel: [4, 3] in the checkpoint, [4, 5] in this model" in str(
        error.value
    )
    extra = collect_variables(trained) | {"model/head/kernel": tf.Variable([1.0])}
    with pytest.raises(UserError, match="model/head/kernel: not in the checkpoint"):
        store.restore(extra)


def test_part_of_a_checkpoint(store, trained):
    save(store, trained, 1)
    saved = values(trained)
    train(trained)
    variables = collect_variables(trained)
    kernel = {"model/body/kernel": variables["model/body/kernel"]}
    store.restore(kernel, partly=True)
    now = values(trained)
    np.testing.assert_array_equal(now["model/body/kernel"], saved["model/body/kernel"])
    assert (now["model/body/bias"] != saved["model/body/bias"]).any()


def test_a_full_disk_leaves_the_earlier_checkpoints(store, trained):
    save(store, trained, 1)
    # Files may not grow beyond 100 bytes: writing fails as on a full disk.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(UserError) as error:
            save(store, trained, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    message = str(error.value)
    assert "\n" not in message
    assert "cannot write the checkpoint of step 2" in message
    assert "the newest complete one is of step 1" in message
    assert sorted(os.listdir(store.directory)) == ["latest", "step-00000001"]
    assert store.restore(collect_variables(trained))["step"] == 1


def test_workers_other_than_the_chief_leave_no_files(tmp_path, trained):
    store = CheckpointStore(tmp_path / "shared", is_chief=False)
    save(store, trained, 1)
    assert list(store.directory.iterdir()) == []


def test_the_state_is_kept(store, trained):
    state = {"step": 3, "watch": {"looked_at": 2, "sums": {"loss": [0.1 + 0.2, 3.0]}}}
    store.save(collect_variables(trained), state)
    restored = store.restore(collect_variables(trained))
    assert {k: restored[k] for k in state} == state
    text = (store.path(3) / "state.json").read_text()
    assert json.loads(text)["variables"]["model/body/kernel"] == [4, 3]


def test_two_variables_of_one_address():
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((2,)),
            layers.Dense(2, name="body"),
            layers.Dense(2, name="other"),
        ]
    )
    model.layers[1].kernel._path = model.layers[0].kernel.path
    model.compile("sgd")
    with pytest.raises(ValueError, match="Two variables have the address"):
        collect_variables(model)
