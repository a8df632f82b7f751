"""Reconstruction of one modality from the other."""

import keras
from keras import KerasTensor

from tfavmae.objectives.reconstruction import Reconstruction


@keras.saving.register_keras_serializable(package="tfavmae")
class Inpainting(Reconstruction):
    """Mean squared error of patches predicted from the other modality.

    AV-MAE, section 3.4. A modality's own visible tokens contribute through the encoder
    only. `inpainting_targets` of the decoder chooses the patches that are predicted.

    Reads `{modality}_inpainting` or `{modality}_masked_inpainting`, and
    `{modality}_target`, all `(batch, patches, values)`; terms are named
    `inpainting_{modality}`.

    Args:
        weight: factor of the whole objective.
        modality_weights: dict of the predicted modality to its factor. 0 leaves it out:
            `{"video": 1.0, "audio": 0.0}` is "video from audio" in table 2.
        include_visible: also count the positions that hold the context.
        average_values: see `Reconstruction`.
    """

    requires = ("inpainting",)
    prefix = "inpainting"

    def pairs(
        self, modality: str, outputs: dict[str, KerasTensor]
    ) -> list[tuple[KerasTensor, KerasTensor]]:
        part = "" if self.include_visible else "masked_"
        prediction = outputs.get(f"{modality}_{part}inpainting")
        if prediction is None:
            return []
        # The context takes the first positions (AV-MAE's code), so the predictions
        # belong to the last ones.
        target = outputs[f"{modality}_target"]
        return [(prediction, target[:, target.shape[1] - prediction.shape[1] :])]
