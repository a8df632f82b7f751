"""Audio, video and text in one space: a pretrained encoder beside a text encoder."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from tfavmae.layers.text_encoder import TextEncoder
from tfavmae.models import presets
from tfavmae.models.base import AudioVisualModel
from tfavmae.models.encoders import MODALITIES, AudioVisualEncoder
from tfavmae.models.options import modalities_of
from tfavmae.models.paper_model import arguments_of
from tfavmae.objectives.text import TextContrast


@keras.saving.register_keras_serializable(package="tfavmae")
class TextAlignedModel(AudioVisualModel):
    """A pretrained encoder fine-tuned by contrast with text (MAViL, appendix C.4).

    The appendix adds a text encoder that starts from RoBERTa and fine-tunes "with
    inter-modal contrast", equation (2) with text for one of the modalities. It follows
    CLAP (Wu et al., 2023) and says no more; so, where it leaves a choice:

    - each modality's mean over its own tokens, as in MAViL's contrast, and the text's
      start token go through a projection of their own, CLAP's: two dense layers with a
      ReLU between them, 512 wide;
    - the temperature is that of MAViL's inter-modal contrast, 0.1, and is not learned.

    `audio_embedding`, `video_embedding` and `text_embedding` are the projections: they
    lie in one space, in which each can be compared with each.

    Args:
        encoder, hidden_dim: see `AudioVisualModel`.
        text_encoder: a `TextEncoder`.
        modality: `audio_video`, or the one to align with text.
        projection_dim: width of the common space.
        temperature: divisor of the cosine similarities.
        Others: see `AudioVisualModel`.

    Call arguments:
        inputs: also `text_ids` and `text_mask` int32 `(batch, max_tokens)`; and in
            training `text_present` `(batch,)`, 0 for clips without a caption.

    Returns:
        dict with `{modality}_embedding` and, of inputs with text, `text_embedding`,
        float32 `(batch, projection_dim)`; and the encoder's outputs.
    """

    expected_new = (
        *AudioVisualModel.expected_new,
        r"text_encoder/.*",
        r"(audio|video|text)_projection(_hidden)?/.*",
    )

    def __init__(
        self,
        encoder: AudioVisualEncoder,
        hidden_dim: int,
        text_encoder: TextEncoder,
        modality: str = "audio_video",
        projection_dim: int = 512,
        temperature: float = 0.1,
        **kwargs: Any,
    ) -> None:
        for other in set(MODALITIES) - set(modalities_of(modality)):
            kwargs[other] = None
        super().__init__(
            encoder, hidden_dim, objectives=[TextContrast(1.0, temperature)], **kwargs
        )
        self.text_encoder = text_encoder
        self.modality = modality
        self.projection_dim = projection_dim
        self.temperature = temperature
        self.build()

    @property
    def embedding_dim(self) -> int:
        """Width of the embeddings."""
        return self.projection_dim

    @property
    def embedding_names(self) -> list[str]:
        """Names of the outputs that contrast reads."""
        return [f"{m}_embedding" for m in (*self.modalities, "text")]

    def build(self, input_shape: Any = None) -> None:
        super().build()
        self.text_encoder.build()
        widths = dict.fromkeys(self.modalities, self.hidden_dim)
        for name, width in {**widths, "text": self.text_encoder.hidden_dim}.items():
            for part, inputs in (("projection_hidden", width), ("projection", None)):
                layer = keras.layers.Dense(
                    self.projection_dim,
                    activation="relu" if part == "projection_hidden" else None,
                    dtype=self.dtype_policy,
                    name=f"{name}_{part}",
                )
                layer.build((None, inputs or self.projection_dim))
                setattr(self, f"{name}_{part}", layer)

    def call(
        self, inputs: Mapping[str, Any], training: bool = False
    ) -> dict[str, keras.KerasTensor]:
        outputs = self.read(inputs, training)
        tokens = self.tokenize(self.patchify(outputs))
        outputs |= self.encode(tokens, training)
        for m in tokens:
            outputs[f"{m}_embedding"] = self._project(m, outputs[f"{m}_embedding"])
        if inputs.get("text_ids") is not None:
            outputs["text_embedding"] = self.embed_text(
                inputs["text_ids"], inputs["text_mask"], training
            )
        return outputs

    def embed_text(
        self,
        token_ids: keras.KerasTensor,
        padding_mask: keras.KerasTensor,
        training: bool = False,
    ) -> keras.KerasTensor:
        """Text alone: float32 `(batch, projection_dim)`; see `TextEncoder`."""
        encoded = self.text_encoder(token_ids, padding_mask, training=training)
        return self._project("text", encoded)

    def _project(self, name: str, x: keras.KerasTensor) -> keras.KerasTensor:
        hidden = getattr(self, f"{name}_projection_hidden")(x)
        return ops.cast(getattr(self, f"{name}_projection")(hidden), "float32")

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["objectives"]
        return {
            **config,
            "text_encoder": keras.saving.serialize_keras_object(self.text_encoder),
            "modality": self.modality,
            "projection_dim": self.projection_dim,
            "temperature": self.temperature,
        }


def build_text_aligned(
    name: str,
    size: str,
    modality: str,
    text: Mapping[str, Any],
    **options: Any,
) -> TextAlignedModel:
    """The encoder of a paper's fine-tuning without fusion, and a text encoder.

    Args:
        name, size, modality: as of `presets.build_classifier`.
        text: arguments of `TextEncoder`.
        **options: arguments of `TextAlignedModel` and of the paper's encoder.

    Raises:
        ValueError: for an unknown name, size or option; says what is known.
    """
    paper = presets.paper(name)
    recipe = paper.fine_tuning()
    sizes = {**paper.SIZES[size], **recipe.encoder_options}
    sizes.pop("decoder", None)
    # Each modality is compared by itself: layers that see both would learn nothing. An
    # encoder that is called by its fusion cannot be without.
    if "num_fusion_layers" in sizes and "fusion" not in sizes:
        sizes["num_fusion_layers"] = 0
    sizes |= {k: options.pop(k) for k in tuple(options) if k in sizes}
    known = arguments_of(TextAlignedModel, AudioVisualModel)
    presets.check_options([*known, *sizes], options)
    own = {k: x for k, x in recipe.arguments.items() if k in known}
    arguments = {**own, **options}
    if "layer_norm_epsilon" in recipe.arguments:
        sizes.setdefault("layer_norm_epsilon", recipe.arguments["layer_norm_epsilon"])
    for m in MODALITIES:
        arguments[m] = {**paper.INPUTS[m], **(options.get(m) or {})}
    hidden_dim = sizes.pop("hidden_dim")
    return TextAlignedModel(
        recipe.encoder(modality=modality, **sizes),
        hidden_dim,
        TextEncoder(**text, name="text_encoder"),
        modality=modality,
        **arguments,
        name="text_aligned",
    )
