"""Reconstruction of masked patches."""

import keras
from keras import ops

from tfavmae.objectives.base import Objective, Term, presence


@keras.saving.register_keras_serializable(package="tfavmae")
class Reconstruction(Objective):
    """Mean squared error over the masked patches of each modality.

    `sum_m weight_m / (sum of masked) * sum over masked patches of mean (p - t)^2`:
    CAV-MAE equations (8) to (10), AV-MAE section 3.4 (weights 0.5 and 0.5), MAViL
    equation (1).

    Args:
        weight: factor of the whole.
        modality_weights: dict of modality to factor; 0 leaves it out.
        include_visible: also count the patches that were not masked.
        average_values: mean over the values of a patch; `False`: their sum (the
            `normalise_by_output_dimension` of AV-MAE's code).
    """

    requires = ("reconstruction",)
    prefix = "reconstruction"

    def __init__(
        self,
        weight=1.0,
        modality_weights=None,
        include_visible=False,
        average_values=True,
    ):
        super().__init__(weight)
        self.modality_weights = dict(modality_weights or {"audio": 1.0, "video": 1.0})
        self.include_visible = include_visible
        self.average_values = average_values

    @property
    def modalities(self):
        """Those that count."""
        return tuple(m for m, factor in self.modality_weights.items() if factor)

    def term_names(self, modalities):
        return [f"{self.prefix}_{m}" for m in modalities if m in self.modalities]

    def terms(self, batch, outputs):
        terms = {}
        for modality in self.modalities:
            pairs = self.pairs(modality, outputs)
            if pairs:
                errors = ops.concatenate([self._errors(*x) for x in pairs], axis=1)
                weight = presence(batch, modality, errors)
                terms[f"{self.prefix}_{modality}"] = Term(
                    ops.sum(ops.sum(errors, axis=1) * weight),
                    ops.sum(weight) * errors.shape[1],
                    self.weight * self.modality_weights[modality],
                )
        return terms

    def counts(self, batch):
        return {
            f"{self.prefix}_{m}": ops.sum(presence(batch, m)) for m in self.modalities
        }

    def pairs(self, modality, outputs):
        """Predictions and targets `(batch, patches, values)` of all decoded views."""
        part = "" if self.include_visible else "masked_"
        names = [
            (f"{part}prediction{suffix}", f"{part}target{suffix}")
            for suffix in ("", "_2")
        ]
        return [
            (outputs[f"{modality}_{prediction}"], outputs[f"{modality}_{target}"])
            for prediction, target in names
            if f"{modality}_{prediction}" in outputs
        ]

    def _errors(self, prediction, target):
        reduce = ops.mean if self.average_values else ops.sum
        return reduce(ops.square(prediction - target), axis=-1)

    def get_config(self):
        return {
            **super().get_config(),
            "modality_weights": self.modality_weights,
            "include_visible": self.include_visible,
            "average_values": self.average_values,
        }
