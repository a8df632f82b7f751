"""The one train step: losses exact over replicas, clipping after the all-reduce.

On TensorFlow this is `train_step` and `test_step`; on other backends Keras' own step
calls the same `compute_loss`.
"""

import time

import keras
from keras import ops

from tfavmae.models.gradient_accumulation import accumulate
from tfavmae.models.replicas import all_reduce_sum


class TrainStep:
    """Mixed into every model: what `fit` and `evaluate` do with a batch.

    The model defines `compute_terms(batch, outputs)`.
    """

    def _init_trackers(self):
        names = ["loss"]
        for objective in self.objectives:
            names += objective.term_names(self.modalities)
        self._trackers = {name: keras.metrics.Mean(name=name) for name in names}
        self.training_step = self.add_weight(
            name="training_step",
            shape=(),
            dtype="int32",
            initializer="zeros",
            trainable=False,
        )

    @property
    def metrics(self):
        return list(self._trackers.values())

    def compute_losses(self, inputs, outputs):
        """Means of all terms by name, and their weighted sum as `loss`."""
        terms = self.compute_terms(inputs, outputs)
        losses = {name: term.mean() for name, term in terms.items()}
        losses["loss"] = sum(
            term.weight * losses[name] for name, term in terms.items() if term.weight
        )
        return losses

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """Keras' hook on backends other than TensorFlow: one device, one mean."""
        terms = self.compute_terms(x, y_pred)
        losses = self.compute_losses(x, y_pred)
        self._track(terms, losses["loss"], batch=x)
        if training:
            self.training_step.assign(self.training_step + 1)
        return losses["loss"]

    def _track(self, terms, loss, batch, keep=None):
        """Updates the metrics, or not where the scalar bool `keep` is false.

        Terms weigh by what they are means over, and so does the loss: by clips.
        """
        for name, term in terms.items():
            self._update_tracker(name, term.mean(), term.denominator, keep)
        self._update_tracker("loss", loss, _num_clips(batch), keep)

    def _update_tracker(self, name, value, weight, keep):
        if keep is not None:
            value, weight = (ops.where(keep, x, 0.0) for x in (value, weight))
        self._trackers[name].update_state(value, sample_weight=weight)

    def set_step_options(self, clip_norm=None, gradient_accumulation_steps=1):
        """How updates are made.

        Args:
            clip_norm: bound of the gradients' global norm, or `None`.
            gradient_accumulation_steps: 1: only TensorFlow's step works a batch off in parts.
        """
        if gradient_accumulation_steps != 1:
            raise ValueError(
                "`gradient_accumulation_steps` needs the TensorFlow backend. "
                f"Received: {gradient_accumulation_steps}."
            )
        # One device: nothing has to be summed first.
        self.optimizer.global_clipnorm = clip_norm


class TensorFlowTrainStep(TrainStep):
    """`train_step` and `test_step` on TensorFlow, under any distribution strategy.

    Attributes:
        clip_norm: bound of the gradients' global norm, or `None`.
        gradient_accumulation_steps: parts that a batch is worked off in; see `gradient_accumulation.py`.
        contrast_in_parts: whether such a part is also all that contrast sees.
        input_seconds: time that `fit` has waited for batches.
    """

    clip_norm = None
    gradient_accumulation_steps = 1
    contrast_in_parts = False
    skip_nonfinite = False
    input_seconds = 0.0

    def _init_trackers(self):
        super()._init_trackers()
        self._trackers["gradient_norm"] = keras.metrics.Mean(name="gradient_norm")

    def set_step_options(self, clip_norm=None, gradient_accumulation_steps=1):
        """See `clip_norm` and `gradient_accumulation_steps` above."""
        self.clip_norm = clip_norm
        self.gradient_accumulation_steps = gradient_accumulation_steps

    def skip_nonfinite_steps(self):
        """From now on a step whose loss or gradient is not finite changes nothing.

        The metric `skipped_steps` is the share of such steps. The optimizer has to
        leave out variables whose gradient is not a number, as `PathAdam` can.
        """
        self.skip_nonfinite = True
        self._trackers["skipped_steps"] = keras.metrics.Mean(name="skipped_steps")

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Nothing: the model is built by its constructor.

        Keras would take a batch of the dataset for it and, under a strategy, reduce it
        over the replicas, which fails for several workers.
        """

    def make_train_function(self, force=False):
        """Keras', with the time that it waits for a batch added up."""
        if self.train_function is not None and not force:
            return
        super().make_train_function(force=True)
        if self.steps_per_execution > 1:  # Keras' loop fetches them itself
            return
        step = self.train_function

        def timed_step(iterator):
            if not hasattr(iterator, "get_next"):  # of `train_on_batch`
                return step(iterator)
            begin = time.perf_counter()
            batch = iterator.get_next()
            self.input_seconds += time.perf_counter() - begin
            return step([batch])

        self.train_function = timed_step

    def _get_metrics_result_or_logs(self, logs):
        """The metrics themselves, read over all replicas.

        Keras does so only where a step returns all of them, as `test_step` does not,
        and else reports the mean of the replicas' means.
        """
        results = self.get_metrics_result()
        return {name: results[name] for name in logs}

    def train_step(self, data):
        import tensorflow as tf

        batch, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        if not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        if self.gradient_accumulation_steps == 1:
            terms, share, gradients = self._whole_batch(batch)
        else:
            terms, share, gradients = accumulate(self, batch)
        gradients, norm = self._summed_and_clipped(gradients)
        (loss,) = all_reduce_sum([share])
        keep = None
        if self.skip_nonfinite:
            keep = tf.math.is_finite(loss) & tf.math.is_finite(norm)
            poison = tf.where(keep, 0.0, float("nan"))
            gradients = [g if g is None else g + poison for g in gradients]
            self._trackers["skipped_steps"].update_state(tf.where(keep, 0.0, 1.0))
        self._apply(gradients)
        self.training_step.assign(self.training_step + 1)
        self._track(terms, loss, batch, keep)
        self._update_tracker("gradient_norm", norm, 1.0, keep)
        return self.get_metrics_result()

    def test_step(self, data):
        batch, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        terms = self.compute_terms(batch, self(batch, training=False))
        (loss,) = all_reduce_sum([self.share_of_loss(terms)])
        self._track(terms, loss, batch)
        logs = self.get_metrics_result()
        return {k: v for k, v in logs.items() if k not in _ONLY_IN_TRAINING}

    def share_of_loss(self, terms):
        """This replica's summand of the loss of the global batch."""
        weighted = [term for term in terms.values() if term.weight]
        counts = all_reduce_sum([term.denominator for term in weighted])
        return sum(
            term.weight * term.numerator / ops.maximum(count, 1e-8)
            for term, count in zip(weighted, counts, strict=True)
        )

    def _whole_batch(self, batch):
        """Terms, this replica's share of the loss and its (scaled) gradients."""
        import tensorflow as tf

        with tf.GradientTape() as tape:
            terms = self.compute_terms(batch, self(batch, training=True))
            share = self.share_of_loss(terms)
            scaled = self.optimizer.scale_loss(share)
        return terms, share, tape.gradient(scaled, self.trainable_variables)

    def _summed_and_clipped(self, gradients):
        """Gradients summed over replicas, clipped by their global norm; that norm."""
        import tensorflow as tf

        # Under mixed_float16 the gradients are scaled up; clipping counts them down.
        scale = self.optimizer.scale_loss(tf.constant(1.0))
        summed = all_reduce_sum(gradients)
        norm = tf.linalg.global_norm(summed) / scale
        if self.clip_norm is None:
            return summed, norm
        factor = self.clip_norm / tf.maximum(norm, self.clip_norm)
        return [g if g is None else g * factor for g in summed], norm

    def _apply(self, gradients):
        """Updates the weights with gradients that are summed over replicas already.

        Weights that the objectives do not reach keep their values: norms of a stream
        that only contrast reads, say.
        """
        inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        # Keras' optimizers would sum once more.
        inner._all_reduce_sum_gradients = lambda pairs: pairs
        pairs = zip(gradients, self.trainable_variables, strict=True)
        self.optimizer.apply_gradients([x for x in pairs if x[0] is not None])


def _num_clips(batch):
    """Sum of the `sample_weight`s, or rows where there are none."""
    weights = batch.get("sample_weight")
    if weights is None:
        weights = ops.ones((ops.shape(next(iter(batch.values())))[0],))
    return ops.sum(ops.cast(weights, "float32"))


_ONLY_IN_TRAINING = ("gradient_norm", "skipped_steps")


def train_step_for(backend):
    """The mixin for a Keras backend."""
    return TensorFlowTrainStep if backend == "tensorflow" else TrainStep
