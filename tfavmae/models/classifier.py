"""Classifier: the encoder of a pretrained model with a classification head."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tfavmae.layers.pooling import AttentivePooling, pool_segments, pool_tokens
from tfavmae.layers.presence import absent_tokens, mean_of_present, where_present
from tfavmae.layers.transformer import LayerNorm
from tfavmae.models.base import AudioVisualModel
from tfavmae.models.composition import check_classifier
from tfavmae.models.encoders import MODALITIES, AudioVisualEncoder
from tfavmae.models.options import modalities_of, settings
from tfavmae.objectives.classification import Classification

HEAD = {
    "tokens": "mean",
    "norm": "layer",
    "representation_dim": None,
    "kernel_initializer": "glorot_uniform",
    "num_heads": 12,
}
# What fine-tuning adds to a pretrained encoder: `head_learning_rate_factor`'s group.
HEAD_LAYERS = ("pooler", "head_norm", "head_representation", "head")
LOSS = {
    "activation": None,
    "average_classes": True,
    "per_modality": False,
    "smoothing": "uniform",
}


@keras.saving.register_keras_serializable(package="tfavmae")
class AudioVisualClassifier(AudioVisualModel):
    """Mean over tokens, layer norm, one dense layer (CAV-MAE's code).

    A clip that lacks a modality, as `audio_present` or `video_present` of the batch
    say, is classified by the other: no fusion layer and no pooling reads its tokens.

    Args:
        num_classes: width of the logits; or a dict of the name of a label of the batch
            to its classes, for a head each (EPIC-Kitchens: `verb` and `noun`), whose
            losses have equal weights.
        modality: `audio_video` pools the fused tokens of both; `audio` or `video` reads
            that modality alone, through its own stream.
        label, multi_label, label_smoothing: see `Classification`.
        layer_norm_epsilon: of the head's norm.
        pooling: where the modalities meet: `tokens`, the mean over the tokens of both
            (CAV-MAE); `modalities`, each modality's mean side by side (the inference
            code around MAViL's published weights); `sum` of their means; or `logits`,
            the mean of each modality's logits of one head (AV-MAE, MBT).
        new_weights: addresses below which weights start afresh even where a pretrained
            model has them: `["encoder/joint"]` for MAViL's new fusion layers.
        stream: of an encoder with several (CAV-MAE, table 2f) the `joint` one; the
            `single` ones of each modality; those as `concat`, side by side; or the
            `sum` of joint and single streams.
        missing_modality: what stands for a clip without the other modality: the `joint`
            stream; that modality's `single` stream; or the `mean` of both (CAV-MAE's
            code, table 2g).
        head: `tokens`, how a modality's tokens are pooled: `mean`, `max`, `sum`,
            `class_token` or `attention` (an attentive probe of `num_heads` heads);
            `norm` before the dense layer: `layer`, `batch` (without scale and offset,
            MAE's linear probe) or `none`; `representation_dim`, the width of a dense
            layer with tanh in between (Scenic), or `None`; `kernel_initializer` of the
            last layer.
        loss: `activation`, `average_classes`, `per_modality` and `smoothing` of
            `Classification`.
        num_segments: predict that many equal segments of a clip (AVE: its seconds), by
            the tokens of each; 0 for the clip as a whole.
        masking: dict of modality to keyword arguments of `TokenMasking`: tokens that
            training leaves out (MAViL, table 9); none by default.
        Others: see `AudioVisualModel`.

    Returns:
        dict with `logits` `(batch, num_classes)`, or `(batch, num_segments,
        num_classes)`, or a dict of these, and the encoder's outputs; with
        `pooling="logits"` also `audio_logits` and `video_logits`; and `representation`
        `(batch, width)`, what the head reads.
    """

    expected_new = (
        *AudioVisualModel.expected_new,
        r"(head|head_norm|head_representation|pooler)/.*",
    )

    def __init__(
        self,
        encoder: AudioVisualEncoder,
        hidden_dim: int,
        num_classes: int | Mapping[str, int],
        modality: str = "audio_video",
        label: str = "label",
        multi_label: bool = False,
        label_smoothing: float = 0.0,
        layer_norm_epsilon: float = 1e-5,
        pooling: str = "tokens",
        new_weights: Sequence[str] = (),
        stream: str = "joint",
        missing_modality: str = "joint",
        head: Mapping[str, Any] | None = None,
        loss: Mapping[str, Any] | None = None,
        num_segments: int = 0,
        masking: Mapping[str, Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        for other in set(MODALITIES) - set(modalities_of(modality)):
            kwargs[other] = None
        self.loss_options = settings("loss", LOSS, loss)
        heads = num_classes if isinstance(num_classes, Mapping) else {}
        options = {"multi_label": multi_label, "label_smoothing": label_smoothing}
        options |= {"modality": modality, **self.loss_options}
        super().__init__(
            encoder,
            hidden_dim,
            objectives=[
                Classification(name, weight=1 / len(heads), head=name, **options)
                for name in heads
            ]
            or [Classification(label, **options)],
            **kwargs,
        )
        self.num_classes = dict(heads) or num_classes
        self.modality = modality
        self.label = label
        self.multi_label = multi_label
        self.label_smoothing = label_smoothing
        self.layer_norm_epsilon = layer_norm_epsilon
        self.pooling = pooling
        self.new_weights = tuple(new_weights)
        self.stream = stream
        self.missing_modality = missing_modality
        self.head_options = settings("head", HEAD, head)
        self.num_segments = num_segments
        self.masking_options = {m: dict(x) for m, x in (masking or {}).items()}
        check_classifier(self)
        self.build()

    @property
    def total_classes(self) -> int:
        """Width of the last layer: classes of all heads."""
        if isinstance(self.num_classes, int):
            return self.num_classes
        return sum(self.num_classes.values())

    @property
    def stands_in(self) -> bool:
        """Whether streams of one modality stand for clips that lack the other."""
        return self.missing_modality != "joint" and len(self.modalities) > 1

    @property
    def activation(self) -> str:
        """What turns logits into probabilities: `softmax` or `sigmoid`."""
        return self.objectives[0].activation

    def build(self, input_shape: Any = None) -> None:
        super().build()
        masking = self.masking_options.items()
        self.build_masking({m: x for m, x in masking if m in self.modalities})
        options, dtype = self.head_options, self.dtype_policy
        side_by_side = self.pooling == "modalities" or self.stream == "concat"
        width = self.hidden_dim * (len(self.modalities) if side_by_side else 1)
        if options["tokens"] == "attention":
            pooler = AttentivePooling(options["num_heads"], dtype=dtype, name="pooler")
            pooler.build((None, None, self.hidden_dim))
            self.pooler = pooler
        self.head_norm = {
            "layer": LayerNorm(
                epsilon=self.layer_norm_epsilon, dtype=dtype, name="head_norm"
            ),
            # MAE's linear probe (`main_linprobe.py`) and Scenic's.
            "batch": keras.layers.BatchNormalization(
                momentum=0.9, epsilon=1e-6, center=False, scale=False, name="head_norm"
            ),
            "none": keras.layers.Identity(dtype=dtype, name="head_norm"),
        }[options["norm"]]
        self.head_norm.build((None, width))
        if options["representation_dim"]:
            self.head_representation = keras.layers.Dense(
                options["representation_dim"],
                activation="tanh",
                dtype=dtype,
                name="head_representation",
            )
            self.head_representation.build((None, width))
            width = options["representation_dim"]
        self.head = keras.layers.Dense(
            self.total_classes,
            kernel_initializer=options["kernel_initializer"],
            dtype="float32",
            name="head",
        )
        self.head.build((None, width))

    def call(
        self, inputs: Mapping[str, Any], training: bool = False
    ) -> dict[str, keras.KerasTensor]:
        outputs = self.read(inputs, training)
        patches = self.patchify(outputs)
        # Evaluation reads all tokens, as the pretrained encoder is asked for.
        kept = self._kept(inputs, patches) if training else {}
        tokens = {
            m: getattr(self, f"{m}_tokenizer")(x, kept.get(m))
            for m, x in patches.items()
        }
        is_absent = self.absence(inputs, tokens)
        outputs |= self.encode(
            tokens,
            training,
            is_absent=is_absent,
            joint_alone=self.missing_modality != "single" and len(self.modalities) > 1,
        )
        return outputs | self._classify(outputs, list(tokens), is_absent, training)

    def _kept(
        self, inputs: Mapping[str, Any], patches: Mapping[str, keras.KerasTensor]
    ) -> dict[str, keras.KerasTensor]:
        """Dict of modality to the indices of the tokens that training reads."""
        # A recipe may state the masking of a modality that this model does not read.
        masked = {m: x for m, x in patches.items() if m in self.masking_options}
        orders = self.draw_order(inputs, masked, training=True)
        return {m: x[:, : self.masking(m).num_kept] for m, x in orders.items()}

    def absence(
        self, inputs: Mapping[str, Any], tokens: Mapping[str, keras.KerasTensor]
    ) -> dict[str, keras.KerasTensor] | None:
        """Dict of modality to bool `(batch,)`, True for clips that lack it.

        `None` where nothing says so, or where there is only one modality to read.
        """
        named = {m: inputs.get(f"{m}_present") for m in tokens}
        # Of one modality there is nothing to be read instead.
        if len(tokens) < 2 or all(x is None for x in named.values()):
            return None
        return {
            m: ops.zeros_like(tokens[m][:, 0, 0], dtype="bool") if x is None else x <= 0
            for m, x in named.items()
        }

    def _classify(
        self,
        outputs: Mapping[str, keras.KerasTensor],
        modalities: Sequence[str],
        is_absent: Mapping[str, keras.KerasTensor] | None,
        training: bool,
    ) -> dict[str, Any]:
        has_token = self.head_options["tokens"] == "class_token"
        kind = "class_token" if has_token else "tokens"
        joint = {m: outputs[f"{m}_{kind}"] for m in modalities}
        if self.pooling == "logits":
            logits = {
                m: self._logits(self._pool_one(m, x), training)
                for m, x in joint.items()
            }
            named = {f"{m}_logits": self._by_head(x) for m, x in logits.items()}
            # Of logits, not of probabilities: so the authors combine modalities.
            mean = mean_of_present(logits, is_absent)
            return named | {"logits": self._by_head(mean)}
        pooled = self._pool(joint, is_absent)
        if self.stream != "joint" or self.stands_in:
            single = {m: outputs[f"{m}_unimodal_{kind}"] for m in modalities}
            own = self._pool(single, is_absent)
            if self.stream == "joint":
                pooled = self._for_missing(pooled, own, modalities, is_absent)
            else:
                pooled = pooled + own if self.stream == "sum" else own
        logits = self._by_head(self._logits(pooled, training))
        return {"representation": pooled, "logits": logits}

    def _for_missing(
        self,
        joint: keras.KerasTensor,
        own: keras.KerasTensor,
        modalities: Sequence[str],
        is_absent: Mapping[str, keras.KerasTensor] | None,
    ) -> keras.KerasTensor:
        """`joint` for clips that have all, else what `missing_modality` says."""
        instead = own if self.missing_modality == "single" else (joint + own) / 2
        if len(modalities) < len(self.modalities):
            return instead
        if is_absent is None:
            return joint
        lacks = ops.any(ops.stack(list(is_absent.values())), axis=0)
        return where_present(joint, lacks, instead)

    def _pool(
        self,
        encoded: Mapping[str, keras.KerasTensor],
        is_absent: Mapping[str, keras.KerasTensor] | None,
    ) -> keras.KerasTensor:
        """`(batch, width)`, or `(batch, segments, width)`; see `pooling`."""
        how = self.head_options["tokens"]
        together = self.pooling == "tokens" and self.stream != "concat"
        if together and len(encoded) > 1 and not self.num_segments:
            x = ops.concatenate(list(encoded.values()), axis=1)
            absent = absent_tokens(encoded, is_absent)
            if how == "attention":
                return self.pooler(x, is_absent=absent)
            return pool_tokens(x, how, absent)
        parts = {m: self._pool_one(m, x) for m, x in encoded.items()}
        if together:
            return mean_of_present(parts, is_absent)
        # A place for a modality that the inputs do not hold keeps the width.
        none = ops.zeros_like(next(iter(parts.values())))
        ordered = [
            where_present(parts.get(m, none), is_absent and is_absent[m])
            for m in self.modalities
        ]
        return sum(ordered) if self.pooling == "sum" else ops.concatenate(ordered, -1)

    def _pool_one(self, modality: str, x: keras.KerasTensor) -> keras.KerasTensor:
        """One modality's tokens, or its class token, as one vector or segments."""
        how = self.head_options["tokens"]
        if self.num_segments:
            steps = self.inputs_by_modality[modality].grid[0]
            return pool_segments(x, steps, self.num_segments)
        if how == "class_token":
            return x
        return self.pooler(x) if how == "attention" else pool_tokens(x, how)

    def _logits(self, pooled: keras.KerasTensor, training: bool) -> keras.KerasTensor:
        is_batch = self.head_options["norm"] == "batch"
        x = self.head_norm(pooled, **({"training": training} if is_batch else {}))
        if self.head_options["representation_dim"]:
            x = self.head_representation(x)
        return self.head(x)

    def _by_head(
        self, logits: keras.KerasTensor
    ) -> keras.KerasTensor | dict[str, keras.KerasTensor]:
        if isinstance(self.num_classes, int):
            return logits
        # One dense layer for all heads, as Scenic has it, so that weights import.
        ends = list(itertools.accumulate(self.num_classes.values()))
        parts = ops.split(logits, ends[:-1], axis=-1)
        return dict(zip(self.num_classes, parts, strict=True))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["objectives"]
        return {
            **config,
            "num_classes": self.num_classes,
            "modality": self.modality,
            "label": self.label,
            "multi_label": self.multi_label,
            "label_smoothing": self.label_smoothing,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "pooling": self.pooling,
            "new_weights": self.new_weights,
            "stream": self.stream,
            "missing_modality": self.missing_modality,
            "head": self.head_options,
            "loss": self.loss_options,
            "num_segments": self.num_segments,
            "masking": self.masking_options,
        }
