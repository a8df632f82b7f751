"""The one transformer block that every encoder and decoder is made of."""

import keras
from keras import ops

from tfavmae.layers.gradients import attend_by_head, dense, gelu_dense, layer_norm
from tfavmae.private_hooks import all_layers

# From here on the attention matrices of all heads together are larger than caches.
HEAD_BY_HEAD_TOKENS = 256


def attend(query, key, value, num_heads):
    """Scaled dot-product attention; all `(batch, tokens, width)`, heads side by side.

    Keras' fused kernel is taken where it is one (JAX). Elsewhere many tokens are worked
    off head by head, which needs no change of layout, and whose attention matrices are
    not kept; few tokens as one product over all heads.
    """
    if keras.backend.backend() == "jax":
        parts = [_part_heads(x, num_heads) for x in (query, key, value)]
        return ops.reshape(ops.dot_product_attention(*parts), ops.shape(query))
    if query.shape[1] > HEAD_BY_HEAD_TOKENS:
        return attend_by_head(query, key, value, num_heads)
    return _attend_at_once(query, key, value, num_heads)


def _attend_at_once(query, key, value, num_heads):
    parts = (_part_heads(x, num_heads) for x in (query, key, value))
    heads = [ops.transpose(x, (0, 2, 1, 3)) for x in parts]
    scores = ops.matmul(
        heads[0] * heads[0].shape[-1] ** -0.5, ops.transpose(heads[1], (0, 1, 3, 2))
    )
    x = ops.matmul(ops.softmax(scores, axis=-1), heads[2])
    return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), ops.shape(query))


def _part_heads(x, num_heads):
    _, tokens, width = x.shape
    return ops.reshape(x, (-1, tokens, num_heads, width // num_heads))


@keras.saving.register_keras_serializable(package="tfavmae")
class Dense(keras.layers.Dense):
    """`keras.layers.Dense` on tokens, without an activation, with a faster gradient.

    Args:
        units: width of the result.
        kernel_initializer: as of `Dense`.

    Input shape: `(batch, tokens, inputs)`. Output shape: `(batch, tokens, units)`.
    """

    def __init__(self, units, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(units, kernel_initializer=kernel_initializer, **kwargs)

    def call(self, x):
        return dense(x, *self.tensors())

    def tensors(self):
        """Kernel and bias."""
        return _as_tensors(self.kernel, self.bias)


def _as_tensors(*weights):
    """Reshaped to what they are: TensorFlow would take variables for something that a
    gradient written by hand has to know of."""
    return [ops.reshape(w, w.shape) for w in weights]


@keras.saving.register_keras_serializable(package="tfavmae")
class LayerNorm(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` over the last axis, with a smaller gradient.

    Args:
        epsilon: added to the variance.

    Input and output shape: `(..., width)`.
    """

    def __init__(self, epsilon=1e-6, **kwargs):
        super().__init__(epsilon=epsilon, **kwargs)

    def call(self, x):
        x = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
        x = layer_norm(x, *_as_tensors(self.gamma, self.beta), self.epsilon)
        return ops.cast(x, self.compute_dtype)


@keras.saving.register_keras_serializable(package="tfavmae")
class MultiHeadSelfAttention(keras.layers.Layer):
    """Self-attention with one fused query-key-value product.

    Args:
        num_heads: number of heads; must divide the width of the input.

    Input and output shape: `(batch, tokens, hidden_dim)`.
    """

    def __init__(self, num_heads, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads

    def build(self, input_shape):
        hidden_dim = input_shape[-1]
        if hidden_dim % self.num_heads:
            raise ValueError(
                "`num_heads` must divide the width of the tokens. "
                f"Received: num_heads={self.num_heads}, width={hidden_dim}."
            )
        # Glorot on each of q, k, v by itself, as a (D, D) matrix.
        self.qkv = Dense(
            3 * hidden_dim,
            kernel_initializer=FusedGlorotUniform(3),
            dtype=self.dtype_policy,
            name="qkv",
        )
        self.projection = Dense(hidden_dim, dtype=self.dtype_policy, name="projection")
        self.qkv.build(input_shape)
        self.projection.build(input_shape)

    def call(self, x):
        # Split, not indexed: the gradient of an index is as large as all three.
        return self.projection(
            attend(*ops.split(self.qkv(x), 3, axis=-1), self.num_heads)
        )

    def get_config(self):
        return {**super().get_config(), "num_heads": self.num_heads}


@keras.saving.register_keras_serializable(package="tfavmae")
class FusedGlorotUniform(keras.initializers.Initializer):
    """Glorot uniform for `parts` square kernels that lie side by side in one."""

    def __init__(self, parts, seed=None):
        self.parts = parts
        self.seed = seed

    def __call__(self, shape, dtype=None):
        rows, columns = shape
        limit = (6.0 / (rows + columns // self.parts)) ** 0.5
        uniform = keras.initializers.RandomUniform(-limit, limit, seed=self.seed)
        return uniform(shape, dtype=dtype)

    def get_config(self):
        return {"parts": self.parts, "seed": self.seed}


@keras.saving.register_keras_serializable(package="tfavmae")
class DropPath(keras.layers.Layer):
    """Stochastic depth: drops a residual branch of whole examples.

    Args:
        rate: probability of dropping, in [0, 1).
        rescale: divide what is kept by `1 - rate` (timm, Keras). The authors of AV-MAE
            do not; pass `False` for theirs.
        seed: seed of the draws.

    Input and output shape: `(batch, tokens, hidden_dim)`.
    """

    def __init__(self, rate, rescale=True, seed=None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"`rate` must be in [0, 1). Received: rate={rate}.")
        self.rate = rate
        self.rescale = rescale
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, x, training=False):
        if not training or self.rate == 0:
            return x
        kept = keras.random.uniform((ops.shape(x)[0], 1, 1), seed=self.seed_generator)
        kept = ops.cast(kept >= self.rate, x.dtype)
        return x * (kept / (1 - self.rate) if self.rescale else kept)

    def get_config(self):
        config = {"rate": self.rate, "rescale": self.rescale, "seed": self.seed}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="tfavmae")
class MultiLayerPerceptron(keras.layers.Layer):
    """Dense, GELU, Dense.

    Args:
        mlp_dim: width between the two products.
        approximate_gelu: tanh form (AV-MAE) instead of the exact one (MAE, CAV-MAE).

    Input and output shape: `(batch, tokens, hidden_dim)`.
    """

    def __init__(self, mlp_dim, approximate_gelu=False, **kwargs):
        super().__init__(**kwargs)
        self.mlp_dim = mlp_dim
        self.approximate_gelu = approximate_gelu

    def build(self, input_shape):
        dtype = self.dtype_policy
        self.expand = Dense(self.mlp_dim, dtype=dtype, name="expand")
        self.contract = Dense(input_shape[-1], dtype=dtype, name="contract")
        self.expand.build(input_shape)
        self.contract.build((*input_shape[:-1], self.mlp_dim))

    def call(self, x):
        contract = self.contract.tensors()
        return gelu_dense(self.expand(x), *contract, self.approximate_gelu)

    def get_config(self):
        config = {"mlp_dim": self.mlp_dim, "approximate_gelu": self.approximate_gelu}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="tfavmae")
class TransformerBlock(keras.layers.Layer):
    """Pre-norm block: `x + Attention(Norm(x))`, then `x + MLP(Norm(x))`.

    Args:
        num_heads, mlp_dim, approximate_gelu: see the parts.
        layer_norm_epsilon: 1e-6 in MAE and AV-MAE, 1e-5 in CAV-MAE's code.
        streams: names of the pairs of layer norms, of which a call chooses one.
            CAV-MAE's joint layer has `("joint", "audio", "video")` around one attention
            and one MLP (paper, section 2.3).
        drop_path_rate, drop_path_rescale: see `DropPath`.

    Attributes:
        rematerializes: in training, only the inputs of attention and MLP are kept, and
            what is inside is computed again on the way back. See `rematerialize_blocks`.

    Input and output shape: `(batch, tokens, hidden_dim)`.
    """

    rematerializes = False

    def __init__(
        self,
        num_heads,
        mlp_dim,
        layer_norm_epsilon=1e-6,
        approximate_gelu=False,
        streams=("joint",),
        drop_path_rate=0.0,
        drop_path_rescale=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.mlp_dim = mlp_dim
        self.layer_norm_epsilon = layer_norm_epsilon
        self.approximate_gelu = approximate_gelu
        self.streams = tuple(streams)
        self.drop_path_rate = drop_path_rate
        self.drop_path_rescale = drop_path_rescale

    def build(self, input_shape):
        dtype = self.dtype_policy
        self.attention = MultiHeadSelfAttention(
            self.num_heads, dtype=dtype, name="attention"
        )
        self.mlp = MultiLayerPerceptron(
            self.mlp_dim, self.approximate_gelu, dtype=dtype, name="mlp"
        )
        self.drop_path = DropPath(
            self.drop_path_rate, self.drop_path_rescale, dtype=dtype, name="drop_path"
        )
        self.attention.build(input_shape)
        self.mlp.build(input_shape)
        self.norm_1 = self._build_norms("norm_1", input_shape)
        self.norm_2 = self._build_norms("norm_2", input_shape)

    def _build_norms(self, prefix, input_shape):
        norms = []
        for stream in self.streams:
            norm = LayerNorm(
                epsilon=self.layer_norm_epsilon,
                dtype=self.dtype_policy,
                name=prefix if stream == "joint" else f"{prefix}_{stream}",
            )
            norm.build(input_shape)
            norms.append(norm)
        return norms

    def call(self, x, stream="joint", training=False):
        which = self.streams.index(stream)
        x = x + self._branch(self.norm_1[which], self.attention, x, training)
        return x + self._branch(self.norm_2[which], self.mlp, x, training)

    def _branch(self, norm, layer, x, training):
        branch = lambda x: layer(norm(x))  # noqa: E731
        if self.rematerializes and training:
            branch = keras.remat(branch)
        # Outside: drawn a second time, other examples would be dropped.
        return self.drop_path(branch(x), training=training)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "approximate_gelu": self.approximate_gelu,
            "streams": self.streams,
            "drop_path_rate": self.drop_path_rate,
            "drop_path_rescale": self.drop_path_rescale,
        }


@keras.saving.register_keras_serializable(package="tfavmae")
class TransformerStack(keras.layers.Layer):
    """`num_layers` blocks, one after the other, without a final norm.

    Args:
        num_layers: number of blocks; 0 gives the identity.
        block: keyword arguments of `TransformerBlock`; `drop_path_rate` is the rate of
            the last block and falls linearly to 0 at the first.

    Call arguments:
        last_block_only: apply only the last block. CAV-MAE's code does so on the way to
            its contrastive embedding when it has several joint layers.

    Input and output shape: `(batch, tokens, hidden_dim)`.
    """

    def __init__(self, num_layers, block, **kwargs):
        super().__init__(**kwargs)
        self.num_layers = num_layers
        self.block = dict(block)

    def build(self, input_shape):
        last_rate = self.block.get("drop_path_rate", 0.0)
        self.blocks = []
        for i in range(self.num_layers):
            rate = last_rate * i / max(1, self.num_layers - 1)
            block = TransformerBlock(
                **{**self.block, "drop_path_rate": rate},
                dtype=self.dtype_policy,
                name=f"block_{i}",
            )
            block.build(input_shape)
            self.blocks.append(block)

    def call(self, x, stream="joint", training=False, last_block_only=False):
        for block in self.blocks[-1:] if last_block_only else self.blocks:
            x = block(x, stream=stream, training=training)
        return x

    def get_config(self):
        config = {"num_layers": self.num_layers, "block": self.block}
        return {**super().get_config(), **config}


def rematerialize_blocks(model):
    """Transformer blocks keep their inputs only and recompute the rest going back.

    Not `keras.RematScope`: its layers take no keyword arguments in a TensorFlow graph.
    Only training changes; what is saved of the model does not.
    """
    for layer in all_layers(model):
        if isinstance(layer, TransformerBlock):
            layer.rematerializes = True
