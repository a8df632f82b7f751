"""The arithmetic of a run: batch, steps, epochs, warm-up and learning rate.

Computed once, printed before training and kept in `run.json`.
"""

import dataclasses
import math
from typing import NamedTuple

from tfavmae.config.experiment import OptimizerConfig, TrainerConfig
from tfavmae.errors import UserError


@dataclasses.dataclass(frozen=True)
class TrainingPlan:
    """The lengths and rates of a config for one data set and machine.

    Attributes:
        num_examples: training clips.
        batch_size: global batch.
        num_replicas: replicas that share it.
        steps_per_epoch: updates between validations.
        num_steps: updates of the whole run.
        warmup_steps: length of the warm-up, may be fractional.
        learning_rate: peak rate after scaling by the batch.
        gradient_accumulation_steps: micro-batches of a replica's share of a batch.
        contrast_scope: clips that contrast compares: those of the `global` batch, of a
            `replica`, or of a `micro_batch`.
    """

    num_examples: int
    batch_size: int
    num_replicas: int
    steps_per_epoch: int
    num_steps: int
    warmup_steps: float
    learning_rate: float
    gradient_accumulation_steps: int = 1
    contrast_scope: str = "global"

    @property
    def contrast_batch(self) -> int:
        """Clips that contrast compares at a time."""
        parts = {"global": 1, "replica": self.num_replicas}
        all_parts = self.num_replicas * self.gradient_accumulation_steps
        return self.batch_size // parts.get(self.contrast_scope, all_parts)

    def check_contrast(self) -> None:
        """Checks that a contrastive loss has negatives: two clips at least.

        Raises:
            UserError: it has none.
        """
        if self.contrast_batch < 2:
            raise UserError(
                f"data.batch_size={self.batch_size} leaves the contrastive loss without"
                f" negatives: it sees {self.contrast_batch} clip at a time"
                f" (trainer.contrast_scope={self.contrast_scope}); use a larger batch,"
                " or set model.options.contrast.weight=0."
            )

    def describe(self, optimizer: OptimizerConfig) -> list[str]:
        """The arithmetic in words, one line each for batch, steps and learning rate."""
        per_replica = self.batch_size // self.num_replicas
        share, accumulation = f"{per_replica}", self.gradient_accumulation_steps
        if accumulation > 1:
            share = f"{accumulation} micro-batches x {per_replica // accumulation}"
        epochs = self.num_steps / self.steps_per_epoch
        passes = self.num_steps * self.batch_size / self.num_examples
        rate = f"learning rate {self.learning_rate:g}"
        if optimizer.learning_rate_per_256:
            rate += f" = {optimizer.learning_rate:g} x {self.batch_size} / 256"
        replicas = f"{self.num_replicas} replica(s)"
        return [
            f"global batch {self.batch_size} = {replicas} x {share}",
            f"{self.num_steps} steps = {epochs:g} epochs of {self.steps_per_epoch}"
            f" steps = {passes:.2f} passes over {self.num_examples} clips",
            f"{rate}, {optimizer.schedule} after {self.warmup_steps:g} warm-up steps,"
            f" {optimizer.name}, weight decay {optimizer.weight_decay:g}",
        ]


def make_plan(
    trainer: TrainerConfig,
    optimizer: OptimizerConfig,
    *,
    batch_size: int,
    num_examples: int,
    num_replicas: int = 1,
    draws_per_epoch: int | None = None,
) -> TrainingPlan:
    """The `TrainingPlan` of a config's sections.

    Args:
        trainer: the `trainer` section.
        optimizer: the `optimizer` section.
        batch_size: global batch.
        num_examples: training clips.
        num_replicas: replicas that share a batch.
        draws_per_epoch: clips of an epoch; default: `num_examples`.

    Raises:
        UserError: the batch does not fit the clips or the replicas, or the warm-up is
            as long as the run, or the run too short for `trainer.average_epochs`.
    """
    accumulation = trainer.gradient_accumulation_steps
    _check_batch(batch_size, num_examples, num_replicas, accumulation)
    draws = draws_per_epoch or num_examples
    if batch_size > draws:
        raise UserError(
            f"data.draws_per_epoch={draws} is less than data.batch_size={batch_size};"
            " an epoch needs a batch."
        )
    steps_per_epoch = trainer.steps_per_epoch or draws // batch_size
    num_steps = trainer.num_steps or math.ceil(trainer.num_epochs * steps_per_epoch)
    if averaged := trainer.average_epochs:
        num_epochs = num_steps // steps_per_epoch
        if averaged[1] > num_epochs:
            raise UserError(
                f"trainer.average_epochs={averaged} needs {averaged[1]} whole epochs;"
                f" the run has {num_epochs}."
            )
    warmup_steps = optimizer.warmup_steps
    if warmup_steps is None:
        warmup_steps = (optimizer.warmup_epochs or 0.0) * steps_per_epoch
    if warmup_steps >= num_steps:
        raise UserError(
            f"optimizer.warmup_steps ({warmup_steps:g}) must be less than the"
            f" {num_steps} steps of the run; shorten the warm-up."
        )
    # The linear scaling rule of Goyal et al. (2017), with 256 as in the MAE papers.
    scale = batch_size / 256 if optimizer.learning_rate_per_256 else 1.0
    return TrainingPlan(
        num_examples=num_examples,
        batch_size=batch_size,
        num_replicas=num_replicas,
        steps_per_epoch=steps_per_epoch,
        num_steps=num_steps,
        warmup_steps=warmup_steps,
        learning_rate=optimizer.learning_rate * scale,
        gradient_accumulation_steps=accumulation,
        contrast_scope=trainer.contrast_scope,
    )


def _check_batch(
    batch_size: int, num_examples: int, num_replicas: int, accumulation: int
) -> None:
    """Checks that a batch is made of different clips, and of parts of one size."""
    if batch_size > num_examples:
        raise UserError(
            f"data.batch_size={batch_size} is more than the {num_examples} training"
            f" clips; lower it."
        )
    # All parts have the same shape, for which the step is compiled.
    parts = num_replicas * accumulation
    if batch_size % parts:
        each = f"the {num_replicas} replicas"
        if accumulation > 1:
            each = f"{each} x {accumulation} micro-batches"
        nearest = max(batch_size // parts, 1) * parts
        raise UserError(
            f"data.batch_size={batch_size} must be a multiple of {each}; try {nearest}."
        )


class Segment(NamedTuple):
    """A call of `fit`.

    Attributes:
        first_step: steps made before it.
        steps_per_epoch: length of its epochs.
        first_epoch: number of its first epoch, from 0.
        end_epoch: number of the epoch after its last.
    """

    first_step: int
    steps_per_epoch: int
    first_epoch: int
    end_epoch: int


def segments(step: int, num_steps: int, steps_per_epoch: int) -> list[Segment]:
    """The calls of `fit` that lead from `step` to `num_steps`.

    A partial first epoch is finished first and a partial last epoch comes last, so that
    epochs begin at the same steps whether or not a run was interrupted.
    """
    calls = []
    epoch, done = divmod(step, steps_per_epoch)
    if done and step < num_steps:
        length = min(steps_per_epoch - done, num_steps - step)
        calls.append(Segment(step, length, epoch, epoch + 1))
        step, epoch = step + length, epoch + 1
    whole = max(num_steps - step, 0) // steps_per_epoch
    if whole:
        calls.append(Segment(step, steps_per_epoch, epoch, epoch + whole))
        step, epoch = step + whole * steps_per_epoch, epoch + whole
    if step < num_steps:
        calls.append(Segment(step, num_steps - step, epoch, epoch + 1))
    return calls
