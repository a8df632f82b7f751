"""Supervised objective of fine-tuning."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

from tfavmae.layers.augment import mix, partners
from tfavmae.objectives.base import Objective, Term, presence


@keras.saving.register_keras_serializable(package="tfavmae")
class Classification(Objective):
    """Cross-entropy of `logits` against a label of the batch, in nats.

    Reads `logits` `(batch, classes)` and, after mix-up, `mixing_share` `(batch,)` of
    the outputs. Terms: `classification` and `accuracy`, which is reported only.

    Args:
        label: key of the label in the batch: int `(batch,)`, or float
            `(batch, classes)`, soft or multi-hot. Labels are mixed as the clips were
            (`DeviceAugmentation`).
        multi_label: sigmoid cross-entropy, averaged over classes, instead of softmax
            cross-entropy.
        label_smoothing: s in `y (1 - s) + s / classes`.
        modality: examples without it have weight 0; with `audio_video`, one of the two
            is enough.
        weight: factor in the loss.
    """

    requires: tuple[str, ...] = ("logits",)

    def __init__(
        self,
        label: str = "label",
        multi_label: bool = False,
        label_smoothing: float = 0.0,
        modality: str = "audio_video",
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight)
        self.label = label
        self.multi_label = multi_label
        self.label_smoothing = label_smoothing
        self.modality = modality

    def term_names(self, modalities: Sequence[str]) -> list[str]:
        return ["classification", "accuracy"]

    def terms(
        self, batch: dict[str, KerasTensor], outputs: dict[str, KerasTensor]
    ) -> dict[str, Term]:
        if self.label not in batch:
            raise ValueError(
                f"The batch must have the label `{self.label}`, or `y` beside it. "
                f"Received: {sorted(batch)}."
            )
        logits, label = outputs["logits"], batch[self.label]
        classes = logits.shape[-1]
        if len(label.shape) == 1:
            label = ops.one_hot(ops.cast(label, "int32"), classes)
        target = ops.cast(label, "float32")
        if "mixing_share" in outputs:
            target = mix(target, outputs["mixing_share"], partners(target))
        smooth = target * (1 - self.label_smoothing) + self.label_smoothing / classes
        weight = self._weight(batch, logits)
        if self.multi_label:
            # Sigmoid cross-entropy in the form whose exponential cannot overflow.
            losses = ops.relu(logits) - logits * smooth
            losses = ops.mean(losses + ops.softplus(-ops.abs(logits)), axis=-1)
        else:
            losses = -ops.sum(smooth * ops.log_softmax(logits, axis=-1), axis=-1)
        # A hit is any class of the target, which covers mixed and multi-hot labels.
        hits = ops.take_along_axis(target, ops.argmax(logits, axis=-1)[:, None], axis=1)
        return {
            "classification": Term(
                ops.sum(losses * weight), ops.sum(weight), self.weight
            ),
            "accuracy": Term(
                ops.sum(ops.cast(hits[:, 0] > 0, "float32") * weight), ops.sum(weight)
            ),
        }

    def counts(self, batch: dict[str, KerasTensor]) -> dict[str, KerasTensor]:
        count = ops.sum(self._weight(batch))
        return {"classification": count, "accuracy": count}

    def _weight(
        self, batch: dict[str, KerasTensor], like: KerasTensor | None = None
    ) -> KerasTensor:
        """float32 `(batch,)`, see `modality`."""
        weights = [presence(batch, m, like) for m in self.modality.split("_")]
        return ops.max(ops.stack(weights), axis=0)

    def get_config(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "multi_label": self.multi_label,
            "label_smoothing": self.label_smoothing,
            "modality": self.modality,
            "weight": self.weight,
        }
