"""A step over a batch that does not fit into memory: part by part, then one update.

Means over the batch are exact, whatever the parts lack: each part's sum is divided by
the weight of the whole batch, which the objectives' `counts` say beforehand. Contrast
couples examples, so all embeddings are computed first, without gradients; the loss of
all of them gives each embedding its gradient, which the parts then send through the
encoder (Gao et al., "Scaling deep contrastive learning batch size under memory limited
setup", 2021, section 3). That costs one more forward pass of the encoder.

The parts are a loop of the graph, so tracing takes no longer for many of them, and no
replica talks to another within it. Random numbers of layers (stochastic depth) differ
between the two passes; masks do not.
"""

from keras import ops

from tfavmae.models.replicas import all_reduce_sum
from tfavmae.objectives.base import Term


def accumulate(model, batch):
    """Terms, this replica's share of the loss and its (scaled) gradients.

    Args:
        model: its `gradient_accumulation_steps` says how many parts there are.
        batch: dict of tensors `(batch, ...)`.

    Returns:
        dict of name to `Term` of the whole batch, the scalar share, and a list of
        gradients (`None` where a weight has none), as for the batch in one piece.
    """
    parts = _parts(batch, model.gradient_accumulation_steps)
    in_parts = [x for x in model.objectives if not _is_coupled(model, x)]
    coupled = [x for x in model.objectives if _is_coupled(model, x)]
    terms, share, pulls = {}, 0.0, {}
    if coupled:
        terms, share, pulls = _couple(model, batch, parts, coupled)
    sums, gradients = _loop(model, batch, parts, in_parts, pulls)
    terms |= sums
    return terms, share + model.share_of_loss(sums), gradients


def _is_coupled(model, objective):
    return objective.couples_examples and not model.contrast_in_parts


def _parts(batch, count):
    """Tensors `(count, batch / count, ...)`."""
    import tensorflow as tf

    if "example_index" not in batch:  # by which the masks are drawn
        size = next(iter(batch.values())).shape[0]
        batch = {**batch, "example_index": tf.range(size)}
    return {k: tf.reshape(x, [count, -1, *x.shape[1:]]) for k, x in batch.items()}


def _couple(model, batch, parts, objectives):
    """Terms over all examples, their share, and the gradient of each embedding."""
    import tensorflow as tf

    def embed(part):
        outputs = model(part, training=True)
        return {name: outputs[name] for name in model.embedding_names}

    found = tf.map_fn(
        embed,
        parts,
        parallel_iterations=1,
        fn_output_signature=dict.fromkeys(model.embedding_names, tf.float32),
    )
    shape = [-1, model.hidden_dim]
    embeddings = {name: tf.reshape(x, shape) for name, x in found.items()}
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        terms = model.compute_terms(batch, embeddings, objectives)
        share = model.share_of_loss(terms)
        scaled = model.optimizer.scale_loss(share)
    pulls = tape.gradient(scaled, embeddings, unconnected_gradients="zero")
    return (
        terms,
        share,
        {k: tf.reshape(x, tf.shape(found[k])) for k, x in pulls.items()},
    )


def _loop(model, batch, parts, objectives, pulls):
    """Sums of the terms over parts, and the gradients of everything."""
    import tensorflow as tf

    variables = model.trainable_variables
    reached, weights = set(), {}
    totals = _global_counts(objectives, batch)

    def body(i, sums, gradients):
        part = {k: x[i] for k, x in parts.items()}
        with tf.GradientTape() as tape:
            outputs = model(part, training=True)
            terms = model.compute_terms(part, outputs, objectives)
            loss = _part_of_loss(terms, _counts(objectives, part), totals)
            scaled = model.optimizer.scale_loss(tf.convert_to_tensor(loss))
            for name, x in pulls.items():
                scaled += tf.reduce_sum(x[i] * outputs[name])
        new = tape.gradient(scaled, variables)
        reached.update(n for n, g in enumerate(new) if g is not None)
        weights.update({name: term.weight for name, term in terms.items()})
        gradients = [
            g if x is None else g + tf.convert_to_tensor(x)
            for g, x in zip(gradients, new, strict=True)
        ]
        return i + 1, _add(sums, terms), gradients

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


def _part_of_loss(terms, counts, totals):
    """A part's summand of the loss: its sums over the weight of the whole batch."""
    return sum(
        term.weight
        * term.numerator
        * counts[name]
        / ops.maximum(term.denominator * totals[name], 1e-8)
        for name, term in terms.items()
        if term.weight
    )


def _counts(objectives, batch):
    return {k: x for o in objectives for k, x in o.counts(batch).items()}


def _global_counts(objectives, batch):
    counts = _counts(objectives, batch)
    return dict(zip(counts, all_reduce_sum(counts.values()), strict=True))


def _add(sums, terms):
    return {
        name: (
            (total + terms[name].numerator, weight + terms[name].denominator)
            if name in terms
            else (total, weight)
        )
        for name, (total, weight) in sums.items()
    }
