"""Transformer blocks, of which every encoder and decoder is made."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

from tfavmae.layers.attention import MultiHeadSelfAttention
from tfavmae.layers.dense import Dense, LayerNorm
from tfavmae.layers.gradients import mlp
from tfavmae.private_hooks import all_layers


@keras.saving.register_keras_serializable(package="tfavmae")
class DropPath(keras.layers.Layer):
    """Stochastic depth: drops a residual branch for whole examples (Huang et al. 2016).

    Args:
        rate: probability of dropping, in [0, 1).
        rescale: divide what is kept by `1 - rate` (timm, Keras). AV-MAE's code does
            not; pass `False` to follow it.
        seed: seed of the draws.

    Input and output shape:
        `(batch, tokens, hidden_dim)`.
    """

    def __init__(
        self, rate: float, rescale: bool = True, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"`rate` must be in [0, 1). Received: rate={rate}.")
        self.rate = rate
        self.rescale = rescale
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, x: KerasTensor, training: bool = False) -> KerasTensor:
        if not training or self.rate == 0:
            return x
        kept = keras.random.uniform((ops.shape(x)[0], 1, 1), seed=self.seed_generator)
        kept = ops.cast(kept >= self.rate, x.dtype)
        return x * (kept / (1 - self.rate) if self.rescale else kept)

    def get_config(self) -> dict[str, Any]:
        config = {"rate": self.rate, "rescale": self.rescale, "seed": self.seed}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="tfavmae")
class MultiLayerPerceptron(keras.layers.Layer):
    """Dense layer, GELU, dense layer.

    Args:
        mlp_dim: width between the two dense layers.
        approximate_gelu: tanh form (AV-MAE) instead of the exact one (MAE, CAV-MAE).

    Input and output shape:
        `(batch, tokens, hidden_dim)`.
    """

    def __init__(
        self, mlp_dim: int, approximate_gelu: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.mlp_dim = mlp_dim
        self.approximate_gelu = approximate_gelu

    def build(self, input_shape: tuple) -> None:
        dtype = self.dtype_policy
        self.expand = Dense(self.mlp_dim, dtype=dtype, name="expand")
        self.contract = Dense(input_shape[-1], dtype=dtype, name="contract")
        self.expand.build(input_shape)
        self.contract.build((*input_shape[:-1], self.mlp_dim))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        # Keras would trace `call` instead, where weights are not cast to the policy's
        # compute type, and state the wrong type (3.15).
        return input_shape

    def call(self, x: KerasTensor) -> KerasTensor:
        # One function: what lies between the layers need not be kept for the backward
        # pass.
        expand, contract = self.expand.tensors(), self.contract.tensors()
        return mlp(x, expand, contract, self.approximate_gelu)

    def get_config(self) -> dict[str, Any]:
        config = {"mlp_dim": self.mlp_dim, "approximate_gelu": self.approximate_gelu}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="tfavmae")
class TransformerBlock(keras.layers.Layer):
    """Pre-norm block: `x + Attention(Norm(x))`, then `x + MLP(Norm(x))`.

    Args:
        num_heads: see `MultiHeadSelfAttention`.
        mlp_dim, approximate_gelu: see `MultiLayerPerceptron`.
        layer_norm_epsilon: 1e-6 in MAE and AV-MAE, 1e-5 in CAV-MAE's code.
        streams: names of the pairs of layer norms, one of which each call selects.
            CAV-MAE's joint layer (section 2.3) has `("joint", "audio", "video")` around
            one attention and one MLP.
        drop_path_rate, drop_path_rescale: see `DropPath`.

    Call arguments:
        x: `(batch, tokens, hidden_dim)`.
        stream: which pair of layer norms to use.
        is_absent: tokens that the others do not attend to, see `attend`.

    Output shape:
        `(batch, tokens, hidden_dim)`.

    Attributes:
        rematerializes: what attention and MLP recompute in the backward pass, `all` or
            `elementwise`; see `rematerialize_blocks`.
    """

    # A class attribute and no argument: how a model is trained is not part of it, so it
    # must not end up in the saved config.
    rematerializes: str | None = None

    def __init__(
        self,
        num_heads: int,
        mlp_dim: int,
        layer_norm_epsilon: float = 1e-6,
        approximate_gelu: bool = False,
        streams: Sequence[str] = ("joint",),
        drop_path_rate: float = 0.0,
        drop_path_rescale: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.mlp_dim = mlp_dim
        self.layer_norm_epsilon = layer_norm_epsilon
        self.approximate_gelu = approximate_gelu
        self.streams = tuple(streams)
        self.drop_path_rate = drop_path_rate
        self.drop_path_rescale = drop_path_rescale

    def build(self, input_shape: tuple) -> None:
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

    def _build_norms(self, prefix: str, input_shape: tuple) -> list[LayerNorm]:
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

    def call(
        self,
        x: KerasTensor,
        stream: str = "joint",
        training: bool = False,
        is_absent: KerasTensor | None = None,
    ) -> KerasTensor:
        which = self.streams.index(stream)
        attend = lambda x: self.attention(x, is_absent=is_absent)  # noqa: E731
        x = x + self._branch(self.norm_1[which], attend, x, training)
        return x + self._branch(self.norm_2[which], self.mlp, x, training)

    def _branch(
        self,
        norm: LayerNorm,
        layer: Callable[[KerasTensor], KerasTensor],
        x: KerasTensor,
        training: bool,
    ) -> KerasTensor:
        branch = lambda x: layer(norm(x))  # noqa: E731
        if self.rematerializes and training:
            branch = _rematerialized(branch, self.rematerializes)
        # Outside of the rematerialized part, where a second draw would drop other
        # examples than the forward pass did.
        return self.drop_path(branch(x), training=training)

    def get_config(self) -> dict[str, Any]:
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
    """`num_layers` blocks in sequence, without a final layer norm.

    Args:
        num_layers: number of blocks; 0 gives the identity.
        block: keyword arguments of `TransformerBlock`; `drop_path_rate` is the rate of
            the last block and decreases linearly to 0 at the first, or with
            `drop_path_grows=False` the rate of all.

    Call arguments:
        x: `(batch, tokens, hidden_dim)`.
        stream: which pair of layer norms every block uses.
        last_block_only: apply only the last block. CAV-MAE's code does so for its
            contrastive embedding when it has several joint layers.
        is_absent: see `TransformerBlock`.

    Output shape:
        `(batch, tokens, hidden_dim)`.
    """

    def __init__(
        self, num_layers: int, block: Mapping[str, Any], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if num_layers < 0:
            raise ValueError(
                f"`num_layers` must be at least 0. Received: num_layers={num_layers}."
            )
        self.num_layers = num_layers
        self.block = dict(block)

    def build(self, input_shape: tuple) -> None:
        options = dict(self.block)
        last_rate = options.pop("drop_path_rate", 0.0)
        grows = options.pop("drop_path_grows", True)
        self.blocks = []
        for i in range(self.num_layers):
            share = i / max(1, self.num_layers - 1) if grows else 1.0
            block = TransformerBlock(
                **options,
                drop_path_rate=last_rate * share,
                dtype=self.dtype_policy,
                name=f"block_{i}",
            )
            block.build(input_shape)
            self.blocks.append(block)

    def call(
        self,
        x: KerasTensor,
        stream: str = "joint",
        training: bool = False,
        last_block_only: bool = False,
        is_absent: KerasTensor | None = None,
    ) -> KerasTensor:
        for block in self.blocks[-1:] if last_block_only else self.blocks:
            x = block(x, stream=stream, training=training, is_absent=is_absent)
        return x

    def get_config(self) -> dict[str, Any]:
        config = {"num_layers": self.num_layers, "block": self.block}
        return {**super().get_config(), **config}


def rematerialize_blocks(model: keras.Model, what: str = "all") -> None:
    """Makes transformer blocks recompute their inside in the backward pass.

    Saves memory at the price of time; losses, gradients and saved files stay the same.
    `keras.RematScope` would do it from outside, but its layers take no keyword
    arguments in a TensorFlow graph (Keras 3.15), and ours need `stream`.

    Args:
        model: a built model.
        what: `all`; or `elementwise`, which keeps the results of products with weights
            and recomputes attention and what lies between (JAX).

    Raises:
        ValueError: `what` is unknown, or the backend does not have it.
    """
    known = ("all", "elementwise") if keras.backend.backend() == "jax" else ("all",)
    if what not in known:
        raise ValueError(f"`what` must be one of {known} here. Received: {what!r}.")
    for layer in all_layers(model):
        if isinstance(layer, TransformerBlock):
            layer.rematerializes = what


def _rematerialized(branch: Callable, what: str) -> Callable:
    if what == "all":
        return keras.remat(branch)
    import jax

    # `keras.remat` is `jax.checkpoint` without its policy (Keras 3.15).
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return jax.checkpoint(branch, policy=policy)
