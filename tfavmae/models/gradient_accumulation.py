"""Gradient accumulation: a batch that does not fit into memory, part by part.

Means over the batch are exact, whichever clips a part has: each part's sum is divided
by the weight of the whole batch, which the objectives' `counts` give beforehand.
Contrast couples examples, so all embeddings are computed first, without gradients; the
loss of all of them gives each embedding its gradient, from which the parts then compute
the gradients of the encoder (Gao et al., "Scaling deep contrastive learning batch size
under memory limited setup", 2021, section 3). That costs one more forward pass of the
encoder.

The parts are a loop of the graph, so tracing takes no longer for many of them, and no
collective runs inside it. Random numbers of layers (stochastic depth) differ
between the two passes; masks do not.
"""

from typing import TYPE_CHECKING, Any

from keras import ops

from tfavmae.models.replicas import all_reduce_sum
from tfavmae.objectives.base import Objective, Term

if TYPE_CHECKING:
    # Models are imported where TensorFlow is not installed, too.
    import tensorflow as tf

    from tfavmae.models.train_step import TensorFlowTrainStep


def accumulate(
    model: "TensorFlowTrainStep", batch: dict[str, "tf.Tensor"]
) -> tuple[dict[str, Term], "tf.Tensor", list]:
    """Computes the gradients of a batch in parts.

    Args:
        model: its `gradient_accumulation_steps` is the number of parts.
        batch: dict of tensors `(batch, ...)`.

    Returns:
        dict of name to `Term` of the whole batch; this replica's scalar share of the
        loss; the gradients of the scaled share, `None` where a weight has none. The
        same as for the batch in one piece.
    """
    import tensorflow as tf

    if "example_index" not in batch:
        # Masks are drawn by this number: without it every part would draw the same.
        size = next(iter(batch.values())).shape[0]
        batch = {**batch, "example_index": tf.range(size)}
    count = model.gradient_accumulation_steps
    # (batch, ...) -> (parts, batch / parts, ...)
    parts = {k: tf.reshape(x, [count, -1, *x.shape[1:]]) for k, x in batch.items()}
    coupled, in_parts = [], []
    for objective in model.objectives:
        is_coupled = objective.couples_examples and not model.contrast_in_parts
        (coupled if is_coupled else in_parts).append(objective)
    terms, share, pulls = {}, 0.0, {}
    if coupled:
        terms, share, pulls = _embedding_gradients(model, batch, parts, coupled)
    sums, gradients = _loop(model, batch, parts, in_parts, pulls)
    return terms | sums, share + model.share_of_loss(sums), gradients


def _embedding_gradients(
    model: "TensorFlowTrainStep",
    batch: dict[str, "tf.Tensor"],
    parts: dict[str, "tf.Tensor"],
    objectives: list[Objective],
) -> tuple[dict[str, Term], "tf.Tensor", dict[str, "tf.Tensor"]]:
    """Objectives over all examples, and their gradients with respect to embeddings.

    Returns:
        Terms; this replica's share of the loss; dict of embedding name to gradient,
        `(parts, batch / parts, hidden_dim)`.
    """
    import tensorflow as tf

    def embed(part: dict[str, "tf.Tensor"]) -> dict[str, "tf.Tensor"]:
        outputs = model(part, training=True)
        return {name: outputs[name] for name in model.embedding_names}

    found = tf.map_fn(
        embed,
        parts,
        # One at a time: parts at once would need the memory that is to be saved.
        parallel_iterations=1,
        fn_output_signature=dict.fromkeys(model.embedding_names, tf.float32),
    )
    shape = [-1, model.embedding_dim]
    embeddings = {name: tf.reshape(x, shape) for name, x in found.items()}
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        terms = model.compute_terms(batch, embeddings, objectives)
        share = model.share_of_loss(terms)
        scaled = model.optimizer.scale_loss(share)
    pulls = tape.gradient(scaled, embeddings, unconnected_gradients="zero")
    pulls = {name: tf.reshape(x, tf.shape(found[name])) for name, x in pulls.items()}
    return terms, share, pulls


def _loop(
    model: "TensorFlowTrainStep",
    batch: dict[str, "tf.Tensor"],
    parts: dict[str, "tf.Tensor"],
    objectives: list[Objective],
    pulls: dict[str, "tf.Tensor"],
) -> tuple[dict[str, Term], list]:
    """Terms of the objectives summed over the parts, and the gradients of everything.

    `pulls` are the gradients with respect to the embeddings.
    """
    import tensorflow as tf

    variables = model.trainable_variables
    # Filled while the body is traced: which variables have a gradient, which term has
    # which weight. A loop of the graph cannot return either.
    reached: set[int] = set()
    weights: dict[str, float] = {}
    counts = _counts(objectives, batch)
    totals = dict(zip(counts, all_reduce_sum(counts.values()), strict=True))

    def body(i: Any, sums: dict, gradients: list) -> tuple[Any, dict, list]:
        part = {k: x[i] for k, x in parts.items()}
        with tf.GradientTape() as tape:
            outputs = model(part, training=True)
            terms = model.compute_terms(part, outputs, objectives)
            loss = _part_of_loss(terms, _counts(objectives, part), totals)
            # Where contrast is all that is learned, the sum is a whole number, 0.
            scaled = model.optimizer.scale_loss(tf.cast(loss, tf.float32))
            # The gradient of <pull, embedding> is the pull's way through the encoder.
            for name, x in pulls.items():
                scaled += tf.reduce_sum(x[i] * outputs[name])
        new = tape.gradient(scaled, variables)
        reached.update(n for n, g in enumerate(new) if g is not None)
        weights.update({name: term.weight for name, term in terms.items()})
        sums = dict(sums)
        for name, term in terms.items():
            total, weight = sums[name]
            sums[name] = (total + term.numerator, weight + term.denominator)
        gradients = [
            g if x is None else g + tf.convert_to_tensor(x)
            for g, x in zip(gradients, new, strict=True)
        ]
        return i + 1, sums, gradients

    names = [n for x in objectives for n in x.term_names(model.modalities)]
    zero = tf.zeros(())
    start = (
        tf.constant(0),
        {name: (zero, zero) for name in names},
        [tf.zeros(v.shape, v.dtype) for v in variables],
    )
    count = model.gradient_accumulation_steps
    _, sums, gradients = tf.while_loop(
        lambda i, *_: i < count,
        body,
        start,
        parallel_iterations=1,
        maximum_iterations=count,
    )
    terms = {name: Term(*sums[name], weight) for name, weight in weights.items()}
    return terms, [g if n in reached else None for n, g in enumerate(gradients)]


def _part_of_loss(
    terms: dict[str, Term], counts: dict[str, Any], totals: dict[str, Any]
) -> Any:
    """A part's summand of the loss: its sums over the weight of the whole batch.

    `counts` and `totals` may differ from the denominators by a factor, which cancels.
    """
    return sum(
        term.weight
        * term.numerator
        * counts[name]
        / ops.maximum(term.denominator * totals[name], 1e-8)
        for name, term in terms.items()
        if term.weight
    )


def _counts(objectives: list[Objective], batch: dict[str, Any]) -> dict[str, Any]:
    return {k: x for o in objectives for k, x in o.counts(batch).items()}
