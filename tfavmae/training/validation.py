"""Mean average precision of the validation clips at the end of every epoch."""

import keras
import numpy as np
import tensorflow as tf

from tfavmae.class_metrics import average_precision, mean_over_classes
from tfavmae.errors import UserError
from tfavmae.training.callbacks import sync_state
from tfavmae.training.factory import Labels

MONITOR = "val_mAP"


def check_labels(labels: Labels, name: str) -> None:
    """Checks that clips have a score for each class of the label `name`.

    Raises:
        UserError: each of their segments has.
    """
    if labels.num_segments:
        raise UserError(
            f"trainer.monitor={MONITOR} is of clips as a whole; data.label={name} has"
            " segments. Use val_accuracy."
        )


class ValidationMeanAveragePrecision(keras.callbacks.Callback):
    """Adds `val_mAP` to what an epoch reports; comes before callbacks that read it.

    Exact, which a metric that is summed up batch by batch cannot be. It costs a second
    forward pass over the validation clips: Keras' own keeps no scores.

    Args:
        batches: every validation clip, on each process.
        label: key of the label in them.

    Raises:
        UserError: at the end of an epoch, if no clip has a class.
    """

    def __init__(self, batches: tf.data.Dataset, label: str) -> None:
        super().__init__()
        self.batches = batches
        self.label = label

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        sync_state(self.model)
        scores, targets = [], []
        for batch in self.batches.as_numpy_iterator():
            # Each replica makes the whole batch: only the first's rows are wanted.
            is_clip = batch["sample_weight"] > 0
            logits = self.model.predict_on_batch(batch)["logits"][: len(is_clip)]
            scores.append(logits[is_clip])
            targets.append(batch[self.label][is_clip])
        scores, targets = np.concatenate(scores), np.concatenate(targets)
        if targets.ndim == 1:
            targets = targets[:, None] == np.arange(scores.shape[1])
        if not (targets > 0.5).any():
            raise UserError(
                f"trainer.monitor={MONITOR}: no validation clip has a class of"
                f" {self.label}; set another monitor or data.validation_split."
            )
        # A run whose weights are not finite is stopped by the watch, which says why.
        precisions = average_precision(targets, np.nan_to_num(scores))
        logs[MONITOR] = mean_over_classes(precisions)
