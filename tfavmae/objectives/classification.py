"""Supervised objective of fine-tuning."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

from tfavmae.layers.mixup import mix, partners, smooth_targets
from tfavmae.objectives.base import Objective, Term, presence

ACTIVATIONS = ("softmax", "sigmoid")
SMOOTHINGS = ("uniform", "cav_mae_authors")


@keras.saving.register_keras_serializable(package="tfavmae")
class Classification(Objective):
    """Cross-entropy of `logits` against a label of the batch, in nats.

    Reads `logits` `(batch, classes)`, or of segments of time `(batch, segments,
    classes)`, and, after mix-up, `mixing_share` `(batch,)` of the outputs. Terms:
    `classification` and `accuracy`, which is reported only.

    Args:
        label: key of the label in the batch: int `(batch,)`, or float
            `(batch, classes)`, soft or multi-hot; with an axis of segments where the
            logits have one. Labels are mixed as the clips were (`DeviceAugmentation`).
        multi_label: a clip may have several classes.
        label_smoothing: s in `y (1 - s) + s / classes`.
        smoothing: `uniform`, that formula; or `cav_mae_authors`, by which the classes
            of a clip that is not mixed get `1 - s` and all others `s / classes`.
        modality: examples without it have weight 0; with `audio_video`, one of the two
            is enough.
        weight: factor in the loss.
        activation: `softmax` or `sigmoid`, that of the cross-entropy; `None`: sigmoid
            for several classes a clip. MAViL trains all with sigmoid (table 9).
        average_classes: sigmoid cross-entropy is averaged over classes (CAV-MAE) or
            summed (Scenic, where learning rates count on it).
        per_modality: the mean of the losses of `audio_logits` and `video_logits`
            instead of the loss of `logits` (MBT). A clip without a modality does not
            count for it. After mix-up of each modality by itself, the labels follow
            `audio_mixing_share` and `video_mixing_share`.
        head: which of the logits, where they are a dict; names of terms end in it.
    """

    requires: tuple[str, ...] = ("logits",)

    def __init__(
        self,
        label: str = "label",
        multi_label: bool = False,
        label_smoothing: float = 0.0,
        modality: str = "audio_video",
        weight: float = 1.0,
        activation: str | None = None,
        average_classes: bool = True,
        per_modality: bool = False,
        head: str | None = None,
        smoothing: str = "uniform",
    ) -> None:
        super().__init__(weight)
        if activation not in (None, *ACTIVATIONS):
            raise ValueError(
                f"`activation` must be one of {ACTIVATIONS} or None. "
                f"Received: {activation!r}."
            )
        if smoothing not in SMOOTHINGS:
            raise ValueError(
                f"`smoothing` must be one of {SMOOTHINGS}. Received: {smoothing!r}."
            )
        self.label = label
        self.multi_label = multi_label
        self.label_smoothing = label_smoothing
        self.modality = modality
        self.activation = activation or ("sigmoid" if multi_label else "softmax")
        self.average_classes = average_classes
        self.per_modality = per_modality
        self.head = head
        self.smoothing = smoothing

    def term_names(self, modalities: Sequence[str]) -> list[str]:
        end = f"_{self.head}" if self.head else ""
        return [f"classification{end}", f"accuracy{end}"]

    def terms(
        self, batch: dict[str, KerasTensor], outputs: dict[str, KerasTensor]
    ) -> dict[str, Term]:
        if self.label not in batch:
            raise ValueError(
                f"The batch must have the label `{self.label}`, or `y` beside it. "
                f"Received: {sorted(batch)}."
            )
        parts = [None] if not self.per_modality else self.modality.split("_")
        total, count = 0.0, 0.0
        for m in parts:
            logits = self._logits(outputs, m)
            target = self._target(batch, outputs, logits, m)
            weight = self._weight(batch, m, logits)
            smooth = self._smooth(target, self._share(outputs, m))
            total += ops.sum(self._losses(logits, smooth) * weight)
            count += ops.sum(weight)
        logits = self._logits(outputs)
        hits = self._hits(logits, self._target(batch, outputs, logits))
        weight = self._weight(batch, like=logits)
        names = self.term_names(())
        terms = [
            Term(total / len(parts), count / len(parts), self.weight),
            Term(ops.sum(hits * weight), ops.sum(weight)),
        ]
        return dict(zip(names, terms, strict=True))

    def counts(self, batch: dict[str, KerasTensor]) -> dict[str, KerasTensor]:
        parts = [None] if not self.per_modality else self.modality.split("_")
        of_loss = sum(ops.sum(self._weight(batch, m)) for m in parts) / len(parts)
        counts = [of_loss, ops.sum(self._weight(batch))]
        return dict(zip(self.term_names(()), counts, strict=True))

    def _logits(
        self, outputs: dict[str, KerasTensor], modality: str | None = None
    ) -> KerasTensor:
        logits = outputs[f"{modality}_logits" if modality else "logits"]
        return logits[self.head] if self.head else logits

    def _target(
        self,
        batch: dict[str, KerasTensor],
        outputs: dict[str, KerasTensor],
        logits: KerasTensor,
        modality: str | None = None,
    ) -> KerasTensor:
        """float32 of the shape of the logits, mixed as the clips were."""
        label = batch[self.label]
        if len(label.shape) < len(logits.shape):
            label = ops.one_hot(ops.cast(label, "int32"), logits.shape[-1])
        target = ops.cast(label, "float32")
        share = self._share(outputs, modality)
        return target if share is None else mix(target, share, partners(target))

    def _share(
        self, outputs: dict[str, KerasTensor], modality: str | None
    ) -> KerasTensor | None:
        """`(batch,)`, the share of each clip in its mix; `None` without mix-up."""
        return outputs.get(f"{modality}_mixing_share", outputs.get("mixing_share"))

    def _smooth(self, target: KerasTensor, share: KerasTensor | None) -> KerasTensor:
        is_mixed = None
        if self.smoothing == "cav_mae_authors":
            none = ops.zeros((ops.shape(target)[0],), dtype="bool")
            is_mixed = none if share is None else share < 1
        return smooth_targets(target, self.label_smoothing, is_mixed)

    def _losses(self, logits: KerasTensor, smooth: KerasTensor) -> KerasTensor:
        """float32 `(batch,)`, the mean over segments where there are any."""
        if self.activation == "sigmoid":
            # In the form whose exponential cannot overflow.
            losses = ops.relu(logits) - logits * smooth
            losses = losses + ops.softplus(-ops.abs(logits))
            reduce = ops.mean if self.average_classes else ops.sum
            losses = reduce(losses, axis=-1)
        else:
            losses = -ops.sum(smooth * ops.log_softmax(logits, axis=-1), axis=-1)
        return _mean_over_segments(losses)

    def _hits(self, logits: KerasTensor, target: KerasTensor) -> KerasTensor:
        """float32 `(batch,)`, 1 where the highest logit is of one of the classes."""
        # Any class of the target, which covers mixed and multi-hot labels.
        best = ops.argmax(logits, axis=-1)[..., None]
        hits = ops.take_along_axis(target, best, axis=-1)[..., 0] > 0
        return _mean_over_segments(ops.cast(hits, "float32"))

    def _weight(
        self,
        batch: dict[str, KerasTensor],
        modality: str | None = None,
        like: KerasTensor | None = None,
    ) -> KerasTensor:
        """float32 `(batch,)`, see `modality`."""
        modalities = (modality or self.modality).split("_")
        weights = [presence(batch, m, like) for m in modalities]
        return ops.max(ops.stack(weights), axis=0)

    def get_config(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "multi_label": self.multi_label,
            "label_smoothing": self.label_smoothing,
            "modality": self.modality,
            "weight": self.weight,
            "activation": self.activation,
            "average_classes": self.average_classes,
            "per_modality": self.per_modality,
            "head": self.head,
            "smoothing": self.smoothing,
        }


def _mean_over_segments(x: KerasTensor) -> KerasTensor:
    return x if len(x.shape) == 1 else ops.mean(x, axis=1)
