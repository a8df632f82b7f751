"""Fusion of modality streams, through bottleneck tokens or without.

MBT: Nagrani et al., "Attention bottlenecks for multimodal fusion", NeurIPS 2021.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

from tfavmae.layers.presence import absent_tokens, mean_of_present, split_tokens
from tfavmae.layers.transformer import TransformerStack


@keras.saving.register_keras_serializable(package="tfavmae")
class BottleneckFusion(keras.layers.Layer):
    """Layers in which each modality has its own stream and learns from the others.

    Through bottleneck tokens: in each layer every modality attends to its own tokens
    and to the bottleneck, and the next bottleneck is the mean of the modalities' copies
    (MAViL, appendix B.2: `b^{l+1} = (b_a^{l+1} + b_v^{l+1}) / 2`). Without bottleneck
    tokens every modality attends to the tokens of all.

    Args:
        num_layers: number of layers.
        block: keyword arguments of `TransformerBlock`.
        modalities: modalities that can be fused. One alone has no bottleneck.
        num_bottlenecks: number of bottleneck tokens, 4 in MBT and MAViL; 0: none.
        share_blocks: use one block per layer for all modalities, as MAViL's equations
            have it, instead of one for each modality, as in MBT's code.
        first_layer: number of the first layer that fuses (MBT's fusion layer): 0 is
            early fusion, `num_layers` late fusion, with which nothing is exchanged.
        fuses_in_evaluation: `False` lets every modality run alone unless in training,
            MBT's `test_with_bottlenecks=False`.

    Call arguments:
        tokens: dict of modality to `(batch, tokens, hidden_dim)`.
        is_absent: dict of modality to bool `(batch,)`, True for clips that lack it:
            nothing then comes from its tokens. `None`: all have all.

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
        first_layer: int = 0,
        fuses_in_evaluation: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_bottlenecks < 0:
            raise ValueError(
                "`num_bottlenecks` must be at least 0. "
                f"Received: num_bottlenecks={num_bottlenecks}."
            )
        if not 0 <= first_layer <= num_layers:
            raise ValueError(
                "`first_layer` must be between 0 and `num_layers`. "
                f"Received: first_layer={first_layer}, num_layers={num_layers}."
            )
        self.num_layers = num_layers
        self.block = dict(block)
        self.modalities = tuple(modalities)
        self.num_bottlenecks = num_bottlenecks
        self.share_blocks = share_blocks
        self.first_layer = first_layer
        self.fuses_in_evaluation = fuses_in_evaluation

    def build(self, input_shape: tuple) -> None:
        # Nothing would ever read the bottleneck of one modality, nor train it.
        self.has_bottleneck = self.num_bottlenecks > 0 and len(self.modalities) > 1
        if self.has_bottleneck:
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
        self,
        tokens: dict[str, KerasTensor],
        training: bool = False,
        is_absent: dict[str, KerasTensor] | None = None,
    ) -> dict[str, KerasTensor]:
        fuses = len(self.modalities) > 1 and (training or self.fuses_in_evaluation)
        # Layers of one modality before the fusion; all of them where nothing fuses.
        first = self.first_layer if fuses else self.num_layers
        tokens = {m: self._run(m, x, range(first), training) for m, x in tokens.items()}
        if first == self.num_layers:
            return tokens
        if self.has_bottleneck:
            return self._through_bottleneck(tokens, training, is_absent)
        for layer in range(first, self.num_layers):
            tokens = self._attend_to_all(tokens, layer, training, is_absent)
        return tokens

    def _run(
        self, modality: str, x: KerasTensor, layers: Iterable[int], training: bool
    ) -> KerasTensor:
        for layer in layers:
            x = self._stack(modality).blocks[layer](x, training=training)
        return x

    def _through_bottleneck(
        self,
        tokens: dict[str, KerasTensor],
        training: bool,
        is_absent: dict[str, KerasTensor] | None,
    ) -> dict[str, KerasTensor]:
        any_tokens = next(iter(tokens.values()))
        shape = (ops.shape(any_tokens)[0], *self.bottleneck.shape)
        bottleneck = ops.broadcast_to(
            ops.cast(self.bottleneck, any_tokens.dtype), shape
        )
        for layer in range(self.first_layer, self.num_layers):
            joined = {
                m: self._run(
                    m, ops.concatenate([x, bottleneck], axis=1), [layer], training
                )
                for m, x in tokens.items()
            }
            tokens = {m: x[:, : -self.num_bottlenecks] for m, x in joined.items()}
            copies = {m: x[:, -self.num_bottlenecks :] for m, x in joined.items()}
            # A modality that a clip lacks must not reach the other by its copy.
            bottleneck = mean_of_present(copies, is_absent)
        return tokens

    def _attend_to_all(
        self,
        tokens: dict[str, KerasTensor],
        layer: int,
        training: bool,
        is_absent: dict[str, KerasTensor] | None,
    ) -> dict[str, KerasTensor]:
        x = ops.concatenate(list(tokens.values()), axis=1)
        absent = absent_tokens(tokens, is_absent)
        results: dict[str, KerasTensor] = {}
        for m in tokens:
            # A block that all share gives all of them their part at once.
            if not (results and self.share_blocks):
                block = self._stack(m).blocks[layer]
                whole = block(x, training=training, is_absent=absent)
            results[m] = split_tokens(whole, tokens)[m]
        return results

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
            "first_layer": self.first_layer,
            "fuses_in_evaluation": self.fuses_in_evaluation,
        }
