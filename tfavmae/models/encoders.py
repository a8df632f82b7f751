"""The audio-visual encoder: unimodal layers, then fusion layers."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tfavmae.layers.bottleneck import BottleneckFusion
from tfavmae.layers.presence import absent_tokens, split_tokens
from tfavmae.layers.transformer import LayerNorm, TransformerStack
from tfavmae.models.options import MODALITIES, settings

# ViT (Dosovitskiy et al., table 1) and DeiT's small; `tiny` is ours, for demos.
VIT_SIZES = {
    "tiny": {"hidden_dim": 128, "num_heads": 4, "mlp_dim": 512, "num_layers": 5},
    "small": {"hidden_dim": 384, "num_heads": 6, "mlp_dim": 1536, "num_layers": 12},
    "base": {"hidden_dim": 768, "num_heads": 12, "mlp_dim": 3072, "num_layers": 12},
    "large": {"hidden_dim": 1024, "num_heads": 16, "mlp_dim": 4096, "num_layers": 24},
}


DROP_PATH = {"rate": 0.0, "rescale": True, "grows": True}


def block_options(
    num_heads: int,
    mlp_dim: int,
    layer_norm_epsilon: float,
    approximate_gelu: bool = False,
    drop_path: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Keyword arguments of `TransformerBlock`.

    Args:
        num_heads, mlp_dim, layer_norm_epsilon, approximate_gelu: see there.
        drop_path: `rate`, and `rescale` of `DropPath`; `grows`: the rate grows from 0
            in the first layer to `rate` in the last, or is the same in all.
    """
    chosen = settings("drop_path", DROP_PATH, drop_path)
    return {
        "num_heads": num_heads,
        "mlp_dim": mlp_dim,
        "layer_norm_epsilon": layer_norm_epsilon,
        "approximate_gelu": approximate_gelu,
        "drop_path_rate": chosen["rate"],
        "drop_path_rescale": chosen["rescale"],
        "drop_path_grows": chosen["grows"],
    }


@keras.saving.register_keras_serializable(package="tfavmae")
class AudioVisualEncoder(keras.layers.Layer):
    """Encodes tokens of one or two modalities.

    Early fusion is `num_unimodal_layers=0`; separate and shared encoders have
    `num_fusion_layers=0`; mid-fusion (AV-MAE, section 3.2), CAV-MAE's joint layer
    (section 2.3, `multi_stream=True`) and MAViL's fusion encoder have both.

    Args:
        num_unimodal_layers: layers that see one modality.
        num_fusion_layers: layers that see both.
        block: keyword arguments of `TransformerBlock`.
        modalities: those that the encoder takes.
        share_unimodal: the same unimodal layers for both modalities.
        multi_stream: the fusion layers also run on each modality alone, with layer
            norms of their own; its result is what does not leak (CAV-MAE).
        normalize_before_fusion: fusion reads the normalised unimodal outputs (AV-MAE)
            or the raw ones (CAV-MAE, MAViL).
        chain_streams: single-modality streams run through all fusion layers; `False`:
            the last only, as CAV-MAE's pretraining code does when there are several.
        fusion: `concat`, layers on concatenated tokens, or `bottleneck`, see
            `BottleneckFusion`, whose `num_bottlenecks` and `share_blocks` follow as
            `num_bottlenecks` and `share_bottleneck_blocks`.
        bottleneck_options: further arguments of `BottleneckFusion`.
        normalize_after_fusion: a layer norm ends the fusion layers.
        normalize_unimodal: a layer norm ends the unimodal layers. `False` where a head
            normalises what it pools instead (MAE's fine-tuning, ViViT).
        class_token: each modality has a learned token that runs along and comes out
            apart from the others, as `{modality}_class_token` and
            `{modality}_unimodal_class_token`.
        fuse_class_token: it also runs through the fusion layers.

    Call arguments:
        tokens: dict of modality to `(batch, tokens, hidden_dim)`.
        views: the batch holds that many views of every example, side by side; only the
            first ones are fused.
        is_absent: dict of modality to bool `(batch,)`, True for examples that lack it:
            no fusion layer attends to its tokens. `None`: all have all.
        joint_alone: with `multi_stream`, the joint stream runs for one modality alone,
            too, instead of that modality's own stream in its place.

    Returns:
        dict with `{modality}_tokens` and, unless fusion is early,
        `{modality}_unimodal_tokens`, which depend on that modality alone; all
        `(batch, tokens, hidden_dim)`.
    """

    def __init__(
        self,
        num_unimodal_layers: int,
        num_fusion_layers: int,
        block: Mapping[str, Any],
        modalities: Sequence[str] = MODALITIES,
        share_unimodal: bool = False,
        multi_stream: bool = False,
        normalize_before_fusion: bool = False,
        chain_streams: bool = True,
        fusion: str = "concat",
        num_bottlenecks: int = 4,
        share_bottleneck_blocks: bool = False,
        normalize_after_fusion: bool = True,
        class_token: bool = False,
        fuse_class_token: bool = True,
        bottleneck_options: Mapping[str, Any] | None = None,
        normalize_unimodal: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if multi_stream and not num_fusion_layers:
            raise ValueError("`multi_stream=True` needs `num_fusion_layers` >= 1.")
        if fusion not in ("concat", "bottleneck"):
            raise ValueError(
                f"`fusion` must be 'concat' or 'bottleneck'. Received: {fusion!r}."
            )
        if multi_stream and fusion == "bottleneck":
            raise ValueError(
                "`multi_stream=True` runs the fusion layers on one modality alone and "
                "needs `fusion='concat'`."
            )
        self.num_unimodal_layers = num_unimodal_layers
        self.num_fusion_layers = num_fusion_layers
        self.block = dict(block)
        self.modalities = tuple(modalities)
        self.share_unimodal = share_unimodal
        self.multi_stream = multi_stream
        self.normalize_before_fusion = normalize_before_fusion
        self.chain_streams = chain_streams
        self.fusion = fusion
        self.num_bottlenecks = num_bottlenecks
        self.share_bottleneck_blocks = share_bottleneck_blocks
        self.normalize_after_fusion = normalize_after_fusion
        self.class_token = class_token
        self.fuse_class_token = fuse_class_token
        self.bottleneck_options = dict(bottleneck_options or {})
        self.normalize_unimodal = normalize_unimodal

    @property
    def separates_modalities(self) -> bool:
        """Whether some output of each modality is independent of the other."""
        return self.num_unimodal_layers > 0 or self.multi_stream

    @property
    def output_shape(self) -> tuple:
        """`(batch, tokens, hidden_dim)` of either modality, for `model.summary()`."""
        return (None, None, self.hidden_dim)

    def build(self, input_shape: Sequence[int | None]) -> None:
        self.hidden_dim = input_shape[-1]
        if self.separates_modalities:
            for name in ("shared",) if self.share_unimodal else self.modalities:
                stack = self._stack_of(name, self.num_unimodal_layers)
                self._add(name, stack, input_shape)
        if self.num_fusion_layers:
            if self.fusion == "bottleneck":
                fusion = BottleneckFusion(
                    self.num_fusion_layers,
                    self.block,
                    self.modalities,
                    self.num_bottlenecks,
                    self.share_bottleneck_blocks,
                    **self.bottleneck_options,
                    dtype=self.dtype_policy,
                    name="joint",
                )
            else:
                streams = ("joint", *(self.modalities if self.multi_stream else ()))
                fusion = self._stack_of(
                    "joint", self.num_fusion_layers, streams=streams
                )
            self._add("joint", fusion, input_shape)
        if self.class_token:
            self.class_tokens = {
                m: self.add_weight(
                    name=f"{m}_class_token",
                    shape=(input_shape[-1],),
                    initializer=keras.initializers.RandomNormal(stddev=0.02),
                )
                for m in self.modalities
            }

    def _stack_of(self, name: str, num_layers: int, **block: Any) -> TransformerStack:
        block = {**self.block, **block}
        return TransformerStack(num_layers, block, dtype=self.dtype_policy, name=name)

    def _add(
        self, name: str, stack: keras.Layer, input_shape: Sequence[int | None]
    ) -> None:
        """Builds a stack and its final norm as `{name}_stack` and `{name}_norm`."""
        norm = LayerNorm(
            epsilon=self.block.get("layer_norm_epsilon", 1e-6),
            dtype=self.dtype_policy,
            name=f"{name}_norm",
        )
        is_fusion = name == "joint"
        if not (self.normalize_after_fusion if is_fusion else self.normalize_unimodal):
            norm = keras.layers.Identity(dtype=self.dtype_policy, name=f"{name}_norm")
        stack.build(input_shape)
        norm.build(input_shape)
        setattr(self, f"{name}_stack", stack)
        setattr(self, f"{name}_norm", norm)

    def blocks_by_depth(self) -> list[tuple[keras.Layer, ...]]:
        """The blocks at each depth: those of the modalities, then the joint ones."""
        sides = []
        if self.separates_modalities:
            sides.append([self._stack(m) for m in self.modalities])
        if self.num_fusion_layers:
            joint = self.joint_stack
            sides.append([joint] if self.fusion == "concat" else joint.stacks)
        return [
            blocks
            for stacks in sides
            for blocks in zip(*(x.blocks for x in stacks), strict=True)
        ]

    def _stack(self, modality: str) -> TransformerStack:
        return getattr(
            self, "shared_stack" if self.share_unimodal else f"{modality}_stack"
        )

    def _norm(self, modality: str) -> keras.Layer:
        return getattr(
            self, "shared_norm" if self.share_unimodal else f"{modality}_norm"
        )

    def call(
        self,
        tokens: Mapping[str, keras.KerasTensor],
        training: bool = False,
        views: int = 1,
        is_absent: Mapping[str, keras.KerasTensor] | None = None,
        joint_alone: bool = False,
    ) -> dict[str, keras.KerasTensor]:
        outputs = {}
        is_alone = self.multi_stream and len(tokens) == 1 and not joint_alone
        if self.class_token:
            tokens = {m: self._prepend_class_token(m, x) for m, x in tokens.items()}
        if self.separates_modalities:
            tokens = {
                m: self._stack(m)(x, training=training) for m, x in tokens.items()
            }
            unimodal = {m: self._unimodal(m, x, training) for m, x in tokens.items()}
            outputs = {f"{m}_unimodal_tokens": x for m, x in unimodal.items()}
            if self.normalize_before_fusion or not self.num_fusion_layers:
                tokens = unimodal
            if is_alone:
                # A modality alone has a stream of its own, which is the end of its way.
                tokens = unimodal
        tokens = {m: separate_views(x, views)[0] for m, x in tokens.items()}
        if self.class_token and not self.fuse_class_token:
            tokens = {m: x[:, 1:] for m, x in tokens.items()}
        if self.num_fusion_layers and not is_alone:
            tokens = self._fuse(tokens, training, is_absent)
        outputs |= {f"{m}_tokens": x for m, x in tokens.items()}
        if not self.class_token:
            return outputs
        if self.fuse_class_token:
            return separate_class_tokens(outputs)
        own = {k: x for k, x in outputs.items() if k.endswith("_unimodal_tokens")}
        return outputs | separate_class_tokens(own)

    def encode_unimodal(
        self, tokens: Mapping[str, keras.KerasTensor], training: bool = False
    ) -> dict[str, keras.KerasTensor]:
        """The unimodal layers alone, without class tokens and without fusion.

        Args:
            tokens: dict of modality to `(batch, tokens, hidden_dim)`.

        Returns:
            dict of modality to `(batch, tokens, hidden_dim)`, normalised.
        """
        return {
            m: self._unimodal(m, self._stack(m)(x, training=training), training)
            for m, x in tokens.items()
        }

    def _prepend_class_token(
        self, modality: str, x: keras.KerasTensor
    ) -> keras.KerasTensor:
        token = ops.cast(self.class_tokens[modality], x.dtype)
        token = ops.broadcast_to(token, (ops.shape(x)[0], 1, x.shape[-1]))
        return ops.concatenate([token, x], axis=1)

    def _unimodal(
        self, modality: str, x: keras.KerasTensor, training: bool
    ) -> keras.KerasTensor:
        if self.multi_stream:
            x = self.joint_stack(
                x,
                stream=modality,
                training=training,
                last_block_only=not self.chain_streams,
            )
        return self._norm(modality)(x)

    def _fuse(
        self,
        tokens: Mapping[str, keras.KerasTensor],
        training: bool,
        is_absent: Mapping[str, keras.KerasTensor] | None,
    ) -> dict[str, keras.KerasTensor]:
        if self.fusion == "bottleneck":
            fused = self.joint_stack(tokens, training=training, is_absent=is_absent)
            return {m: self.joint_norm(x) for m, x in fused.items()}
        x = ops.concatenate(list(tokens.values()), axis=1)
        absent = absent_tokens(tokens, is_absent)
        x = self.joint_norm(self.joint_stack(x, training=training, is_absent=absent))
        return split_tokens(x, tokens)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_unimodal_layers": self.num_unimodal_layers,
            "num_fusion_layers": self.num_fusion_layers,
            "block": self.block,
            "modalities": self.modalities,
            "share_unimodal": self.share_unimodal,
            "multi_stream": self.multi_stream,
            "normalize_before_fusion": self.normalize_before_fusion,
            "chain_streams": self.chain_streams,
            "fusion": self.fusion,
            "num_bottlenecks": self.num_bottlenecks,
            "share_bottleneck_blocks": self.share_bottleneck_blocks,
            "normalize_after_fusion": self.normalize_after_fusion,
            "class_token": self.class_token,
            "fuse_class_token": self.fuse_class_token,
            "bottleneck_options": self.bottleneck_options,
            "normalize_unimodal": self.normalize_unimodal,
        }


def separate_class_tokens(
    outputs: Mapping[str, keras.KerasTensor],
) -> dict[str, keras.KerasTensor]:
    """Outputs whose tokens begin with a class token, and those as outputs of their own.

    `audio_tokens` without its first becomes `audio_tokens` and `audio_class_token`
    `(batch, hidden_dim)`; names that do not end in `_tokens` stay.
    """
    separated = dict(outputs)
    for name, x in outputs.items():
        if name.endswith("_tokens"):
            separated[name] = x[:, 1:]
            separated[name.replace("_tokens", "_class_token")] = x[:, 0]
    return separated


def separate_views(x: keras.KerasTensor, views: int) -> list[keras.KerasTensor]:
    """Tensors `(batch, ...)` of each view, from all `(batch * views, ...)`."""
    if views == 1:
        return [x]
    return ops.unstack(ops.reshape(x, (-1, views, *x.shape[1:])), views, axis=1)
