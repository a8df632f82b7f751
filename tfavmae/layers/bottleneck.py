"""Fusion through a few bottleneck tokens (MBT: Nagrani et al., NeurIPS 2021)."""

import keras
from keras import ops

from tfavmae.layers.transformer import TransformerStack


@keras.saving.register_keras_serializable(package="tfavmae")
class BottleneckFusion(keras.layers.Layer):
    """Layers in which modalities meet only in bottleneck tokens that both read.

    In each layer every modality attends over its own tokens and the bottleneck, and the
    next bottleneck is the mean of the modalities' copies: MAViL, appendix B.2,
    `b^{l+1} = (b_a^{l+1} + b_v^{l+1}) / 2`.

    Args:
        num_layers: number of layers.
        block: keyword arguments of `TransformerBlock`.
        modalities: those that may be fused.
        num_bottlenecks: number of bottleneck tokens, 4 in MBT and MAViL.
        share_blocks: one block per layer for all modalities, as MAViL's equations write
            it, instead of one for each, as in MBT's code.

    Call arguments:
        tokens: dict of modality to `(batch, tokens, hidden_dim)`.

    Returns:
        dict of the same shapes.
    """

    def __init__(
        self,
        num_layers,
        block,
        modalities=("audio", "video"),
        num_bottlenecks=4,
        share_blocks=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if num_bottlenecks < 1:
            raise ValueError(
                "`num_bottlenecks` must be at least 1. "
                f"Received: num_bottlenecks={num_bottlenecks}."
            )
        self.num_layers = num_layers
        self.block = dict(block)
        self.modalities = tuple(modalities)
        self.num_bottlenecks = num_bottlenecks
        self.share_blocks = share_blocks

    def build(self, input_shape):
        self.bottleneck = self.add_weight(
            name="bottleneck",
            shape=(self.num_bottlenecks, input_shape[-1]),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
        )
        for name in ("both",) if self.share_blocks else self.modalities:
            stack = TransformerStack(
                self.num_layers, self.block, dtype=self.dtype_policy, name=name
            )
            stack.build(input_shape)
            setattr(self, f"{name}_stack", stack)

    def call(self, tokens, training=False):
        any_tokens = next(iter(tokens.values()))
        shape = (ops.shape(any_tokens)[0], *self.bottleneck.shape)
        bottleneck = ops.broadcast_to(
            ops.cast(self.bottleneck, any_tokens.dtype), shape
        )
        for layer in range(self.num_layers):
            joined = {
                m: self._block(m, layer)(
                    ops.concatenate([x, bottleneck], axis=1), training=training
                )
                for m, x in tokens.items()
            }
            tokens = {m: x[:, : -self.num_bottlenecks] for m, x in joined.items()}
            copies = [x[:, -self.num_bottlenecks :] for x in joined.values()]
            bottleneck = sum(copies) / len(copies)
        return tokens

    @property
    def stacks(self):
        """Those of all modalities, or the one that they share."""
        names = ("both",) if self.share_blocks else self.modalities
        return [getattr(self, f"{name}_stack") for name in names]

    def _block(self, modality, layer):
        name = "both" if self.share_blocks else modality
        return getattr(self, f"{name}_stack").blocks[layer]

    def get_config(self):
        return {
            **super().get_config(),
            "num_layers": self.num_layers,
            "block": self.block,
            "modalities": self.modalities,
            "num_bottlenecks": self.num_bottlenecks,
            "share_blocks": self.share_blocks,
        }
