"""The arithmetic of a run: batch, steps, epochs, warm-up and learning rate.

Computed once, here, printed before training and kept in `run.json`.
"""

import dataclasses
import math

from tfavmae.config.experiment import ExperimentConfig, OptimizerConfig
from tfavmae.errors import UserError


@dataclasses.dataclass(frozen=True)
class TrainingPlan:
    """What the config's lengths and rates come to for one dataset and machine.

    Attributes:
        num_examples: training clips.
        batch_size: global batch.
        num_replicas: replicas that share it.
        steps_per_epoch: updates between validations.
        num_steps: updates of the whole run.
        warmup_steps: length of the warm-up, may be fractional.
        learning_rate: peak rate after scaling by the batch.
        optimizer: the config's `optimizer` section.
        gradient_accumulation_steps: parts that a replica works its share of a batch off in.
        contrast_scope: what contrast sees: the `global` batch, that of a `replica`,
            or a `micro_batch`.
    """

    num_examples: int
    batch_size: int
    num_replicas: int
    steps_per_epoch: int
    num_steps: int
    warmup_steps: float
    learning_rate: float
    optimizer: OptimizerConfig
    gradient_accumulation_steps: int = 1
    contrast_scope: str = "global"

    @property
    def contrast_batch(self) -> int:
        """Clips that contrast sees at a time."""
        parts = {"global": 1, "replica": self.num_replicas}
        all_parts = self.num_replicas * self.gradient_accumulation_steps
        return self.batch_size // parts.get(self.contrast_scope, all_parts)

    def describe(self) -> list[str]:
        """The arithmetic in words, one line per quantity."""
        epochs = self.num_steps / self.steps_per_epoch
        passes = self.num_steps * self.batch_size / self.num_examples
        return [
            self._batch_line(),
            f"{self.num_steps} steps = {epochs:g} epochs of {self.steps_per_epoch}"
            f" steps = {passes:.2f} passes over {self.num_examples} clips",
            self._learning_rate_line(),
        ]

    def _batch_line(self) -> str:
        per_replica = self.batch_size // self.num_replicas
        line = f"global batch {self.batch_size} = {self.num_replicas} replica(s)"
        if self.gradient_accumulation_steps == 1:
            return f"{line} x {per_replica}"
        part = per_replica // self.gradient_accumulation_steps
        return f"{line} x {self.gradient_accumulation_steps} micro-batches x {part}"

    def _learning_rate_line(self) -> str:
        options = self.optimizer
        rate = f"learning rate {self.learning_rate:g}"
        if options.learning_rate_per_256:
            rate += f" = {options.learning_rate:g} x {self.batch_size} / 256"
        return (
            f"{rate}, {options.schedule} after {self.warmup_steps:g} warm-up steps,"
            f" {options.name}, weight decay {options.weight_decay:g}"
        )


def make_plan(
    config: ExperimentConfig, num_examples: int, num_replicas: int = 1
) -> TrainingPlan:
    """The `TrainingPlan` of a config for `num_examples` training clips."""
    batch_size = config.data.batch_size
    _check_batch(config, num_examples, num_replicas)
    steps_per_epoch = config.trainer.steps_per_epoch or num_examples // batch_size
    num_steps = config.trainer.num_steps or math.ceil(
        config.trainer.num_epochs * steps_per_epoch
    )
    warmup_steps = _warmup_steps(config.optimizer, steps_per_epoch)
    if warmup_steps >= num_steps:
        raise UserError(
            f"optimizer.warmup_steps ({warmup_steps:g}) must be less than the"
            f" {num_steps} steps of the run; shorten the warm-up."
        )
    scale = batch_size / 256 if config.optimizer.learning_rate_per_256 else 1.0
    return TrainingPlan(
        num_examples=num_examples,
        batch_size=batch_size,
        num_replicas=num_replicas,
        steps_per_epoch=steps_per_epoch,
        num_steps=num_steps,
        warmup_steps=warmup_steps,
        learning_rate=config.optimizer.learning_rate * scale,
        optimizer=config.optimizer,
        gradient_accumulation_steps=config.trainer.gradient_accumulation_steps,
        contrast_scope=config.trainer.contrast_scope,
    )


def segments(step: int, num_steps: int, steps_per_epoch: int) -> list[tuple]:
    """The calls of `fit` that lead from `step` to `num_steps`.

    A partial first epoch is finished first and a partial last epoch comes
    last, so that epochs begin at the same steps whether or not a run was
    interrupted.

    Returns:
        Tuples `(first step, steps per epoch, first epoch, end epoch)`.
    """
    calls = []
    epoch, done = divmod(step, steps_per_epoch)
    if done and step < num_steps:
        length = min(steps_per_epoch - done, num_steps - step)
        calls.append((step, length, epoch, epoch + 1))
        step, epoch = step + length, epoch + 1
    whole = max(num_steps - step, 0) // steps_per_epoch
    if whole:
        calls.append((step, steps_per_epoch, epoch, epoch + whole))
        step, epoch = step + whole * steps_per_epoch, epoch + whole
    if step < num_steps:
        calls.append((step, num_steps - step, epoch, epoch + 1))
    return calls


def _warmup_steps(optimizer: OptimizerConfig, steps_per_epoch: int) -> float:
    if optimizer.warmup_steps is not None:
        return optimizer.warmup_steps
    return (optimizer.warmup_epochs or 0.0) * steps_per_epoch


def _check_batch(config, num_examples: int, num_replicas: int) -> None:
    batch_size = config.data.batch_size
    if batch_size > num_examples:
        raise UserError(
            f"data.batch_size={batch_size} is more than the {num_examples} training"
            f" clips; lower it."
        )
    parts = num_replicas * config.trainer.gradient_accumulation_steps
    if batch_size % parts:
        each = f"the {num_replicas} replicas"
        if config.trainer.gradient_accumulation_steps > 1:
            each = (
                f"{each} x {config.trainer.gradient_accumulation_steps} micro-batches"
            )
        nearest = max(batch_size // parts, 1) * parts
        raise UserError(
            f"data.batch_size={batch_size} must be a multiple of {each}; try {nearest}."
        )
