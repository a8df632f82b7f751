"""The one train step: losses exact over replicas, clipping after the all-reduce.

On TensorFlow this is `train_step` and `test_step`; on other backends Keras' own step
calls the same `compute_loss`.
"""

from typing import Any

import keras
from keras import ops

from tfavmae.models.gradient_accumulation import accumulate
from tfavmae.models.replicas import all_reduce_sum
from tfavmae.objectives.base import Term
from tfavmae.private_hooks import TrainerHooks, apply_summed_gradients

_ONLY_IN_TRAINING = ("gradient_norm", "skipped_steps")


class TrainStep:
    """What `fit` and `evaluate` do with a batch; mixed into every model.

    The model defines `compute_terms(batch, outputs)`.
    """

    # Whether a call belongs to `evaluate`, whose loss is that of a masked forward pass.
    is_evaluating: bool = False

    def _init_trackers(self) -> None:
        names = ["loss"]
        for objective in self.objectives:
            names += objective.term_names(self.modalities)
        self._trackers = {name: keras.metrics.Mean(name=name) for name in names}
        # Masks and augmentation are drawn by this number: it is saved with the weights.
        self.training_step = self.add_weight(
            name="training_step",
            shape=(),
            dtype="int32",
            initializer="zeros",
            trainable=False,
        )

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self._trackers.values())

    def compute_losses(
        self, inputs: dict[str, Any], outputs: dict[str, Any]
    ) -> dict[str, keras.KerasTensor]:
        """The mean of every term by name, and their weighted sum as `loss`.

        Args:
            inputs: a batch.
            outputs: what the model returned for it.

        Returns:
            dict of name to float32 scalar.
        """
        return _losses(self.compute_terms(inputs, outputs))

    def compute_loss(
        self,
        x: dict[str, Any] | None = None,
        y: Any = None,
        y_pred: dict[str, Any] | None = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> keras.KerasTensor:
        """Keras' hook on backends other than TensorFlow, which train on one device."""
        x = self.with_targets(x, y, sample_weight)
        terms = self.compute_terms(x, y_pred)
        loss = _losses(terms)["loss"]
        self._track(terms, loss, batch=x)
        if training:
            self.training_step.assign(self.training_step + 1)
        return loss

    def with_targets(
        self, batch: dict[str, Any], y: Any = None, sample_weight: Any = None
    ) -> dict[str, Any]:
        """The batch with Keras' separate targets and weights among its entries.

        Args:
            batch: dict of tensors `(batch, ...)`.
            y: labels, for the one objective that reads a label.
            sample_weight: `(batch,)`.

        Raises:
            ValueError: no objective reads a label, or the batch has it already.
        """
        added = {} if sample_weight is None else {"sample_weight": sample_weight}
        if y is not None:
            labels = [x.label for x in self.objectives if hasattr(x, "label")]
            if len(labels) != 1 or labels[0] in batch:
                raise ValueError(
                    "`y` must be the labels of a classifier whose `x` has none. "
                    f"Received: x={sorted(batch)}; the objectives read {labels}."
                )
            added[labels[0]] = y
        return {**batch, **added}

    def test_step(self, *args: Any) -> Any:
        """Keras' own step on backends other than TensorFlow."""
        # Keras calls the model with `training=False` here as in `predict`, and has no
        # hook between the two. The step is traced in one thread.
        self.is_evaluating = True
        try:
            return super().test_step(*args)
        finally:
            self.is_evaluating = False

    def forward_for_loss(
        self, batch: dict[str, Any], training: bool
    ) -> dict[str, keras.KerasTensor]:
        """The forward pass whose outputs the objectives read."""
        return self(batch, training=training)

    def _track(
        self,
        terms: dict[str, Term],
        loss: keras.KerasTensor,
        batch: dict[str, Any],
        keep: Any = None,
    ) -> None:
        """Updates the metrics, unless the scalar bool `keep` is false.

        A term weighs what it is a mean over; the loss weighs the sum of the clips'
        `sample_weight`s, so that the padding of a last batch does not count.
        """
        weights = batch.get("sample_weight")
        if weights is None:
            weights = ops.ones((ops.shape(next(iter(batch.values())))[0],))
        num_clips = ops.sum(ops.cast(weights, "float32"))
        for name, term in terms.items():
            self._update_tracker(name, term.mean(), term.denominator, keep)
        self._update_tracker("loss", loss, num_clips, keep)

    def _update_tracker(self, name: str, value: Any, weight: Any, keep: Any) -> None:
        if keep is not None:
            # The value as well: NaN times a weight of 0 would still be NaN.
            value, weight = (ops.where(keep, x, 0.0) for x in (value, weight))
        self._trackers[name].update_state(value, sample_weight=weight)

    def set_step_options(
        self, clip_norm: float | None = None, gradient_accumulation_steps: int = 1
    ) -> None:
        """Sets how updates are made.

        Args:
            clip_norm: bound of the gradients' global norm, or `None`.
            gradient_accumulation_steps: must be 1, except on TensorFlow.

        Raises:
            ValueError: gradient accumulation on a backend that does not have it.
        """
        if gradient_accumulation_steps != 1:
            raise ValueError(
                "`gradient_accumulation_steps` needs the TensorFlow backend. "
                f"Received: {gradient_accumulation_steps}."
            )
        # With one device there is no sum over replicas that Keras would clip before.
        self.optimizer.global_clipnorm = clip_norm


def _losses(terms: dict[str, Term]) -> dict[str, keras.KerasTensor]:
    """The mean of every term by name, and their weighted sum as `loss`."""
    losses = {name: term.mean() for name, term in terms.items()}
    losses["loss"] = sum(
        term.weight * losses[name] for name, term in terms.items() if term.weight
    )
    return losses


class TensorFlowTrainStep(TrainerHooks, TrainStep):
    """`train_step` and `test_step` on TensorFlow, under any distribution strategy.

    Attributes:
        clip_norm: bound of the gradients' global norm, or `None`.
        gradient_accumulation_steps: parts in which a batch is computed before the one
            update; see `gradient_accumulation.py`.
        contrast_in_parts: whether contrast compares the clips of such a part only.
        skip_nonfinite: whether a step that is not finite is skipped.
    """

    clip_norm: float | None = None
    gradient_accumulation_steps: int = 1
    contrast_in_parts: bool = False
    skip_nonfinite: bool = False

    def _init_trackers(self) -> None:
        super()._init_trackers()
        self._trackers["gradient_norm"] = keras.metrics.Mean(name="gradient_norm")
        # Made here even if it is never used: a built model takes no new metrics.
        self._skipped_steps = keras.metrics.Mean(name="skipped_steps")

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        counted = [self._skipped_steps] if self.skip_nonfinite else []
        return [*super().metrics, *counted]

    def set_step_options(
        self, clip_norm: float | None = None, gradient_accumulation_steps: int = 1
    ) -> None:
        """Sets `clip_norm` and `gradient_accumulation_steps`."""
        self.clip_norm = clip_norm
        self.gradient_accumulation_steps = gradient_accumulation_steps

    def skip_nonfinite_steps(self) -> None:
        """From now on a step whose loss or gradient is not finite changes nothing.

        The metric `skipped_steps` is the share of such steps. The optimizer has to
        leave out variables whose gradient is not a number, as `PathAdam` can.
        """
        self.skip_nonfinite = True

    def train_step(self, data: Any) -> dict[str, Any]:
        import tensorflow as tf

        batch = self.with_targets(*keras.utils.unpack_x_y_sample_weight(data))
        if self.gradient_accumulation_steps == 1:
            with tf.GradientTape() as tape:
                terms = self.compute_terms(batch, self(batch, training=True))
                share = self.share_of_loss(terms)
                scaled = self.optimizer.scale_loss(share)
            gradients = tape.gradient(scaled, self.trainable_variables)
        else:
            terms, share, gradients = accumulate(self, batch)
        gradients, norm = self._sum_and_clip(gradients)
        (loss,) = all_reduce_sum([share])
        keep = None
        if self.skip_nonfinite:
            # Not a `tf.cond` around the update: `apply_gradients` calls `merge_call`,
            # which a strategy refuses inside one. All gradients become NaN instead, and
            # the optimizer leaves each variable as it was.
            keep = tf.math.is_finite(loss) & tf.math.is_finite(norm)
            poison = tf.where(keep, 0.0, float("nan"))
            gradients = [g if g is None else g + poison for g in gradients]
            self._skipped_steps.update_state(tf.where(keep, 0.0, 1.0))
        # Weights that no objective reaches have no gradient and keep their values, such
        # as the norms of a stream that only contrast reads.
        pairs = zip(gradients, self.trainable_variables, strict=True)
        apply_summed_gradients(self.optimizer, [x for x in pairs if x[0] is not None])
        self.training_step.assign(self.training_step + 1)
        self._track(terms, loss, batch, keep)
        self._update_tracker("gradient_norm", norm, 1.0, keep)
        return self.get_metrics_result()

    def test_step(self, data: Any) -> dict[str, Any]:
        batch = self.with_targets(*keras.utils.unpack_x_y_sample_weight(data))
        terms = self.compute_terms(batch, self.forward_for_loss(batch, training=False))
        (loss,) = all_reduce_sum([self.share_of_loss(terms)])
        self._track(terms, loss, batch)
        logs = self.get_metrics_result()
        return {k: v for k, v in logs.items() if k not in _ONLY_IN_TRAINING}

    def share_of_loss(self, terms: dict[str, Term]) -> keras.KerasTensor:
        """This replica's summand of the loss of the global batch.

        Each numerator is divided by the denominator of all replicas, so that the sum of
        the shares is the loss of the batch also where replicas have unequal weights.
        """
        weighted = [term for term in terms.values() if term.weight]
        counts = all_reduce_sum([term.denominator for term in weighted])
        return sum(
            term.weight * term.numerator / ops.maximum(count, 1e-8)
            for term, count in zip(weighted, counts, strict=True)
        )

    def _sum_and_clip(self, gradients: list) -> tuple[list, Any]:
        """Gradients summed over replicas and clipped, and their global norm before."""
        import tensorflow as tf

        # Under mixed_float16 the gradients are those of the scaled loss.
        scale = self.optimizer.scale_loss(tf.constant(1.0))
        summed = all_reduce_sum(gradients)
        norm = tf.linalg.global_norm(summed) / scale
        if self.clip_norm is None:
            return summed, norm
        factor = self.clip_norm / tf.maximum(norm, self.clip_norm)
        return [g if g is None else g * factor for g in summed], norm


def train_step_for(backend: str) -> type[TrainStep]:
    """The mixin for a Keras backend."""
    return TensorFlowTrainStep if backend == "tensorflow" else TrainStep
