"""Weights chosen by the mean average precision of the validation clips."""

import json
import pathlib

import numpy as np
import pytest
import small_models as small
import tensorflow_datasets as tfds

from tfavmae import cli
from tfavmae.building.features import example_features
from tfavmae.errors import UserError
from tfavmae.training import experiment, factory
from tfavmae.training.validation import ValidationMeanAveragePrecision


@pytest.fixture(scope="module")
def events_config(tmp_path_factory, tones_builder, small_config):
    """`events_config(**changes)`: `tones` with several classes a clip."""

    class Events(tones_builder):
        VERSION = tfds.core.Version("1.0.0")
        name = "events"

        def _info(self):
            names = tfds.features.ClassLabel(names=["low", "high", "third", "rest"])
            labels = {"events": tfds.features.Sequence(names)}
            return tfds.core.DatasetInfo(
                builder=self, features=example_features(labels)
            )

        def _generate_examples(self, split):
            for number, (key, clip) in enumerate(super()._generate_examples(split)):
                own = clip.pop("label")
                # The last class occurs in training alone.
                rest = [2] if number % 3 == 0 else []
                rest += [3] if split == "train" and number > 20 else []
                yield key, clip | {"events": [own, *rest]}

    tfds.disable_progress_bar()
    directory = tmp_path_factory.mktemp("events")
    Events(data_dir=directory).download_and_prepare()

    def make(**changes):
        data = {"dataset": "events", "data_dir": str(directory), "label": "events"}
        data = {f"data.{k}": x for k, x in data.items()}
        return small_config("finetune", **data, **changes)

    return make


def test_the_best_weights_by_mean_average_precision(events_config, tmp_path, capsys):
    config = events_config(**{"trainer.monitor": "val_mAP", "data.batch_size": 3})
    run = experiment.run(config, tmp_path / "run", progress=False)
    epochs = [r for r in run.history if r["kind"] == "epoch"]
    best = max(epochs, key=lambda r: r["val_mAP"])
    assert run.step == best["step"] and 0 < best["val_mAP"] <= 1
    # The same clips, and the class that none of them has left out.
    workdir = str(tmp_path / "run")
    cli.main(["evaluate", "--workdir", workdir, "--split", "validation"])
    found = json.loads((tmp_path / "run/evaluation_validation.json").read_text())
    value = found["mean_average_precision"]
    assert value == pytest.approx(best["val_mAP"], rel=1e-6)


def test_clips_of_several_classes_are_not_repeated_by_class(events_config):
    config = events_config(**{"data.repeat_classes_to": 0.5})
    with pytest.raises(UserError, match=r"data\.label=events has several.*balanced"):
        factory.TrainingData(config.data, config.model, seed=0)


class Scorer:
    """Stands for a model: logits of the numbers in a batch."""

    def predict_on_batch(self, batch):
        x = batch["x"].astype("float32")
        # As under a strategy of two replicas: each has made the whole batch.
        return {"logits": np.concatenate([np.stack([x, -x], 1)] * 2)}


def batches(labels):
    import tensorflow as tf

    batch = {"x": [1, 2, 3, 4, 9], "label": labels, "sample_weight": [1, 1, 1, 1, 0]}
    return tf.data.Dataset.from_tensors(batch)


def test_the_precision_of_single_labels_without_padding():
    """Class 0 is at ranks 1 and 3, class 1 likewise: (1 + 2 / 3) / 2."""
    callback = ValidationMeanAveragePrecision(batches([1, 0, 1, 0, 1]), "label")
    callback.set_model(Scorer())
    logs = {"val_loss": 1.0}
    callback.on_epoch_end(0, logs)
    assert logs["val_mAP"] == pytest.approx(5 / 6)


def test_no_clip_with_a_class():
    callback = ValidationMeanAveragePrecision(batches([-1] * 5), "label")
    callback.set_model(Scorer())
    with pytest.raises(UserError, match="no validation clip has a class of label"):
        callback.on_epoch_end(0, {})


SCORE_ON_JAX = """
import sys
sys.path.append(sys.argv[1])
import keras
import small_models as small
import tensorflow as tf
from tfavmae.training.optimizers import PathAdam
from tfavmae.training.validation import ValidationMeanAveragePrecision
assert keras.backend.backend() == "jax"
model = small.compiled(small.classifier())
batch = small.batch_for(model, size=6)
batches = tf.data.Dataset.from_tensors(batch | {"sample_weight": [1.0] * 6})
score = ValidationMeanAveragePrecision(batches, "label")
history = model.fit(batch, batch_size=6, epochs=30, callbacks=[score], verbose=0)
# Of the weights of the epoch, which Keras keeps elsewhere while it trains.
logs = {}
score.on_epoch_end(0, logs)
print("RESULT", *history.history["val_mAP"][::29], logs["val_mAP"])
"""


def test_the_precision_on_jax(fresh_python):
    environment = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    tests = pathlib.Path(small.__file__).parent
    out = fresh_python(SCORE_ON_JAX, tests, environment=environment)
    (line,) = [x for x in out.splitlines() if x.startswith("RESULT ")]
    first, last, again = map(float, line.split()[1:])
    assert first < last == again == 1.0
