"""Learning-rate schedules of the papers, as serialisable Keras schedules.

A schedule maps the number of updates made so far (0 before the first) to a
learning rate. All start with a linear warm-up from 0, so that with a warm-up
the first update has a learning rate of 0, as in the authors' AV-MAE code.
"""

import math

import keras
from keras import ops


class _WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, peak, warmup_steps=0):
        self.peak = peak
        self.warmup_steps = warmup_steps

    def _warmup(self, step):
        if not self.warmup_steps:
            return 1.0
        return ops.minimum(step / self.warmup_steps, 1.0)

    def get_config(self):
        return {"peak": self.peak, "warmup_steps": self.warmup_steps}


@keras.saving.register_keras_serializable(package="tfavmae")
class ConstantSchedule(_WarmUp):
    """Linear warm-up, then `peak`.

    Args:
        peak: learning rate after the warm-up.
        warmup_steps: length of the warm-up; may be fractional.
    """

    def __call__(self, step):
        return self.peak * self._warmup(ops.cast(step, "float32"))


@keras.saving.register_keras_serializable(package="tfavmae")
class CosineSchedule(_WarmUp):
    """Linear warm-up, then half a cosine from `peak` to `minimum`.

    After `W` warm-up steps the rate is
    `minimum + (peak - minimum) * 0.5 * (1 + cos(pi * (step - W) / (T - int(W))))`,
    the formula of AV-MAE (with `minimum` 0) and of MAE and MAViL. It stays at
    `minimum` from step `T` on. The authors' AV-MAE code instead returns to the
    peak there; `cyclic=True` does the same.

    Args:
        peak: learning rate at the end of the warm-up.
        total_steps: `T`, the step at which `minimum` is reached.
        warmup_steps: `W`, length of the warm-up; may be fractional.
        minimum: final learning rate.
        cyclic: start again from `peak` at `total_steps`.
    """

    def __init__(self, peak, total_steps, warmup_steps=0, minimum=0.0, cyclic=False):
        super().__init__(peak, warmup_steps)
        if total_steps <= int(warmup_steps):
            raise ValueError(
                "`total_steps` must be greater than `warmup_steps`. Received: "
                f"total_steps={total_steps}, warmup_steps={warmup_steps}."
            )
        self.total_steps = total_steps
        self.minimum = minimum
        self.cyclic = cyclic

    def __call__(self, step):
        step = ops.cast(step, "float32")
        length = self.total_steps - int(self.warmup_steps)
        progress = ops.maximum(step - self.warmup_steps, 0.0) / length
        progress = progress % 1.0 if self.cyclic else ops.minimum(progress, 1.0)
        # cos(x / 2) ** 2 is 0.5 * (1 + cos(x)) without cancellation near the end.
        shape = ops.cos(0.5 * math.pi * progress) ** 2
        rate = self.minimum + (self.peak - self.minimum) * shape
        return rate * self._warmup(step)

    def get_config(self):
        return super().get_config() | {
            "total_steps": self.total_steps,
            "minimum": self.minimum,
            "cyclic": self.cyclic,
        }


@keras.saving.register_keras_serializable(package="tfavmae")
class MultistepSchedule(_WarmUp):
    """Constant, then multiplied by `factor` every few epochs (CAV-MAE).

    Counting epochs from 0, the first decay is at the beginning of epoch
    `decay_start_epoch`, the next ones every `decay_every_epochs`.

    Args:
        peak: learning rate of the first epochs.
        steps_per_epoch: updates in an epoch.
        decay_start_epoch: first epoch (from 0) with a smaller rate.
        decay_every_epochs: epochs between decays.
        factor: what a decay multiplies the rate by.
        warmup_steps: length of a linear warm-up (none in the paper).
    """

    def __init__(
        self,
        peak,
        steps_per_epoch,
        decay_start_epoch,
        decay_every_epochs=1,
        factor=0.5,
        warmup_steps=0,
    ):
        super().__init__(peak, warmup_steps)
        self.steps_per_epoch = steps_per_epoch
        self.decay_start_epoch = decay_start_epoch
        self.decay_every_epochs = decay_every_epochs
        self.factor = factor

    def __call__(self, step):
        # Whole numbers until the end: an epoch boundary must not depend on
        # the rounding of a division in float32.
        epoch = ops.cast(step, "int64") // self.steps_per_epoch
        past = ops.maximum(epoch - self.decay_start_epoch, -1)
        decays = ops.where(past < 0, 0, past // self.decay_every_epochs + 1)
        rate = self.peak * ops.power(self.factor, ops.cast(decays, "float32"))
        return rate * self._warmup(ops.cast(step, "float32"))

    def get_config(self):
        return super().get_config() | {
            "steps_per_epoch": self.steps_per_epoch,
            "decay_start_epoch": self.decay_start_epoch,
            "decay_every_epochs": self.decay_every_epochs,
            "factor": self.factor,
        }
