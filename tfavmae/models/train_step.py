"""The one train step: losses exact over replicas, clipping after the all-reduce.

On TensorFlow this is `train_step` and `test_step`; on other backends Keras' own step
calls the same `compute_loss`.
"""

import keras
from keras import ops


class TrainStep:
    """Mixed into every model: what `fit` and `evaluate` do with a batch.

    The model defines `compute_terms(batch, outputs)`; its `clip_norm` (`None`: no
    clipping) bounds the global norm of the gradients.
    """

    clip_norm = None

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
        self._track(terms, losses["loss"])
        if training:
            self.training_step.assign(self.training_step + 1)
        return losses["loss"]

    def _track(self, terms, loss):
        count = 0.0
        for name, term in terms.items():
            self._trackers[name].update_state(
                term.mean(), sample_weight=term.denominator
            )
            if term.weight:
                count = ops.maximum(count, term.denominator)
        self._trackers["loss"].update_state(loss, sample_weight=count)


class TensorFlowTrainStep(TrainStep):
    """`train_step` and `test_step` on TensorFlow, under any distribution strategy."""

    def _init_trackers(self):
        super()._init_trackers()
        self._trackers["gradient_norm"] = keras.metrics.Mean(name="gradient_norm")

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Nothing: the model is built by its constructor.

        Keras would take a batch of the dataset for it and, under a strategy, reduce it
        over the replicas, which fails for several workers.
        """

    def train_step(self, data):
        import tensorflow as tf

        batch, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            terms = self.compute_terms(batch, self(batch, training=True))
            loss = self._share_of_loss(terms)
            scaled = self.optimizer.scale_loss(loss)
        variables = self.trainable_variables
        gradients = tape.gradient(scaled, variables)
        gradients, norm = self._finish(gradients)
        # Weights that the objectives do not reach keep their values: norms of a stream
        # that only contrast reads, say.
        if not self.optimizer.built:
            self.optimizer.build(variables)
        pairs = zip(gradients, variables, strict=True)
        self.optimizer.apply_gradients([x for x in pairs if x[0] is not None])
        self.training_step.assign(self.training_step + 1)
        self._track(terms, _all_reduce_sum(loss))
        self._trackers["gradient_norm"].update_state(norm)
        return self.get_metrics_result()

    def test_step(self, data):
        batch, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        terms = self.compute_terms(batch, self(batch, training=False))
        self._track(terms, _all_reduce_sum(self._share_of_loss(terms)))
        logs = self.get_metrics_result()
        logs.pop("gradient_norm")
        return logs

    def _share_of_loss(self, terms):
        """This replica's summand of the loss of the global batch."""
        share = 0.0
        for term in terms.values():
            if term.weight:
                total = _all_reduce_sum(ops.convert_to_tensor(term.denominator))
                share += term.weight * term.numerator / ops.maximum(total, 1e-8)
        return share

    def _finish(self, gradients):
        """Gradients clipped by their global norm over replicas, and that norm.

        The optimizer sums gradients over replicas. Clipping has to come after the sum,
        so clipped sums are handed out in equal shares.
        """
        import tensorflow as tf

        scale = self.optimizer.scale_loss(tf.constant(1.0))
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        summed = [_all_reduce_sum(g) for g in gradients]
        norm = tf.linalg.global_norm(summed) / scale
        if self.clip_norm is None:
            return gradients, norm
        factor = self.clip_norm / tf.maximum(norm, self.clip_norm) / replicas
        return [None if g is None else g * factor for g in summed], norm


def _all_reduce_sum(x):
    """Sum over replicas; its gradient is that of the own summand."""
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if x is None or context is None or context.num_replicas_in_sync == 1:
        return x
    return context.all_reduce("SUM", tf.convert_to_tensor(x))


def train_step_for(backend):
    """The mixin for a Keras backend."""
    return TensorFlowTrainStep if backend == "tensorflow" else TrainStep
