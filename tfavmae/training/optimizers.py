"""Update rules whose learning rate and weight decay depend on the variable's path.

Keras' own exclusion from weight decay matches the last part of a variable's name and is
lost on reload; its layer-wise learning rates need a whole optimizer per group. Here a
rule is a regular expression on the path, it is part of `get_config`, and a rule that
matches nothing is an error.
"""

import abc
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from tfavmae.errors import UserError
from tfavmae.private_hooks import OptimizerHooks, apply_adam
from tfavmae.training.schedules import build_schedule
from tfavmae.training.weight_groups import learning_rate_factors

if TYPE_CHECKING:
    # `benchmarks/step_time.py` runs where tf-models, which configs need, is missing.
    from tfavmae.config.experiment import OptimizerConfig
    from tfavmae.training.plan import TrainingPlan

LearningRate = float | keras.optimizers.schedules.LearningRateSchedule


class _ByPath(OptimizerHooks, keras.optimizers.Optimizer, abc.ABC):
    """Learning-rate factors and weight decay by `variable.path`.

    Args:
        learning_rate: a float or a schedule.
        decay: strength of the weight decay. (Not `weight_decay`: Keras would apply
            that to every variable on its own.)
        decay_paths: regular expressions of the variables that decay.
        decoupled: decay the weight by `learning_rate * decay` before the update
            (AdamW), or add `decay * weight` to the gradient (L2).
        learning_rate_factors: `{regular expression: factor}`; the factors of all
            expressions found in a path are multiplied.
        average_decay: keep a running average of each weight beside the weights (see
            `averages`); `None` keeps none. Not Keras' `use_ema`, which replaces the
            weights by their averages when `fit` ends.
        skip_nonfinite: a variable whose gradient is not a number keeps its value and
            its moments.
        name: name of the optimizer.

    Raises:
        UserError: when built, if a rule matches none of the variables.
    """

    def __init__(
        self,
        learning_rate: LearningRate,
        decay: float = 0.0,
        decay_paths: Sequence[str] = ("kernel$",),
        decoupled: bool = True,
        learning_rate_factors: dict[str, float] | None = None,
        average_decay: float | None = None,
        skip_nonfinite: bool = False,
        name: str = "optimizer",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, name=name, **kwargs)
        self.average_decay = average_decay
        self.skip_nonfinite = skip_nonfinite
        self.decay = decay
        self.decay_paths = list(decay_paths)
        self.decoupled = decoupled
        self.learning_rate_factors = dict(learning_rate_factors or {})

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        paths = [v.path for v in variables]
        self._check_rules(paths)
        factors = self.learning_rate_factors.items()
        self._factors = [
            math.prod(f for pattern, f in factors if re.search(pattern, path))
            for path in paths
        ]
        self._decays = [
            self.decay if any(re.search(p, path) for p in self.decay_paths) else 0.0
            for path in paths
        ]
        self._averages = []
        if self.average_decay is not None:
            self._averages = self.add_optimizer_variables(variables, "average")
            self.restart_averages()

    def restart_averages(self) -> None:
        """Sets the averages to the present weights."""
        for average, variable in self.averages():
            average.assign(variable)

    def averages(self) -> list[tuple[keras.Variable, keras.Variable]]:
        """Pairs of a running average and its weight; empty if none are kept."""
        return list(zip(self._averages, self.variables_in_order(), strict=False))

    def rules(self) -> list[tuple[str, float, float]]:
        """`(path, learning-rate factor, weight decay)` of every variable."""
        paths = [v.path for v in self.variables_in_order()]
        return list(zip(paths, self._factors, self._decays, strict=True))

    def numbers_of_step(self, learning_rate: keras.KerasTensor) -> keras.KerasTensor:
        rate = ops.cast(learning_rate, "float32")
        return ops.stack(self.shared_numbers(rate))

    def update_step(
        self, gradient: Any, variable: keras.Variable, numbers: keras.KerasTensor
    ) -> None:
        """Updates one variable; `numbers` is the vector of `numbers_of_step`."""
        index = self.variable_index(variable)
        if self.skip_nonfinite:
            # The train step makes a bad gradient NaN everywhere: one value tells.
            keep = ops.isfinite(ops.reshape(gradient, (-1,))[0])
            state = [variable, *self.slots(index)]
            before = [ops.copy(v) for v in state]
        shared = ops.unstack(ops.cast(numbers, variable.dtype))
        gradient = ops.cast(gradient, variable.dtype)
        factor, decay = self._factors[index], self._decays[index]
        if decay and self.decoupled:
            self.assign_sub(variable, variable * (shared[0] * (factor * decay)))
        elif decay:
            gradient = gradient + variable * decay
        self.apply_rule(gradient, variable, shared, factor, index)
        if self.skip_nonfinite:
            for v, old in zip(state, before, strict=True):
                self.assign(v, ops.where(keep, v, old))
        if self._averages:
            # A shorter memory at first, as in `tf.train.ExponentialMovingAverage`:
            # short runs would otherwise end with the average of their beginning.
            step = ops.cast(self.iterations + 1, variable.dtype)
            memory = ops.minimum(self.average_decay, (1 + step) / (10 + step))
            average = self._averages[index]
            self.assign_sub(average, (average - variable) * (1 - memory))

    def shared_numbers(self, rate: keras.KerasTensor) -> list:
        """Scalars that the rule needs for every variable, the learning rate first."""
        return [rate]

    @abc.abstractmethod
    def apply_rule(
        self,
        gradient: keras.KerasTensor,
        variable: keras.Variable,
        numbers: list,
        factor: float,
        index: int,
    ) -> None:
        """Updates a variable.

        Args:
            gradient: tensor of the variable's shape, with L2 decay added.
            variable: what to update.
            numbers: the scalars of `shared_numbers`.
            factor: of the variable's learning rate.
            index: number of the variable.
        """

    @abc.abstractmethod
    def slots(self, index: int) -> list[keras.Variable]:
        """The optimizer's own variables for variable number `index`."""

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        # Keras' own weight decay would come on top of ours.
        config.pop("weight_decay", None)
        return config | {
            "decay": self.decay,
            "decay_paths": self.decay_paths,
            "decoupled": self.decoupled,
            "learning_rate_factors": self.learning_rate_factors,
            "average_decay": self.average_decay,
            "skip_nonfinite": self.skip_nonfinite,
        }

    def _check_rules(self, paths: list[str]) -> None:
        rules = [
            ("optimizer.learning_rate_factors", p) for p in self.learning_rate_factors
        ]
        if self.decay:
            rules += [("optimizer.weight_decay_paths", p) for p in self.decay_paths]
        for key, pattern in rules:
            if not any(re.search(pattern, path) for path in paths):
                raise UserError(
                    f"{key}: {pattern!r} matches none of the {len(paths)} variables,"
                    f" e.g. {paths[0]}; correct or remove it."
                )


@keras.saving.register_keras_serializable(package="tfavmae")
class PathAdam(_ByPath):
    """Adam with rules by variable path, exact to the papers' torch and Flax code.

    `update = rate * m_hat / (sqrt(v_hat) + epsilon)` (Kingma and Ba, algorithm 1):
    epsilon is added after the bias correction, where Keras' own Adam adds it before.

    Args:
        learning_rate: a float or a schedule.
        beta_1: decay of the first moment.
        beta_2: decay of the second moment.
        epsilon: added to the root of the corrected second moment.
        **kwargs: `decay`, `decay_paths`, `decoupled`, `learning_rate_factors`,
            `average_decay`, `skip_nonfinite` and `name`.

    Example:

    >>> PathAdam(1e-3, decay=0.05, learning_rate_factors={"head/": 10.0})
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._means, self._squares = self.add_optimizer_variables(
            variables, ["momentum", "velocity"]
        )

    def shared_numbers(self, rate: keras.KerasTensor) -> list:
        step = ops.cast(self.iterations + 1, rate.dtype)
        # Both bias corrections, multiplied into `rate` and `epsilon` once instead of
        # into the moments of every variable.
        root = ops.sqrt(_one_minus_power(self.beta_2, step))
        corrected = rate * root / _one_minus_power(self.beta_1, step)
        return [rate, corrected, self.epsilon * root]

    def apply_rule(
        self,
        gradient: keras.KerasTensor,
        variable: keras.Variable,
        numbers: list,
        factor: float,
        index: int,
    ) -> None:
        _, rate, epsilon = numbers
        if factor != 1:  # most have 1, and each product is an operation of the graph
            rate = rate * factor
        mean, square = self.slots(index)
        betas = {"beta_1": self.beta_1, "beta_2": self.beta_2}
        if keras.backend.backend() == "tensorflow":
            moments = (mean, square)
            apply_adam(
                variable, *moments, gradient, rate=rate, epsilon=epsilon, **betas
            )
            return
        self.assign_add(mean, (gradient - mean) * (1 - self.beta_1))
        self.assign_add(square, (ops.square(gradient) - square) * (1 - self.beta_2))
        self.assign_sub(variable, rate * mean / (ops.sqrt(square) + epsilon))

    def slots(self, index: int) -> list[keras.Variable]:
        return [self._means[index], self._squares[index]]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
        }


@keras.saving.register_keras_serializable(package="tfavmae")
class PathSGD(_ByPath):
    """SGD with momentum and rules by variable path (AV-MAE fine-tuning).

    The momentum holds gradients, not updates, as in Optax and torch: a change of the
    learning rate acts at once.

    Args:
        learning_rate: a float or a schedule.
        momentum: decay of the sum of gradients.
        **kwargs: `decay`, `decay_paths`, `decoupled`, `learning_rate_factors`,
            `average_decay`, `skip_nonfinite` and `name`.
    """

    def __init__(
        self, learning_rate: LearningRate = 0.1, momentum: float = 0.9, **kwargs: Any
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.momentum = momentum

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._momenta = self.add_optimizer_variables(variables, "momentum")

    def apply_rule(
        self,
        gradient: keras.KerasTensor,
        variable: keras.Variable,
        numbers: list,
        factor: float,
        index: int,
    ) -> None:
        momentum = self._momenta[index]
        self.assign(momentum, momentum * self.momentum + gradient)
        self.assign_sub(variable, numbers[0] * factor * momentum)

    def slots(self, index: int) -> list[keras.Variable]:
        return [self._momenta[index]]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"momentum": self.momentum}


def path_rules(optimizer: keras.optimizers.Optimizer) -> _ByPath:
    """The optimizer itself, also where Keras wrapped it to scale the loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def build_optimizer(
    options: "OptimizerConfig",
    plan: "TrainingPlan",
    model: keras.Model,
    skip_nonfinite: bool = False,
) -> PathAdam | PathSGD:
    """The optimizer of a config's `optimizer` section, built for a model's variables.

    Args:
        options: the section.
        plan: lengths and peak learning rate of the run.
        model: a built model. With `optimizer.layer_decay` it must have
            `layer_index(variable)` (0 for embeddings, larger towards the head).
        skip_nonfinite: see `PathAdam`.

    Raises:
        UserError: a rule matches no variable, or the model has no layers to count.
    """
    common = {
        "learning_rate": build_schedule(options, plan),
        "decay": options.weight_decay,
        "decay_paths": options.weight_decay_paths,
        "decoupled": options.name == "adamw",
        "learning_rate_factors": learning_rate_factors(options, model),
        "average_decay": options.average_decay,
        "skip_nonfinite": skip_nonfinite,
    }
    if options.name == "sgd":
        optimizer = PathSGD(momentum=options.momentum, **common)
    else:
        betas = {"beta_1": options.beta_1, "beta_2": options.beta_2}
        optimizer = PathAdam(epsilon=options.epsilon, **betas, **common)
    optimizer.build(model.trainable_variables)
    return optimizer


def _one_minus_power(beta: float, step: keras.KerasTensor) -> keras.KerasTensor:
    """`1 - beta ** step`, without float32's cancellation (5e-5 at beta 0.999)."""
    if beta == 0.0:
        return ops.ones_like(step)
    return -ops.expm1(step * math.log(beta))
