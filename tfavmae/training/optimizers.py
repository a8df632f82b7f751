"""Update rules whose learning rate and weight decay depend on the variable's path.

Keras' own exclusion from weight decay matches the last part of a variable's name
and is lost on reload; its layer-wise rates need whole optimizers per group. Here
a rule is a regular expression on the path, it is part of `get_config`, and a rule
that matches nothing is an error.
"""

import abc
import math
import re

import keras
from keras import ops

from tfavmae.errors import UserError
from tfavmae.training.schedules import (
    ConstantSchedule,
    CosineSchedule,
    MultistepSchedule,
)


class _ByPath(keras.optimizers.Optimizer, abc.ABC):
    """Learning-rate factors and weight decay by `variable.path`.

    Args:
        learning_rate: a float or a schedule.
        decay: strength of the weight decay. (Not `weight_decay`: Keras would
            apply that to every variable on its own.)
        decay_paths: regular expressions of the variables that decay.
        decoupled: decay the weight by `learning_rate * decay` before the
            update (AdamW) or add `decay * weight` to the gradient (L2).
        learning_rate_factors: `{regular expression: factor}`; the factors of
            all expressions found in a path are multiplied.
        average_decay: keep a running average of each weight, beside the weights
            (`averages`); `None` keeps none. Not Keras' `use_ema`, which puts the
            averages in the weights' place when `fit` ends.
        skip_nonfinite: a variable whose gradient is not a number keeps its value
            and its moments.
        name: name of the optimizer.
    """

    def __init__(
        self,
        learning_rate,
        decay=0.0,
        decay_paths=("kernel$",),
        decoupled=True,
        learning_rate_factors=None,
        average_decay=None,
        skip_nonfinite=False,
        name="optimizer",
        **kwargs,
    ):
        super().__init__(learning_rate, name=name, **kwargs)
        self.average_decay = average_decay
        self.skip_nonfinite = skip_nonfinite
        self.decay = decay
        self.decay_paths = list(decay_paths)
        self.decoupled = decoupled
        self.learning_rate_factors = dict(learning_rate_factors or {})

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        paths = [v.path for v in variables]
        self._check_rules(paths)
        self._factors = [self._factor(path) for path in paths]
        self._decays = [self._decay(path) for path in paths]
        self._averages = []
        if self.average_decay is not None:
            self._averages = self.add_optimizer_variables(variables, "average")
            self.restart_averages()

    def restart_averages(self):
        """The averages begin at what the weights are now."""
        for average, variable in self.averages():
            average.assign(variable)

    def averages(self):
        """Pairs of a running average and its weight."""
        pairs = zip(self._averages, self._trainable_variables, strict=False)
        return list(pairs)

    def rules(self):
        """`(path, learning-rate factor, weight decay)` of every variable."""
        paths = [v.path for v in self._trainable_variables]
        return list(zip(paths, self._factors, self._decays, strict=True))

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        """Keras' loop, which gives all variables the numbers that they share.

        Computed for each by itself, they would be a third of a step's operations.
        """
        rate = ops.cast(learning_rate, "float32")
        numbers = ops.stack(self.shared_numbers(rate))
        super()._backend_update_step(grads, trainable_variables, numbers)

    def update_step(self, gradient, variable, numbers):
        """`numbers`: the vector that `_backend_update_step` gives."""
        index = self._get_variable_index(variable)
        if self.skip_nonfinite:
            state = [variable, *self.slots(index)]
            before = [ops.copy(v) for v in state]
        self._decay_and_apply(gradient, variable, numbers, index)
        if self.skip_nonfinite:
            # The train step makes a bad gradient nothing but NaN: one value tells.
            keep = ops.isfinite(ops.reshape(gradient, (-1,))[0])
            for v, old in zip(state, before, strict=True):
                self.assign(v, ops.where(keep, v, old))
        if self._averages:
            self._follow(self._averages[index], variable)

    def _follow(self, average, variable):
        # Short runs would else end with the average of their beginning.
        step = ops.cast(self.iterations + 1, variable.dtype)
        decay = ops.minimum(self.average_decay, (1 + step) / (10 + step))
        self.assign_sub(average, (average - variable) * (1 - decay))

    def _decay_and_apply(self, gradient, variable, numbers, index):
        numbers = ops.unstack(ops.cast(numbers, variable.dtype))
        gradient = ops.cast(gradient, variable.dtype)
        factor, decay = self._factors[index], self._decays[index]
        if decay and self.decoupled:
            self.assign_sub(variable, variable * (numbers[0] * (factor * decay)))
        elif decay:
            gradient = gradient + variable * decay
        self.apply_rule(gradient, variable, numbers, factor, index)

    def shared_numbers(self, rate):
        """What the rule needs for every variable alike, the learning rate first."""
        return [rate]

    @abc.abstractmethod
    def apply_rule(self, gradient, variable, numbers, factor, index):
        """Updates `variable` (number `index`) by the `shared_numbers`.

        `factor` is that of its learning rate.
        """

    @abc.abstractmethod
    def slots(self, index):
        """What the rule remembers of variable number `index`."""

    def get_config(self):
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

    def _check_rules(self, paths):
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

    def _factor(self, path):
        factors = self.learning_rate_factors.items()
        return math.prod(f for pattern, f in factors if re.search(pattern, path))

    def _decay(self, path):
        decays = any(re.search(pattern, path) for pattern in self.decay_paths)
        return self.decay if decays else 0.0


@keras.saving.register_keras_serializable(package="tfavmae")
class PathAdam(_ByPath):
    """Adam with rules by variable path, exact to the papers' torch and Flax code.

    `update = rate * m_hat / (sqrt(v_hat) + epsilon)`: epsilon is added after the
    bias correction, where Keras' own Adam adds it before.

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
        self, learning_rate=1e-3, beta_1=0.9, beta_2=0.999, epsilon=1e-8, **kwargs
    ):
        super().__init__(learning_rate, **kwargs)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._means, self._squares = self.add_optimizer_variables(
            variables, ["momentum", "velocity"]
        )

    def shared_numbers(self, rate):
        step = ops.cast(self.iterations + 1, rate.dtype)
        # Both corrections of bias, taken out of `m_hat / (sqrt(v_hat) + epsilon)`.
        root = ops.sqrt(_one_minus_power(self.beta_2, step))
        corrected = rate * root / _one_minus_power(self.beta_1, step)
        return [rate, corrected, self.epsilon * root]

    def apply_rule(self, gradient, variable, numbers, factor, index):
        _, rate, epsilon = numbers
        if factor != 1:
            rate = rate * factor
        moments = self._means[index], self._squares[index]
        if keras.backend.backend() == "tensorflow":
            return self._apply_at_once(gradient, variable, moments, rate, epsilon)
        mean, square = moments
        self.assign_add(mean, (gradient - mean) * (1 - self.beta_1))
        self.assign_add(square, (ops.square(gradient) - square) * (1 - self.beta_2))
        self.assign_sub(variable, rate * mean / (ops.sqrt(square) + epsilon))

    def _apply_at_once(self, gradient, variable, moments, rate, epsilon):
        """The same in one pass over memory, where no compiler makes it one."""
        import tensorflow as tf

        handles = [
            (v.value if isinstance(v, keras.Variable) else v).handle
            for v in (variable, *moments)
        ]
        none = tf.constant(0.0, variable.dtype)  # `rate` is corrected already
        tf.raw_ops.ResourceApplyAdam(
            **dict(zip(("var", "m", "v"), handles, strict=True)),
            **dict.fromkeys(("beta1_power", "beta2_power"), none),
            lr=rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=epsilon,
            grad=tf.convert_to_tensor(gradient),
        )

    def slots(self, index):
        return [self._means[index], self._squares[index]]

    def get_config(self):
        return super().get_config() | {
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
        }


@keras.saving.register_keras_serializable(package="tfavmae")
class PathSGD(_ByPath):
    """SGD with momentum and rules by variable path (AV-MAE fine-tuning).

    The momentum holds gradients, not updates, as in Optax and torch: a change
    of learning rate acts at once.

    Args:
        learning_rate: a float or a schedule.
        momentum: decay of the sum of gradients.
        **kwargs: `decay`, `decay_paths`, `decoupled`, `learning_rate_factors`,
            `average_decay`, `skip_nonfinite` and `name`.
    """

    def __init__(self, learning_rate=0.1, momentum=0.9, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.momentum = momentum

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._momenta = self.add_optimizer_variables(variables, "momentum")

    def apply_rule(self, gradient, variable, numbers, factor, index):
        momentum = self._momenta[index]
        self.assign(momentum, momentum * self.momentum + gradient)
        self.assign_sub(variable, numbers[0] * factor * momentum)

    def slots(self, index):
        return [self._momenta[index]]

    def get_config(self):
        return super().get_config() | {"momentum": self.momentum}


def path_rules(optimizer) -> _ByPath:
    """The optimizer itself, also where Keras wrapped it to scale the loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def build_schedule(plan):
    """The learning-rate schedule of a `TrainingPlan`."""
    options = plan.optimizer
    if options.schedule == "constant":
        return ConstantSchedule(plan.learning_rate, plan.warmup_steps)
    if options.schedule == "cosine":
        return CosineSchedule(
            plan.learning_rate,
            plan.num_steps,
            plan.warmup_steps,
            minimum=options.minimum_learning_rate,
        )
    return MultistepSchedule(
        plan.learning_rate,
        plan.steps_per_epoch,
        options.decay_start_epoch,
        options.decay_every_epochs,
        options.decay_factor,
        plan.warmup_steps,
    )


def build_optimizer(plan, model, skip_nonfinite=False):
    """The optimizer of a `TrainingPlan`, built for `model`'s variables.

    Args:
        plan: a `TrainingPlan`.
        skip_nonfinite: see `PathAdam`.
        model: a built `keras.Model`. With `optimizer.layer_decay` it must have
            `layer_index(variable)` (0 for embeddings, larger towards the head).

    Returns:
        A built `PathAdam` or `PathSGD`.
    """
    options = plan.optimizer
    common = {
        "learning_rate": build_schedule(plan),
        "decay": options.weight_decay,
        "decay_paths": options.weight_decay_paths,
        "decoupled": options.name == "adamw",
        "learning_rate_factors": _learning_rate_factors(options, model),
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


def _one_minus_power(beta, step):
    """`1 - beta ** step`, without float32's cancellation (5e-5 at beta 0.999)."""
    if beta == 0.0:
        return ops.ones_like(step)
    return -ops.expm1(step * math.log(beta))


def _learning_rate_factors(options, model):
    factors = options.learning_rate_factors.as_dict()
    if options.head_learning_rate_factor != 1.0:
        factors["(^|/)head/"] = options.head_learning_rate_factor
    if options.layer_decay is not None:
        factors |= _layer_factors(model, options.layer_decay)
    return factors


def _layer_factors(model, layer_decay):
    """`{path: layer_decay ** (layers above)}`; the top layer has factor 1."""
    if not hasattr(model, "layer_index"):
        raise UserError(
            f"optimizer.layer_decay: {type(model).__name__} has no layer_index;"
            " set optimizer.layer_decay=null."
        )
    index = {_below_model(v): model.layer_index(v) for v in model.trainable_variables}
    top = max(index.values())
    return {
        f"(^|/){re.escape(path)}$": layer_decay ** (top - i)
        for path, i in index.items()
    }


def _below_model(variable):
    """The path without the model's name, which Keras leaves out after a reload."""
    return variable.path.split("/", 1)[-1]
