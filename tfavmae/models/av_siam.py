"""AVSiam: one vision transformer for both modalities (Lin & Bertasius, ECCV 2024)."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tfavmae.models.decoders import MAE_DECODERS, AudioVisualDecoder
from tfavmae.models.encoders import VIT_SIZES, AudioVisualEncoder, block_options
from tfavmae.models.inputs import AudioInput, VideoInput
from tfavmae.models.options import MODALITIES, modalities_of, settings
from tfavmae.models.paper_model import FineTuning, PaperModel, Published
from tfavmae.objectives.contrastive import InterModalContrast
from tfavmae.objectives.reconstruction import Reconstruction

LAYER_NORM_EPSILON = 1e-6
CONTRAST = {"weight": 1.0, "temperature": 0.05, "bidirectional": True}


def av_siam_encoder(
    num_layers: int,
    num_heads: int,
    mlp_dim: int,
    num_fusion_layers: int = 2,
    layer_norm_epsilon: float = LAYER_NORM_EPSILON,
    modalities: Sequence[str] = MODALITIES,
    drop_path: Mapping[str, Any] | None = None,
) -> AudioVisualEncoder:
    """One stack for either modality, then fusion layers on the tokens of both."""
    return AudioVisualEncoder(
        num_layers,
        num_fusion_layers if len(modalities) > 1 else 0,
        block_options(num_heads, mlp_dim, layer_norm_epsilon, drop_path=drop_path),
        modalities=modalities,
        share_unimodal=True,
        normalize_before_fusion=True,
        normalize_after_fusion=False,
        name="encoder",
    )


def av_siam_classifier_encoder(modality: str, **sizes: Any) -> AudioVisualEncoder:
    """The pretrained encoder again; one modality alone has no fusion layers."""
    return av_siam_encoder(modalities=modalities_of(modality), **sizes)


@keras.saving.register_keras_serializable(package="tfavmae")
class AVSiam(PaperModel):
    """Contrast under several masking ratios and reconstruction, one shared encoder.

    Reconstruction masks both modalities with one ratio. Contrast encodes the batch a
    second time: the clips fall into as many groups as there are ratios, drawn anew in
    each step and for each modality, and a group keeps what its ratio leaves. In the
    released code shared blocks have layer norms per modality, and for contrast audio is
    masked in lines of time and frequency.

    Args:
        num_fusion_layers: layers on the tokens of both modalities.
        decoder: 8 layers as in the released code; 6 in the paper.
        masking: of reconstruction; 75 % of both modalities.
        contrast_ratios: masking ratios of the groups, the released code's; the paper's
            range is 0 to 0.5.
        others: see `CAVMAE`; a `reconstruction_weight` of 0 leaves out the decoder.
    """

    PRESET = "av_siam"
    INPUTS = {"audio": {}, "video": {}}
    SIZES = {s: {**x, "decoder": MAE_DECODERS[s]} for s, x in VIT_SIZES.items()}
    PUBLISHED = {
        "base": Published(
            "AudioSet 50.1 (balanced 41.6), VGGSound 64.9",
            "Lin and Bertasius, ECCV 2024, table 1",
        ),
        "large": Published(
            "AudioSet 52.1 (balanced 44.1), VGGSound 67.1",
            "Lin and Bertasius, ECCV 2024, table 1",
        ),
    }
    FINE_TUNING = FineTuning(
        av_siam_classifier_encoder,
        encoder_options={"num_fusion_layers": 2, "drop_path": None},
        arguments={
            "positions": {"kind": "learned"},
            "layer_norm_epsilon": LAYER_NORM_EPSILON,
            "pooling": "modalities",
        },
    )

    def __init__(
        self,
        hidden_dim: int = 768,
        num_heads: int = 12,
        mlp_dim: int = 3072,
        num_layers: int = 12,
        num_fusion_layers: int = 2,
        decoder: Mapping[str, int] | None = None,
        audio: Mapping[str, Any] | AudioInput | None = None,
        video: Mapping[str, Any] | VideoInput | None = None,
        masking: Mapping[str, Mapping[str, Any]] | None = None,
        contrast_ratios: Sequence[float] = (0.0, 0.2, 0.4, 0.6, 0.8),
        contrast: Mapping[str, Any] | None = None,
        reconstruction_weight: float = 1.0,
        layer_norm_epsilon: float = LAYER_NORM_EPSILON,
        **kwargs: Any,
    ) -> None:
        inputs = self.read_inputs(audio, video)
        norm = {"layer_norm_epsilon": layer_norm_epsilon}
        sizes = settings("decoder", MAE_DECODERS["base"], decoder)
        options = {"share_projection": True, "modality_embedding": True}
        joint = AudioVisualDecoder.for_inputs(inputs, sizes, norm, **options)
        apart = InterModalContrast(**settings("contrast", CONTRAST, contrast))
        objectives = [Reconstruction(reconstruction_weight), apart]
        super().__init__(
            av_siam_encoder(num_layers, num_heads, mlp_dim, num_fusion_layers, **norm),
            hidden_dim,
            joint if reconstruction_weight else None,
            masking=masking,
            objectives=[x for x in objectives if x.weight],
            positions={"kind": "learned"},
            **inputs,
            **kwargs,
        )
        self.contrast_ratios = tuple(contrast_ratios)

    def call(
        self,
        inputs: Mapping[str, Any],
        masked: bool | None = None,
        training: bool = False,
    ) -> dict[str, keras.KerasTensor]:
        masked = self.drops_tokens(masked, training)
        outputs = super().call(inputs, masked=masked, training=training)
        if not masked or not any(x.couples_examples for x in self.objectives):
            return outputs
        patches = self.patchify(outputs)
        orders = self.draw_order(inputs, patches, training, view=1)
        for m, x in patches.items():
            stream = 4 + MODALITIES.index(m)  # two views of two modalities have 0 to 3
            noise = self.draw_noise(inputs, x, training, stream, 1)
            drawn = ops.argsort(noise[:, 0])
            outputs[f"{m}_embedding"] = self._embed(m, x, orders[m], drawn, training)
        return outputs

    def _embed(
        self, modality: str, patches: Any, order: Any, drawn: Any, training: bool
    ) -> keras.KerasTensor:
        """Embeddings `(batch, hidden_dim)`, each under its group's masking ratio."""
        members, embeddings = [], []
        # A batch of fewer clips has fewer groups.
        for group, ratio in enumerate(self.contrast_ratios[: drawn.shape[0]]):
            clips = drawn[group :: len(self.contrast_ratios)]
            num_kept = max(1, int(order.shape[1] * (1 - ratio)))
            kept = {modality: ops.take(order, clips, axis=0)[:, :num_kept]}
            tokens = self.tokenize({modality: ops.take(patches, clips, axis=0)}, kept)
            encoded = self.encoder.encode_unimodal(tokens, training)[modality]
            embeddings.append(ops.mean(ops.cast(encoded, "float32"), axis=1))
            members.append(clips)
        place = ops.argsort(ops.concatenate(members, axis=0))
        return ops.take(ops.concatenate(embeddings, axis=0), place, axis=0)
