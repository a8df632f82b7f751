"""Classifier: the encoder of a pretrained model with a classification head."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tfavmae.layers.transformer import LayerNorm
from tfavmae.models.base import AudioVisualModel
from tfavmae.models.encoders import MODALITIES, AudioVisualEncoder
from tfavmae.objectives.classification import Classification


@keras.saving.register_keras_serializable(package="tfavmae")
class AudioVisualClassifier(AudioVisualModel):
    """Mean over tokens, layer norm, one dense layer (CAV-MAE's code).

    Args:
        num_classes: width of the logits.
        modality: `audio_video` pools the fused tokens of both; `audio` or `video` reads
            that modality alone, through its own stream.
        label, multi_label, label_smoothing: see `Classification`.
        layer_norm_epsilon: of the head's norm.
        pooling: `tokens`, the mean over the tokens of both modalities (CAV-MAE), or
            `modalities`, each modality's mean side by side (the inference code around
            MAViL's published weights).
        new_weights: addresses below which weights start afresh even where a pretrained
            model has them: `["encoder/joint"]` for MAViL's new fusion layers.
        Others: see `AudioVisualModel`.

    Returns:
        dict with `logits` `(batch, num_classes)` and the encoder's outputs.
    """

    def __init__(
        self,
        encoder: AudioVisualEncoder,
        hidden_dim: int,
        num_classes: int,
        modality: str = "audio_video",
        label: str = "label",
        multi_label: bool = False,
        label_smoothing: float = 0.0,
        layer_norm_epsilon: float = 1e-5,
        pooling: str = "tokens",
        new_weights: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        if modality not in ("audio_video", *MODALITIES):
            raise ValueError(
                "`modality` must be 'audio', 'video' or 'audio_video'. "
                f"Received: {modality!r}."
            )
        if pooling not in ("tokens", "modalities"):
            raise ValueError(
                f"`pooling` must be 'tokens' or 'modalities'. Received: {pooling!r}."
            )
        for other in set(MODALITIES) - set(modality.split("_")):
            kwargs[other] = None
        super().__init__(
            encoder,
            hidden_dim,
            objectives=[Classification(label, multi_label, label_smoothing, modality)],
            **kwargs,
        )
        self.num_classes = num_classes
        self.modality = modality
        self.label = label
        self.multi_label = multi_label
        self.label_smoothing = label_smoothing
        self.layer_norm_epsilon = layer_norm_epsilon
        self.pooling = pooling
        self.new_weights = tuple(new_weights)
        self.build()

    def build(self, input_shape: Any = None) -> None:
        super().build()
        self.head_norm = LayerNorm(
            epsilon=self.layer_norm_epsilon, dtype=self.dtype_policy, name="head_norm"
        )
        self.head = keras.layers.Dense(self.num_classes, dtype="float32", name="head")
        parts = len(self.modalities) if self.pooling == "modalities" else 1
        self.head_norm.build((None, parts * self.hidden_dim))
        self.head.build((None, parts * self.hidden_dim))

    def call(
        self, inputs: Mapping[str, Any], training: bool = False
    ) -> dict[str, keras.KerasTensor]:
        outputs = self.read(inputs, training)
        tokens = self.tokenize(self.patchify(outputs))
        outputs |= self.encode(tokens, training)
        encoded = [outputs[f"{m}_tokens"] for m in tokens]
        if self.pooling == "modalities":
            means = [ops.mean(x, axis=1) for x in encoded]
            pooled = ops.concatenate(means, axis=-1)
        else:
            pooled = ops.mean(ops.concatenate(encoded, axis=1), axis=1)
        outputs["logits"] = self.head(self.head_norm(pooled))
        return outputs

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
        }
