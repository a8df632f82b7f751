"""Learning-rate schedules of the papers, as serialisable Keras schedules.

A schedule maps the number of updates made so far (0 before the first) to a learning
rate. All start with a linear warm-up from 0, so that with a warm-up the first update
has a learning rate of 0, as in the authors' AV-MAE code.
"""

import math
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

if TYPE_CHECKING:
    # `benchmarks/step_time.py` runs where tf-models, which configs need, is missing.
    from tfavmae.config.experiment import OptimizerConfig
    from tfavmae.training.plan import TrainingPlan


class _WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, peak: float, warmup_steps: float = 0) -> None:
        self.peak = peak
        self.warmup_steps = warmup_steps

    def _warmup(self, step: keras.KerasTensor) -> keras.KerasTensor | float:
        if not self.warmup_steps:
            return 1.0
        return ops.minimum(step / self.warmup_steps, 1.0)

    def get_config(self) -> dict[str, Any]:
        return {"peak": self.peak, "warmup_steps": self.warmup_steps}


@keras.saving.register_keras_serializable(package="tfavmae")
class ConstantSchedule(_WarmUp):
    """Linear warm-up, then `peak`.

    Args:
        peak: learning rate after the warm-up.
        warmup_steps: length of the warm-up; may be fractional.
    """

    def __call__(self, step: int | keras.KerasTensor) -> keras.KerasTensor:
        return self.peak * self._warmup(ops.cast(step, "float32"))


@keras.saving.register_keras_serializable(package="tfavmae")
class CosineSchedule(_WarmUp):
    """Linear warm-up, then half a cosine from `peak` to `minimum`.

    After `W` warm-up steps the rate is
    `minimum + (peak - minimum) * 0.5 * (1 + cos(pi * (step - W) / (T - int(W))))`,
    the formula of AV-MAE (with `minimum` 0) and of MAE and MAViL. It stays at
    `minimum` from step `T` on. The authors' AV-MAE code instead returns to the peak
    there; `cyclic=True` does the same.

    Args:
        peak: learning rate at the end of the warm-up.
        total_steps: `T`, the step at which `minimum` is reached.
        warmup_steps: `W`, length of the warm-up; may be fractional.
        minimum: final learning rate.
        cyclic: start again from `peak` at `total_steps`.

    Raises:
        ValueError: the warm-up is as long as the run.
    """

    def __init__(
        self,
        peak: float,
        total_steps: int,
        warmup_steps: float = 0,
        minimum: float = 0.0,
        cyclic: bool = False,
    ) -> None:
        super().__init__(peak, warmup_steps)
        if total_steps <= int(warmup_steps):
            raise ValueError(
                "`total_steps` must be greater than `warmup_steps`. Received: "
                f"total_steps={total_steps}, warmup_steps={warmup_steps}."
            )
        self.total_steps = total_steps
        self.minimum = minimum
        self.cyclic = cyclic

    def __call__(self, step: int | keras.KerasTensor) -> keras.KerasTensor:
        step = ops.cast(step, "float32")
        # The whole part of the warm-up only, as in the authors' code.
        length = self.total_steps - int(self.warmup_steps)
        progress = ops.maximum(step - self.warmup_steps, 0.0) / length
        progress = progress % 1.0 if self.cyclic else ops.minimum(progress, 1.0)
        # cos(x / 2) ** 2 is 0.5 * (1 + cos(x)) without cancellation near the end.
        shape = ops.cos(0.5 * math.pi * progress) ** 2
        rate = self.minimum + (self.peak - self.minimum) * shape
        return rate * self._warmup(step)

    def get_config(self) -> dict[str, Any]:
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
        factor: multiplied into the rate at each decay.
        warmup_steps: length of a linear warm-up (none in the paper).
    """

    def __init__(
        self,
        peak: float,
        steps_per_epoch: int,
        decay_start_epoch: int,
        decay_every_epochs: int = 1,
        factor: float = 0.5,
        warmup_steps: float = 0,
    ) -> None:
        super().__init__(peak, warmup_steps)
        self.steps_per_epoch = steps_per_epoch
        self.decay_start_epoch = decay_start_epoch
        self.decay_every_epochs = decay_every_epochs
        self.factor = factor

    def __call__(self, step: int | keras.KerasTensor) -> keras.KerasTensor:
        # Whole numbers until the end: an epoch boundary must not depend on the rounding
        # of a division in float32.
        epoch = ops.cast(step, "int64") // self.steps_per_epoch
        past = ops.maximum(epoch - self.decay_start_epoch, -1)
        decays = ops.where(past < 0, 0, past // self.decay_every_epochs + 1)
        rate = self.peak * ops.power(self.factor, ops.cast(decays, "float32"))
        return rate * self._warmup(ops.cast(step, "float32"))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "steps_per_epoch": self.steps_per_epoch,
            "decay_start_epoch": self.decay_start_epoch,
            "decay_every_epochs": self.decay_every_epochs,
            "factor": self.factor,
        }


def build_schedule(
    options: "OptimizerConfig", plan: "TrainingPlan"
) -> keras.optimizers.schedules.LearningRateSchedule:
    """The schedule of a config's `optimizer` section over the steps of a plan."""
    peak, warmup_steps = plan.learning_rate, plan.warmup_steps
    if options.schedule == "constant":
        return ConstantSchedule(peak, warmup_steps)
    if options.schedule == "cosine":
        return CosineSchedule(
            peak, plan.num_steps, warmup_steps, minimum=options.minimum_learning_rate
        )
    return MultistepSchedule(
        peak,
        plan.steps_per_epoch,
        options.decay_start_epoch,
        options.decay_every_epochs,
        options.decay_factor,
        warmup_steps,
    )
