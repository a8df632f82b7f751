"""Reconstruction of one modality from the other."""

import keras

from tfavmae.objectives.reconstruction import Reconstruction


@keras.saving.register_keras_serializable(package="tfavmae")
class Inpainting(Reconstruction):
    """Mean squared error of patches predicted from the other modality (AV-MAE, 3.4).

    A modality's own visible tokens take part through the encoder only. Which patches
    are predicted is the decoder's `inpainting_targets`.

    Args:
        weight: factor of the whole.
        modality_weights: dict of the modality that is predicted to its factor. 0 leaves
            it out: `{"video": 1.0, "audio": 0.0}` is "video from audio" of table 2.
        include_visible: also count the places that hold the context.
        average_values: see `Reconstruction`.
    """

    requires = ("inpainting",)
    prefix = "inpainting"

    def pairs(self, modality, outputs):
        part = "" if self.include_visible else "masked_"
        prediction = outputs.get(f"{modality}_{part}inpainting")
        if prediction is None:
            return []
        target = outputs[f"{modality}_target"]
        return [(prediction, target[:, target.shape[1] - prediction.shape[1] :])]
