"""Supervised objectives of fine-tuning."""

import keras
from keras import ops

from tfavmae.layers.augment import mix, partners
from tfavmae.objectives.base import Objective, Term, presence


@keras.saving.register_keras_serializable(package="tfavmae")
class Classification(Objective):
    """Cross-entropy of `logits` against a label of the batch.

    Args:
        label: key of the label in the batch: int `(batch,)`, or float
            `(batch, classes)`, soft or multi-hot. Mixed as the clips were, if they
            were (`DeviceAugmentation`).
        multi_label: sigmoid cross-entropy, mean over classes, instead of soft-max.
        label_smoothing: `y (1 - s) + s / classes`.
        modality: examples that lack it have weight 0; `audio_video` needs either.
        weight: factor in the loss.
    """

    requires = ("logits",)

    def __init__(
        self,
        label="label",
        multi_label=False,
        label_smoothing=0.0,
        modality="audio_video",
        weight=1.0,
    ):
        super().__init__(weight)
        self.label = label
        self.multi_label = multi_label
        self.label_smoothing = label_smoothing
        self.modality = modality

    def term_names(self, modalities):
        return ["classification", "accuracy"]

    def terms(self, batch, outputs):
        logits, label = outputs["logits"], batch[self.label]
        classes = logits.shape[-1]
        if len(label.shape) == 1:
            label = ops.one_hot(ops.cast(label, "int32"), classes)
        target = ops.cast(label, "float32")
        if "mixing_share" in outputs:
            target = mix(target, outputs["mixing_share"], partners(target))
        smooth = target * (1 - self.label_smoothing) + self.label_smoothing / classes
        weight = self._weight(batch, logits)
        hits = ops.take_along_axis(target, ops.argmax(logits, axis=-1)[:, None], axis=1)
        return {
            "classification": Term(
                ops.sum(self._losses(smooth, logits) * weight),
                ops.sum(weight),
                self.weight,
            ),
            "accuracy": Term(
                ops.sum(ops.cast(hits[:, 0] > 0, "float32") * weight), ops.sum(weight)
            ),
        }

    def counts(self, batch):
        count = ops.sum(self._weight(batch))
        return {"classification": count, "accuracy": count}

    def _losses(self, target, logits):
        if not self.multi_label:
            return -ops.sum(target * ops.log_softmax(logits, axis=-1), axis=-1)
        losses = ops.relu(logits) - logits * target + ops.softplus(-ops.abs(logits))
        return ops.mean(losses, axis=-1)

    def _weight(self, batch, like=None):
        weights = [presence(batch, m, like) for m in self.modality.split("_")]
        return ops.max(ops.stack(weights), axis=0)

    def get_config(self):
        return {
            "label": self.label,
            "multi_label": self.multi_label,
            "label_smoothing": self.label_smoothing,
            "modality": self.modality,
            "weight": self.weight,
        }
