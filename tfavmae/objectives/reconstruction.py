"""Reconstruction of masked patches."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

from tfavmae.objectives.base import Objective, Term, presence


@keras.saving.register_keras_serializable(package="tfavmae")
class Reconstruction(Objective):
    """Mean squared error over the masked patches of each modality.

    `sum_m weight_m / (masked patches) * sum over masked patches of mean (p - t)^2`:
    CAV-MAE equation (9), AV-MAE equation (1) (its code: weights 0.5 and 0.5), MAViL
    equation (1).

    Reads `{modality}_masked_prediction` and `{modality}_masked_target`, or the same
    without `masked_`, all `(batch, patches, values)`, in the units of the target:
    normalised spectrogram or pixels, or standardised patches. Where one mask is drawn
    for both modalities, clips have different numbers of masked patches: then those
    without `masked_`, the mean over each clip's patches of `{modality}_is_masked`
    `(batch, patches)`, and the mean of these over clips. Terms are named
    `reconstruction_{modality}`.

    Args:
        weight: factor of the whole objective.
        modality_weights: dict of modality to factor; 0 leaves the modality out.
        include_visible: also count the patches that were not masked.
        average_values: mean over the values of a patch; `False`: their sum (option
            `normalise_by_output_dimension` of AV-MAE's code).
    """

    requires: tuple[str, ...] = ("reconstruction",)
    prefix = "reconstruction"

    def __init__(
        self,
        weight: float = 1.0,
        modality_weights: Mapping[str, float] | None = None,
        include_visible: bool = False,
        average_values: bool = True,
    ) -> None:
        super().__init__(weight)
        self.modality_weights = dict(modality_weights or {"audio": 1.0, "video": 1.0})
        self.include_visible = include_visible
        self.average_values = average_values

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities whose factor is not 0."""
        return tuple(m for m, factor in self.modality_weights.items() if factor)

    def term_names(self, modalities: Sequence[str]) -> list[str]:
        return [f"{self.prefix}_{m}" for m in modalities if m in self.modalities]

    def terms(
        self, batch: dict[str, KerasTensor], outputs: dict[str, KerasTensor]
    ) -> dict[str, Term]:
        reduce = ops.mean if self.average_values else ops.sum
        terms = {}
        for modality in self.modalities:
            pairs = self.pairs(modality, outputs)
            counted = self._counted(modality, outputs)
            if counted is not None:
                prediction, target = pairs[0]
                errors = reduce(ops.square(prediction - target), axis=-1)
                each = ops.sum(errors * counted, axis=1)
                each = each / ops.maximum(ops.sum(counted, axis=1), 1)
                weight = presence(batch, modality, errors)
                terms[f"{self.prefix}_{modality}"] = Term(
                    ops.sum(each * weight),
                    ops.sum(weight),
                    self.weight * self.modality_weights[modality],
                )
            elif pairs:
                errors = ops.concatenate(
                    [reduce(ops.square(p - t), axis=-1) for p, t in pairs], axis=1
                )
                weight = presence(batch, modality, errors)
                terms[f"{self.prefix}_{modality}"] = Term(
                    ops.sum(ops.sum(errors, axis=1) * weight),
                    ops.sum(weight) * errors.shape[1],
                    self.weight * self.modality_weights[modality],
                )
        return terms

    def counts(self, batch: dict[str, KerasTensor]) -> dict[str, KerasTensor]:
        # Without the number of patches, which is the same in all parts of a batch.
        return {
            f"{self.prefix}_{m}": ops.sum(presence(batch, m)) for m in self.modalities
        }

    def _is_jointly_masked(
        self, modality: str, outputs: dict[str, KerasTensor]
    ) -> bool:
        has = [f"{modality}_{x}" in outputs for x in ("is_masked", "masked_target")]
        return has == [True, False]

    def _counted(
        self, modality: str, outputs: dict[str, KerasTensor]
    ) -> KerasTensor | None:
        """float32 `(batch, patches)`, 1 for those that count; `None`: all given do."""
        if self.include_visible or not self._is_jointly_masked(modality, outputs):
            return None
        return ops.cast(outputs[f"{modality}_is_masked"], "float32")

    def pairs(
        self, modality: str, outputs: dict[str, KerasTensor]
    ) -> list[tuple[KerasTensor, KerasTensor]]:
        """Predictions and targets `(batch, patches, values)` of all decoded views."""
        is_whole = self.include_visible or self._is_jointly_masked(modality, outputs)
        part = "" if is_whole else "masked_"
        names = [
            (f"{part}prediction{suffix}", f"{part}target{suffix}")
            for suffix in ("", "_2")
        ]
        return [
            (outputs[f"{modality}_{prediction}"], outputs[f"{modality}_{target}"])
            for prediction, target in names
            if f"{modality}_{prediction}" in outputs
        ]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "modality_weights": self.modality_weights,
            "include_visible": self.include_visible,
            "average_values": self.average_values,
        }
