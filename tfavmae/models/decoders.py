"""The audio-visual decoder: mask tokens, positions, layers, prediction heads."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tfavmae.layers.masking import gather_tokens
from tfavmae.layers.positions import PositionEmbedding
from tfavmae.layers.presence import split_tokens
from tfavmae.layers.transformer import LayerNorm, TransformerStack
from tfavmae.models.inputs import AudioInput, VideoInput

SHARINGS = ("early", "shared", "separate")

# MAE's decoder (section 4.1 of its paper), the same for every size of encoder.
_MAE = {"hidden_dim": 512, "num_heads": 16, "mlp_dim": 2048, "num_layers": 8}
MAE_DECODERS = {
    "tiny": {"hidden_dim": 96, "num_heads": 4, "mlp_dim": 384, "num_layers": 2},
    "small": _MAE,
    "base": _MAE,
    "large": _MAE,
}


@keras.saving.register_keras_serializable(package="tfavmae")
class AudioVisualDecoder(keras.layers.Layer):
    """Predicts the patches of each modality.

    Tokens are decoded in the order in which they were drawn, visible ones first, with
    their positions gathered to match: attention does not depend on the order, nothing
    has to be un-shuffled, and the heads can run on masked tokens alone.

    Args:
        hidden_dim: width.
        num_layers: number of layers.
        block: keyword arguments of `TransformerBlock`.
        grids: dict of modality to its token counts along each axis.
        patch_values: dict of modality to the number of values that a token predicts.
        sharing: `early` decodes the concatenated modalities (CAV-MAE; AV-MAE "early"),
            `shared` each by itself with the same layers, `separate` with its own.
        share_projection: one projection and one mask token for both (CAV-MAE).
        positions: dict of modality to keyword arguments of `PositionEmbedding`.
        modality_embedding: add a learned vector that names the modality.
        head_initializer: of the prediction heads' kernels; AV-MAE starts at zeros.
        token_stddev: of the initial mask tokens and modality vectors; AV-MAE: 0.
        inpainting_targets: which patches `inpaint` predicts. `authors`: the context
            stands on the first k places of the target's sequence, which are therefore
            never predicted (AV-MAE's code). `full`: the context keeps the positions of
            its own modality and a mask token stands for every patch of the target.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_layers: int,
        block: Mapping[str, Any],
        grids: Mapping[str, Sequence[int]],
        patch_values: Mapping[str, int],
        sharing: str = "early",
        share_projection: bool = False,
        positions: Mapping[str, Mapping[str, Any]] | None = None,
        modality_embedding: bool = False,
        head_initializer: str = "glorot_uniform",
        token_stddev: float = 0.02,
        inpainting_targets: str = "authors",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if sharing not in SHARINGS:
            raise ValueError(
                f"`sharing` must be one of {SHARINGS}. Received: sharing={sharing!r}."
            )
        if inpainting_targets not in ("authors", "full"):
            raise ValueError(
                "`inpainting_targets` must be 'authors' or 'full'. "
                f"Received: {inpainting_targets!r}."
            )
        self.hidden_dim = hidden_dim
        self.num_layers = num_layers
        self.block = dict(block)
        self.grids = {m: tuple(g) for m, g in grids.items()}
        self.patch_values = dict(patch_values)
        self.sharing = sharing
        self.share_projection = share_projection
        self.position_options = dict(positions or {})
        self.modality_embedding = modality_embedding
        self.head_initializer = head_initializer
        self.token_stddev = token_stddev
        self.inpainting_targets = inpainting_targets

    @classmethod
    def for_inputs(
        cls,
        inputs: Mapping[str, AudioInput | VideoInput],
        sizes: Mapping[str, int],
        block: Mapping[str, Any],
        **kwargs: Any,
    ) -> "AudioVisualDecoder":
        """The decoder of a model's inputs.

        Args:
            inputs: dict of modality to its input, which has grid, patch values and
                positions.
            sizes: `hidden_dim`, `num_heads`, `mlp_dim` and `num_layers`.
            block: further keyword arguments of `TransformerBlock`.
            **kwargs: further arguments of the constructor, over those of the inputs.
        """
        heads = {k: sizes[k] for k in ("num_heads", "mlp_dim")}
        own = {
            "grids": {m: x.grid for m, x in inputs.items()},
            "patch_values": {m: x.patch_values for m, x in inputs.items()},
            "positions": {m: x.positions for m, x in inputs.items()},
            "name": "decoder",
        }
        return cls(
            sizes["hidden_dim"],
            sizes["num_layers"],
            {**heads, **block},
            **{**own, **kwargs},
        )

    @property
    def output_shape(self) -> tuple:
        """`(batch, tokens, hidden_dim)` of both modalities, for `model.summary()`.

        The predictions have `patch_values` in the place of `hidden_dim`.
        """
        tokens = sum(math.prod(grid) for grid in self.grids.values())
        return (None, tokens, self.hidden_dim)

    def build(self, input_shape: Sequence[int | None]) -> None:
        width = (None, None, self.hidden_dim)
        for modality in self.grids:
            self._build_modality(modality, width)
        for name in ("both",) if self.share_projection else self.grids:
            self._add_dense(f"{name}_projection", self.hidden_dim, input_shape)
            self._add_vector(f"{name}_mask_token")
        for name in ("both",) if self.sharing != "separate" else self.grids:
            stack = TransformerStack(
                self.num_layers, self.block, dtype=self.dtype_policy, name=name
            )
            norm = LayerNorm(
                epsilon=self.block.get("layer_norm_epsilon", 1e-6),
                dtype=self.dtype_policy,
                name=f"{name}_norm",
            )
            stack.build(width)
            norm.build(width)
            setattr(self, f"{name}_stack", stack)
            setattr(self, f"{name}_norm", norm)

    def _build_modality(self, modality: str, width: Sequence[int | None]) -> None:
        options = {"trainable": False, **self.position_options.get(modality, {})}
        positions = PositionEmbedding(
            self.grids[modality],
            **options,
            dtype=self.dtype_policy,
            name=f"{modality}_positions",
        )
        positions.build(width)
        setattr(self, f"{modality}_positions", positions)
        if self.modality_embedding:
            self._add_vector(f"{modality}_modality")
        self._add_dense(
            f"{modality}_head",
            self.patch_values[modality],
            width,
            kernel_initializer=self.head_initializer,
        )

    def _add_dense(
        self, name: str, units: int, input_shape: Sequence[int | None], **kwargs: Any
    ) -> None:
        dense = keras.layers.Dense(units, dtype=self.dtype_policy, name=name, **kwargs)
        dense.build(input_shape)
        setattr(self, name, dense)

    def _add_vector(self, name: str) -> None:
        vector = self.add_weight(
            name=name,
            shape=(self.hidden_dim,),
            initializer=keras.initializers.RandomNormal(stddev=self.token_stddev),
        )
        setattr(self, name, vector)

    def _own(self, modality: str, part: str, shared: bool) -> Any:
        return getattr(self, f"both_{part}" if shared else f"{modality}_{part}")

    def project(self, modality: str, tokens: keras.KerasTensor) -> keras.KerasTensor:
        """Encoded tokens at the decoder's width, `(batch, n, hidden_dim)`."""
        return self._own(modality, "projection", self.share_projection)(tokens)

    def _fill(self, modality: str, context: keras.KerasTensor) -> keras.KerasTensor:
        """Context tokens, then mask tokens up to the modality's length."""
        mask = self._own(modality, "mask_token", self.share_projection)
        batch, known, width = ops.shape(context)[0], context.shape[1], self.hidden_dim
        missing = getattr(self, f"{modality}_positions").table.shape[0] - known
        mask = ops.broadcast_to(ops.cast(mask, context.dtype), (batch, missing, width))
        return ops.concatenate([context, mask], axis=1)

    def _place(
        self, modality: str, x: keras.KerasTensor, order: keras.KerasTensor | None
    ) -> keras.KerasTensor:
        """Adds positions, in drawn order, and the vector that names the modality."""
        x = getattr(self, f"{modality}_positions")(x, order)
        if self.modality_embedding:
            x = x + ops.cast(getattr(self, f"{modality}_modality"), x.dtype)
        return x

    def _decode(
        self, tokens: Mapping[str, keras.KerasTensor], training: bool
    ) -> dict[str, keras.KerasTensor]:
        if self.sharing != "early":
            separate = self.sharing == "separate"
            return {
                m: self._run(m if separate else "both", x, training)
                for m, x in tokens.items()
            }
        x = self._run("both", ops.concatenate(list(tokens.values()), axis=1), training)
        return split_tokens(x, tokens)

    def _run(
        self, name: str, x: keras.KerasTensor, training: bool
    ) -> keras.KerasTensor:
        x = getattr(self, f"{name}_stack")(x, training=training)
        return getattr(self, f"{name}_norm")(x)

    def call(
        self,
        tokens: Mapping[str, keras.KerasTensor],
        order: Mapping[str, keras.KerasTensor],
        training: bool = False,
    ) -> dict[str, keras.KerasTensor]:
        """Predicts each modality from its own visible tokens.

        Args:
            tokens: dict of modality to encoded visible tokens `(batch, kept, dim)`.
            order: dict of modality to int32 `(batch, tokens)`, visible ones first.

        Returns:
            dict with `{modality}_masked_prediction` `(batch, masked, values)`, in drawn
            order, and, in token order, `{modality}_prediction`
            `(batch, tokens, values)` and what it is made of, `{modality}_decoded`.
        """
        filled = {
            m: self._place(m, self._fill(m, self.project(m, x)), order[m])
            for m, x in tokens.items()
        }
        outputs = {}
        for m, x in self._decode(filled, training).items():
            decoded = gather_tokens(x, ops.argsort(order[m], axis=1))
            kept = tokens[m].shape[1]
            outputs[f"{m}_masked_prediction"] = self._predict(m, x[:, kept:])
            outputs[f"{m}_prediction"] = self._predict(m, decoded)
            outputs[f"{m}_decoded"] = decoded
        return outputs

    def decode_jointly(
        self, tokens: keras.KerasTensor, order: keras.KerasTensor, training: bool
    ) -> dict[str, keras.KerasTensor]:
        """Predicts both modalities from one sequence that one mask was drawn for.

        Args:
            tokens: encoded visible tokens of both modalities, `(batch, kept, dim)`.
            order: int32 `(batch, tokens)` over the tokens of both, one modality after
                the other; visible ones first.

        Returns:
            dict with `{modality}_prediction` and `{modality}_decoded`, see `call`.
        """
        x = self.both_projection(tokens)
        missing = order.shape[1] - x.shape[1]
        shape = (ops.shape(x)[0], missing, self.hidden_dim)
        mask = ops.broadcast_to(ops.cast(self.both_mask_token, x.dtype), shape)
        x = gather_tokens(
            ops.concatenate([x, mask], axis=1), ops.argsort(order, axis=1)
        )
        placed, start = {}, 0
        for m, grid in self.grids.items():
            own = x[:, start : start + math.prod(grid)]
            placed[m] = self._place(m, own, None)
            start += math.prod(grid)
        outputs = {}
        for m, decoded in self._decode(placed, training).items():
            outputs[f"{m}_prediction"] = self._predict(m, decoded)
            outputs[f"{m}_decoded"] = decoded
        return outputs

    def _predict(self, modality: str, x: keras.KerasTensor) -> keras.KerasTensor:
        # The loss is computed in float32 whatever the policy.
        return ops.cast(getattr(self, f"{modality}_head")(x), "float32")

    def inpaint(
        self,
        tokens: Mapping[str, keras.KerasTensor],
        order: Mapping[str, keras.KerasTensor],
        modalities: Sequence[str],
        training: bool = False,
    ) -> dict[str, keras.KerasTensor]:
        """Predicts modalities from the visible tokens of the other (AV-MAE, 3.4).

        Args:
            tokens, order: as of `call`.
            modalities: those to predict.

        Returns:
            dict with `{modality}_inpainting` `(batch, tokens, values)` in token order,
            `{modality}_inpainting_decoded`, the input of the head, and
            `{modality}_masked_inpainting`, the predictions of mask tokens: all but the
            first k, or all.
        """
        filled = {m: self._inpainting_input(m, tokens, order) for m in modalities}
        outputs = {}
        for m, x in self._decode(filled, training).items():
            known = tokens[self._other(m)].shape[1]
            if self.inpainting_targets == "full":
                x, known = x[:, known:], 0
            outputs[f"{m}_masked_inpainting"] = self._predict(m, x[:, known:])
            outputs[f"{m}_inpainting"] = self._predict(m, x)
            outputs[f"{m}_inpainting_decoded"] = x
        return outputs

    def _other(self, modality: str) -> str:
        return next(m for m in self.grids if m != modality)

    def _inpainting_input(
        self,
        modality: str,
        tokens: Mapping[str, keras.KerasTensor],
        order: Mapping[str, keras.KerasTensor],
    ) -> keras.KerasTensor:
        other = self._other(modality)
        context = self.project(other, tokens[other])
        if self.inpainting_targets == "authors":
            return self._place(modality, self._fill(modality, context), None)
        masks = self._place(modality, self._fill(modality, context[:, :0]), None)
        context = self._place(other, context, order[other][:, : context.shape[1]])
        return ops.concatenate([context, masks], axis=1)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "num_layers": self.num_layers,
            "block": self.block,
            "grids": self.grids,
            "patch_values": self.patch_values,
            "sharing": self.sharing,
            "share_projection": self.share_projection,
            "positions": self.position_options,
            "modality_embedding": self.modality_embedding,
            "head_initializer": self.head_initializer,
            "token_stddev": self.token_stddev,
            "inpainting_targets": self.inpainting_targets,
        }
