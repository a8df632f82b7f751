"""Distillation: reconstruction of a frozen teacher's outputs for the whole input."""

import keras

from tfavmae.objectives.reconstruction import Reconstruction


@keras.saving.register_keras_serializable(package="tfavmae")
class Distillation(Reconstruction):
    """Mean squared error to a teacher's outputs at masked tokens (MAViL equation (5)).

    `sum_m weight_m / (masked tokens) * sum over masked tokens of mean (p - t)^2`, where
    t are the teacher's outputs for the complete view: those of its fusion layers or of
    its unimodal layers, see `teacher_output` of the model. The paper writes the square
    of a vector; as in MAE and its successors, the mean over the vector is computed, not
    the sum.

    The arguments are those of `Reconstruction`; terms are named
    `distillation_{modality}`.
    """

    requires = ("reconstruction", "teacher")
    prefix = "distillation"
