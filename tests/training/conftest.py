"""A data set and a recipe small enough to train on within a second."""

import io

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tfavmae.building.features import example_features
from tfavmae.config import experiment as config_lib
from tfavmae.models.train_step import TensorFlowTrainStep
from tfavmae.objectives.base import Objective, Term
from tfavmae.training import callbacks, experiment, runs

RATE = 16_000
NUM_CLIPS = {"train": 24, "validation": 8}


def jpeg(frame):
    content = io.BytesIO()
    PIL.Image.fromarray(frame).save(content, "JPEG", quality=90)
    return content.getvalue()


def example(split, number):
    """Label 1 is bright and high, label 0 dark and low; clip 5 is silent."""
    rng = np.random.default_rng([number, len(split)])
    label = number % 2
    time = np.arange(int(0.4 * RATE)) / RATE
    tone = np.sin(2 * np.pi * (400 + 1200 * label) * time)
    noise = rng.normal(size=(2, len(time)))[0]
    frame = rng.integers(0, 120, (16, 16, 3)) + 120 * label
    has_audio = number != 5
    return {
        "id": f"{split}-{number:02}",
        "audio": (8000 * tone + 500 * noise).astype(np.int16)[
            : None if has_audio else 0
        ],
        "frames": [jpeg(np.roll(frame, k, 1).astype(np.uint8)) for k in range(4)],
        "frame_rate": 10.0,
        "has_audio": has_audio,
        "has_video": True,
        "label": label,
    }


class Tones(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    name = "tones"

    def _info(self):
        labels = {"label": tfds.features.ClassLabel(names=["low", "high"])}
        return tfds.core.DatasetInfo(builder=self, features=example_features(labels))

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(name) for name in NUM_CLIPS}

    def _generate_examples(self, split):
        for number in range(NUM_CLIPS[split]):
            yield f"{split}-{number:02}", example(split, number)


@pytest.fixture(scope="session")
def tones_builder():
    """The builder of `tones`, to derive others from."""
    return Tones


@pytest.fixture(scope="session")
def tones(tmp_path_factory):
    """Data directory with the data set `tones`."""
    tfds.disable_progress_bar()
    directory = tmp_path_factory.mktemp("tfds")
    Tones(data_dir=directory).download_and_prepare()
    return directory


SIZES = {
    "hidden_dim": 16,
    "num_heads": 2,
    "mlp_dim": 32,
    "num_layers": 2,
}
DECODER_SIZES = {
    "decoder": {"hidden_dim": 16, "num_heads": 2, "mlp_dim": 32, "num_layers": 1},
    "contrast": {"weight": 0.1},
}


def small_values(data_dir, stage="pretrain"):
    """Values of a recipe on `tones`: epochs of 3 steps, 7 steps in all."""
    return {
        "stage": stage,
        "model": {
            "name": "cav_mae",
            "size": "tiny",
            "audio": {"num_frames": 32, "num_mel_bins": 16, "patch_size": [8, 8]},
            "video": {"height": 16, "width": 16, "tubelet_size": [1, 8, 8]},
            "options": SIZES | (DECODER_SIZES if stage == "pretrain" else {}),
        },
        "data": {
            "dataset": "tones",
            "data_dir": str(data_dir),
            "batch_size": 8,
            "clip_seconds": 0.35,
            "augment": {"flip_probability": 0.5},
        },
        "optimizer": {"learning_rate": 1e-2, "warmup_steps": 2, "clip_norm": 1.0},
        "trainer": {
            "num_steps": 7,
            "steps_per_epoch": 3,
            "checkpoint_every_steps": 2,
            "log_every_steps": 1,
            "strategy": "none",
        },
    }


@pytest.fixture(scope="session")
def small_config(tones):
    """`small_config(stage, **{"trainer.num_steps": 3})` makes an `ExperimentConfig`."""

    def make(stage="pretrain", **changes):
        values = small_values(tones, stage)
        for key, value in changes.items():
            section, _, name = key.partition(".")
            if name:
                values[section][name] = value
            else:
                values[section] = value
        return config_lib.from_dict(values)

    return make


class Brightness(Objective):
    """Squared error of a guess of a clip's brightness."""

    def term_names(self, modalities):
        return ["error"]

    def terms(self, batch, outputs):
        target = tf.reduce_mean(batch["colour"] ** 2, axis=1)
        error = (outputs["guess"][:, 0] - target) ** 2 * batch["sample_weight"]
        weight = tf.reduce_sum(batch["sample_weight"])
        return {"error": Term(tf.reduce_sum(error), weight, 1.0)}


@keras.saving.register_keras_serializable(package="tests")
class Toy(TensorFlowTrainStep, keras.Model):
    """A model of two small layers and dropout, quick to trace."""

    def __init__(self, name="toy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.modalities = ()
        self.objectives = [Brightness()]
        self.body = keras.layers.Dense(8, activation="relu", name="body")
        self.dropout = keras.layers.Dropout(0.3, seed=1, name="dropout")
        self.head = keras.layers.Dense(1, name="head")
        self.body.build((None, 3))
        self.head.build((None, 8))
        self._init_trackers()
        self.built = True

    def call(self, batch, training=False):
        hidden = self.dropout(self.body(batch["colour"]), training=training)
        return {"guess": self.head(hidden)}

    def compute_terms(self, batch, outputs):
        return self.objectives[0].terms(batch, outputs)


class ToyData:
    """Stands for `TrainingData`: batches that are a function of seed and step."""

    num_examples = 24

    def __init__(self, data, model, *, seed, host_index=0, host_count=1):
        self.batch_size, self.seed = data.batch_size, seed
        self.train_split = self
        self.size = data.batch_size // host_count
        self.start = host_index * self.size

    def ids(self):
        return [f"train-{i:02}" for i in range(24)]

    def facts(self):
        return {
            "train": {"fingerprint": "0" * 64, "num_examples": 24, "dataset": "toy"}
        }

    def training_batches(self, start_step, num_steps=None):
        steps = tf.data.Dataset.counter(start_step)
        steps = steps if num_steps is None else steps.take(num_steps)
        return steps.map(self._batch)

    def validation_batches(self):
        return tf.data.Dataset.range(1000, 1002).map(self._batch)

    def _batch(self, step):
        size, seed = self.batch_size, (self.seed, step)
        whole = {
            "colour": tf.random.stateless_uniform([size, 3], seed),
            "sample_weight": tf.ones([size]),
            "example_index": tf.random.stateless_uniform([size], seed, 0, 24, tf.int32),
        }
        rows = slice(self.start, self.start + self.size)
        return {name: x[rows] for name, x in whole.items()}


@pytest.fixture(scope="module")
def toy():
    """Experiments train a `Toy` on `ToyData`."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (experiment, runs):
            patch.setattr(module, "build_model", lambda config, labels=None: Toy())
        patch.setattr(experiment, "TrainingData", ToyData)
        yield patch


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.fixture
def after_step(monkeypatch):
    """`after_step(action)` calls `action(step)` after each step and its checkpoint."""

    def install(action):
        original = callbacks.Checkpointer.after_step

        def with_action(self, logs):
            original(self, logs)
            action(self.step)

        monkeypatch.setattr(callbacks.Checkpointer, "after_step", with_action)

    return install


@pytest.fixture
def run_and_die(after_step):
    """`run_and_die(config, workdir, step)` runs until just after `step`."""
    last_step = [None]

    def die(step):
        if step == last_step[0]:
            raise Killed

    after_step(die)

    def run(config, workdir, step):
        last_step[0] = step
        with pytest.raises(Killed):
            experiment.run(config, workdir, progress=False)
        last_step[0] = None

    return run


@pytest.fixture(scope="session")
def assert_same_weights():
    """Fails unless two models have the same weights, bit for bit."""

    def check(first, second):
        first = {v.path: np.array(v) for v in first.weights}
        second = {v.path: np.array(v) for v in second.weights}
        assert first.keys() == second.keys()
        for path in first:
            np.testing.assert_array_equal(first[path], second[path], err_msg=path)

    return check


@pytest.fixture(scope="session")
def numbers():
    """A history without the rows' timings."""

    def strip(history):
        timings = ("clips_per_second", "input_wait")
        return [{k: v for k, v in r.items() if k not in timings} for r in history]

    return strip
