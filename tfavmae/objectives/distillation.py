"""Reconstruction of what a frozen teacher makes of the whole input."""

import keras

from tfavmae.objectives.reconstruction import Reconstruction


@keras.saving.register_keras_serializable(package="tfavmae")
class Distillation(Reconstruction):
    """Mean squared error to a teacher's outputs at masked tokens (MAViL equation (5)).

    `sum_m weight_m / (sum of masked) * sum over masked tokens of mean (p - t)^2`, where
    t are the teacher's outputs for the complete view, of its fusion or unimodal layers
    as the model's `teacher_output` says. The paper writes the square of a vector;
    it is its mean, not its sum, over the vector that MAE and its successors compute.

    Args: see `Reconstruction`.
    """

    requires = ("reconstruction", "teacher")
    prefix = "distillation"
