"""Fusion through bottleneck tokens (MBT: Nagrani et al., NeurIPS 2021)."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

from tfavmae.layers.transformer import TransformerStack


@keras.saving.register_keras_serializable(package="tfavmae")
class BottleneckFusion(keras.layers.Layer):
    """Layers in which modalities exchange information through bottleneck tokens only.

    In each layer every modality attends to its own tokens and to the bottleneck, and
    the next bottleneck is the mean of the modalities' copies: MAViL, appendix B.2,
    `b^{l+1} = (b_a^{l+1} + b_v^{l+1}) / 2`.

    Args:
        num_layers: number of layers.
        block: keyword arguments of `TransformerBlock`.
        modalities: modalities that can be fused.
        num_bottlenecks: number of bottleneck tokens, 4 in MBT and MAViL.
        share_blocks: use one block per layer for all modalities, as MAViL's equations
            have it, instead of one for each modality, as in MBT's code.

    Call arguments:
        tokens: dict of modality to `(batch, tokens, hidden_dim)`.

    Output shape:
        Dict of modality to `(batch, tokens, hidden_dim)`.
    """

    def __init__(
        self,
        num_layers: int,
        block: Mapping[str, Any],
        modalities: Sequence[str] = ("audio", "video"),
        num_bottlenecks: int = 4,
        share_blocks: bool = False,
        **kwargs: Any,
    ) -> None:
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

    def build(self, input_shape: tuple) -> None:
        self.bottleneck = self.add_weight(
            name="bottleneck",
            shape=(self.num_bottlenecks, input_shape[-1]),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
        )
        # Attributes of their own and no dict: their names are in checkpoints.
        for name in ("both",) if self.share_blocks else self.modalities:
            stack = TransformerStack(
                self.num_layers, self.block, dtype=self.dtype_policy, name=name
            )
            stack.build(input_shape)
            setattr(self, f"{name}_stack", stack)

    def call(
        self, tokens: dict[str, KerasTensor], training: bool = False
    ) -> dict[str, KerasTensor]:
        any_tokens = next(iter(tokens.values()))
        shape = (ops.shape(any_tokens)[0], *self.bottleneck.shape)
        bottleneck = ops.broadcast_to(
            ops.cast(self.bottleneck, any_tokens.dtype), shape
        )
        for layer in range(self.num_layers):
            joined = {
                m: self._stack(m).blocks[layer](
                    ops.concatenate([x, bottleneck], axis=1), training=training
                )
                for m, x in tokens.items()
            }
            tokens = {m: x[:, : -self.num_bottlenecks] for m, x in joined.items()}
            copies = [x[:, -self.num_bottlenecks :] for x in joined.values()]
            bottleneck = sum(copies) / len(copies)
        return tokens

    @property
    def stacks(self) -> list[TransformerStack]:
        """The stack of each modality, or the one that all share."""
        # A shared stack is found under the name of any modality.
        names = self.modalities[:1] if self.share_blocks else self.modalities
        return [self._stack(m) for m in names]

    def _stack(self, modality: str) -> TransformerStack:
        name = "both" if self.share_blocks else modality
        return getattr(self, f"{name}_stack")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_layers": self.num_layers,
            "block": self.block,
            "modalities": self.modalities,
            "num_bottlenecks": self.num_bottlenecks,
            "share_blocks": self.share_blocks,
        }
